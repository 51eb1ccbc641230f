"""HAProxy or nginx before the ingest nodes, whichever is installed."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_stack.configuration import Balancer
from local_stack.ingest_nodes import IngestNode
from local_stack.program import LOOPBACK, Program, find_server, probe, required

CLIENT_TIMEOUT_SECONDS: Final = 40
"""Longer than an ingest node waits for a body, so that it is the node that answers a slow client."""
HEADER_BUFFER_BYTES: Final = 32_768
KEPT_CONNECTIONS: Final = 64
"""HAProxy keeps as many as it needs by itself; nginx wants to be told."""
MAX_BODY: Final = "16m"
"""Above every limit that an ingest node can be given, so that it is the node that answers 413."""


@dataclass(frozen=True, slots=True)
class BalancerProcess:
    """One balancer on `port`. A ping goes to another node only when the first one took no connection:
    anything else could store it twice.
    """

    kind: Balancer
    port: int
    nodes: Sequence[IngestNode]
    directory: Path
    log_file: Path

    @property
    def url(self) -> str:
        """Where clients send their pings."""
        return f"http://{LOOPBACK}:{self.port}"

    def program(self, *, after: tuple[str, ...], name: str = "balancer") -> Program:
        """The process; ConfigurationError when it is no longer installed."""
        binary = required(self.kind, package=self.kind)
        if self.kind is Balancer.HAPROXY:
            configuration_file = self.directory / "haproxy.cfg"
            command: tuple[str, ...] = (binary, "-db", "-f", str(configuration_file))
            text = self.haproxy_configuration()
        else:
            configuration_file = self.directory / "nginx.conf"
            command = (binary, "-p", str(self.directory), "-e", "stderr", "-c", str(configuration_file))
            text = self.nginx_configuration()
        return Program(
            name=name,
            command=command,
            directory=self.directory,
            log_file=self.log_file,
            check_health=self.check_health,
            files={configuration_file: text},
            after=after,
            ports={self.port: "LOCAL_STACK_BALANCER_PORT"},
        )

    def check_health(self) -> None:
        """A node answers through the balancer. Raises Unhealthy."""
        probe("the balancer", f"{self.url}/__lbheartbeat__")

    def haproxy_configuration(self) -> str:
        """HAProxy's configuration file."""
        servers = "\n".join(
            f"    server {node.node} {LOOPBACK}:{node.port} check inter 1s fall 2 rise 1"
            for node in self.nodes
        )
        return textwrap.dedent("""\
            global
                maxconn 4096
                tune.bufsize {buffer}
                log stdout format raw local0 notice
            defaults
                mode http
                log global
                option dontlognull
                option forwardfor
                option redispatch
                retries 3
                retry-on conn-failure
                timeout connect 2s
                timeout client {timeout}s
                timeout server {timeout}s
            frontend pings
                bind {host}:{port}
                default_backend ingest
            backend ingest
                balance roundrobin
                option httpchk GET /__lbheartbeat__
            {servers}
            """).format(
            buffer=HEADER_BUFFER_BYTES,
            timeout=CLIENT_TIMEOUT_SECONDS,
            host=LOOPBACK,
            port=self.port,
            servers=servers,
        )

    def nginx_configuration(self) -> str:
        """nginx's configuration file."""
        # A node that was down for a moment is tried again at once: a refused connection on loopback costs
        # nothing, while two nodes set aside, one after the other within a second, cost clients a 502.
        servers = "\n".join(f"        server {LOOPBACK}:{node.port} max_fails=0;" for node in self.nodes)
        temporary = "\n".join(
            f"    {module}_temp_path {self.directory}/{module};"
            for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return textwrap.dedent("""\
            daemon off;
            worker_processes 1;
            pid {directory}/nginx.pid;
            error_log stderr warn;
            events {{ worker_connections 4096; }}
            http {{
                access_log off;
            {temporary}
                client_max_body_size {max_body};
                large_client_header_buffers 4 {buffer};
                upstream ingest {{
            {servers}
                    keepalive {kept};
                }}
                server {{
                    listen {host}:{port};
                    location / {{
                        proxy_pass http://ingest;
                        proxy_http_version 1.1;
                        proxy_set_header Connection "";
                        proxy_connect_timeout 2s;
                        proxy_read_timeout {timeout}s;
                        proxy_set_header Host $host;
                        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    }}
                }}
            }}
            """).format(
            directory=self.directory,
            temporary=temporary,
            kept=KEPT_CONNECTIONS,
            max_body=MAX_BODY,
            buffer=HEADER_BUFFER_BYTES,
            timeout=CLIENT_TIMEOUT_SECONDS,
            host=LOOPBACK,
            port=self.port,
            servers=servers,
        )


def installed_balancer() -> Balancer:
    """HAProxy when it is installed, else nginx, else none."""
    for kind in (Balancer.HAPROXY, Balancer.NGINX):
        if find_server(kind):
            return kind
    return Balancer.NONE
