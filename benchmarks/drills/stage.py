"""A stack to be drilled, with what watches it and with pings that arrive all the time."""

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import psutil

from benchmarks.drills.watchers import Sink, Watchers, running_sink, running_watchers
from lake_testing.local_lake import LocalLake, RunningFleet, local_lake, running_fleet, wait_for
from local_stack.configuration import Balancer
from local_stack.program import LOOPBACK, health_problem
from local_stack.supervision import Supervisor
from local_stack.watch import WATCHER
from telemetry_lake.units import MIB

RATE: Final = 10.0
"""Pings per second, besides those of a drill."""
SPOOL_MAX_BYTES: Final = 96 * MIB
"""So that a spool fills within a minute."""
UP_AGAIN_SECONDS: Final = 120.0
VARIABLES: Final = {
    "TELEMETRY_LAKE_INGEST__SPOOL_MAX_BYTES": str(SPOOL_MAX_BYTES),
    "TELEMETRY_LAKE_SQS__VISIBILITY_TIMEOUT_SECONDS": "20",
}


class Part(StrEnum):
    """Which programs a drill needs: a stack of few starts in seconds."""

    EDGE = "edge"
    """The ingest nodes with S3 and SQS."""
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
def running_stage(
    part: Part, directory: Path, *, factor: float, alarms: Iterable[str], variables: Mapping[str, str] = {}
) -> Iterator[Stage]:
    """Start a stack, a fleet and the watchers of `alarms`. Yields them, and ends them all."""
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        lake = stack.enter_context(local_lake({**VARIABLES, **variables}, only=_programs(part)))
        # It would mend what a drill breaks.
        Supervisor(lake.layout).stop(WATCHER)
        sink = stack.enter_context(running_sink())
        watchers = stack.enter_context(
            running_watchers(
                directory / "watchers",
                sink,
                factor=factor,
                alarms=alarms,
                targets={"ingest": _ingest_targets(lake)},
            )
        )
        fleet = stack.enter_context(
            running_fleet(lake.url, directory / "acknowledged", "--rate", f"{RATE:g}", "--quiet")
        )
        yield Stage(lake, directory, sink, watchers, fleet)


def _ingest_targets(lake: LocalLake) -> list[str]:
    return [f"{LOOPBACK}:{node.private_port}" for node in lake.plan.nodes]


def _programs(part: Part) -> tuple[str, ...]:
    if part is Part.LAKE:
        return ()
    from local_stack.balancer import installed_balancer

    return ("ingest-node-1",) if installed_balancer() is Balancer.NONE else ("balancer",)
