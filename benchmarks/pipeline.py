"""Measure the whole local stack under a fleet that sends as many pings as production once got.

    python -m benchmarks.pipeline

732 pings per second was the rate of Firefox telemetry in the peak hour of 2014. While it runs, it prints how
many pings are acknowledged, how many of them are in the tables, and the backlog between the two. Afterwards:

- whether the backlog stayed flat: how much it grew per minute over the second half of the run;
- freshness: from the server's timestamp of a ping to the commit that made it queryable (p50, p95, worst);
- whether every acknowledged ping is in the lake, once;
- the processor time of each program.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.table import Table

from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.local_lake import LocalLake, RunningFleet, local_lake, running_fleet
from lake_testing.proof_check import wait_for_verdict
from telemetry_lake import columns
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS

PRODUCTION_PEAK_PINGS_PER_SECOND: Final = 732
TABLES: Final = (LIVE_PINGS, LIVE_REJECTED_PINGS)
SAMPLE_SECONDS: Final = 10.0
CATCH_UP_MAX_SECONDS: Final = 600.0
FRESHNESS_TARGET_SECONDS: Final = 60.0
FLAT_SHARE: Final = 0.01
"""The backlog counts as flat while it grows by less than this share of what arrives."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """How many pings there were `at_seconds` after the start of the fleet."""

    at_seconds: float
    acknowledged: int
    rows: int

    @property
    def backlog(self) -> int:
        """The pings that are acknowledged and not yet in a table."""
        return self.acknowledged - self.rows


def main() -> None:
    """Run the command line. Exits with 1 when a ping was lost or doubled."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rate", type=float, default=PRODUCTION_PEAK_PINGS_PER_SECOND, help="pings per second"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to send")
    add_results_option(parser)
    arguments = parser.parse_args()
    peak = arguments.rate == PRODUCTION_PEAK_PINGS_PER_SECOND
    name = "pipeline" if peak else f"pipeline_{arguments.rate:g}"
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    with (
        recording(name, arguments.results, module="pipeline") as recorder,
        tempfile.TemporaryDirectory(prefix="pipeline-") as folder,
        local_lake({}) as lake,
    ):
        say("the stack is up")
        run = Run(lake, Path(folder) / "acknowledged", arguments.rate, arguments.minutes * 60)
        holds = measure(run, recorder, say)
    sys.exit(0 if holds else 1)


@dataclass(frozen=True, slots=True)
class Run:
    """What is measured: a stack, the file for the proof of its fleet, pings per second, and for how long."""

    lake: LocalLake
    proof: Path
    rate: float
    seconds: float


def measure(run: Run, recorder: Recorder, say: Say) -> bool:
    """Let a fleet send, then print and record. Returns whether every ping is in the lake once."""
    lake = run.lake
    before = {program.name: lake.processor_seconds(program.name) for program in lake.plan.programs}
    with running_fleet(lake.url, run.proof, "--rate", f"{run.rate:g}", "--quiet") as fleet:
        samples = _samples(lake, fleet, run.seconds, say)
        processor_seconds = {name: lake.processor_seconds(name) - seconds for name, seconds in before.items()}
        times = psutil.Process(fleet.process.pid).cpu_times()
        processor_seconds["the client fleet"] = times.user + times.system
        fleet.stop()
    verdict = wait_for_verdict(run.proof, lake.settings, deadline_seconds=CATCH_UP_MAX_SECONDS)
    _report_freshness(lake, recorder)
    _report_backlog(samples, run.rate, recorder)
    print(verdict)
    recorder.remark(f"{verdict}.")
    print(f"\nprocessor time in {samples[-1].at_seconds:.0f} s, in cores:")
    for name, seconds in sorted(processor_seconds.items(), key=lambda entry: -entry[1]):
        cores = seconds / samples[-1].at_seconds
        print(f"  {name:24} {cores:5.2f}")
        recorder.add(f"processor time: {name}", cores, "cores")
    return verdict.holds


