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
HEAD_TIMEOUT_SECONDS: Final = 10
"""For a whole request head, as an ingest node gives it; a byte now and then must not hold a connection."""
IDLE_TIMEOUT_SECONDS: Final = 20
"""For a connection between two requests."""
HEADER_BUFFER_BYTES: Final = 32_768
CLIENT_CONNECTIONS_MAX: Final = 900
"""From one IPv4 address or IPv6 /64. Fewer than a node takes from one, which then serves them all alone."""
KEPT_CONNECTIONS: Final = 64
"""For nginx; HAProxy keeps as many as it needs without a setting."""
MAX_BODY: Final = "16m"
"""Above every limit that an ingest node can be given, so that it is the node that answers 413."""
OPERATORS_PATHS: Final = ("/metrics", "/__heartbeat__")
"""Answered on the nodes' own ports only: they are not for clients, and making them costs a node time."""


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
        """Return the process; raises ConfigurationError when the balancer is not installed any more."""
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
        """Ask a node through the balancer; raises Unhealthy when none answers."""
        probe("the balancer", f"{self.url}/__lbheartbeat__")

    def haproxy_configuration(self) -> str:
        """Return the text of HAProxy's configuration file."""
        # A connection that is one too many gets no answer, so that its client keeps the ping.
        # Without the empty error file HAProxy answers 408 to a slow client, which then deletes its ping.
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
                timeout http-request {head_timeout}s
                timeout http-keep-alive {idle_timeout}s
                timeout client {timeout}s
                timeout server {timeout}s
                errorfile 408 /dev/null
            frontend pings
                bind {host}:{port}
                stick-table type ipv6 size 100k expire 1m store conn_cur
                tcp-request connection track-sc0 src,ipmask(32,64)
                tcp-request connection reject if {{ sc0_conn_cur gt {client_connections} }}
                http-request deny deny_status 404 if {{ path {hidden} }}
                default_backend ingest
            backend ingest
                balance roundrobin
                option httpchk GET /__lbheartbeat__
            {servers}
            """).format(
            buffer=HEADER_BUFFER_BYTES,
            timeout=CLIENT_TIMEOUT_SECONDS,
            head_timeout=HEAD_TIMEOUT_SECONDS,
            idle_timeout=IDLE_TIMEOUT_SECONDS,
            hidden=" ".join(OPERATORS_PATHS),
            client_connections=CLIENT_CONNECTIONS_MAX,
            host=LOOPBACK,
            port=self.port,
            servers=servers,
        )

    def nginx_configuration(self) -> str:
        """Return the text of nginx's configuration file."""
        # A node that was down for a moment is tried again at once: a refused connection on loopback costs
        # nothing, while two nodes set aside, one after the other within a second, cost clients a 502.
        servers = "\n".join(f"        server {LOOPBACK}:{node.port} max_fails=0;" for node in self.nodes)
        hidden = "\n".join(f"        location = {path} {{ return 404; }}" for path in OPERATORS_PATHS)
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
                client_header_timeout {head_timeout}s;
                client_body_timeout {timeout}s;
                keepalive_timeout {idle_timeout}s;
                large_client_header_buffers 4 {buffer};
                limit_conn_zone $binary_remote_addr zone=clients:10m;
                limit_conn clients {client_connections};
                limit_conn_status 503;
                upstream ingest {{
            {servers}
                    keepalive {kept};
                }}
                server {{
                    listen {host}:{port};
            {hidden}
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
            head_timeout=HEAD_TIMEOUT_SECONDS,
            idle_timeout=IDLE_TIMEOUT_SECONDS,
            hidden=hidden,
            client_connections=CLIENT_CONNECTIONS_MAX,
            host=LOOPBACK,
            port=self.port,
            servers=servers,
        )


def installed_balancer() -> Balancer:
    """Return HAProxy when it is installed, else nginx, else none."""
    for kind in (Balancer.HAPROXY, Balancer.NGINX):
        if find_server(kind):
            return kind
    return Balancer.NONE
