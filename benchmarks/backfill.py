"""Measure how fast the historic archive is copied and proved, beside a job that only reads it.

    python -m benchmarks.backfill

Makes an archive of block-compressed SequenceFiles of 72 KB documents in a folder, starts a SeaweedFS, makes
a lake, and runs three Spark jobs over the same units on this machine's cores: one that reads every record
and does nothing, `jobs.backfill run`, and `jobs.backfill verify`. Rates are by the clock, without the start
of Spark: a few documents go the whole way before. The drain's rate is that of converting and staging such
documents, as gzip bodies of a raw object, in as many processes at the same time and into the same S3.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.results import Recorder, add_results_option, recording
from jobs.spark import backfill_steps as job
from jobs.spark_session import open_session
from lake_testing.historic_archive import FIRST_DAY, FORMS, HistoricArchive, Totals, write_archive
from lake_testing.realistic_pings import DEFINITIONS, jittered_pings, raw_object_of
from lake_testing.stack import DrivenStack
from telemetry_lake.backfill.archive.source import SourceRecord, read_records
from telemetry_lake.backfill.backfill import Backfill, plan_backfill
from telemetry_lake.backfill.journal import Journal
from telemetry_lake.backfill.plan import Archive, Selection, Unit
from telemetry_lake.backfill.units.worker_entry import check_units
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.parquet_writer import stage_raw_objects
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.settings import Settings, SourceSettings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog, staging_area
from telemetry_lake.tables.commits import TABLES_IN_ORDER
from telemetry_lake.units import MIB

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FORM = "sequence-text-block-default"
RAW_KEY = "raw/v1/2026-11-23/14/benchmark/0.arrows"
ROUNDS = 3
WARM_UP_DOCUMENTS = 40
WARM_UP_FILES = 2
DAY_OF_HISTORY_BYTES = 1.2e12
NODE_CORES = 16
NODES = (5, 20, 50)
TARGET_SHARE_OF_DRAIN = 0.9


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backfill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--documents", type=int, default=4_000, help="how many (default 4000)")
    parser.add_argument("--files", type=int, default=8, help="in how many files (default 8)")
    add_results_option(parser)
    arguments = parser.parse_args()
    with (
        recording("backfill", arguments.results) as recorder,
        tempfile.TemporaryDirectory(prefix="bench-backfill-") as scratch,
    ):
        directory = Path(scratch)
        stack = DrivenStack(directory / "stack")
        stack.command("start", "--only", "seaweedfs")
        try:
            measure(stack.settings(), directory / "archive", arguments.documents, arguments.files, recorder)
        finally:
            stack.command("stop")


def measure(settings: Settings, archive: Path, documents: int, files: int, recorder: Recorder) -> None:
    """Run every job, print the tables and record them."""
    console = Console(width=110)
    create_tables(load_lake_catalog(settings))
    warm_up, _, _ = planned(settings, archive / "few", WARM_UP_DOCUMENTS, WARM_UP_FILES)
    backfill, totals, stored = planned(settings, archive / "all", documents, files)
    session = open_session(backfill.settings, "benchmark", debug=False)
    cores = session.sparkContext.defaultParallelism
    try:
        work = partial(drain_rates, backfill.settings, documents // files)
        drain = min(session.sparkContext.parallelize(range(cores), cores).mapPartitions(work).collect())
        assert job.run(session, warm_up, parallel_units=cores) == []
        job.verify(session, warm_up, None)
        seconds = job_seconds(session, backfill, totals.records)
    finally:
        session.stop()

    title = (
        f"{totals.records:,} documents, {totals.content_bytes / 1e6:,.0f} MB of JSON, "
        f"{stored / 1e6:,.0f} MB as {FORM}, on {cores} cores"
    )
    recorder.remark(f"{title}.")
    table = Table(title=title)
    for heading in ("job", "documents/s", "JSON MB/s", "documents/s a core"):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    for name, duration in seconds.items():
        rate, megabytes = totals.records / duration, totals.content_bytes / duration / 1e6
        table.add_row(name, f"{rate:,.0f}", f"{megabytes:,.0f}", f"{rate / cores:,.0f}")
        recorder.add(name, rate, "documents/s")
        recorder.add(name, megabytes, "JSON MB/s")
    console.print(table)
    report_shares(console, backfill, totals.records, drain, recorder)
    # Counting the duplicates of a few documents is Spark's time to plan it, which does not grow with them.
    checking = seconds["verify, without counting duplicates"]
    report_history(console, totals.content_bytes, cores * seconds["run"], cores * checking, recorder)


def job_seconds(session: "SparkSession", backfill: Backfill, records: int) -> dict[str, float]:
    """Run every job over the `records` records of the backfill. Returns the seconds of each, by name."""
    cores = session.sparkContext.defaultParallelism
    units = list(backfill.journal.plan(backfill.manifest().dates[0]).units)
    seconds = {}
    start = time.perf_counter()
    read = sum(read_all(session, backfill.settings, units, cores))
    seconds["read and nothing else"] = time.perf_counter() - start
    assert read == records
    start = time.perf_counter()
    assert job.run(session, backfill, parallel_units=cores) == []
    seconds["run"] = time.perf_counter() - start
    start = time.perf_counter()
    (report,) = job.verify(session, backfill, None)
    seconds["verify"] = time.perf_counter() - start
    assert report.unexplained == ()
    start = time.perf_counter()
    assert check_all(session, backfill, cores) == 0
    seconds["verify, without counting duplicates"] = time.perf_counter() - start
    return seconds


def planned(settings: Settings, archive: Path, documents: int, files: int) -> tuple[Backfill, Totals, int]:
    """Write an archive and plan its backfill. Returns the backfill, the totals and the bytes of the files."""
    generated = HistoricArchive(days=1, records_per_day=documents, files_per_day=files, real_every=1)
    totals = write_archive(archive.as_uri(), FORMS[FORM], generated)
    stored = sum(file.stat().st_size for file in archive.rglob("part-*"))
    conversion = settings.conversion.model_copy(update={"histogram_definitions_directory": DEFINITIONS})
    source = SourceSettings(root_url=archive.as_uri())
    backfill_settings = settings.backfill.model_copy(update={"source": source})
    settings = settings.model_copy(update={"conversion": conversion, "backfill": backfill_settings})
    selection = Selection(archive=Archive.of(source), first=FIRST_DAY, last=FIRST_DAY)
    backfill = Backfill(settings, selection, Journal(ObjectStore(settings.s3), settings.s3.lake_bucket))
    # A file is a unit.
    plan_backfill(backfill, max(MIB, -(-stored // files) + MIB // 4))
    return backfill, totals, stored


def read_all(session: "SparkSession", settings: Settings, units: list[Unit], streams: int) -> Iterator[int]:
    """Read every record of the units. Yields how many records each unit has."""
    work = partial(count_records, settings.backfill.source)
    yield from session.sparkContext.parallelize(units, streams).mapPartitions(work).collect()


def check_all(session: "SparkSession", backfill: Backfill, streams: int) -> int:
    """Compare every record with its staged row. Returns how many differ."""
    work = partial(check_units, backfill.settings, backfill.id, FIRST_DAY)
    tallies = list(backfill.read_tallies().values())
    checks = session.sparkContext.parallelize(tallies, streams).mapPartitions(work).collect()
    return sum(check.difference_count for check in checks)


def count_records(source: SourceSettings, units: Iterable[Unit]) -> Iterator[int]:
    """Yield how many records are in each unit."""
    for unit in units:
        readings = (
            read_records(source, part.file.source_file(), part.start, part.end) for part in unit.slices
        )
        yield sum(isinstance(record, SourceRecord) for records in readings for record in records)


def drain_rates(settings: Settings, count: int, seeds: Iterable[int]) -> Iterator[float]:
    """Yield how many pings a second this process converts and stages as the drain does, in its best round."""
    converter = Converter(settings.conversion)
    catalog = load_lake_catalog(settings)
    tables = {name: catalog.load_table(name) for name in TABLES_IN_ORDER}
    for seed in seeds:
        raw = RawObject(RAW_KEY, raw_object_of([ping for ping, _ in jittered_pings(count, seed)]))
        rates = []
        for _ in range(ROUNDS):
            areas = {name: staging_area(table, os.urandom(16).hex()) for name, table in tables.items()}
            start = time.perf_counter()
            stage_raw_objects(converter, [raw], areas)
            rates.append(count / (time.perf_counter() - start))
        yield max(rates)


def report_shares(
    console: Console, backfill: Backfill, documents: int, drain: float, recorder: Recorder
) -> None:
    """Report the parts of the time of `run`, and its conversion beside the drain's."""
    parts = dict.fromkeys(("reading", "converting", "writing", "proving"), 0.0)
    for tally in backfill.read_tallies().values():
        for name in parts:
            parts[name] += getattr(tally.seconds, name)
    whole = sum(parts.values())
    for name, seconds in parts.items():
        share, microseconds = seconds / whole, seconds / documents * 1e6
        console.print(f"{name:10} {share:>6.0%}  {microseconds:>6,.0f} µs/document")
        recorder.add(f"{name} in run", 100 * share, "%")
        recorder.add(f"{name} in run", microseconds, "µs/document")
    like_drain = documents / (parts["converting"] + parts["writing"])
    console.print(
        f"converting and writing: {like_drain:,.0f} documents/s a core, {like_drain / drain:.0%} of the "
        f"drain's {drain:,.0f} (target: at least {TARGET_SHARE_OF_DRAIN:.0%}); with reading and the digest "
        f"{documents / whole:,.0f}"
    )
    recorder.add(
        "converting and writing, of the drain's rate",
        100 * like_drain / drain,
        "%",
        at_least=100 * TARGET_SHARE_OF_DRAIN,
    )


def report_history(console: Console, json_bytes: int, run: float, verify: float, recorder: Recorder) -> None:
    """Report what a day of history takes on clusters of some sizes, from the core seconds of this run."""
    scale = DAY_OF_HISTORY_BYTES / json_bytes
    for nodes in NODES:
        cores = nodes * NODE_CORES
        run_seconds, verify_seconds = run * scale / cores, verify * scale / cores
        name = f"a day of 1.2 TB of JSON on {nodes} nodes of {NODE_CORES} cores"
        run_time, verify_time = (
            timedelta(seconds=round(run_seconds)),
            timedelta(seconds=round(verify_seconds)),
        )
        console.print(f"{name}: run {run_time}, verify {verify_time}")
        recorder.add(name, run_seconds / 60, "minutes", measure="run")
        recorder.add(name, verify_seconds / 60, "minutes", measure="verify")


if __name__ == "__main__":
    main()
