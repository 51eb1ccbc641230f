"""Measure how long analysts wait: the queries of sql/examples/, the analysis module, map-reduce scripts.

    python -m benchmarks.analysis

Makes a lake in a folder: a catalog in a file, and `stable.pings` with a week of pings of the client fleet,
most of them Firefox's main pings of 72 KB. Then asks each question on this machine several times and keeps
the quickest: seconds from the question to the whole answer. The start of Spark is not counted. `--lake
FOLDER` keeps the lake, and uses it again on the same day.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.mapreduce import settings_of
from benchmarks.results import Recorder, add_results_option, recording
from client_fleet.pings import Ping, Pings, Shares
from jobs.mapreduce import Run, run_script
from jobs.spark_session import open_session
from lake_testing.realistic_pings import raw_object_of
from telemetry_lake.analysis import pings, sum_histograms
from telemetry_lake.convert.converter import Converter
from telemetry_lake.mapreduce.form import Table as PingTable
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.script.script import load_script
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.query.lake import Lake, open_lake
from telemetry_lake.raw.raw_object import RawObject, RawPing
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import SQL_DIRECTORY, STABLE_PINGS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DAYS = 7
CLIENTS = 2_000
PINGS_PER_RAW_OBJECT = 500
HISTOGRAM = "GC_OPEN_MS"
"""A histogram that the fleet sends."""
SCRIPTS = ("os_distribution", "os_column", "dimensions_only", "slow_sql")
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
WEEK = f"{(TODAY - timedelta(days=DAYS - 1)).date()}..{TODAY.date()}"

Question = Callable[[], int]
"""Asks, and returns how many rows the answer has."""


def main() -> None:
    """Make the lake, measure, print and record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analysis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pings", type=int, default=14_000, help="pings of the week (default 14000)")
    parser.add_argument("--rounds", type=int, default=3, help="of each question (default 3)")
    parser.add_argument("--lake", type=Path, help="a folder for the lake, which is kept")
    add_results_option(parser)
    arguments = parser.parse_args()
    folder = arguments.lake or Path(tempfile.mkdtemp(prefix="bench-analysis-"))
    try:
        with recording("analysis", arguments.results) as recorder:
            settings = settings_of(folder.resolve())
            rows = fill(settings, arguments.pings)
            measure(settings, folder, rows, arguments.rounds, recorder)
    finally:
        if arguments.lake is None:
            shutil.rmtree(folder, ignore_errors=True)


def fill(settings: Settings, count: int) -> int:
    """Append the week's pings unless the table has them. Returns the number of its rows."""
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    table = catalog.load_table(STABLE_PINGS)
    if not table.scan().count():
        start = time.monotonic()
        fleet = Pings(seed=11, clients_count=CLIENTS, shares=Shares(), clock=lambda: TODAY)
        for days_ago in range(DAYS):
            table.append(rows_of_day(fleet, TODAY - timedelta(days=days_ago), count // DAYS))
            Console(stderr=True).print(f"made day {days_ago + 1} of {DAYS}, {time.monotonic() - start:.0f} s")
    return table.scan().count()


def rows_of_day(fleet: Pings, day: datetime, count: int) -> pa.Table:
    """Return `count` pings of the fleet as rows, received on `day`, in the table's sort order."""
    converter = Converter(Settings().conversion)
    parts = []
    for first in range(0, count, PINGS_PER_RAW_OBJECT):
        received = [
            as_received(next(fleet), day + timedelta(seconds=number))
            for number in range(first, min(first + PINGS_PER_RAW_OBJECT, count))
        ]
        key = f"raw/v1/{day:%Y-%m-%d}/00/benchmark/{first}.arrows"
        conversions = converter.convert(RawObject(key, raw_object_of(received)))
        parts += [conversion.pings for conversion in conversions]
    order = ("app_update_channel", "app_build_id", "sample_id")
    return pa.concat_tables(parts).sort_by([(name, "ascending") for name in order])


def as_received(ping: Ping, when: datetime) -> RawPing:
    """Return a ping of the fleet as an ingest node stores it."""
    path, _, query = ping.target.partition("?")
    return RawPing(
        when,
        "POST",
        path.encode(),
        query.encode(),
        "HTTP/1.1",
        "192.0.2.7",
        b"incoming.example",
        (),
        ping.body(),
    )


def measure(settings: Settings, folder: Path, rows: int, rounds: int, recorder: Recorder) -> None:
    """Ask everything, print the table and record it."""
    recorder.remark(f"{rows:,} pings of {DAYS} days.")
    table = Table(title=f"{rows:,} pings of {DAYS} days; {os.cpu_count()} cores")
    for heading in ("", "seconds", "rows of the answer"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, ask in questions(settings, folder):
        best, answered = float("inf"), 0
        for _ in range(rounds):
            start = time.monotonic()
            answered = ask()
            best = min(best, time.monotonic() - start)
        table.add_row(name, f"{best:.2f}", f"{answered:,}")
        recorder.add(name, best, "s")
    Console().print(table)


def questions(settings: Settings, folder: Path) -> Iterator[tuple[str, Question]]:
    """Yield every question with its name: SQL, then the analysis module, then map-reduce."""
    with open_lake(settings) as lake:
        for file in sorted(SQL_DIRECTORY.glob("examples/*.sql")):
            sql = file.read_text().replace("GC_MS", HISTOGRAM)
            if f"FROM {STABLE_PINGS}" in sql:
                yield f"SQL: {file.stem}", partial(ask_sql, lake, sql)
    start = time.monotonic()
    spark = open_session(settings, "benchmark of analysis")
    Console(stderr=True).print(f"Spark was up after {time.monotonic() - start:.1f} s, which is not counted")
    try:
        for days, dates in (("a day", str(TODAY.date())), ("a week", WEEK)):
            chosen = pings(spark, document_type="main", dates=dates)
            yield f"analysis: count of {days}", chosen.count
            yield f"analysis: one histogram of {days} by channel", partial(ask_histogram, chosen)
        for name in SCRIPTS:
            run = Run(
                load_script(PROJECT_ROOT / "jobs" / "examples" / f"{name}.py"),
                PingTable.STABLE,
                RowFilter(),
                str(folder / "output"),
                OutputFormat.TEXT,
                num_reducers=None,
                max_failures=0,
            )
            yield f"map-reduce: {name}", partial(ask_script, spark, settings, run)
    finally:
        spark.stop()


def ask_sql(lake: Lake, sql: str) -> int:
    """Return the number of rows that a query answers."""
    return len(lake.query(sql).fetchall())


def ask_histogram(chosen: "DataFrame") -> int:
    """Return the number of sums of one histogram, by channel, process and key."""
    return len(sum_histograms(chosen, HISTOGRAM, by=["normalized_channel"]))


def ask_script(spark: "SparkSession", settings: Settings, run: Run) -> int:
    """Return the number of records that a script writes."""
    return run_script(spark, settings, run).written


if __name__ == "__main__":
    main()
