"""The files of an Iceberg table's current snapshot, and quick ways to read them.

`snapshot_files` reads the table's manifests and says which Parquet files hold its rows, with their row
counts and partition values. `ReadOnlyFileIO` is how pyiceberg reads those manifests here:
pyiceberg's own `PyArrowFileIO` imports `pyarrow.dataset` and with it pandas, which takes longer than
the rest of a query. `TableFileSystem` shows the files to DuckDB, whose S3 support is an extension that
would have to be downloaded.
"""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, Final, Never
from urllib.parse import urlsplit

import pyarrow.fs as pa_fs
from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
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
from pyiceberg.typedef import Properties

from telemetry_lake.failures import FatalError

MANIFEST_READERS: Final = 8
"""How many manifests are read at once; most of their time is the network's."""
WHOLE_FILE_MAX_BYTES: Final = 256 * 1024
"""Files up to this size are read in one request: cheaper than asking for size, footer and columns."""
WHOLE_FILES_KEPT: Final = 256
"""DuckDB opens a file for its footer and again for its columns; this many small files wait for that."""

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
        _refuse_to_write(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        _refuse_to_write(location if isinstance(location, str) else location.location)


READ_ONLY_FILE_IO: Final = f"{ReadOnlyFileIO.__module__}.{ReadOnlyFileIO.__name__}"
"""What the catalog property `py-io-impl` says to read with `ReadOnlyFileIO`."""


def snapshot_files(table: Table) -> list[TableFile]:
    """The files that hold the rows of the table's current snapshot; none when it has no snapshot.

    Raises FatalError when rows of them are deleted by other files, or when a file is not Parquet.
    """
    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    with ThreadPoolExecutor(MANIFEST_READERS) as readers:
        parts = readers.map(lambda manifest: _manifest_files(table, manifest), snapshot.manifests(table.io))
        return [file for part in parts for file in part]


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


class TableFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A read-only file system for DuckDB whose paths are names that we give to tables' files.

    Safe to use by several threads; files never change, so nothing is asked twice.
    """

    protocol = "lakefile"
    cachable = False  # fsspec would share one instance among all queries of a process

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[str, tuple[TableFile, Properties]] = {}
        self._numbers: dict[str, int] = {}
        self.opened: set[str] = set()
        """The files that something was read of."""
        self.read_whole = lru_cache(maxsize=WHOLE_FILES_KEPT)(self._read_whole)

    def add(self, folder: str, file: TableFile, properties: Properties) -> str:
        """Show `file`, which the properties of its table's `FileIO` lead to, in `folder`; its path.

        A file keeps its path, and no other file ever gets it: DuckDB remembers what it read.
        """
        path = f"{folder}/{self._numbers.setdefault(file.location, len(self._numbers))}"
        self._files[path] = (file, properties)
        return path

    def open(self, path: str, mode: str = "rb", **_: object) -> "_LazyFile":
        """A seekable file, which reads nothing before it is asked to."""
        if mode != "rb":
            _refuse_to_write(path)
        return _LazyFile(self, path)

    def size(self, path: str) -> int:
        """The file's size in bytes, as its table's metadata says."""
        return self._files[path][0].bytes

    def info(self, path: str, **_: object) -> dict[str, object]:
        """What fsspec wants to know of a file."""
        return {"name": path, "size": self.size(path), "type": "file"}

    def exists(self, path: str, **_: object) -> bool:
        """Whether the path is shown."""
        return path in self._files

    def glob(self, path: str, **_: object) -> list[str]:
        """The path itself: names are never patterns."""
        return [path]

    def modified(self, _path: str) -> datetime:
        """Always the same moment: a table's files never change."""
        return datetime(1970, 1, 1, tzinfo=UTC)

    def open_source(self, path: str) -> Any:
        """The file behind `path`, for reading parts of it."""
        self.opened.add(path)
        file, properties = self._files[path]
        filesystem, source = _locate(file.location, properties)
        return filesystem.open_input_file(source)

    def _read_whole(self, path: str) -> bytes:
        self.opened.add(path)
        file, properties = self._files[path]
        filesystem, source = _locate(file.location, properties)
        with filesystem.open_input_stream(source) as stream:
            return stream.read()


class _LazyFile(io.RawIOBase):
    """A file that is fetched when it is first read, because DuckDB opens more files than it reads.

    DuckDB shares an open file among its threads; each seeks and then reads, and others may do so in between.
    So every thread has a position of its own.
    """

    def __init__(self, filesystem: TableFileSystem, path: str) -> None:
        super().__init__()
        self._filesystem = filesystem
        self._path = path
        # By the id of the thread: what `threading.local` keeps is gone when a thread of C++ leaves Python.
        self._positions: dict[int, int] = {}
        self._source: Any = None
        self._opening = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._positions.get(threading.get_ident(), 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell()}.get(whence)
        position = (self._filesystem.size(self._path) if start is None else start) + offset
        self._positions[threading.get_ident()] = position
        return position

    def read(self, size: int = -1) -> bytes:
        position = self.tell()
        if size < 0:
            size = max(self._filesystem.size(self._path) - position, 0)
        if self._filesystem.size(self._path) <= WHOLE_FILE_MAX_BYTES:
            data: bytes = self._filesystem.read_whole(self._path)[position : position + size]
        else:
            data = self._open_source().read_at(size, position)
        self._positions[threading.get_ident()] = position + len(data)
        return data

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        super().close()

    def _open_source(self) -> Any:
        with self._opening:
            if self._source is None:
                self._source = self._filesystem.open_source(self._path)
        return self._source


class _ArrowInputFile(InputFile):
    def __init__(self, location: str, properties: Properties) -> None:
        super().__init__(location)
        self._filesystem, self._path = _locate(location, properties)

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


def _refuse_to_write(location: str) -> Never:
    raise PermissionError(f"opened for reading only: {location}")


def _locate(location: str, properties: Properties) -> tuple[pa_fs.FileSystem, str]:
    """The file system that `location` is in, and its path there."""
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
