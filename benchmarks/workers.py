"""Measure how fast one and two Celery workers, of one core each, work off a backlog.

    python -m benchmarks.workers

On a whole local stack: workers are stopped, pings are posted and shipped, and as soon as the workers take
tasks, the time runs until every ping is a row. One and two workers take turns. Jobs that are not the drain's
are kept from running. All other programs of the stack share the same cores, so on a machine of two cores the
second worker takes over the core that they had.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from benchmarks.pipeline import TABLES, rows_of
from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.chaos import workers_of
from lake_testing.local_lake import LocalLake, local_lake, running_fleet, wait_for
from local_stack.airflow import SCHEDULER
from local_stack.observe import Observer
from local_stack.supervision import Supervisor
from telemetry_lake.tables.catalog import load_lake_catalog

WORKERS: Final = 2
DEADLINE_SECONDS: Final = 900.0

Say = Callable[[str], None]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pings", type=int, default=40_000, help="how many are worked off each time")
    parser.add_argument("--rounds", type=int, default=2, help="how often both numbers of workers take turns")
    add_results_option(parser)
    arguments = parser.parse_args()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    with (
        recording("workers", arguments.results) as recorder,
        tempfile.TemporaryDirectory(prefix="workers-") as folder,
        ThreadPoolExecutor() as executor,
        local_lake({"LOCAL_STACK_WORKERS": str(WORKERS)}) as lake,
    ):
        say("the stack is up")
        trial = Trial(lake, Path(folder), Observer(lake.plan, executor), say)
        trial.keep_jobs_away()
        rates: dict[int, list[float]] = {}
        for _ in range(arguments.rounds):
            for count in range(1, WORKERS + 1):
                rates.setdefault(count, []).append(trial.run(count, arguments.pings))
        report(rates, recorder)


class Trial:
    """Fills the queue of one stack, and lets some of its workers empty it."""

    def __init__(self, lake: LocalLake, folder: Path, observer: Observer, say: Say) -> None:
        self._lake = lake
        self._folder = folder
        self._observer = observer
        self._say = say
        self._supervisor = Supervisor(lake.layout)
        self._catalog = load_lake_catalog(lake.settings)
        self._runs = 0

    def keep_jobs_away(self) -> None:
        """Take the slots from all jobs that are not the drain's."""
        [scheduler] = [item for item in self._lake.plan.programs if item.name == SCHEDULER]
        subprocess.run(
            (sys.executable, "-m", "telemetry_lake.deploy.airflow_database", "--jobs-at-once", "0"),
            env={**os.environ, **scheduler.environment},
            check=True,
            capture_output=True,
        )

    def run(self, count: int, pings: int) -> float:
        """Return the pings per second that `count` workers make rows of."""
        self._runs += 1
        workers = workers_of(self._lake)
        self._stop(workers)
        before = self._rows()
        posted = self._post(pings)
        self._say(f"{posted:,} pings wait, workers: {count}")
        chosen = workers[:count]
        starts = {name: self._starts(name) for name in chosen}
        for name in chosen:
            self._supervisor.start(name)
        _wait(lambda: all(self._starts(name) > starts[name] for name in chosen), "the workers take tasks")
        for core, name in enumerate(chosen):
            for process in self._lake.processes(name):
                with suppress(psutil.Error):
                    process.cpu_affinity([core])
        started, first = time.monotonic(), self._rows()
        _wait(lambda: self._rows() >= before + posted, "every ping is a row")
        rate = (before + posted - first) / (time.monotonic() - started)
        self._say(f"{rate:,.0f} pings/s, workers: {count}")
        return rate

    def _stop(self, workers: Sequence[str]) -> None:
        for name in workers:
            self._supervisor.stop(name)
        _wait(
            lambda: all(self._supervisor.states()[name].is_over for name in workers),
            "the workers have stopped",
        )

    def _post(self, pings: int) -> int:
        """Post that many pings, and wait until all are in the raw bucket; returns how many they are."""
        proof = self._folder / f"acknowledged-{self._runs}"
        with running_fleet(self._lake.url, proof, "--rate", "0", "--quiet") as fleet:
            _wait(lambda: fleet.acknowledged() >= pings, "the pings are posted")
            fleet.stop()
            posted = fleet.acknowledged()
        _wait(lambda: self._observer.look().flow.segments_waiting == 0, "all segments are shipped")
        return posted

    def _starts(self, worker: str) -> int:
        """Return how often the worker has begun to take tasks, by its log."""
        return self._lake.layout.log(worker).read_text(errors="replace").count(f"{worker}@lake ready.")

    def _rows(self) -> int:
        return sum(rows_of(self._catalog.load_table(name)) for name in TABLES)


def _wait(condition: Callable[[], bool], what: str) -> None:
    wait_for(condition, deadline_seconds=DEADLINE_SECONDS, what=what)


def report(rates: dict[int, list[float]], recorder: Recorder) -> None:
    """Print and record the median of each number of workers, and their ratio."""
    medians = {count: statistics.median(found) for count, found in rates.items()}
    for count, found in sorted(medians.items()):
        recorder.add(f"pings/s of {count} {'worker' if count == 1 else 'workers'}", found, "pings/s")
    ratio = medians[WORKERS] / medians[1]
    recorder.add(f"{WORKERS} workers beside 1", ratio, "times")
    print(f"{WORKERS} workers are {ratio:.2f} times as fast as one")


if __name__ == "__main__":
    main()
