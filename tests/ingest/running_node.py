"""A real ingest node in a process group of its own, and a client that speaks HTTP by hand."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ingest_server.segment import CapturedPing, pings, scan, split_segment_id
from ingest_server.spool import Spool
from lake_testing.stack import free_ports, wait_until
from telemetry_lake.project_files import PROJECT_ROOT

START_DEADLINE_SECONDS: Final = 60.0
ANSWER_DEADLINE_SECONDS: Final = 30.0
NODE: Final = "node-under-test"
NOBODY: Final = "http://127.0.0.1:9"
"""An endpoint where nobody listens: the discard port."""
WITHOUT_SERVICES: Final = {
    "TELEMETRY_LAKE_S3__ENDPOINT_URL": NOBODY,
    "TELEMETRY_LAKE_S3__ACCESS_KEY_ID": "nobody",
    "TELEMETRY_LAKE_S3__SECRET_ACCESS_KEY": "nothing",
    "TELEMETRY_LAKE_S3__MAX_ATTEMPTS": "1",
    "TELEMETRY_LAKE_SQS__ENDPOINT_URL": NOBODY,
    "TELEMETRY_LAKE_SQS__ACCESS_KEY_ID": "nobody",
    "TELEMETRY_LAKE_SQS__SECRET_ACCESS_KEY": "nothing",
    "TELEMETRY_LAKE_SQS__MAX_ATTEMPTS": "1",
}
"""For tests of what happens before shipping."""
_METRIC: Final = re.compile(r"^(telemetry_lake_ingest_[a-z0-9_]+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Response:
    """One answer as it came over the wire; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection on which every byte is the test's own."""

    def __init__(
        self, port: int, *, timeout_seconds: float = ANSWER_DEADLINE_SECONDS, address: str = "127.0.0.1"
    ) -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=timeout_seconds, source_address=(address, 0)
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def answer(self, *, to_head: bool = False) -> Response:
        """The next answer; EOFError when the server hangs up instead."""
        line = self._file.readline()
        if not line:
            raise EOFError("the server closed the connection")
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = 0 if to_head else int(headers.get("content-length", 0))
        return Response(int(status), headers, self._file.read(length))

    def is_closed_by_server(self) -> bool:
        """Whether the server hangs up; waits for it."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


def request(
    target: bytes = b"/submit/telemetry/abc",
    body: bytes | None = b"{}",
    *,
    method: bytes = b"POST",
    headers: tuple[bytes, ...] = (),
    version: bytes = b"HTTP/1.1",
    host: bytes | None = b"lake.example",
) -> bytes:
    """The bytes of a request; without a `body`, no Content-Length is sent."""
    lines = [b"%b %b %b" % (method, target, version)]
    if host is not None:
        lines.append(b"Host: " + host)
    lines.extend(headers)
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


class RunningNode:
    """`python -m ingest_server` with settings of a test's own; `environment` wins over the defaults."""

    def __init__(self, spool_directory: Path, environment: Mapping[str, str], **ingest: object) -> None:
        self.port = free_ports(2)
        self.private_port = self.port + 1
        self.spool = Spool(spool_directory / NODE)
        self.log_file = spool_directory.parent / f"{spool_directory.name}.log"
        self.environment = {
            **os.environ,
            **environment,
            "TELEMETRY_LAKE_INGEST__PORT": str(self.port),
            "TELEMETRY_LAKE_INGEST__PRIVATE_PORT": str(self.private_port),
            "TELEMETRY_LAKE_INGEST__NODE": NODE,
            "TELEMETRY_LAKE_INGEST__SPOOL_DIRECTORY": str(spool_directory),
            **{f"TELEMETRY_LAKE_INGEST__{name.upper()}": str(value) for name, value in ingest.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The parent's process id."""
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: bool = True) -> "RunningNode":
        """Start it, and wait until it answers."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                ("setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "ingest_server"),
                cwd=PROJECT_ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if wait:
            self.wait_until_up()
        return self

    def wait_until_up(self) -> None:
        """Wait until the node answers."""

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            try:
                return self.get("/__lbheartbeat__").status == 200
            except OSError:
                return False

        wait_until(answers, deadline_seconds=START_DEADLINE_SECONDS, what="the node answers")

    def stop(self, deadline_seconds: float = 30) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(deadline_seconds)

    def kill(self) -> None:
        """SIGKILL to every process of the node at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def children(self, name: str) -> list[int]:
        """The process ids of the living children whose last log line says they are ready, by their kind."""
        alive = {int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()}
        ready = [event["pid"] for event in self.events(f"{name}_ready")]
        return [pid for pid in ready if pid in alive and not _is_dead(pid)]

    def client(self, **options: Any) -> Client:
        """A new connection."""
        return Client(self.port, **options)

    def private_client(self) -> Client:
        """A new connection to the private address."""
        return Client(self.private_port)

    def ask(self, data: bytes) -> Response:
        """The answer to `data` on a connection of its own."""
        with self.client() as client:
            client.send(data)
            return client.answer(to_head=data.startswith(b"HEAD "))

    def get(self, path: str) -> Response:
        """What the node shows to everybody at `path`."""
        return self.ask(request(path.encode(), None, method=b"GET"))

    def get_privately(self, path: str) -> Response:
        """What the node shows to its operators at `path`."""
        with self.private_client() as client:
            client.send(request(path.encode(), None, method=b"GET"))
            return client.answer()

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels, without the common prefix."""
        text = self.get_privately("/metrics").body.decode()
        return {
            name.removeprefix("telemetry_lake_ingest_"): float(value) for name, value in _METRIC.findall(text)
        }

    def stored(self) -> list[CapturedPing]:
        """Every intact ping in the spool's open and sealed segments."""
        return [
            ping
            for directory in (self.spool.open_directory, self.spool.sealed_directory)
            for path in sorted(directory.iterdir())
            for ping in read_segment(path)
        ]

    def log(self) -> str:
        """What the node wrote."""
        return self.log_file.read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        lines = [line for line in self.log().splitlines() if f'"event": "{name}"' in line]
        return [json.loads(line) for line in lines]


def _is_dead(pid: int) -> bool:
    """Whether the process has ended and its parent has not noticed yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def read_segment(path: Path) -> list[CapturedPing]:
    """The intact pings of a segment file."""
    data = path.read_bytes()
    return list(pings(data, scan(data, split_segment_id(path.name.split(".")[0]).marker).records))


@contextlib.contextmanager
def running(node: RunningNode) -> Iterator[RunningNode]:
    """The node, started, and killed at the end."""
    try:
        yield node.start()
    finally:
        node.kill()


def wait_for_bytes(client: Client, seconds: float) -> bool:
    """Whether anything comes from the server within `seconds`."""
    client.socket.settimeout(seconds)
    started = time.monotonic()
    try:
        return bool(client.socket.recv(1, socket.MSG_PEEK)) and time.monotonic() - started <= seconds
    except TimeoutError:
        return False
    finally:
        client.socket.settimeout(ANSWER_DEADLINE_SECONDS)
