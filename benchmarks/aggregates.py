"""Measure how fast stable.pings is made of live.pings, and derived.histogram_aggregates of that.

    python -m benchmarks.aggregates

Makes a lake in a folder with pings of 72 KB and 302 histograms on one day, two of a client on average, of
three builds, and runs both jobs on them as `jobs/stable_pings.py` and `jobs/histogram_aggregates.py` would,
each in a separate process. Rates are per second of the clock, from the first request to the catalog to the
record of the made date. The start of Spark is a figure of its own, and so is the first round, in which Java
still compiles. CPU seconds are those of all processes together.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from random import Random
from uuid import UUID
from zlib import crc32

import psutil
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.mapreduce import converted_pings, settings_of
from benchmarks.results import Recorder, add_results_option, recording
from jobs.histogram_aggregates import WORKER_IMPORTS, histogram_aggregates
from jobs.spark.made_dates import MadeDate
from jobs.spark_session import open_session
from jobs.stable_pings import stable_pings
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS
from telemetry_lake.units import DateRange

BUILDS = ("20130814063812", "20130815063812", "20130816063812")
PINGS_OF_A_CLIENT = 2
JOBS = ("stable_pings", "histogram_aggregates")
"""In the order in which they need each other."""


def main() -> None:
    """Make the lake, measure, print and record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.aggregates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pings", type=int, default=20_000, help="pings of 72 KB (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="of each job (default 3)")
    parser.add_argument("--lake", type=Path, help="a folder for the lake, which is kept")
    parser.add_argument(
        "--job", choices=JOBS, help="only this job; the second needs a --lake in which the first has run"
    )
    add_results_option(parser)
    arguments = parser.parse_args()
    folder = arguments.lake or Path(tempfile.mkdtemp(prefix="bench-aggregates-"))
    try:
        with recording("aggregates", arguments.results) as recorder:
            settings = settings_of(folder.resolve())
            day = fill(settings, arguments.pings)
            jobs = JOBS if arguments.job is None else (arguments.job,)
            for name in jobs:
                measure_job(name, settings, day, arguments.pings, arguments.rounds, recorder)
    finally:
        if arguments.lake is None:
            shutil.rmtree(folder, ignore_errors=True)


def fill(settings: Settings, pings: int) -> date:
    """Append to live.pings what it does not have yet. Returns the date of the pings."""
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    table = catalog.load_table(LIVE_PINGS)
    present = table.scan().count()
    chance = Random(present)
    for part in converted_pings(pings - present, present):
        table.append(with_clients(part, pings // PINGS_OF_A_CLIENT, chance))
    day = table.scan(limit=1).to_arrow().column("submission_date")[0].as_py()
    assert isinstance(day, date)
    return day


def with_clients(rows: pa.Table, clients: int, chance: Random) -> pa.Table:
    """Return `rows` with the ids of `clients` clients, each of which has one build."""
    ids = [str(UUID(int=chance.randrange(clients), version=4)) for _ in range(rows.num_rows)]
    columns: dict[str, pa.StringArray | pa.Int32Array] = {
        "client_id": pa.array(ids),
        "sample_id": pa.array([crc32(client.encode()) % 100 for client in ids], pa.int32()),
        "app_build_id": pa.array([BUILDS[crc32(client.encode()) % len(BUILDS)] for client in ids]),
    }
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return rows


def measure_job(
    name: str, settings: Settings, day: date, pings: int, rounds: int, recorder: Recorder
) -> None:
    """Run a job `rounds` times, print what it took and record the first and the fastest round."""
    report = Table(title=f"{pings:,} pings of 72 KB")
    for heading in ("job", "round", "seconds", "pings/s", "CPU seconds", "rows"):
        report.add_column(heading, justify="left" if heading == "job" else "right")
    # Java's options are those of a process: a second session in it would have those of the first.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        up, runs = process.submit(run, name, settings, day, rounds).result()
    if not all(rows for _, _, rows in runs):
        raise SystemExit(
            f"{name} made no rows: its source table is empty. Run stable_pings first, with the same --lake."
        )
    report.add_row(name, "Spark is up", f"{up:.1f}")
    for number, (seconds, cpu, rows) in enumerate(runs, start=1):
        times = (f"{seconds:.1f}", f"{pings / seconds:,.0f}", f"{cpu:.1f}")
        report.add_row(name, str(number), *times, f"{rows:,}")
    Console().print(report)
    recorder.add(f"{name}, Spark is up after", up, "s")
    for label, (seconds, cpu, _) in (
        ("first in its session", runs[0]),
        ("fastest later run", min(runs[1:] or runs)),
    ):
        recorder.add(f"{name}, {label}", seconds, "s")
        recorder.add(f"{name}, {label}", pings / seconds, "pings/s")
        recorder.add(f"{name}, {label}", cpu, "CPU seconds")


def run(
    name: str, settings: Settings, day: date, rounds: int
) -> tuple[float, list[tuple[float, float, int]]]:
    """Run a job `rounds` times in one Spark session.

    Returns the seconds until Spark is up; then seconds, CPU seconds and rows of each round.
    """
    started = time.monotonic()
    summing = name == "histogram_aggregates"
    worker_imports = WORKER_IMPORTS if summing else ()
    session = open_session(settings, "benchmark", short=summing, worker_imports=worker_imports)
    up = time.monotonic() - started
    dates = DateRange(day, day)
    jobs: dict[str, Callable[[], Iterable[MadeDate]]] = {
        "stable_pings": lambda: stable_pings(session, dates, again=True),
        "histogram_aggregates": lambda: histogram_aggregates(session, settings, dates, again=True),
    }
    runs = []
    try:
        for _ in range(rounds):
            before, began = cpu_seconds(), time.monotonic()
            (made_date,) = jobs[name]()
            runs.append((time.monotonic() - began, cpu_seconds() - before, made_date.rows))
    finally:
        session.stop()
    return up, runs


def cpu_seconds() -> float:
    """Return the processor seconds that this process and its descendants have used."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    main()
