"""Measure how fast one ingest worker acknowledges pings, beside servers that store nothing.

    python -m benchmarks.ingest

One table of

- `durable`: the accept worker as it is, `fdatasync` before every 200;
- `discard`: the same worker with a store that forgets the ping;
- `nginx`: nginx answering 200 to the same POST;

for bodies of 1, 8 and 30 KB at 1, 64 and 256 connections, with the spool on tmpfs (the price of our code)
and, for `durable`, on the disk, beside the disk alone: groups of one body for each connection (at most
16 MiB), written and flushed one after another.

The server is pinned to the first core and wrk to the second. The servers take turns, several rounds for each
line of the table, so that a change in the machine's speed concerns all of them; a line is the round with the
median rate. CPU per request is the server's own, from /proc. Sealed segments are deleted as they appear:
shipping is another process and not measured here.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from benchmarks.results import Recorder, add_results_option, recording
from ingest_server.group_commit import GROUP_MAX_BYTES
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import IngestSettings
from telemetry_lake.units import KIB

BODY_BYTES = (1_024, 8_192, 30_720)
CONNECTIONS = (1, 64, 256)
SERVER_CORE, WRK_CORE = 0, 1
TMPFS = Path("/dev/shm")
START_DEADLINE_SECONDS = 10
DISK_SECONDS = 1.0
CLEAN_SECONDS = 0.1
PATH = "/submit/telemetry/0a8b1c9e-52fe-4d3a-9c1c-6d3f7c1c1a01/main/Firefox/120.0/release/20231106151204?v=4"
WRK_SCRIPT = """
wrk.method = "POST"
wrk.body = string.rep("x", {body_bytes})
wrk.headers["Content-Type"] = "application/json; charset=UTF-8"
wrk.headers["Content-Encoding"] = "gzip"
wrk.headers["Date"] = "Mon, 23 Nov 2026 14:00:00 GMT"
wrk.headers["User-Agent"] = "pingsender/1.0"
wrk.headers["X-PingSender-Version"] = "1.0"
done = function(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read
    + summary.errors.write + summary.errors.timeout
  io.write(string.format("MEASURED %d %d %d %d %d %d\\n", summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""
NGINX_CONFIGURATION = """
daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 1m; client_body_buffer_size 1m; keepalive_requests 1000000000;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200; }} }}
}}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; latencies in milliseconds."""

    spool: str
    server: str
    body_bytes: int
    connections: int
    requests_per_second: float
    p50: float
    p99: float
    p999: float
    cpu_microseconds: float
    failed: int

    def __str__(self) -> str:
        megabytes = self.requests_per_second * self.body_bytes / 1e6
        return (
            f"{self.spool:6} {self.server:8} {self.body_bytes:6} {self.connections:5} "
            f"{self.requests_per_second:9,.0f} {self.p50:8.2f} {self.p99:8.2f} {self.p999:8.2f} "
            f"{self.cpu_microseconds:8.1f} {megabytes:8.1f} {self.failed:6}"
        )

    def record(self, recorder: Recorder) -> None:
        """Add the figures of this line to a result."""
        name = line_name(self.spool, self.server, self.body_bytes, self.connections)
        recorder.add(name, self.requests_per_second, "requests/s")
        recorder.add(name, self.p50, "ms", measure="p50")
        recorder.add(name, self.p99, "ms", measure="p99")
        recorder.add(name, self.cpu_microseconds, "µs", measure="CPU per request")
        if self.failed:
            recorder.add(name, self.failed, "requests", measure="failed")


def line_name(spool: str, server_kind: str, body_bytes: int, connections: int) -> str:
    """Return the name of a line of the table among the figures of a result."""
    plural = "s" if connections != 1 else ""
    return f"{spool}, {server_kind}, {body_bytes // KIB} KB, {connections} connection{plural}"


HEADING = (
    f"{'spool':6} {'server':8} {'body':>6} {'conn.':>5} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} "
    f"{'p99.9 ms':>8} {'CPU us':>8} {'MB/s':>8} {'failed':>6}"
)


def cpu_seconds(pid: int) -> float:
    """Return the seconds that the process has used so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pinned(core: int, *, realtime: bool) -> list[str]:
    """Return the beginning of a command that runs on one core only."""
    return ["taskset", "-c", str(core), *(["chrt", "--rr", "1"] if realtime else [])]


def free_port() -> int:
    """Return a TCP port on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(kind: str, directory: Path, *, realtime: bool) -> Iterator[tuple[int, int]]:
    """Run a server on the first core. Yields its process id and its port."""
    port = free_port()
    if kind == "nginx":
        configuration = directory / "nginx.conf"
        configuration.write_text(NGINX_CONFIGURATION.format(directory=directory, port=port))
        command = ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(configuration)]
    else:
        command = [sys.executable, "-m", "benchmarks.ingest_worker", kind, str(port), str(directory)]
    process = subprocess.Popen([*pinned(SERVER_CORE, realtime=realtime), *command], cwd=PROJECT_ROOT)
    try:
        wait_until_up(process, port)
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(START_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_up(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Wait until the server takes connections; exits when it has ended or does not within the deadline."""
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("The server did not start; its own message is above.") from None
            time.sleep(0.05)


@contextlib.contextmanager
def sealed_segments_deleted(directory: Path) -> Iterator[None]:
    """Delete sealed segments as they appear, as the shipper does after shipping them."""
    stop = threading.Event()

    def delete() -> None:
        while not stop.wait(CLEAN_SECONDS):
            for path in directory.glob("*/*/sealed/*.segment"):
                path.unlink()

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure(
    pid: int, port: int, spool: str, kind: str, body: int, connections: int, options: argparse.Namespace
) -> Row:
    """Run wrk once, after a short run that warms up. Returns what it measured."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT.format(body_bytes=body))
        script.flush()

        def wrk(seconds: float) -> list[int]:
            output = subprocess.run(
                [
                    *pinned(WRK_CORE, realtime=options.realtime),
                    *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name),
                    f"http://127.0.0.1:{port}{PATH}",
                ],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            measurement = re.search(r"MEASURED ([\d ]+)", output)
            if measurement is None:
                raise SystemExit(f"wrk printed no measurement: {output}")
            return [int(number) for number in measurement[1].split()]

        wrk(1)
        before = cpu_seconds(pid)
        requests, microseconds, failed, p50, p99, p999 = wrk(options.seconds)
        used = cpu_seconds(pid) - before
    return Row(
        spool,
        kind,
        body,
        connections,
        requests / microseconds * 1e6,
        p50 / 1e3,
        p99 / 1e3,
        p999 / 1e3,
        used / max(requests, 1) * 1e6,
        failed,
    )


def disk_requests_per_second(directory: Path, body: int, connections: int) -> float:
    """Write groups of one body for each connection, each flushed. Returns the bodies per second."""
    group = min(connections * body, GROUP_MAX_BYTES)
    data = os.urandom(group)
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        started = time.perf_counter()
        written = 0
        while (elapsed := time.perf_counter() - started) < DISK_SECONDS:
            os.write(file.fileno(), data)
            os.fdatasync(file.fileno())
            written += group
    return written / body / elapsed


def memory_peak_megabytes(pid: int) -> float:
    """Return the most memory that the process held, in MiB."""
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(peak) / 1024


def run(
    spool: str, kinds: Sequence[str], parent: Path, options: argparse.Namespace, recorder: Recorder
) -> list[Row]:
    """Measure the servers with all bodies and connections, taking turns. Returns the lines of the table."""
    rows = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent, prefix="bench-ingest-")))
        servers = {}
        for kind in kinds:
            (folder / kind).mkdir()
            servers[kind] = stack.enter_context(server(kind, folder / kind, realtime=options.realtime))
        stack.enter_context(sealed_segments_deleted(folder))
        for body, connections in product(options.bodies, options.connections):
            rounds: dict[str, list[Row]] = {kind: [] for kind in kinds}
            disk_rates = []
            for _ in range(options.rounds):
                for kind, (pid, port) in servers.items():
                    rounds[kind].append(measure(pid, port, spool, kind, body, connections, options))
                if spool == "disk":
                    disk_rates.append(disk_requests_per_second(folder, body, connections))
            for measured in rounds.values():
                measured.sort(key=lambda row: row.requests_per_second)
                rows.append(measured[len(measured) // 2])
                print(rows[-1], flush=True)
                rows[-1].record(recorder)
            if disk_rates:
                print(f"disk   alone    {body:6} {connections:5} {median(disk_rates):9,.0f}", flush=True)
                recorder.add(
                    line_name(spool, "the disk alone", body, connections), median(disk_rates), "requests/s"
                )
        for kind, (pid, _) in servers.items():
            peak = memory_peak_megabytes(pid)
            print(f"{spool:6} {kind:8} peak memory {peak:.0f} MiB", flush=True)
            recorder.add(f"{spool}, {kind}, peak memory", peak, "MiB")
    return rows


def start_seconds(directory: Path) -> tuple[float, float]:
    """Start a whole node as a user does. Returns the seconds of `--help` and those until it listens."""
    command = [sys.executable, "-m", "ingest_server"]
    started = time.perf_counter()
    subprocess.run([*command, "--help"], cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, check=True)
    imported = time.perf_counter() - started
    port = free_port()
    environment = {
        **os.environ,
        "TELEMETRY_LAKE_INGEST__PORT": str(port),
        "TELEMETRY_LAKE_INGEST__PRIVATE_PORT": str(free_port()),
        "TELEMETRY_LAKE_INGEST__SPOOL_DIRECTORY": str(directory),
    }
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until_up(process, port)
        return imported, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(START_DEADLINE_SECONDS + IngestSettings().stop_ship_seconds)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--seconds", type=int, default=2, help="of each round, after one second of warming up"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each line; the median is shown")
    parser.add_argument("--bodies", type=int, nargs="+", default=BODY_BYTES, help="sizes in bytes")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--disk-directory", type=Path, default=PROJECT_ROOT, help="where the disk's spool is")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="SCHED_RR for server and wrk (root): for a machine that is shared",
    )
    add_results_option(parser)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    kinds = ["durable", "discard"]
    if shutil.which("nginx") is None:
        print("nginx is not installed and left out: apt-get install nginx")
    else:
        kinds.append("nginx")
    with recording("ingest", options.results) as recorder:
        with tempfile.TemporaryDirectory(prefix="bench-ingest-") as directory:
            imported, up = start_seconds(Path(directory))
        print(f"start of a whole node: {imported:.2f} s for --help, {up:.2f} s until it listens")
        recorder.add("a whole node listens after", up, "s")
        print(HEADING)
        rows = run("tmpfs", kinds, TMPFS, options, recorder)
        run("disk", ["durable"], options.disk_directory, options, recorder)
    rates = {(row.server, row.body_bytes, row.connections): row.requests_per_second for row in rows}
    for body in options.bodies:
        for connections in options.connections:
            share = rates["durable", body, connections] / rates["discard", body, connections]
            print(f"durable on tmpfs / discard, {body} bytes, {connections} connections: {share:.0%}")


if __name__ == "__main__":
    main()
