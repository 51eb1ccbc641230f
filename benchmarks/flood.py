"""Flood an ingest node with connections that take and give nothing, and count the 200s of honest clients.

    python -m benchmarks.flood

For each kind of `lake_testing.flood`, a node of its own is started. 10,000 connections come from one
loopback address, while clients on four others post pings of 8 KB, each on a new connection. The same again
through HAProxy, configured as in the local stack. A line has what the honest clients saw and the most memory
that the worker held; the first line is without a flood.
"""

import argparse
import contextlib
import http.client
import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import quantiles

from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.flood import KINDS, connections_possible, flooding
from lake_testing.stack import RunningProgram, free_ports
from local_stack.balancer import BalancerProcess
from local_stack.configuration import Balancer
from local_stack.ingest_nodes import IngestNode
from local_stack.program import find_server
from telemetry_lake.project_files import PROJECT_ROOT

FLOODED_FROM = "127.0.0.9"
HONEST_ADDRESSES = tuple(f"127.0.0.{last}" for last in range(2, 6))
HONEST_BODY = b"x" * 8_192
HONEST_TIMEOUT_SECONDS = 10.0
NOTHING = "no flood"
NOBODY = "http://127.0.0.1:9"
"""The discard port: pings stay in the spool."""


@dataclass(slots=True)
class HonestClients:
    """Clients that each post at `pings_per_second`, from addresses of their own."""

    port: int
    pings_per_second: float
    answers: list[tuple[int, float]] = field(default_factory=list)
    """Status (0 for none) and seconds of each ping."""

    @contextlib.contextmanager
    def posting(self) -> Iterator[None]:
        """Post while the block runs."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._post, args=(address, stop)) for address in HONEST_ADDRESSES]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _post(self, address: str, stop: threading.Event) -> None:
        number = 0
        while not stop.wait(1 / self.pings_per_second):
            number += 1
            began = time.perf_counter()
            connection = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=HONEST_TIMEOUT_SECONDS, source_address=(address, 0)
            )
            try:
                path = f"/submit/telemetry/{address}-{number}"
                connection.request("POST", path, HONEST_BODY, {"User-Agent": "pingsender/1.0"})
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException):
                status = 0
            finally:
                connection.close()
            self.answers.append((status, time.perf_counter() - began))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; times in milliseconds, memory in MiB."""

    entrance: str
    kind: str
    sent: int
    acknowledged: int
    p50: float
    p95: float
    slowest: float
    memory: float

    def __str__(self) -> str:
        return (
            f"{self.entrance:8} {self.kind:22} {self.acknowledged:6} of {self.sent:6} "
            f"{self.p50:8.1f} {self.p95:8.1f} {self.slowest:9.1f} {self.memory:8.0f}"
        )

    def record(self, recorder: Recorder) -> None:
        """Add the figures of this line to a result."""
        name = f"{self.entrance}, {self.kind}"
        recorder.add(name, 100 * self.acknowledged / self.sent, "%", measure="200s", at_least=100)
        recorder.add(name, self.p50, "ms", measure="p50")
        recorder.add(name, self.p95, "ms", measure="p95")
        recorder.add(name, self.memory, "MiB", measure="peak of the worker")


HEADING = f"{'entrance':8} {'flood':22} {'200s':>16} {'p50 ms':>8} {'p95 ms':>8} {'slowest':>9} {'MiB':>8}"


@contextlib.contextmanager
def running_edge(directory: Path, *, behind_haproxy: bool) -> Iterator[tuple[int, Path]]:
    """Run a node, or one behind HAProxy. Yields the port for clients and the node's log."""
    port = free_ports(3)
    node = IngestNode(
        node="flooded",
        port=port,
        port_variable="",
        private_port=port + 1,
        private_port_variable="",
        spool_directory=directory / "spool",
        project_root=PROJECT_ROOT,
        log_file=directory / "node.log",
    )
    program = node.program(after=())
    environment = {
        **program.environment,
        "TELEMETRY_LAKE_CONVERSION__TRUSTED_PROXIES": str(int(behind_haproxy)),
        "TELEMETRY_LAKE_S3__ENDPOINT_URL": NOBODY,
        "TELEMETRY_LAKE_SQS__ENDPOINT_URL": NOBODY,
    }
    running = [RunningProgram(replace(program, environment=environment))]
    if behind_haproxy:
        balancer = BalancerProcess(
            Balancer.HAPROXY, port + 2, [node], directory / "balancer", directory / "balancer.log"
        )
        running.append(RunningProgram(balancer.program(after=())))
    try:
        for one in running:
            one.start()
        yield port + 2 if behind_haproxy else port, node.log_file
    finally:
        for one in reversed(running):
            one.kill()


def worker_memory_mib(log: Path) -> float:
    """Return the most memory that the worker of the node with this log held; NaN when it has died."""
    (ready,) = [line for line in log.read_text().splitlines() if '"worker_ready"' in line]
    try:
        status = Path(f"/proc/{json.loads(ready)['pid']}/status").read_text()
    except FileNotFoundError:
        return float("nan")
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(peak) / 1024


def measure(entrance: str, kind: str, options: argparse.Namespace) -> Row:
    """Flood one node for some seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-flood-") as directory,
        running_edge(Path(directory), behind_haproxy=entrance == "haproxy") as (port, log),
    ):
        honest = HonestClients(port, options.honest_rate / len(HONEST_ADDRESSES))
        flood = (
            contextlib.nullcontext()
            if kind == NOTHING
            else flooding(kind, port, FLOODED_FROM, options.connections)
        )
        with flood, honest.posting():
            time.sleep(options.seconds)
        memory = worker_memory_mib(log)
    seconds = [seconds for _, seconds in honest.answers]
    percentiles = quantiles(seconds, n=20, method="inclusive")
    return Row(
        entrance,
        kind,
        len(seconds),
        sum(status == http.HTTPStatus.OK for status, _ in honest.answers),
        percentiles[9] * 1e3,
        percentiles[18] * 1e3,
        max(seconds) * 1e3,
        memory,
    )


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood", description=__doc__.split("\n\n")[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=15, help="of each kind")
    parser.add_argument("--honest-rate", type=float, default=20, help="pings a second of all honest clients")
    parser.add_argument("--kinds", nargs="+", choices=[NOTHING, *KINDS], default=[NOTHING, *KINDS])
    parser.add_argument("--entrances", nargs="+", choices=["node", "haproxy"], default=["node", "haproxy"])
    add_results_option(parser)
    options = parser.parse_args()
    possible = connections_possible(options.connections)
    if possible < options.connections:
        print(f"This system lets a process have {possible} connections, not {options.connections}.")
        options.connections = possible
    if "haproxy" in options.entrances and find_server("haproxy") is None:
        print("haproxy is not installed and left out: apt-get install haproxy")
        options.entrances.remove("haproxy")
    with recording("flood", options.results) as recorder:
        recorder.remark(
            f"{options.connections:,} connections of each kind from one address, for {options.seconds} s; "
            f"{options.honest_rate:g} pings/s of honest clients from {len(HONEST_ADDRESSES)} others."
        )
        print(HEADING)
        for entrance in options.entrances:
            for kind in options.kinds:
                row = measure(entrance, kind, options)
                print(row, flush=True)
                row.record(recorder)


if __name__ == "__main__":
    main()
