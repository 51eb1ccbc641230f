"""Measure how fast the historic archive is read, in each of its forms: one process, nothing is converted.

    python -m benchmarks.read_archive                   # from a local disk
    python -m benchmarks.read_archive --root-url webhdfs://127.0.0.1:9870/archive

Without a root URL the archive is written first, by Hadoop's own classes: pieces of 1.9 KB of the real ping,
or with `--whole` all of its 72 KB. The fastest round counts. An archive that is already there is read and
printed, and not recorded.
"""

import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import typer

from benchmarks.results import RESULTS_DIRECTORY, RESULTS_HELP, Recorder, recording
from lake_testing.historic_archive import FORMS, Record, write_files
from lake_testing.realistic_pings import jittered_documents
from telemetry_lake.backfill.archive.source import SourceProblem, list_source, read_records
from telemetry_lake.settings import SourceFormat, SourceSettings

DOCUMENT_BYTES: Final = 1_900
ALL_FORMS: Final = [name for name in FORMS if "-bytes-" not in name]
REAL_PINGS: Final = 100
_MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of an archive: `seconds` of wall time, `bytes` of the stored files."""

    records: int
    content_bytes: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.records / self.seconds:9,.0f} records/s"
            f"{self.content_bytes / self.seconds / _MEGABYTE:8.1f} MB/s of documents"
            f"{self.bytes / self.seconds / _MEGABYTE:8.1f} MB/s of files"
        )

    def record(self, name: str, recorder: Recorder) -> None:
        """Add the figures of this reading to a result."""
        recorder.add(name, self.records / self.seconds, "records/s")
        recorder.add(name, self.content_bytes / self.seconds / _MEGABYTE, "MB/s of documents")
        recorder.add(name, self.bytes / self.seconds / _MEGABYTE, "MB/s of files")


def read_archive(source: SourceSettings) -> Reading:
    """Read every file of an archive and drop what was read. Raises AssertionError when a file is damaged."""
    records = content_bytes = file_bytes = 0
    began = time.perf_counter()
    for file in list_source(source):
        assert not isinstance(file, SourceProblem), file
        file_bytes += file.bytes
        for record in read_records(source, file, 0, file.bytes):
            assert not isinstance(record, SourceProblem), record
            records += 1
            content_bytes += len(record.content)
    return Reading(records, content_bytes, file_bytes, time.perf_counter() - began)


def _documents(count: int, is_whole: bool) -> Iterator[Record]:
    chance = random.Random(1)
    pings = list(jittered_documents(REAL_PINGS))
    for number in range(count):
        document_id = str(UUID(int=chance.getrandbits(128), version=4)).encode()
        ping = pings[number % REAL_PINGS]
        start = 0 if is_whole else chance.randrange(len(ping) - DOCUMENT_BYTES)
        yield document_id, ping if is_whole else ping[start : start + DOCUMENT_BYTES]


def main(
    root_url: Annotated[str, typer.Option(help="An existing archive; without it one is written.")] = "",
    lines: Annotated[bool, typer.Option(help="The archive of the root URL is lines of text.")] = False,
    form: Annotated[list[str] | None, typer.Option(help="Only these forms, where one is written.")] = None,
    records: Annotated[int, typer.Option(help="How many records are written.")] = 20_000,
    whole: Annotated[bool, typer.Option(help="Records are whole real pings of 72 KB.")] = False,
    rounds: Annotated[int, typer.Option(help="How often each form is read.")] = 3,
    results: Annotated[Path, typer.Option(help=RESULTS_HELP)] = RESULTS_DIRECTORY,
) -> None:
    """Measure how fast the historic archive is read."""
    if root_url:
        kind = SourceFormat.TEXT_LINES if lines else SourceFormat.SEQUENCE_FILE
        source = SourceSettings(root_url=root_url, format=kind)
        typer.echo(f"{root_url:32}{_fastest(source, rounds)}")
        return
    benchmark = "read_archive_whole" if whole else "read_archive"
    with (
        tempfile.TemporaryDirectory() as folder,
        recording(benchmark, results, module="read_archive") as recorder,
    ):
        content = list(_documents(records, whole))
        for name in form or ALL_FORMS:
            root = Path(folder) / name
            write_files(root.as_uri(), [(f"part-00000{FORMS[name].suffix}", FORMS[name], content)])
            kind = SourceFormat.TEXT_LINES if name.startswith("lines") else SourceFormat.SEQUENCE_FILE
            source = SourceSettings(root_url=root.as_uri(), format=kind)
            reading = _fastest(source, rounds)
            typer.echo(f"{name:32}{reading}")
            reading.record(name, recorder)


def _fastest(source: SourceSettings, rounds: int) -> Reading:
    return min((read_archive(source) for _ in range(rounds)), key=lambda reading: reading.seconds)


if __name__ == "__main__":
    typer.run(main)
