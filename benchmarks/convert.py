"""Measure how fast pings are converted, how small they are stored, and how much memory that takes.

    python -m benchmarks.convert

Rates are per second of processor time, summed over all threads: what one core does, even when other work runs
beside it. Each is the best of eight rounds over the same pings, as many as an ingest node ships in one raw
object. The steps take turns, so that a change in the machine's speed concerns all of them.
The memory is that of a separate process, which stages one raw object of the largest size.
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

from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.realistic_pings import DEFINITIONS, jittered_pings, raw_object_of
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.parquet_writer import stage_raw_objects
from telemetry_lake.raw.raw_object import RawObject, RawPing
from telemetry_lake.settings import ConversionSettings
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS
from telemetry_lake.tables.staged import Staged
from telemetry_lake.units import MIB

# Catalog and console are imported where they are used: the process whose memory is measured needs neither.
if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

ROUNDS = 8
WHOLE_WAY = "raw object to committed Parquet"
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
        prog="python -m benchmarks.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.add_argument(
        "--schemas",
        type=Path,
        help="also measure validation by this folder of schemas of others, such as schemas/ of a checkout of "
        "mozilla-pipeline-schemas",
    )
    add_results_option(parser)
    parser.add_argument("--stage", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage is not None:
        stage_in_this_process(arguments.stage)
        return
    with (
        tempfile.TemporaryDirectory(prefix="bench-convert-") as scratch,
        recording("convert", arguments.results) as recorder,
    ):
        measure(
            arguments.pings,
            arguments.seed,
            arguments.raw_mib * MIB,
            Path(scratch),
            recorder,
            further=(arguments.schemas,) if arguments.schemas else (),
        )


def measure(
    count: int, seed: int, raw_bytes: int, scratch: Path, recorder: Recorder, *, further: tuple[Path, ...]
) -> None:
    """Run every step over the same pings, print what it took and record it.

    `further` are folders with schemas of others, by which validation is measured beside ours.
    """
    from rich.console import Console
    from rich.table import Table

    pings, json_bytes = [], 0
    for ping, document_bytes in jittered_pings(count, seed):
        pings.append(ping)
        json_bytes += document_bytes
    committed: list[Staged] = []
    steps = conversion_steps(pings, scratch, committed, further)
    gzip_bytes = sum(len(ping.body) for ping in pings)
    title = f"{count} pings of {json_bytes // count:,} bytes of JSON, {gzip_bytes // count:,} with gzip"
    recorder.remark(title + ".")
    table = Table(title=title)
    for heading in ("per core", "pings/s", "JSON MB/s", "µs/ping"):
        table.add_column(heading, justify="left" if heading == "per core" else "right")
    for (name, _), seconds in zip(steps, best_of_each([step for _, step in steps]), strict=True):
        rate, megabytes, microseconds = count / seconds, json_bytes / seconds / 1e6, seconds / count * 1e6
        table.add_row(name, f"{rate:,.0f}", f"{megabytes:,.0f}", f"{microseconds:,.0f}")
        target = TARGET_PINGS_PER_SECOND if name == WHOLE_WAY else None
        recorder.add(name, rate, "pings/s", at_least=target)
        recorder.add(name, megabytes, "JSON MB/s")
        recorder.add(name, microseconds, "µs/ping")
    console = Console(width=100)
    console.print(table)
    staged = committed[-1]
    if [(rows.pings, rows.rejected) for rows in staged.raw_objects] != [(count, {})]:
        raise SystemExit(f"not every ping was converted: {staged.raw_objects}")
    stored = sum(file.bytes for file in staged.files) / count
    console.print(f"stored       {stored:>8,.0f} bytes/ping (target: at most {TARGET_STORED_BYTES:,})")
    recorder.add("stored", stored, "bytes/ping", at_most=TARGET_STORED_BYTES)
    if raw_bytes:
        memory, size = peak_memory(pings, raw_bytes, scratch)
        name = f"peak memory, raw object of {size / MIB:,.0f} MiB"
        console.print(f"{name}: {memory / MIB:,.0f} MiB (target: at most {TARGET_MEMORY_BYTES / MIB:,.0f})")
        recorder.add(name, memory / MIB, "MiB", at_most=TARGET_MEMORY_BYTES / MIB)


def conversion_steps(
    pings: list[RawPing], scratch: Path, committed: list[Staged], further: tuple[Path, ...]
) -> list[tuple[str, Callable[[], object]]]:
    """Return what is measured, by name; the last step appends what it staged to `committed`."""
    raw = RawObject(RAW_KEY, raw_object_of(pings))
    bodies = [ping.body for ping in pings]
    settings = ConversionSettings(histogram_definitions_directory=DEFINITIONS)
    validating, trusting = Converter(settings), without_validation(Converter(settings))
    catalog = new_catalog(scratch)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("gunzip alone", lambda: exhaust(isal_zlib.decompress(body, 31) for body in bodies)),
        (
            "gunzip + parse alone (orjson)",
            lambda: exhaust(orjson.loads(isal_zlib.decompress(body, 31)) for body in bodies),
        ),
        ("conversion", lambda: exhaust(trusting.convert(raw))),
        ("conversion + validation", lambda: exhaust(validating.convert(raw))),
        (WHOLE_WAY, lambda: committed.append(stage_and_commit(validating, raw, catalog))),
    ]
    if further:
        strict = Converter(settings.model_copy(update={"further_schemas_directories": further}))
        steps.append(("conversion + validation by schemas of others", lambda: exhaust(strict.convert(raw))))
    return steps


def best_of_each(steps: Sequence[Callable[[], object]]) -> list[float]:
    """Return the seconds of processor time of each step's fastest round, after one that warms up."""
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
    """Compute every result and keep none of them."""
    for _ in results:
        pass


def without_validation(converter: Converter) -> Converter:
    """Return the same converter, with schemas that accept everything."""
    schemas = converter._schemas._schemas
    for key, schema in schemas.items():
        schemas[key] = dataclasses.replace(schema, validator=None)
    return converter


def new_catalog(scratch: Path) -> "Catalog":
    """Create a catalog in a file below `scratch`, with the tables of the lake."""
    from pyiceberg.catalog import load_catalog

    from telemetry_lake.tables.catalog import create_tables

    catalog = load_catalog(
        "benchmark",
        type="sql",
        uri=f"sqlite:///{scratch}/catalog.db",
        warehouse=(scratch / "warehouse").as_uri(),
    )
    create_tables(catalog)
    return catalog


def stage_and_commit(converter: Converter, raw: RawObject, catalog: "Catalog") -> Staged:
    """Do everything between a raw object in memory and rows that a query sees. Returns the staged files."""
    from telemetry_lake.tables.catalog import staging_area

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
    """Stage one raw object of `raw_bytes` in a process of its own.

    Returns the most memory that the process held, and the object's size, in bytes.
    """
    count = raw_bytes * len(pings) // len(raw_object_of(pings))
    # The same bodies repeatedly, each time under another document id, as if other clients had sent them.
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
    """Stage the raw object `file` beside it, and print the most memory that this process held, in bytes."""
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
