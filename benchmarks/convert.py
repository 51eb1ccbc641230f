"""How fast pings are converted, how small they are stored, and how much memory that takes.

    python -m benchmarks.convert

One run, one process, one table. Rates are per second of processor time, summed over all threads: what one
core does, whatever else the machine is busy with. Each is the best of eight rounds over the same pings,
as many as an ingest node ships in one raw object. The steps take turns: a machine whose speed changes from
minute to minute is then as fast for one as for another.
The memory is that of a process of its own, which stages one raw object of the largest size.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import orjson
import pyarrow.fs as pa_fs
from isal import isal_zlib

from benchmarks.realistic_pings import DEFINITIONS, jittered_pings, raw_object_of
from telemetry_lake.convert import Converter
from telemetry_lake.convert.stage import StagedFiles, stage_raw_objects
from telemetry_lake.raw_object import RawObject, RawPing
from telemetry_lake.settings import MIB, ConversionSettings
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS

# Catalog and console are imported where they are used: the process whose memory is measured needs neither.
if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

ROUNDS = 8
RAW_KEY = "raw/v1/2026-11-23/14/benchmark/0.arrows"
TARGET_PINGS_PER_SECOND = 1_900
TARGET_STORED_BYTES = 5_632
TARGET_MEMORY_BYTES = 600 * MIB


@dataclass(frozen=True)
class Folder:
    """A local folder for staged files."""

    filesystem: pa_fs.FileSystem
    path: str
    uri: str


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pings",
        type=int,
        default=4_000,
        help="how many different pings; 4000, the default, make a raw object of 64 MiB",
    )
    parser.add_argument("--seed", type=int, default=23, help="of their jitter (default 23)")
    parser.add_argument(
        "--raw-mib", type=int, default=256, help="raw object for the memory (MiB, 0 for none)"
    )
    parser.add_argument("--stage", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage is not None:
        stage_in_this_process(arguments.stage)
        return
    with tempfile.TemporaryDirectory(prefix="bench-convert-") as scratch:
        measure(arguments.pings, arguments.seed, arguments.raw_mib * MIB, Path(scratch))


def measure(count: int, seed: int, raw_bytes: int, scratch: Path) -> None:
    """Run every step over the same pings and print the table."""
    from rich.console import Console
    from rich.table import Table

    pings, json_bytes = [], 0
    for ping, document_bytes in jittered_pings(count, seed):
        pings.append(ping)
        json_bytes += document_bytes
    raw = RawObject(RAW_KEY, raw_object_of(pings))
    bodies = [ping.body for ping in pings]
    settings = ConversionSettings(histogram_definitions_directory=DEFINITIONS)
    validating, trusting = Converter(settings), without_validation(Converter(settings))
    catalog = new_catalog(scratch)
    committed: list[StagedFiles] = []

    steps: list[tuple[str, Callable[[], object]]] = [
        ("gunzip alone", lambda: exhaust(isal_zlib.decompress(body, 31) for body in bodies)),
        (
            "gunzip + parse alone (orjson)",
            lambda: exhaust(orjson.loads(isal_zlib.decompress(body, 31)) for body in bodies),
        ),
        ("conversion", lambda: exhaust(trusting.convert(raw))),
        ("conversion + validation", lambda: exhaust(validating.convert(raw))),
        (
            "raw object to committed Parquet",
            lambda: committed.append(stage_and_commit(validating, raw, catalog)),
        ),
    ]
    gzip_bytes = sum(map(len, bodies))
    table = Table(
        title=f"{count} pings of {json_bytes // count:,} bytes of JSON, {gzip_bytes // count:,} with gzip"
    )
    for heading in ("per core", "pings/s", "JSON MB/s", "µs/ping"):
        table.add_column(heading, justify="left" if heading == "per core" else "right")
    whole = 0.0
    for (name, _), seconds in zip(steps, best_of_each([step for _, step in steps]), strict=True):
        whole = count / seconds
        table.add_row(
            name, f"{whole:,.0f}", f"{json_bytes / seconds / 1e6:,.0f}", f"{seconds / count * 1e6:,.0f}"
        )
    console = Console(width=100)
    console.print(table)
    staged = committed[-1]
    if [(one.pings, one.rejected) for one in staged.raw_objects] != [(count, {})]:
        raise SystemExit(f"not every ping was converted: {staged.raw_objects}")
    stored = sum(file.bytes for file in staged.files) / count
    console.print(f"whole way    {whole:>8,.0f} pings/s   (target: at least {TARGET_PINGS_PER_SECOND:,})")
    console.print(f"stored       {stored:>8,.0f} bytes/ping (target: at most {TARGET_STORED_BYTES:,})")
    if raw_bytes:
        memory, size = peak_memory(pings, raw_bytes, scratch)
        console.print(
            f"peak memory  {memory / MIB:>8,.0f} MiB for a raw object of {size / MIB:,.0f} MiB "
            f"(target: at most {TARGET_MEMORY_BYTES / MIB:,.0f})"
        )


def best_of_each(steps: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of processor time of each step's fastest round, after one that warms up."""
    from rich.progress import track

    for step in steps:
        step()
    rounds = []
    for _ in track(range(ROUNDS), "measuring", transient=True):
        times = []
        for step in steps:
            start = time.process_time()
            step()
            times.append(time.process_time() - start)
        rounds.append(times)
    return [min(times) for times in zip(*rounds, strict=True)]


