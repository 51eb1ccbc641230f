"""The historic archive: which files it has, and the records in them, byte for byte.

The archive is a tree of files below one root, in HDFS (`webhdfs://host:port/path`, read over HTTP), in S3
(`s3://bucket/prefix`) or in a local directory (`file:///path`). A file is a Hadoop SequenceFile or text in
lines of `<document id><TAB><document>`. docs/backfill_source.md says which forms are read, and what each
kind of damage looks like.

What is wrong with the archive comes out of the same iterators as its records, as a `SourceProblem`: nothing
is skipped without one. Exceptions are about this machine or the way to the archive: RetriableError when the
archive does not answer, ConfigurationError when a setting is wrong.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from telemetry_lake.backfill.archive.local_files import LocalFiles
from telemetry_lake.backfill.archive.s3_files import S3Files
from telemetry_lake.backfill.archive.sequence_file import sequence_file_records
from telemetry_lake.backfill.archive.source_record import ProblemKind, SourceFile, SourceProblem, SourceRecord
from telemetry_lake.backfill.archive.storage import Storage, Window
from telemetry_lake.backfill.archive.text_lines import is_compressed_text, text_records
from telemetry_lake.backfill.archive.webhdfs import WebHdfs
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import SourceFormat, SourceSettings

__all__ = [
    "ProblemKind",
    "SourceFile",
    "SourceProblem",
    "SourceRecord",
    "list_source",
    "read_records",
    "split_points",
]

_RECORDS: Final = {
    SourceFormat.SEQUENCE_FILE: sequence_file_records,
    SourceFormat.TEXT_LINES: text_records,
}
_HIDDEN: Final = re.compile(r"(^|/)[_.]")
_HADOOP_CHECKSUMS: Final = re.compile(r"(^|/)\.[^/]+\.crc$")
"""Hadoop writes one beside each file on a local disk."""


def list_source(source: SourceSettings) -> Iterator[SourceFile | SourceProblem]:
    """Yield every file below the directories that `source` names: depth first, in the order of names.

    A hidden file is a problem when it has content, and nothing when it has none (`_SUCCESS`), or holds the
    checksums of another one (`.part-00000.crc`).
    """
    for outer, inner in pairwise(sorted(f"{name}/" if name else "" for name in source.directories)):
        if inner.startswith(outer):
            raise ConfigurationError(
                f"the directories {outer!r} and {inner!r} of the archive overlap: name one of them"
            )
    storage = _open_storage(source)
    pattern = re.compile(source.date_pattern)
    for directory in source.directories:
        for found in storage.list_files(directory):
            if isinstance(found, SourceProblem):
                yield found
            elif _HIDDEN.search(found.path):
                if found.bytes and not _HADOOP_CHECKSUMS.search(found.path):
                    message = f"{found.bytes} bytes are left out: Hadoop hides names that begin with _ or ."
                    yield SourceProblem(found.path, None, ProblemKind.HIDDEN_FILE, message)
            else:
                day = _date_in(pattern, found.path)
                yield SourceFile(found.path, found.bytes, found.modified_ms, found.checksum, day)


def split_points(file: SourceFile, unit_max_bytes: int) -> list[tuple[int, int]]:
    """Cut the file into ranges `(start, end)` of at most `unit_max_bytes`, which touch and cover it.

    `read_records` gives every record in exactly one of the ranges, wherever they are cut. Compressed text
    cannot be read from its middle and is one range; so is a file of 0 bytes.
    """
    if is_compressed_text(file.path) or file.bytes == 0:
        return [(0, file.bytes)]
    starts = range(0, file.bytes, unit_max_bytes)
    return [(start, min(start + unit_max_bytes, file.bytes)) for start in starts]


def read_records(
    source: SourceSettings,
    file: SourceFile,
    start: int,
    end: int,
    *,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[SourceRecord | SourceProblem]:
    """Yield the records that begin in `[start, end)`, in their order, in constant memory.

    The file is compared with its listing before the first record and after the last one. After damage
    reading goes on at the next place where the format allows it. `on_bytes` is called with the number of
    bytes of each stretch that was read: to count them, and to wait when they come too fast.
    """
    storage = _open_storage(source)
    if (problem := _difference(storage, file)) is not None:
        yield problem
        return
    if file.bytes == 0:
        message = "the file has 0 bytes: nothing was ever written to it, or all of it is lost"
        yield SourceProblem(file.path, 0, ProblemKind.EMPTY_FILE, message)
        return

    def open_window(first: int, last: int) -> Window:
        return Window(storage, file.path, file.bytes, first, last, on_bytes)

    yield from _RECORDS[source.format](open_window, file.path, start, end, source)
    if (problem := _difference(storage, file)) is not None:
        yield problem


def _difference(storage: Storage, file: SourceFile) -> SourceProblem | None:
    """Return what has changed since the file was listed, None when nothing has."""
    now = storage.look_up(file.path)
    if now is None:
        message = "the file was listed and does not exist any more"
        return SourceProblem(file.path, None, ProblemKind.MISSING_FILE, message)
    changes = [
        f"{what} was {before} and is {after}"
        for what, before, after in (
            ("its length", file.bytes, now.bytes),
            ("its modification time", file.modified_ms, now.modified_ms),
            ("its checksum", file.checksum, now.checksum),
        )
        # HDFS has no checksum while a block is unavailable: reading reports that.
        if before != after and before is not None and after is not None
    ]
    if not changes:
        return None
    message = f"the file has changed since it was listed: {', '.join(changes)}; list it again"
    return SourceProblem(file.path, None, ProblemKind.SOURCE_CHANGED, message)


def _open_storage(source: SourceSettings) -> Storage:
    if source.root_url is None:
        raise ConfigurationError(
            "no historic archive is configured: set TELEMETRY_LAKE_BACKFILL__SOURCE__ROOT_URL"
            " to webhdfs://…, s3://… or file:///…"
        )
    match urlsplit(source.root_url):
        case SplitResult(scheme="webhdfs"):
            return WebHdfs(source)
        case SplitResult(scheme="s3"):
            return S3Files(source)
        case root:
            return LocalFiles(Path(root.path or "/"))


def _date_in(pattern: re.Pattern[str], path: str) -> date | None:
    found = pattern.search(path)
    try:
        return None if found is None else date(int(found["year"]), int(found["month"]), int(found["day"]))
    except (TypeError, ValueError):
        return None
