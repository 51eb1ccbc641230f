"""Measure how fast map-reduce scripts run over a table, and DataFrames that answer the same questions.

    python -m benchmarks.mapreduce

Makes a lake in a folder: a catalog in a file, `stable.pings` with pings of 72 KB on one day and rows of
dimensions on others. Then runs each script on this machine as `jobs/mapreduce.py` would. Rates are per
second of the clock, from the plan to the finished output, best of the rounds; the start of Spark is a
figure of its own. The map side alone is processor time, which other work on the machine hardly changes.
`--lake FOLDER` keeps the lake, and uses it again.
"""

import argparse
import os
import pickle
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.results import Recorder, add_results_option, recording
from jobs.mapreduce import WORKER_IMPORTS, Run, run_script
from jobs.spark_session import open_session
from lake_testing.realistic_pings import DEFINITIONS, FIRST_SUBMISSION, jittered_pings, raw_object_of
from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.convert.converter import Converter
from telemetry_lake.mapreduce.form import Table as PingTable
from telemetry_lake.mapreduce.map_phase import MapTask, columns_read, map_unit
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.reading.units import plan_units
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.script.script import load_script
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.settings import CatalogSettings, ConversionSettings, Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import table_definition
from telemetry_lake.tables.expressions import equal_to
from telemetry_lake.tables.files import READ_ONLY_FILE_IO

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STABLE_PINGS = "stable.pings"
DOCUMENTS_DATE = FIRST_SUBMISSION.date()
DIMENSIONS_DATE = date(2026, 10, 1)
DIMENSIONS_PER_DAY = 1_000_000
PINGS_PER_APPEND = 1_000
DOCUMENTS_TARGET = 10_000
DIMENSIONS_TARGET = 1_000_000
MAP_SIDE_UNITS = 3
COUNTING = """
    def reduce(key, values, context):
        context.write(key, sum(values))

    combine = reduce
"""
SCRIPTS = {
    "OS distribution, json.loads(value)": """
        import json
        def map(key, dimensions, value, context):
            context.write(json.loads(value)["info"]["OS"], 1)
    """,
    "one histogram of json.loads(value)": """
        import json
        def map(key, dimensions, value, context):
            context.write(dimensions[2], sum(json.loads(value)["histograms"]["CYCLE_COLLECTOR"][:-5]))
    """,
    "value as text": """
        def map(key, dimensions, value, context):
            context.write(dimensions[2], len(value))
    """,
    "OS distribution, fields": """
        fields = ("os",)
        def map(key, dimensions, value, context):
            context.write(value["os"], 1)
    """,
    "dimensions only": """
        def map(key, dimensions, value, context):
            context.write((dimensions[1], dimensions[2]), 1)
    """,
}


