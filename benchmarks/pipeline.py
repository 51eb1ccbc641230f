"""`python -m benchmarks.pipeline`: the whole local stack under a fleet that sends what production once got.

732 pings per second is what the peak hour of Firefox telemetry in 2014 came to. Printed while it runs: how
many pings are acknowledged, how many of them are in the tables, and the backlog between the two. Afterwards:

- whether the backlog stayed flat: how much it grew per minute over the second half of the run;
- freshness: from the server's timestamp of a ping to the commit that made it queryable (p50, p95, worst);
- whether every acknowledged ping is in the lake, once;
- where the processor time went, by program.
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

from benchmarks.local_lake import LocalLake, RunningFleet, local_lake, running_fleet
from benchmarks.proof_check import wait_for_verdict
from telemetry_lake import columns
from telemetry_lake.catalog import load_lake_catalog
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS

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
    """The pings at one moment, `at_seconds` after the start of the fleet."""

    at_seconds: float
    acknowledged: int
    rows: int

    @property
    def backlog(self) -> int:
        """Acknowledged, and not yet in a table."""
        return self.acknowledged - self.rows


def main() -> None:
    """Run the command line; exits with 1 when a ping was lost or doubled."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rate", type=float, default=PRODUCTION_PEAK_PINGS_PER_SECOND, help="pings per second"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to send")
    given = parser.parse_args()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder, local_lake({}) as lake:
        say("the stack is up")
        sys.exit(
            measure(lake, Path(folder) / "acknowledged", rate=given.rate, minutes=given.minutes, say=say)
        )


def measure(lake: LocalLake, proof: Path, *, rate: float, minutes: float, say: Say) -> int:
    """Send for `minutes` at `rate` pings per second, print what was measured; the exit status."""
    before = {program.name: lake.processor_seconds(program.name) for program in lake.plan.programs}
    with running_fleet(lake.url, proof, "--rate", f"{rate:g}", "--quiet") as fleet:
        samples = _samples(lake, fleet, minutes * 60, say)
        spent = {name: lake.processor_seconds(name) - seconds for name, seconds in before.items()}
        times = psutil.Process(fleet.process.pid).cpu_times()
        spent["the client fleet"] = times.user + times.system
        fleet.stop()
    verdict = wait_for_verdict(proof, lake.settings, deadline_seconds=CATCH_UP_MAX_SECONDS)
    _print_backlog(samples, rate)
    _print_freshness(lake)
    print(verdict)
    print(f"\nprocessor time in {samples[-1].at_seconds:.0f} s, in cores:")
    for name, seconds in sorted(spent.items(), key=lambda entry: -entry[1]):
        print(f"  {name:24} {seconds / samples[-1].at_seconds:5.2f}")
    return 0 if verdict.holds else 1


def _samples(lake: LocalLake, fleet: RunningFleet, seconds: float, say: Say) -> list[Sample]:
    catalog = load_lake_catalog(lake.settings)
    started = time.monotonic()
    samples: list[Sample] = []
    while not samples or samples[-1].at_seconds < seconds:
        time.sleep(min(SAMPLE_SECONDS, max(0.0, seconds - (time.monotonic() - started))))
        rows = sum(_rows(catalog.load_table(name)) for name in TABLES)
        sample = Sample(time.monotonic() - started, fleet.acknowledged(), rows)
        say(f"{sample.acknowledged:,} acknowledged, {rows:,} in the tables, backlog {sample.backlog:,}")
        samples.append(sample)
    return samples


def _rows(table: Table) -> int:
    snapshot = table.current_snapshot()
    return 0 if snapshot is None or snapshot.summary is None else int(snapshot.summary["total-records"] or 0)


def _print_backlog(samples: list[Sample], rate: float) -> None:
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


def _print_freshness(lake: LocalLake) -> None:
    catalog = load_lake_catalog(lake.settings)
    seconds = np.concatenate([_seconds_to_commit(catalog.load_table(name)) for name in TABLES])
    p50, p95, worst = np.percentile(seconds, [50, 95, 100])
    judgement = "within" if p95 <= FRESHNESS_TARGET_SECONDS else "NOT within"
    print(
        f"freshness: p50 {p50:.1f} s, p95 {p95:.1f} s ({judgement} {FRESHNESS_TARGET_SECONDS:.0f} s), "
        f"worst {worst:.1f} s, of {len(seconds):,} rows"
    )


def _seconds_to_commit(table: Table) -> "np.typing.NDArray[np.float64]":
    """For every row of `table`, from its submission timestamp to the snapshot that brought it."""
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
