"""The files of an Iceberg table's current snapshot, and quick ways to read them.

`snapshot_files` reads the table's manifests and says which Parquet files hold its rows, with their row
counts and partition values. `ReadOnlyFileIO` is how pyiceberg reads those manifests here:
pyiceberg's own `PyArrowFileIO` imports `pyarrow.dataset` and with it pandas, which takes longer than
the rest of a query.
"""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any, Final, Never
from urllib.parse import urlsplit

import pyarrow.fs as pa_fs
from pyiceberg.conversions import from_bytes
from pyiceberg.io import (
    AWS_ACCESS_KEY_ID,
    AWS_REGION,
    AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN,
    S3_ACCESS_KEY_ID,
    S3_ENDPOINT,
    S3_REGION,
    S3_SECRET_ACCESS_KEY,
    S3_SESSION_TOKEN,
    FileIO,
    InputFile,
    InputStream,
    OutputFile,
)
from pyiceberg.manifest import DataFileContent, FileFormat, ManifestFile
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Properties
from pyiceberg.types import DateType

from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.failures import FatalError

MANIFEST_READERS: Final = 8
"""How many manifests are read at once; most of their time is the network's."""

_EPOCH: Final = date(1970, 1, 1)
_ENDPOINT: Final = (S3_ENDPOINT,)
_ACCESS_KEY_ID: Final = (S3_ACCESS_KEY_ID, AWS_ACCESS_KEY_ID)
_SECRET_ACCESS_KEY: Final = (S3_SECRET_ACCESS_KEY, AWS_SECRET_ACCESS_KEY)
_SESSION_TOKEN: Final = (S3_SESSION_TOKEN, AWS_SESSION_TOKEN)
_REGION: Final = (S3_REGION, AWS_REGION)


@dataclass(frozen=True, slots=True)
class TableFile:
    """One Parquet file of a snapshot; `partition` is in the order of its partition spec's fields."""

    location: str
    bytes: int
    rows: int
    spec_id: int
    partition: tuple[Any, ...]