def main() -> None:
    """Make the lake, measure, print and record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mapreduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pings", type=int, default=20_000, help="pings of 72 KB (default 20000)")
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of dimensions (default 5000000)")
    parser.add_argument("--rounds", type=int, default=2, help="of each measurement (default 2)")
    parser.add_argument("--lake", type=Path, help="a folder for the lake, which is kept")
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    add_results_option(parser)
    arguments = parser.parse_args()
    folder = arguments.lake or Path(tempfile.mkdtemp(prefix="bench-mapreduce-"))
    try:
        with recording("mapreduce", arguments.results) as recorder:
            settings = settings_of(folder.resolve())
            fill(settings, arguments.pings, arguments.rows)
            measure(settings, folder, arguments.rounds, arguments.only, recorder)
    finally:
        if arguments.lake is None:
            shutil.rmtree(folder, ignore_errors=True)


def settings_of(folder: Path) -> Settings:
    """Return the settings of a lake in `folder`: files, and a catalog in an SQLite file."""
    folder.mkdir(parents=True, exist_ok=True)
    warehouse = (folder / "warehouse").as_uri()
    catalog = CatalogSettings(
        name="benchmark",
        properties={"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": warehouse},
        spark_properties={
            "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
            "uri": f"jdbc:sqlite:file:{folder}/catalog.db",
            "warehouse": warehouse,
        },
    )
    return Settings(catalog=catalog)


def fill(settings: Settings, pings: int, rows: int) -> None:
    """Append what the table does not have yet."""
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    table = catalog.load_table(STABLE_PINGS)
    start = time.monotonic()
    documents = table.scan(equal_to(SUBMISSION_DATE, DOCUMENTS_DATE.isoformat())).count()
    dimensions = table.scan().count() - documents
    for part in converted_pings(pings - documents, documents):
        table.append(part)
        show(f"made {part.num_rows:,} pings of 72 KB after {time.monotonic() - start:.0f} s")
    while dimensions < rows:
        part = rows_of_dimensions(min(DIMENSIONS_PER_DAY, rows - dimensions), dimensions)
        table.append(part)
        dimensions += part.num_rows
        show(f"made {dimensions:,} rows of dimensions after {time.monotonic() - start:.0f} s")


def converted_pings(count: int, seed: int) -> Iterator[pa.Table]:
    """Convert `count` jittered pings. Yields them as tables of rows, each in the sort order of the table."""
    converter = Converter(ConversionSettings(histogram_definitions_directory=DEFINITIONS))
    for first in range(0, count, PINGS_PER_APPEND):
        pings = [ping for ping, _ in jittered_pings(min(PINGS_PER_APPEND, count - first), seed + first)]
        raw = RawObject("raw/v1/2026-11-23/14/benchmark/0.arrows", raw_object_of(pings))
        rows = pa.concat_tables([conversion.pings for conversion in converter.convert(raw)])
        yield rows.sort_by([("app_update_channel", "ascending"), ("app_build_id", "ascending")])


def rows_of_dimensions(count: int, seed: int) -> pa.Table:
    """Return `count` rows of a day with plausible dimensions and empty documents."""
    chance = np.random.default_rng(seed)
    versions = [f"{number}.0" for number in range(100, 146)]
    builds = [f"2026{month:02}{day:02}120000" for month in range(1, 10) for day in range(1, 29)]
    day = DIMENSIONS_DATE + timedelta(days=seed // DIMENSIONS_PER_DAY)
    ids = chance.integers(0, 256, (count, 16), dtype=np.uint8).tobytes().hex()
    texts = {
        "document_id": [_uuid(ids[place : place + 32]) for place in range(0, len(ids), 32)],
        "namespace": "telemetry",
        "document_type": "main",
        "document_version": "4",
        "reason": ["shutdown", "daily", "environment-change"],
        "app_name": ["Firefox", "Fennec"],
        "app_update_channel": ["release", "beta", "nightly", "esr"],
        "app_version": versions,
        "app_build_id": builds,
        "normalized_channel": "release",
        "normalized_os": ["Windows", "Linux", "Mac"],
        "country": ["DE", "FR", "US", "??"],
        "document": "{}",
        "lifted": "{}",
        "raw_object": "raw/v1/2026-10-01/00/benchmark/0.arrows",
    }
    when = datetime(day.year, day.month, day.day, tzinfo=UTC)
    arrays = []
    schema = table_definition(STABLE_PINGS).arrow_schema()
    for field in schema:
        value: Any = texts.get(field.name)
        if isinstance(value, list) and len(value) == count:
            arrays.append(pa.array(value, field.type))
        elif isinstance(value, list):
            codes = chance.integers(0, len(value), count, dtype=np.int32)
            arrays.append(pa.DictionaryArray.from_arrays(codes, pa.array(value)).cast(field.type))
        elif field.name == "sample_id":
            arrays.append(pa.array(chance.integers(0, 100, count, dtype=np.int32)))
        else:
            plain = {"submission_timestamp": when, "submission_date": day}.get(field.name, value)
            arrays.append(pa.repeat(pa.scalar(plain or _empty_value(field), field.type), count))
    rows = pa.table(arrays, schema=schema)
    order = ("app_update_channel", "app_build_id", "sample_id")
    return rows.sort_by([(name, "ascending") for name in order])


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _empty_value(field: "pa.Field[Any]") -> Any:
    if field.nullable:
        return None
    if pa.types.is_struct(field.type):
        return {part.name: "" for part in field.type}
    return [] if pa.types.is_nested(field.type) else 0


@dataclass(frozen=True, slots=True)
class Question:
    """One row of the table."""

    name: str
    ask: Callable[[], int]
    """Answers the question with Spark, and returns how many pings were read."""
    target: int | None = None
    """In pings a second."""
    run: Run | None = None
    """The run, when a script answers."""


def measure(settings: Settings, folder: Path, rounds: int, only: str, recorder: Recorder) -> None:
    """Run everything, print the table and record it."""
    start = time.monotonic()
    session = open_session(settings, "benchmark of mapreduce", short=True, worker_imports=WORKER_IMPORTS)
    up = time.monotonic() - start
    recorder.add("Spark is up after", up, "s")
    table = Table(title=f"{os.cpu_count()} cores; Spark was up after {up:.1f} s, which is not counted")
    for heading in ("", "pings", "seconds", "pings/s", "target", "map side, µs of a core/ping"):
        table.add_column(heading, justify="right" if heading else "left")
    try:
        for question in questions(settings, session, folder):
            if only not in question.name:
                continue
            best, pings = float("inf"), 0
            for _ in range(rounds):
                start = time.monotonic()
                pings = question.ask()
                best = min(best, time.monotonic() - start)
            on_map_side = map_side(settings, question.run) if question.run else None
            table.add_row(
                question.name,
                f"{pings:,}",
                f"{best:.2f}",
                f"{pings / best:,.0f}",
                f"{question.target:,}" if question.target else "",
                "" if on_map_side is None else f"{on_map_side:,.2f}",
            )
            recorder.add(question.name, pings / best, "pings/s", at_least=question.target)
            if on_map_side is not None:
                recorder.add(question.name, on_map_side, "µs/ping", measure="map side, one core")
            show(f"{question.name}: {pings / best:,.0f} pings/s")
    finally:
        session.stop()
    Console(width=130).print(table)


def map_side(settings: Settings, run: Run) -> float:
    """Run the map side alone in this process, over a few units. Returns its processor time in µs per ping."""
    table = load_lake_catalog(settings, file_io=READ_ONLY_FILE_IO).load_table(STABLE_PINGS)
    plan = plan_units(table, run.row_filter)
    read = columns_read(run.script, table_definition(STABLE_PINGS), run.row_filter)
    units = plan.units[:MAP_SIDE_UNITS]
    task = MapTask(
        run.script.source, units, read, run.row_filter, dict(table.io.properties), None, run.max_failures
    )
    used: list[float] = []
    for _ in range(2):
        start = time.process_time()
        summaries = [
            pickle.loads(batch.column("summary")[0].as_py())
            for number in range(len(units))
            for batch in map_unit(task, number)
            if not batch.column("summary").null_count
        ]
        used.append((time.process_time() - start) / sum(summary.records for summary in summaries))
    return min(used) * 1e6


def questions(settings: Settings, session: "SparkSession", folder: Path) -> Iterator[Question]:
    """Yield what is measured: each script, then the same questions to a DataFrame."""
    documents = RowFilter(first_date=DOCUMENTS_DATE, last_date=DOCUMENTS_DATE)
    dimensions = RowFilter(last_date=DOCUMENTS_DATE - timedelta(days=1))
    for number, (name, text) in enumerate(SCRIPTS.items()):
        file = folder / f"script_{number}.py"
        file.write_text(textwrap.dedent(text) + textwrap.dedent(COUNTING))
        rows, target = documents, DOCUMENTS_TARGET if "json" in name else None
        if name == "dimensions only":
            rows, target = dimensions, DIMENSIONS_TARGET
        output = str(folder / "output")
        run = Run(load_script(file), PingTable.STABLE, rows, output, OutputFormat.TEXT, None, 0)

        def ask(run: Run = run) -> int:
            return run_script(session, settings, run).records

        yield Question(name, ask, target, run)

    def by_os() -> int:
        pings_of_day = session.table(STABLE_PINGS).where(f"submission_date = '{DOCUMENTS_DATE}'")
        return sum(row["count"] for row in pings_of_day.groupBy("os").count().collect())

    def by_dimensions() -> int:
        before = session.table(STABLE_PINGS).where(f"submission_date < '{DOCUMENTS_DATE}'")
        counts = before.groupBy("app_name", "app_update_channel").count()
        return sum(row["count"] for row in counts.collect())

    yield Question("OS distribution, DataFrame", by_os)
    yield Question("dimensions only, DataFrame", by_dimensions)


def show(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