def _samples(lake: LocalLake, fleet: RunningFleet, seconds: float, say: Say) -> list[Sample]:
    catalog = load_lake_catalog(lake.settings)
    started = time.monotonic()
    samples: list[Sample] = []
    while not samples or samples[-1].at_seconds < seconds:
        time.sleep(min(SAMPLE_SECONDS, max(0.0, seconds - (time.monotonic() - started))))
        rows = sum(rows_of(catalog.load_table(name)) for name in TABLES)
        sample = Sample(time.monotonic() - started, fleet.acknowledged(), rows)
        say(f"{sample.acknowledged:,} acknowledged, {rows:,} in the tables, backlog {sample.backlog:,}")
        samples.append(sample)
    return samples


def rows_of(table: Table) -> int:
    """Return how many rows a table has, by its newest snapshot."""
    snapshot = table.current_snapshot()
    return 0 if snapshot is None or snapshot.summary is None else int(snapshot.summary["total-records"] or 0)


def _report_backlog(samples: list[Sample], rate: float, recorder: Recorder) -> None:
    second_half = samples[len(samples) // 2 :]
    seconds = [sample.at_seconds for sample in second_half]
    backlog = [sample.backlog for sample in second_half]
    growth = float(np.polyfit(seconds, backlog, 1)[0]) if len(second_half) > 1 else 0.0
    acknowledged = samples[-1].acknowledged / samples[-1].at_seconds
    print(
        f"\n{acknowledged:,.0f} pings/s acknowledged; backlog in the second half: median "
        f"{statistics.median(backlog):,.0f} pings, growing by {growth * 60:+,.0f} a minute: "
        + ("flat" if growth < FLAT_SHARE * rate else "NOT flat")
    )
    recorder.add("acknowledged", acknowledged, "pings/s")
    recorder.add("backlog in the second half, median", statistics.median(backlog), "pings")
    recorder.add("growth of the backlog", growth * 60, "pings/minute", at_most=FLAT_SHARE * rate * 60)


def _report_freshness(lake: LocalLake, recorder: Recorder) -> None:
    catalog = load_lake_catalog(lake.settings)
    seconds = np.concatenate([_seconds_to_commit(catalog.load_table(name)) for name in TABLES])
    p50, p95, worst = np.percentile(seconds, [50, 95, 100])
    judgement = "within" if p95 <= FRESHNESS_TARGET_SECONDS else "NOT within"
    print(
        f"freshness: p50 {p50:.1f} s, p95 {p95:.1f} s ({judgement} {FRESHNESS_TARGET_SECONDS:.0f} s), "
        f"worst {worst:.1f} s, of {len(seconds):,} rows"
    )
    recorder.add("freshness, p50", p50, "s")
    recorder.add("freshness, p95", p95, "s", at_most=FRESHNESS_TARGET_SECONDS)
    recorder.add("freshness, worst", worst, "s")


def _seconds_to_commit(table: Table) -> "np.typing.NDArray[np.float64]":
    """Return the seconds from each row's submission to the snapshot that added it: float64, shape (rows,)."""
    ages = [np.empty(0)]
    for snapshot in table.snapshots():
        for manifest in snapshot.manifests(table.io):
            if manifest.added_snapshot_id != snapshot.snapshot_id:
                continue
            for entry in manifest.fetch_manifest_entry(table.io):
                if entry.status is not ManifestEntryStatus.ADDED:
                    continue
                with table.io.new_input(entry.data_file.file_path).open() as file:
                    times = pq.read_table(
                        cast(IO[bytes], file), columns=[columns.SUBMISSION_TIMESTAMP]
                    ).column(0)
                microseconds = times.cast(pa.int64()).to_numpy()
                ages.append(snapshot.timestamp_ms / 1e3 - microseconds / 1e6)
    return np.concatenate(ages)


if __name__ == "__main__":
    main()
