"""Measure how fast a backlog is drained: with LocalExecutor, and with Celery workers of one core each.

    python -m benchmarks.workers

One local stack; its executors take turns. In each turn the drain is paused, and pings are posted until
`--pings` of them wait as raw objects. Then the drain goes on, and its time is taken from its first claim to
its last commit. Worker 1 may use the first core of this machine and worker 2 the second one, with all they
start; everything else, clients excepted, uses both, also with LocalExecutor. Raw objects and parts are small,
so that a backlog of seconds has enough parts for all workers.

What limits more workers is what does not divide: it prints how long parts were converted and how many side
by side, and how many cores were at work. Exits with 1 when a ping was lost or doubled.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.airflow_dags import Dags, dags_of
from lake_testing.local_lake import LocalLake, local_lake, running_fleet, wait_for
from lake_testing.proof_check import wait_for_verdict
from local_stack.airflow import SCHEDULER
from local_stack.launch import describe
from local_stack.observe import Observer
from local_stack.plan import make_plan
from local_stack.scale_workers import Workers
from local_stack.supervision import Supervisor
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import Role, load_settings
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS
from telemetry_lake.units import MIB

DRAIN: Final = "drain"
CONVERT: Final = "convert"
PINGS: Final = 12_000
ROUNDS: Final = 2
WORKERS: Final = 2
SEGMENT_MAX_BYTES: Final = 1 * MIB
PART_MAX_BYTES: Final = 4 * MIB
BATCH_MAX_BYTES: Final = 16 * MIB
CHANGE_MAX_SECONDS: Final = 300.0
DRAIN_MAX_SECONDS: Final = 600.0
READY: Final = " ready."
"""A worker's log says so when it takes tasks."""
VARIABLES: Final = {
    "TELEMETRY_LAKE_INGEST__SEGMENT_MAX_BYTES": str(SEGMENT_MAX_BYTES),
    "TELEMETRY_LAKE_DRAIN__PART_MAX_BYTES": str(PART_MAX_BYTES),
    "TELEMETRY_LAKE_DRAIN__BATCH_MAX_BYTES": str(BATCH_MAX_BYTES),
    "LOCAL_STACK_BALANCER": "none",
    "LOCAL_STACK_PROMETHEUS": "false",
}

