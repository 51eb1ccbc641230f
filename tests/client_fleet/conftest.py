"""A real ingest node, the fleet as a process, and a server that misbehaves on demand."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lake_testing.stack import Lake, RunningProgram, free_ports
from local_stack.ingest_nodes import IngestNode
from local_stack.program import LOOPBACK
from telemetry_lake.project_files import PROJECT_ROOT


@pytest.fixture
def ingest_node(lake: Lake, tmp_path: Path) -> Iterator[IngestNode]:
    """An ingest node that ships into this test's own lake."""
    port = free_ports(2)
    node = IngestNode(
        node="fleet-test",
        port=port,
        port_variable="",
        private_port=port + 1,
        private_port_variable="",
        spool_directory=tmp_path / "spool",
        project_root=PROJECT_ROOT,
        log_file=tmp_path / "ingest.log",
    )
    program = node.program(after=())
    environment = {
        **program.environment,
        **lake.environment,
        "TELEMETRY_LAKE_INGEST__SEGMENT_MAX_AGE_SECONDS": "1",
    }
    running = RunningProgram(replace(program, environment=environment))
    running.start()
    yield node
    running.stop()


class Fleet:
    """The fleet in a process of its own; what it printed is in `output` after `finish`, in one line."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            (sys.executable, "-m", "client_fleet", *arguments),
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def finish(self, *, deadline_seconds: float = 60) -> int:
        """Wait until it ends; its exit status."""
        output, _ = self.process.communicate(timeout=deadline_seconds)
        self.output = " ".join(output.replace("│", " ").split())
        return self.process.returncode


@pytest.fixture
def start_fleet() -> Iterator[Callable[..., Fleet]]:
    """Starts fleets, and ends what is left of them."""
    fleets: list[Fleet] = []

    def start(*arguments: str) -> Fleet:
        fleets.append(Fleet(*arguments))
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.process.kill()
        fleet.process.wait()
        if fleet.process.stdout is not None:
            fleet.process.stdout.close()


class MoodyServer:
    """Answers the first requests as `answers` says, then 200; None closes the connection."""

    def __init__(self, answers: list[int | None]) -> None:
        self.paths: list[str] = []
        moods = iter(answers)
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                paths.append(self.path)
                status = next(moods, 200)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self._server.server_port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def moody_server() -> Iterator[Callable[[list[int | None]], MoodyServer]]:
    """Starts servers that answer as told."""
    servers: list[MoodyServer] = []

    def start(answers: list[int | None]) -> MoodyServer:
        servers.append(MoodyServer(answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
