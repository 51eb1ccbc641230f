"""A stack to be drilled, with what watches it and with pings that arrive all the time."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

import psutil

from benchmarks.drills.drain_by_hand import DrainByHand
from benchmarks.drills.watchers import Sink, Watchers, running_sink, running_watchers
from lake_testing.local_lake import LocalLake, RunningFleet, local_lake, running_fleet, wait_for
from local_stack.configuration import Balancer
from local_stack.monitoring import EXPORTER, JOB_OF_EXPORTER, JOB_OF_NODES
from local_stack.plan import CREATE_TABLES
from local_stack.program import LOOPBACK, health_problem
from local_stack.supervision import Supervisor
from local_stack.watch import WATCHER
from local_stack.web_pages import WEB
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import ENV_FILE_VARIABLE, Role, Settings, load_settings
from telemetry_lake.units import MIB

RATE: Final = 10.0
"""Pings per second, besides those of a drill."""
SPOOL_MAX_BYTES: Final = 96 * MIB
"""So that a spool fills within a minute."""
UP_AGAIN_SECONDS: Final = 120.0
FIRST_ROW_SECONDS: Final = 240.0
A_FRESH_ROW: Final = "telemetry_lake_live_newest_row_age_seconds < 60"
COMMAND_SECONDS: Final = 300.0
VARIABLES: Final = {
    "TELEMETRY_LAKE_INGEST__SPOOL_MAX_BYTES": str(SPOOL_MAX_BYTES),
    "TELEMETRY_LAKE_SQS__VISIBILITY_TIMEOUT_SECONDS": "20",
}
MACHINES_DAY: Final = 10
"""Dollars. With a price, what a day costs is known from the first minute on."""
OVERDUE_AFTER: Final = timedelta(seconds=72)
"""Instead of a day."""
DRAINED_VARIABLES: Final = {
    "TELEMETRY_LAKE_INGEST__SEGMENT_MAX_AGE_SECONDS": "5",
    "TELEMETRY_LAKE_DRAIN__RECONCILE_GRACE_SECONDS": "20",
    "TELEMETRY_LAKE_DRAIN__COMPLETE_WITHIN_HOURS": str(OVERDUE_AFTER / timedelta(hours=1)),
    "TELEMETRY_LAKE_MONITORING__PRICES__MACHINES_DAY": str(MACHINES_DAY),
}
"""Where pings become rows, that is quick, and so is what looks for lost messages."""


class Part(StrEnum):
    """Which programs a drill needs: a stack of few starts in seconds."""

    EDGE = "edge"
    """The ingest nodes with S3 and SQS."""
    FLOW = "flow"
    """These with the tables and the exporter; without Airflow, the drain is run by hand."""
    LAKE = "lake"
    """The whole stack."""


@dataclass(slots=True)
class Stage:
    """A running stack, what watches it, and who sends pings."""

    lake: LocalLake
    directory: Path
    sink: Sink
    watchers: Watchers
    fleet: RunningFleet
    environment: Mapping[str, str]
    """Of commands that people run."""
    drain: DrainByHand

    @property
    def nodes(self) -> list[str]:
        """The programs of the ingest nodes."""
        return [node.name for node in self.lake.plan.nodes]

    @property
    def ingest_targets(self) -> list[str]:
        """Where the nodes show their metrics."""
        return _ingest_targets(self.lake)

    def stop(self, program: str) -> None:
        """Stop a program of the stack, and wait until it has ended."""
        Supervisor(self.lake.layout).stop(program)
        wait_for(
            lambda: self.lake.leader(program) == 0,
            deadline_seconds=UP_AGAIN_SECONDS,
            what=f"{program} has stopped",
        )

    def start(self, program: str) -> None:
        """Start a program of the stack, and wait until it is healthy and ready."""
        Supervisor(self.lake.layout).start(program)
        definition = next(item for item in self.lake.plan.programs if item.name == program)

        def is_ready() -> bool:
            return self.lake.leader(program) > 0 and health_problem(definition) is None

        wait_for(is_ready, deadline_seconds=UP_AGAIN_SECONDS, what=f"{program} answers")

    @contextmanager
    def without(self, program: str) -> Iterator[None]:
        """Stop a program for the length of the block."""
        self.stop(program)
        try:
            yield
        finally:
            self.start(program)

    def restart_exporter_with(self, **settings: str) -> None:
        """Start the exporter again with some more `TELEMETRY_LAKE_…` settings; those given last count."""
        file = self.lake.layout.settings_file(EXPORTER)
        with self.without(EXPORTER), file.open("a") as text:
            text.writelines(f"{name}='{value}'\n" for name, value in settings.items())

    def exporter_remembers(self, source: str, **facts: object) -> None:
        """Let the exporter start again with other facts in what it keeps of a source.

        Of a fact that is a mapping, the others of its entries stay.
        """
        file = self.lake.layout.data("monitoring") / f"{source}.json"
        with self.without(EXPORTER):
            record = json.loads(file.read_bytes())
            for name, fact in facts.items():
                record[name] = record[name] | fact if isinstance(fact, dict) else fact
            file.write_text(json.dumps(record))

    def settings(self, role: Role) -> Settings:
        """Return the settings of a process that acts as `role`."""
        return load_settings(self.lake.layout.env_file, role=role)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the lake as a person would, with the keys of all roles."""
        return self.python("-m", "telemetry_lake", *arguments)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments, in the project's folder and with the keys of all roles."""
        ended = subprocess.run(
            (sys.executable, *arguments),
            cwd=PROJECT_ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        with (self.directory / "commands.log").open("a") as log:
            log.write(f"$ {' '.join(arguments)}\n{ended.stdout}")
        return ended

    def child(self, node: str, kind: str) -> int:
        """Return the id of a node's `worker`, `shipper` or `observer`, by what the node's log says last."""
        return wait_for(
            lambda: self._child(node, kind), deadline_seconds=UP_AGAIN_SECONDS, what=f"{node} has a {kind}"
        )

    def _child(self, node: str, kind: str) -> int | None:
        living = {process.pid for process in self.lake.processes(node)}
        pids = [
            int(line.partition('"pid": ')[2].partition(",")[0].rstrip("}"))
            for line in self.lake.layout.log(node).read_text(errors="replace").splitlines()
            if f'"event": "{kind}_ready"' in line
        ]
        return next((pid for pid in reversed(pids) if pid in living), None)


def send_signal(processes: Iterable[psutil.Process | int], number: signal.Signals) -> None:
    """Send a signal to each of these processes that still lives."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process if isinstance(process, int) else process.pid, number)


@contextmanager
def hanging(processes: Iterable[int]) -> Iterator[None]:
    """Stop processes for the length of the block, then kill them: what started them starts others."""
    stopped = list(processes)
    send_signal(stopped, signal.SIGSTOP)
    try:
        yield
    finally:
        send_signal(stopped, signal.SIGKILL)


@contextmanager
def repeatedly(act: Callable[[], object]) -> Iterator[None]:
    """Do something again and again in a thread for the length of the block."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            act()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def running_stage(part: Part, directory: Path, *, factor: float, alarms: Iterable[str]) -> Iterator[Stage]:
    """Start a stack, a fleet and the watchers of `alarms`. Yields them, and ends them all."""
    directory.mkdir(parents=True)
    variables = VARIABLES if part is Part.EDGE else {**VARIABLES, **DRAINED_VARIABLES}
    with ExitStack() as stack:
        lake = stack.enter_context(local_lake(variables, only=_programs(part)))
        # It would mend what a drill breaks.
        Supervisor(lake.layout).stop(WATCHER)
        sink = stack.enter_context(running_sink())
        targets = {JOB_OF_NODES: _ingest_targets(lake)}
        if part is not Part.EDGE:
            targets[JOB_OF_EXPORTER] = [f"{LOOPBACK}:{lake.plan.monitoring.exporter_port}"]
        watchers = stack.enter_context(
            running_watchers(directory / "watchers", sink, factor=factor, alarms=alarms, targets=targets)
        )
        environment = {**os.environ, **variables, ENV_FILE_VARIABLE: str(lake.layout.env_file)}
        drain = stack.enter_context(DrainByHand(environment, directory / "drain.log"))
        if part is Part.FLOW:
            drain.start()
        fleet = stack.enter_context(
            running_fleet(lake.url, directory / "acknowledged", "--rate", f"{RATE:g}", "--quiet")
        )
        if part is not Part.EDGE:
            wait_for(
                lambda: watchers.value(A_FRESH_ROW),
                deadline_seconds=FIRST_ROW_SECONDS,
                what="the exporter shows a fresh row of live.pings",
            )
        yield Stage(lake, directory, sink, watchers, fleet, environment, drain)


def _ingest_targets(lake: LocalLake) -> list[str]:
    return [f"{LOOPBACK}:{node.private_port}" for node in lake.plan.nodes]


def _programs(part: Part) -> tuple[str, ...]:
    from local_stack.balancer import installed_balancer

    edge = ("ingest-node-1",) if installed_balancer() is Balancer.NONE else ("balancer",)
    match part:
        case Part.EDGE:
            return edge
        case Part.FLOW:
            return (*edge, CREATE_TABLES, EXPORTER, WEB)
        case Part.LAKE:
            return ()