Say = Callable[[str], None]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one backlog took."""

    pings: int
    seconds: float
    """From the first claim to the last commit."""
    converts: tuple[Interval, ...]
    """When each part was converted, from its begin to its end."""
    core_seconds: float
    """Processor time of the whole stack meanwhile."""
    batches: int

    @property
    def rate(self) -> float:
        """Pings per second."""
        return self.pings / self.seconds

    @property
    def converting_seconds(self) -> float:
        """How long at least one part was being converted."""
        return covered_seconds(self.converts)

    @property
    def side_by_side(self) -> float:
        """How many parts were converted at the same time, on average while any was."""
        return sum(end - begin for begin, end in self.converts) / self.converting_seconds


def covered_seconds(intervals: Iterable[Interval]) -> float:
    """Return how long at least one of `intervals` lasts; what they share counts once."""
    covered, until = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pings", type=int, default=PINGS, help=f"in each backlog (default: {PINGS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of all executors (default: {ROUNDS})")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"at most (default: {WORKERS})")
    add_results_option(parser)
    arguments = parser.parse_args()
    cores = psutil.Process().cpu_affinity()
    if not 1 <= arguments.workers <= len(cores):
        parser.error(f"--workers {arguments.workers}: each needs a core, and this machine has {len(cores)}")
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    with (
        recording("workers", arguments.results) as recorder,
        tempfile.TemporaryDirectory(prefix="workers-") as folder,
        local_lake({**VARIABLES, "LOCAL_STACK_WORKERS": str(arguments.workers)}) as lake,
        dags_of(lake) as dags,
    ):
        say("the stack is up")
        dags.pause_all_but(DRAIN)
        dags.pause(DRAIN)
        stage = _Stage(lake, dags, Path(folder), cores, say)
        turns: dict[int, list[Turn]] = {workers: [] for workers in range(arguments.workers + 1)}
        for _ in range(arguments.rounds):
            for workers, done in turns.items():
                done.append(stage.turn(workers, arguments.pings))
        report(turns, recorder)
    sys.exit(0 if stage.holds else 1)


class _Stage:
    """A stack whose drain is paused between two turns."""

    def __init__(self, lake: LocalLake, dags: Dags, folder: Path, cores: Sequence[int], say: Say) -> None:
        self._lake = lake
        self._dags = dags
        self._folder = folder
        self._cores = cores
        self._say = say
        self._supervisor = Supervisor(lake.layout)
        self._table = load_lake_catalog(lake.settings).load_table(LIVE_PINGS)
        self._queue = IndexQueue(load_settings(lake.layout.env_file, role=Role.DRAIN).sqs)
        self._names = Workers(lake.layout).names()
        self._pin(self._names)
        self._has_workers = True
        self._posted = 0
        self._turns = 0
        self.holds = True

    def turn(self, workers: int, pings: int) -> Turn:
        """Have a backlog drained by so many workers, 0 for LocalExecutor. Returns what it took."""
        self._arrange(workers)
        proof = self._folder / f"acknowledged-{self._turns}"
        posted = self._post(proof, pings)
        self._turns += 1
        self._posted += posted
        began, used = time.time(), self._core_seconds()
        self._dags.pause(DRAIN, paused=False)
        wait_for(
            lambda: self._rows() >= self._posted,
            deadline_seconds=DRAIN_MAX_SECONDS,
            what=f"{self._posted:,} pings are rows",
        )
        core_seconds = self._core_seconds() - used
        wait_for(
            lambda: self._queue.state().is_empty and not self._dags.runs_at_work(DRAIN),
            deadline_seconds=DRAIN_MAX_SECONDS,
            what="the drain has nothing left to do",
        )
        self._dags.pause(DRAIN)
        tasks = [task for task in self._dags.tasks(DRAIN) if task.started_at >= began]
        first_claim = min(task.started_at for task in tasks if task.name == "claim")
        commits = [snapshot.timestamp_ms / 1e3 for snapshot in self._table.refresh().snapshots()]
        turn = Turn(
            pings=posted,
            seconds=max(commits) - first_claim,
            converts=tuple((task.started_at, task.ended_at) for task in tasks if task.name == CONVERT),
            core_seconds=core_seconds,
            batches=sum(commit >= first_claim for commit in commits),
        )
        verdict = wait_for_verdict(proof, self._lake.settings, deadline_seconds=CHANGE_MAX_SECONDS)
        self.holds = self.holds and verdict.holds
        self._say(
            f"{title(workers)}: {turn.rate:,.0f} pings/s: {turn.pings:,} in {turn.seconds:.1f} s, "
            f"{turn.converting_seconds:.1f} s of them with a part in conversion, {len(turn.converts)} parts, "
            f"{turn.side_by_side:.1f} side by side, {turn.batches} commits. {verdict}"
        )
        return turn

    def _arrange(self, workers: int) -> None:
        """Start and stop workers, and give the scheduler its executor."""
        for name in self._names[workers:]:
            self._supervisor.stop(name)
        for name in self._names[workers:]:
            wait_for(
                lambda: self._lake.leader(name) == 0,  # noqa: B023
                deadline_seconds=CHANGE_MAX_SECONDS,
                what=f"{name} has stopped",
            )
        if self._has_workers != bool(workers):
            self._restart_scheduler(workers)
        missing = [name for name in self._names[:workers] if not self._lake.leader(name)]
        logs = {name: self._lake.layout.log(name) for name in missing}
        written = {name: log.stat().st_size for name, log in logs.items()}
        for name in missing:
            self._supervisor.start(name)
        for name, log in logs.items():
            wait_for(
                lambda: READY in log.read_bytes()[written[name] :].decode(errors="replace"),  # noqa: B023
                deadline_seconds=CHANGE_MAX_SECONDS,
                what=f"{name} takes tasks",
            )
        self._pin(missing)

    def _restart_scheduler(self, workers: int) -> None:
        configuration = self._lake.plan.configuration
        variables = configuration.variables.model_copy(update={"workers": len(self._names) if workers else 0})
        plan = make_plan(self._lake.layout, configuration.model_copy(update={"variables": variables}))
        [scheduler] = [item for item in plan.programs if item.name == SCHEDULER]
        # supervisord starts what this writes.
        describe(scheduler, self._lake.layout)
        self._supervisor.restart(SCHEDULER)
        restarted_at = time.time()
        wait_for(
            lambda: self._dags.scheduler_seen_at() > restarted_at,
            deadline_seconds=CHANGE_MAX_SECONDS,
            what="the scheduler works",
        )
        self._has_workers = bool(workers)

    def _pin(self, names: Iterable[str]) -> None:
        for name in names:
            core = self._cores[self._names.index(name)]
            for process in self._lake.processes(name):
                process.cpu_affinity([core])

    def _post(self, proof: Path, pings: int) -> int:
        """Post at least so many pings, and wait until all of them are raw objects. Returns their number."""
        with running_fleet(self._lake.url, proof, "--rate", "0", "--quiet") as fleet:
            wait_for(
                lambda: fleet.acknowledged() >= pings,
                deadline_seconds=CHANGE_MAX_SECONDS,
                what=f"{pings:,} pings are acknowledged",
            )
            fleet.stop()
            posted = fleet.acknowledged()
        with ThreadPoolExecutor(max_workers=len(self._lake.plan.items) + 1) as executor:
            observer = Observer(self._lake.plan, executor)
            wait_for(
                lambda: observer.look().flow.segments_waiting == 0,
                deadline_seconds=CHANGE_MAX_SECONDS,
                what="all pings are shipped",
            )
        return posted

    def _rows(self) -> int:
        snapshot = self._table.refresh().current_snapshot()
        return (
            0 if snapshot is None or snapshot.summary is None else int(snapshot.summary["total-records"] or 0)
        )

    def _core_seconds(self) -> float:
        return sum(self._lake.processor_seconds(program.name) for program in self._lake.plan.programs)


def title(workers: int) -> str:
    """Return what a row of the figures is called."""
    if not workers:
        return f"LocalExecutor on {psutil.cpu_count()} cores"
    return f"{workers} Celery worker{'s' if workers > 1 else ''} of one core"


def report(turns: dict[int, list[Turn]], recorder: Recorder) -> None:
    """Print and record the median turn of each number of workers, and what limits more of them."""
    for workers, done in turns.items():
        name = title(workers)
        recorder.add(name, statistics.median(turn.rate for turn in done), "pings/s", measure="rate")
        for measure, unit, values in (
            ("claim to commit", "s", [turn.seconds for turn in done]),
            ("of it with a part in conversion", "s", [turn.converting_seconds for turn in done]),
            ("side by side", "parts", [turn.side_by_side for turn in done]),
            ("all of the stack", "cores", [turn.core_seconds / turn.seconds for turn in done]),
        ):
            recorder.add(name, statistics.median(values), unit, measure=measure)
    most = max(turns)
    one, many = ([turn.rate for turn in turns[workers]] for workers in (1, most))
    gain = statistics.median(many) / statistics.median(one)
    limit = statistics.median(turn.pings / (turn.seconds - turn.converting_seconds) for turn in turns[most])
    if most > 1:
        recorder.add(f"{most} workers to 1", gain, "times")
    recorder.add("rate if conversion took no time", limit, "pings/s")
    rates = "; ".join(
        f"{title(workers)} {', '.join(f'{turn.rate:,.0f}' for turn in done)}"
        for workers, done in turns.items()
    )
    recorder.remark(f"Rates of the single turns, in pings/s: {rates}.")
    recorder.remark(
        "What does not divide limits more workers: the claim, the gates and the commit of a batch are one "
        "task each, and commits to a table come one after the other. On this machine workers also share "
        "their cores with S3, the catalog, Airflow and its database."
    )
    for figure in recorder.figures:
        print(f"{figure.name:34} {figure.measure:34} {figure.value:10,.2f} {figure.unit}")


if __name__ == "__main__":
    main()