def exhaust(results: Iterable[object]) -> None:
    """Make every result and keep none."""
    for _ in results:
        pass


def without_validation(converter: Converter) -> Converter:
    """The same converter with schemas that find nothing wrong."""
    schemas = converter._schemas._schemas
    for key, schema in schemas.items():
        schemas[key] = dataclasses.replace(schema, validator=None)
    return converter


def new_catalog(scratch: Path) -> "Catalog":
    """A catalog in a file of its own, with our tables."""
    from pyiceberg.catalog import load_catalog

    from telemetry_lake.catalog import create_tables

    catalog = load_catalog(
        "benchmark",
        type="sql",
        uri=f"sqlite:///{scratch}/catalog.db",
        warehouse=(scratch / "warehouse").as_uri(),
    )
    create_tables(catalog)
    return catalog


def stage_and_commit(converter: Converter, raw: RawObject, catalog: "Catalog") -> StagedFiles:
    """Everything between a raw object in memory and rows that a query sees."""
    from telemetry_lake.catalog import staging_area

    tables = {name: catalog.load_table(name) for name in (LIVE_PINGS, LIVE_REJECTED_PINGS)}
    folders = {}
    for name, table in tables.items():
        folders[name] = staging_area(table, os.urandom(16).hex())
        folders[name].filesystem.create_dir(folders[name].path, recursive=True)
    staged = stage_raw_objects(converter, [raw], folders)
    for name, table in tables.items():
        if uris := [file.uri for file in staged.files if file.table == name]:
            table.add_files(uris, check_duplicate_files=False)
    return staged


def peak_memory(pings: list[RawPing], raw_bytes: int, scratch: Path) -> tuple[int, int]:
    """The most memory a process held that staged one raw object of `raw_bytes`, and the object's size."""
    count = raw_bytes * len(pings) // len(raw_object_of(pings))
    # The same bodies again and again, under paths of their own, as if so many clients had sent them.
    many = [
        dataclasses.replace(ping, path=ping.path.replace(ping.path[18:54], str(UUID(int=number)).encode()))
        for number, ping in enumerate(islice(cycle(pings), count))
    ]
    file = scratch / "raw.arrows"
    file.write_bytes(raw_object_of(many))
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.convert", "--stage", str(file)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(answer.stdout), file.stat().st_size


def stage_in_this_process(file: Path) -> None:
    """Stage the raw object in `file` beside it, and print the most memory this process held, in bytes."""
    folders = {}
    for name in (LIVE_PINGS, LIVE_REJECTED_PINGS):
        folder = file.with_name(name)
        folder.mkdir()
        folders[name] = Folder(pa_fs.LocalFileSystem(), str(folder), folder.as_uri())
    converter = Converter(ConversionSettings(histogram_definitions_directory=DEFINITIONS))
    with file.open("rb") as data:
        stage_raw_objects(converter, [RawObject(RAW_KEY, data)], folders)
    # Not ru_maxrss: that of a child begins with what its parent held.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024)


if __name__ == "__main__":
    main()
