"""How fast the historic archive is copied and proved, beside a job that only reads it.

    python -m benchmarks.backfill

Makes an archive of block-compressed SequenceFiles of 72 KB documents in a folder, a SeaweedFS and a lake of
its own, and runs three Spark jobs over the same units on this machine's cores: one that reads every record
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

from benchmarks.historic_archive import FIRST_DAY, FORMS, HistoricArchive, Totals, write_archive
from benchmarks.realistic_pings import DEFINITIONS, jittered_pings, raw_object_of
from jobs import backfill as job
from jobs.backfill import Backfill
from jobs.spark_session import open_session
from telemetry_lake.backfill.journal import Journal
from telemetry_lake.backfill.on_executors import check_units
from telemetry_lake.backfill.plan import Archive, Selection, Unit
from telemetry_lake.backfill.source import SourceRecord, read_records
from telemetry_lake.catalog import create_tables, load_lake_catalog, staging_area
from telemetry_lake.convert import Converter
from telemetry_lake.convert.stage import stage_raw_objects
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.publish import TABLES_IN_ORDER
from telemetry_lake.raw_object import RawObject
from telemetry_lake.settings import MIB, Settings, SourceSettings
from tests.stack_fixture import DrivenStack

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
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=4_000, help="how many (default 4000)")
    parser.add_argument("--files", type=int, default=8, help="in how many files (default 8)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-backfill-") as scratch:
        directory = Path(scratch)
        stack = DrivenStack(directory / "stack")
        stack.command("start", "--only", "seaweedfs")
        try:
            measure(stack.settings(), directory / "archive", arguments.documents, arguments.files)
        finally:
            stack.command("stop")


def measure(settings: Settings, archive: Path, documents: int, files: int) -> None:
    """Run every job and print the tables."""
    console = Console(width=110)
    create_tables(load_lake_catalog(settings))
    few, _, _ = planned(settings, archive / "few", WARM_UP_DOCUMENTS, WARM_UP_FILES)
    backfill, totals, stored = planned(settings, archive / "all", documents, files)
    settings = backfill.settings
    units = list(backfill.journal.plan(backfill.manifest().dates[0]).units)

    session = open_session(settings, "benchmark", debug=False)
    cores = session.sparkContext.defaultParallelism
    try:
        work = partial(drain_rates, settings, documents // files)
        drain = min(session.sparkContext.parallelize(range(cores), cores).mapPartitions(work).collect())
        assert job.run(session, few, parallel_units=cores) == []
        job.verify(session, few, None)
        seconds = {}
        start = time.perf_counter()
        records = sum(read_all(session, settings, units, cores))
        seconds["read and nothing else"] = time.perf_counter() - start
        assert records == totals.records
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
    finally:
        session.stop()

    table = Table(
        title=f"{totals.records:,} documents, {totals.content_bytes / 1e6:,.0f} MB of JSON, "
        f"{stored / 1e6:,.0f} MB as {FORM}, on {cores} cores"
    )
    for heading in ("job", "documents/s", "JSON MB/s", "documents/s a core"):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    for name, took in seconds.items():
        rate = totals.records / took
        table.add_row(
            name, f"{rate:,.0f}", f"{totals.content_bytes / took / 1e6:,.0f}", f"{rate / cores:,.0f}"
        )
    console.print(table)
    show_shares(console, backfill, totals.records, drain)
    # Counting the duplicates of a few documents is Spark's time to plan it, which does not grow with them.
    checking = seconds["verify, without counting duplicates"]
    show_history(console, totals.content_bytes, cores * seconds["run"], cores * checking)


def planned(settings: Settings, archive: Path, documents: int, files: int) -> tuple[Backfill, Totals, int]:
    """A backfill of an archive that is written there, what is in that, and how many bytes its files have."""
    generated = HistoricArchive(days=1, records_per_day=documents, files_per_day=files, real_every=1)
    totals = write_archive(archive.as_uri(), FORMS[FORM], generated)
    stored = sum(file.stat().st_size for file in archive.rglob("part-*"))
    conversion = settings.conversion.model_copy(update={"histogram_definitions_directory": DEFINITIONS})
    source = SourceSettings(root_url=archive.as_uri())
    of_backfill = settings.backfill.model_copy(update={"source": source})
    settings = settings.model_copy(update={"conversion": conversion, "backfill": of_backfill})
    selection = Selection(archive=Archive.of(source), first=FIRST_DAY, last=FIRST_DAY)
    backfill = Backfill(settings, selection, Journal(ObjectStore(settings.s3), settings.s3.lake_bucket))
    # A file is a unit, and two units are worked on at a time.
    job.plan(backfill, max(MIB, -(-stored // files) + MIB // 4))
    return backfill, totals, stored


def read_all(session: "SparkSession", settings: Settings, units: list[Unit], streams: int) -> Iterator[int]:
    """How many records each process read of these units."""
    work = partial(count_records, settings.backfill.source)
    yield from session.sparkContext.parallelize(units, streams).mapPartitions(work).collect()


def check_all(session: "SparkSession", backfill: Backfill, streams: int) -> int:
    """Compare every record with what was staged of it; how many differ."""
    work = partial(check_units, backfill.settings, backfill.id, FIRST_DAY)
    tallies = list(backfill.read_tallies().values())
    checks = session.sparkContext.parallelize(tallies, streams).mapPartitions(work).collect()
    return sum(check.difference_count for check in checks)


def count_records(source: SourceSettings, units: Iterable[Unit]) -> Iterator[int]:
    """How many records are in each unit."""
    for unit in units:
        found = (read_records(source, part.file.source_file(), part.start, part.end) for part in unit.slices)
        yield sum(isinstance(record, SourceRecord) for records in found for record in records)


def drain_rates(settings: Settings, count: int, seeds: Iterable[int]) -> Iterator[float]:
    """How many pings a second this process converts and stages as the drain does, in its best round."""
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


def show_shares(console: Console, backfill: Backfill, documents: int, drain: float) -> None:
    """Where the time of `run` went, and how its conversion compares with the drain's."""
    spent = dict.fromkeys(("reading", "converting", "writing", "proving"), 0.0)
    for tally in backfill.read_tallies().values():
        for name in spent:
            spent[name] += getattr(tally.seconds, name)
    whole = sum(spent.values())
    for name, seconds in spent.items():
        console.print(f"{name:10} {seconds / whole:>6.0%}  {seconds / documents * 1e6:>6,.0f} µs/document")
    like_drain = documents / (spent["converting"] + spent["writing"])
    console.print(
        f"converting and writing: {like_drain:,.0f} documents/s a core, {like_drain / drain:.0%} of the "
        f"drain's {drain:,.0f} (target: at least {TARGET_SHARE_OF_DRAIN:.0%}); with reading and the digest "
        f"{documents / whole:,.0f}"
    )


def show_history(console: Console, json_bytes: int, run: float, verify: float) -> None:
    """What a day of history takes on clusters of some sizes, by the core seconds that this took."""
    scale = DAY_OF_HISTORY_BYTES / json_bytes
    for nodes in NODES:
        took = (timedelta(seconds=round(seconds * scale / (nodes * NODE_CORES))) for seconds in (run, verify))
        console.print(
            f"1.2 TB of JSON, a day, on {nodes} nodes of {NODE_CORES} cores: run %s, verify %s" % tuple(took)
        )


if __name__ == "__main__":
    main()
