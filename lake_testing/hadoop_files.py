"""Files that Hadoop wrote, in every form of the archive, and reading them from a local disk."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lake_testing.historic_archive import FORMS, SYNC_MARKER, Form, HistoricArchive, Record, write_files
from telemetry_lake.backfill.archive.source import (
    SourceFile,
    SourceProblem,
    SourceRecord,
    list_source,
    read_records,
)
from telemetry_lake.settings import SourceFormat, SourceSettings

LARGEST_BYTES = 1_300_000
SMALL: list[Record | None] = [
    (b"11111111-1111-4111-8111-111111111111", b'{"a":1}'),
    (b"22222222-2222-4222-8222-222222222222", b""),
    (b"33333333-3333-4333-8333-333333333333", b'{"text":"\xff\xfe not UTF-8"}'),
    SYNC_MARKER,
    (b"", b'{"no":"id"}'),
    (b"44444444-4444-4444-8444-444444444444", b"x" * 300),
    SYNC_MARKER,
    (b"55555555-5555-4555-8555-555555555555", b'{"last":true}'),
]
SMALL_RECORDS = [record for record in SMALL if record is not None]
ARCHIVE_FORMS = [name for name in FORMS if "-bytes-" not in name] + [
    "sequence-bytes-none",
    "sequence-bytes-record-default",
]
"""Forms with some MB of records; the others differ in what is in front of a value."""


@dataclass(frozen=True)
class HadoopFiles:
    """Files that Hadoop wrote, by form: `archive` with `records`, `small` with those of SMALL."""

    root: Path
    records: list[Record] = field(repr=False)

    def archive(self, form: str) -> Path:
        """Return the file of this form with `records`."""
        return self.root / f"archive-{form}{FORMS[form].suffix}"

    def small(self, form: str) -> Path:
        """Return the file of this form with the records of SMALL."""
        return self.root / f"small-{form}{FORMS[form].suffix}"


def write_hadoop_files(root: Path) -> HadoopFiles:
    """Let Hadoop write the archive and the small files in every form."""
    archive = HistoricArchive(days=1, records_per_day=300, files_per_day=1, real_every=30, seed=5)
    ((_, generated),) = archive.files()
    # Two records of about a megabyte reach over several chunks of reading, and over many a range.
    chance = random.Random(5)
    large = [(b"large", chance.randbytes(550_000).hex().encode()), (b"larger", bytes(LARGEST_BYTES))]
    records = [*generated, *large]
    marked: list[Record | None] = []
    for number, record in enumerate(records):
        marked += [SYNC_MARKER, record] if number % 50 == 0 or record in large else [record]
    found = HadoopFiles(root, records)
    files: list[tuple[str, Form, Sequence[Record | None]]] = []
    for name, form in FORMS.items():
        small = SMALL if form.container == "sequence" else SMALL_RECORDS
        files.append((found.small(name).name, form, small))
        if name in ARCHIVE_FORMS:
            content = marked if form.container == "sequence" else records
            files.append((found.archive(name).name, form, content))
    write_files(root.as_uri(), files)
    return found


Found = list[SourceRecord | SourceProblem]


def format_of(form: str) -> SourceFormat:
    """Return the format that a form is read as."""
    return SourceFormat.TEXT_LINES if form.startswith("lines") else SourceFormat.SEQUENCE_FILE


def source_at(root: Path, form: str = "sequence", **more: Any) -> SourceSettings:
    """Return the settings of an archive in a local folder."""
    return SourceSettings(root_url=root.as_uri(), format=format_of(form), **more)


def listed(source: SourceSettings, path: str) -> SourceFile:
    """Return the file of the archive at `path`."""
    (found,) = (one for one in list_source(source) if isinstance(one, SourceFile) and one.path == path)
    return found


def read_file(file: Path, form: str = "sequence", **limits: Any) -> Found:
    """Read all of a local file."""
    source = source_at(file.parent, form, **limits)
    size = file.stat().st_size
    one = SourceFile(file.name, size, file.stat().st_mtime_ns // 1_000_000, None, None)
    return list(read_records(source, one, 0, size))


def records_of(found: Found) -> list[Record]:
    """Return the records that were read, without where they were."""
    return [(one.document_id, one.content) for one in found if isinstance(one, SourceRecord)]


def problems_of(found: Found) -> list[SourceProblem]:
    """Return the problems that were found."""
    return [one for one in found if isinstance(one, SourceProblem)]