class ReadOnlyFileIO(FileIO):
    """pyiceberg's `FileIO` over `pyarrow.fs`, for S3 and local files; writers take pyiceberg's own."""

    def new_input(self, location: str) -> InputFile:
        return _ArrowInputFile(location, self.properties)

    def new_output(self, location: str) -> OutputFile:
        refuse_to_write(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        refuse_to_write(location if isinstance(location, str) else location.location)


READ_ONLY_FILE_IO: Final = f"{ReadOnlyFileIO.__module__}.{ReadOnlyFileIO.__name__}"
"""What the catalog property `py-io-impl` says to read with `ReadOnlyFileIO`."""


def snapshot_files(table: Table, days: Collection[date] | None = None) -> list[TableFile]:
    """Return the files that hold the rows of the table's current snapshot, if it has one.

    With `days`, only those of these days, for a table of which `span_of_days` is known: a manifest without
    such a day is not read. Raises FatalError when rows are deleted by other files, or when a file is not
    Parquet.
    """
    manifests, position = _manifests(table), _position_of_days(table)
    if days is not None and position is not None:
        numbers = frozenset((day - _EPOCH).days for day in days)
        manifests = [
            manifest
            for manifest in manifests
            if (span := _span(manifest, position)) is None or not numbers.isdisjoint(span)
        ]
    with ThreadPoolExecutor(MANIFEST_READERS) as readers:
        parts = readers.map(lambda manifest: _manifest_files(table, manifest), manifests)
        files = [file for part in parts for file in part]
    if days is None or position is None:
        return files
    return [file for file in files if file.partition[position] in numbers]


def span_of_days(table: Table) -> tuple[date, date] | None:
    """Return the first and the last day of the files of the table's current snapshot, from one small file.

    None when the table has no snapshot, is not partitioned by the day, or has files of an earlier
    partitioning or without a day.
    """
    manifests, position = _manifests(table), _position_of_days(table)
    if not manifests or position is None:
        return None
    spans = [_span(manifest, position) for manifest in manifests]
    known = [span for span in spans if span is not None]
    if len(known) < len(spans) or any(each.partition_spec_id != table.spec().spec_id for each in manifests):
        return None
    first, last = min(span.start for span in known), max(span.stop for span in known) - 1
    return _EPOCH + timedelta(days=first), _EPOCH + timedelta(days=last)


def _manifests(table: Table) -> list[ManifestFile]:
    snapshot = table.current_snapshot()
    return [] if snapshot is None else snapshot.manifests(table.io)


def _position_of_days(table: Table) -> int | None:
    """Return which field of the partition is the day, None when none is."""
    for position, field in enumerate(table.spec().fields):
        source = table.schema().find_field(field.source_id)
        if source.name == SUBMISSION_DATE and isinstance(field.transform, IdentityTransform):
            return position
    return None


def _span(manifest: ManifestFile, position: int | None) -> range | None:
    """Return the days, counted from 1970, between those of a manifest's files; None when one has no day."""
    if position is None or not manifest.partitions:
        return None
    field = manifest.partitions[position]
    if field.contains_null or field.lower_bound is None or field.upper_bound is None:
        return None
    lower, upper = (_day_number(bound) for bound in (field.lower_bound, field.upper_bound))
    return range(lower, upper + 1)


def _day_number(bound: bytes) -> int:
    number: object = from_bytes(DateType(), bound)
    if not isinstance(number, int):
        raise TypeError(f"the bound of a date is {number!r}, not a number of days")
    return number


def _manifest_files(table: Table, manifest: ManifestFile) -> list[TableFile]:
    name, system = ".".join(table.name()), f"{table.catalog.name}.system"
    files = []
    for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
        file = entry.data_file
        if file.content is not DataFileContent.DATA:
            raise FatalError(
                f"rows of {name} are deleted by separate files, which only Spark can apply. In Spark SQL: "
                f"CALL {system}.rewrite_data_files(table => '{name}', "
                "options => map('delete-file-threshold', '1')); "
                f"CALL {system}.rewrite_position_delete_files(table => '{name}', "
                "options => map('rewrite-all', 'true'))"
            )
        if file.file_format is not FileFormat.PARQUET:
            raise FatalError(f"{name} has a file that is not Parquet: {file.file_path}")
        partition = tuple(file.partition[index] for index in range(len(file.partition)))
        files.append(
            TableFile(file.file_path, file.file_size_in_bytes, file.record_count, file.spec_id, partition)
        )
    return files


class _ArrowInputFile(InputFile):
    def __init__(self, location: str, properties: Properties) -> None:
        super().__init__(location)
        self._filesystem, self._path = locate(location, properties)

    def __len__(self) -> int:
        return int(self._filesystem.get_file_info(self._path).size)

    def exists(self) -> bool:
        return self._filesystem.get_file_info(self._path).type is not pa_fs.FileType.NotFound

    def open(self, seekable: bool = True) -> InputStream:
        opened: InputStream = (
            self._filesystem.open_input_file(self._path)
            if seekable
            else self._filesystem.open_input_stream(self._path)
        )
        return opened


def row_groups_between(metadata: Any, start: int, end: int) -> list[int]:
    """Return the numbers of the row groups of a Parquet file that begin between two positions.

    `metadata` is the file's in pyarrow; a row group that begins at `end` is not among them.
    """
    return [
        number
        for number in range(metadata.num_row_groups)
        if start <= row_group_offset(metadata.row_group(number)) < end
    ]


def row_group_offset(row_group: Any) -> int:
    """Return where a row group of a Parquet file begins, in bytes, as in Iceberg's split offsets.

    `row_group` is its metadata in pyarrow.
    """
    column = row_group.column(0)
    return int(column.dictionary_page_offset or column.data_page_offset)


def refuse_to_write(location: str) -> Never:
    """Raise PermissionError: what is opened here is only read."""
    raise PermissionError(f"opened for reading only: {location}")


def locate(location: str, properties: Properties) -> tuple[pa_fs.FileSystem, str]:
    """Return the file system that `location` is in, and its path there."""
    parts = urlsplit(location)
    if parts.scheme in {"s3", "s3a", "s3n"}:
        names = (_ENDPOINT, _ACCESS_KEY_ID, _SECRET_ACCESS_KEY, _SESSION_TOKEN, _REGION)
        return _s3(
            *(_first(properties, alternatives) for alternatives in names)
        ), f"{parts.netloc}{parts.path}"
    if parts.scheme in {"", "file"}:
        return _local(), parts.path
    raise FatalError(
        f"files at {parts.scheme}:// cannot be queried from here, only s3:// and local ones: {location}"
    )


def _first(properties: Properties, names: tuple[str, ...]) -> str | None:
    return next((str(properties[name]) for name in names if properties.get(name)), None)


@cache
def _s3(
    endpoint: str | None,
    access_key_id: str | None,
    secret_access_key: str | None,
    session_token: str | None,
    region: str | None,
) -> pa_fs.S3FileSystem:
    return pa_fs.S3FileSystem(
        endpoint_override=endpoint,
        access_key=access_key_id,
        secret_key=secret_access_key,
        session_token=session_token,
        region=region,
    )


@cache
def _local() -> pa_fs.LocalFileSystem:
    return pa_fs.LocalFileSystem()
