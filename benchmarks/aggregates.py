"""How fast stable.pings is made of live.pings, and derived.histogram_aggregates of that.

    python -m benchmarks.aggregates

Makes a lake of its own in a folder with pings of 72 KB and 302 histograms on one day, two of a client on
average, of three builds, and runs both jobs on them as `jobs/stable_pings.py` and
`jobs/histogram_aggregates.py` would, each in a process of its own. Rates are per second of the clock, from
the first question to the catalog to the record of the made date; the start of Spark is told apart, and the
first round, in which Java still compiles, too. CPU seconds are those of all processes together.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
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
from jobs.date_range import DateRange
from jobs.histogram_aggregates import WORKER_IMPORTS, histogram_aggregates
from jobs.made_dates import MadeDate
from jobs.spark_session import open_session
from jobs.stable_pings import stable_pings
from telemetry_lake.catalog import create_tables, load_lake_catalog
from telemetry_lake.settings import Settings
from telemetry_lake.tables import LIVE_PINGS

BUILDS = ("20130814063812", "20130815063812", "20130816063812")
PINGS_OF_A_CLIENT = 2
JOBS = ("stable_pings", "histogram_aggregates")
"""In the order that they need each other."""


def main() -> None:
    """Make the lake, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pings", type=int, default=20_000, help="pings of 72 KB (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="of each job (default 3)")
    parser.add_argument("--lake", type=Path, help="a folder for the lake, which is kept")
    parser.add_argument(
        "--job", choices=JOBS, help="only this job; the second needs a --lake in which the first has run"
    )
    arguments = parser.parse_args()
    folder = arguments.lake or Path(tempfile.mkdtemp(prefix="bench-aggregates-"))
    try:
        settings = settings_of(folder.resolve())
        day = fill(settings, arguments.pings)
        jobs = JOBS if arguments.job is None else (arguments.job,)
        measure(settings, day, arguments.pings, jobs, arguments.rounds)
    finally:
        if arguments.lake is None:
            shutil.rmtree(folder, ignore_errors=True)


def fill(settings: Settings, pings: int) -> date:
    """Append to live.pings what it does not have yet; the date of the pings."""
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    table = catalog.load_table(LIVE_PINGS)
    have = table.scan().count()
    chance = Random(have)
    for part in converted_pings(pings - have, have):
        table.append(with_clients(part, pings // PINGS_OF_A_CLIENT, chance))
    day = table.scan(limit=1).to_arrow().column("submission_date")[0].as_py()
    assert isinstance(day, date)
    return day


def with_clients(rows: pa.Table, clients: int, chance: Random) -> pa.Table:
    """`rows` of some of so many clients, each with one build."""
    ids = [str(UUID(int=chance.randrange(clients), version=4)) for _ in range(rows.num_rows)]
    columns = {
        "client_id": pa.array(ids),
        "sample_id": pa.array([crc32(client.encode()) % 100 for client in ids], pa.int32()),
        "app_build_id": pa.array([BUILDS[crc32(client.encode()) % len(BUILDS)] for client in ids]),
    }
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return rows


def measure(settings: Settings, day: date, pings: int, jobs: Sequence[str], rounds: int) -> None:
    """Run each job so many times and print what it took."""
    report = Table(title=f"{pings:,} pings of 72 KB")
    for heading in ("job", "round", "seconds", "pings/s", "CPU seconds", "rows"):
        report.add_column(heading, justify="left" if heading == "job" else "right")
    for name in jobs:
        # Java's options are those of a process: a second session in it would have those of the first.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            up, runs = process.submit(run, name, settings, day, rounds).result()
        if not all(rows for _, _, rows in runs):
            raise SystemExit(
                f"{name} made no rows: there was nothing to make them of. Run stable_pings first, with "
                "the same --lake."
            )
        report.add_row(name, "Spark is up", f"{up:.1f}")
        for number, (seconds, cpu, rows) in enumerate(runs, start=1):
            times = (f"{seconds:.1f}", f"{pings / seconds:,.0f}", f"{cpu:.1f}")
            report.add_row(name, str(number), *times, f"{rows:,}")
    Console().print(report)


def run(
    name: str, settings: Settings, day: date, rounds: int
) -> tuple[float, list[tuple[float, float, int]]]:
    """Seconds until Spark is up; then seconds, CPU seconds and rows of each round of a job."""
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
            (made,) = jobs[name]()
            runs.append((time.monotonic() - began, cpu_seconds() - before, made.rows))
    finally:
        session.stop()
    return up, runs


def cpu_seconds() -> float:
    """What this process and all below it have used."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    main()
