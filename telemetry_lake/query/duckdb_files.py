"""The files of tables as DuckDB sees them: a file system over Arrow's, and the only one that DuckDB may use.

DuckDB's own S3 support is an extension that would have to be downloaded.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from pyiceberg.typedef import Properties

from telemetry_lake.tables.files import TableFile, locate, refuse_to_write

PROTOCOL: Final = "lakefile"
"""The scheme of all paths of a `TableFileSystem`."""
WHOLE_FILE_MAX_BYTES: Final = 256 * 1024
"""Files up to this size are read in one request: cheaper than asking for size, footer and columns."""
WHOLE_FILES_KEPT: Final = 256
"""DuckDB opens a file for its footer and again for its columns; this many small files wait for that."""


class TableFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A file system for DuckDB, whose paths are names that are given to tables' files.

    Several threads may use it. Tables' files are only read, and never change, so nothing is fetched twice.
    What can be written is the one file for which `written_to` gives a path.
    """

    protocol = PROTOCOL
    cachable = False  # fsspec would share one instance among all queries of a process

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[str, tuple[TableFile, Properties]] = {}
        self._numbers: dict[str, int] = {}
        self._outputs: dict[str, Path] = {}
        self.opened: set[str] = set()
        """The paths of the files that were read, in part or whole."""
        self.read_whole = lru_cache(maxsize=WHOLE_FILES_KEPT)(self._read_whole)

    def add(self, folder: str, file: TableFile, properties: Properties) -> str:
        """Show `file` in `folder`; `properties` are those of its table's `FileIO`.

        Returns its path. A file keeps its path, and no other file ever gets it, because DuckDB remembers what
        it read.
        """
        path = f"{folder}/{self._numbers.setdefault(file.location, len(self._numbers))}"
        self._files[path] = (file, properties)
        return path

    @contextmanager
    def written_to(self, file: Path) -> Iterator[str]:
        """Yield a path; what DuckDB writes to it is written to the local `file`."""
        path = f"{PROTOCOL}://output/{len(self._outputs)}"
        self._outputs[path] = file
        try:
            yield path
        finally:
            del self._outputs[path]

    def open(self, path: str, mode: str = "rb", **_: object) -> "_LazyFile | BinaryIO":
        """Return a seekable file that fetches nothing before it is read, or the output file for writing.

        Raises PermissionError when any other path is to be written.
        """
        if mode == "rb":
            return _LazyFile(self, path)
        if mode != "wb" or path not in self._outputs:
            refuse_to_write(path)
        return self._outputs[path].open("wb")

    def size(self, path: str) -> int:
        """Return the file's size in bytes, as its table's metadata says; raises FileNotFoundError."""
        return self._shown(path)[0].bytes

    def info(self, path: str, **_: object) -> dict[str, object]:
        """Return what fsspec needs to know of a file; raises FileNotFoundError."""
        return {"name": path, "size": self.size(path), "type": "file"}

    def exists(self, path: str, **_: object) -> bool:
        """Return whether the path is that of a table's file."""
        return path in self._files

    def isdir(self, _path: str) -> bool:
        """Return False: folders are only parts of files' names."""
        return False

    def glob(self, path: str, **_: object) -> list[str]:
        """Return the path itself: names are never patterns."""
        return [path]

    def modified(self, _path: str) -> datetime:
        """Return always the same moment: a table's files never change."""
        return datetime(1970, 1, 1, tzinfo=UTC)

    def open_source(self, path: str) -> pa.NativeFile:
        """Open the file behind `path`, to read parts of it."""
        file, properties = self._shown(path)
        self.opened.add(path)
        filesystem, source = locate(file.location, properties)
        return filesystem.open_input_file(source)

    def _read_whole(self, path: str) -> bytes:
        file, properties = self._shown(path)
        self.opened.add(path)
        filesystem, source = locate(file.location, properties)
        with filesystem.open_input_stream(source) as stream:
            return stream.read()

    def _shown(self, path: str) -> tuple[TableFile, Properties]:
        try:
            return self._files[path]
        except KeyError:
            raise FileNotFoundError(f"not a file of a table: {path}") from None


class _LazyFile(io.RawIOBase):
    """A file that is fetched when it is first read, because DuckDB opens more files than it reads.

    DuckDB's threads share an open file, and one may seek and read between another's seek and read. So every
    thread has a position of its own.
    """

    def __init__(self, filesystem: TableFileSystem, path: str) -> None:
        super().__init__()
        self._filesystem = filesystem
        self._path = path
        # By the id of the thread: what `threading.local` keeps is gone when a thread of C++ leaves Python.
        self._positions: dict[int, int] = {}
        self._source: pa.NativeFile | None = None
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
            data = self._open_source().read_at(size, position)  # type: ignore[call-arg]  # stubs lack offset
        self._positions[threading.get_ident()] = position + len(data)
        return data

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        super().close()

    def _open_source(self) -> pa.NativeFile:
        with self._opening:
            if self._source is None:
                self._source = self._filesystem.open_source(self._path)
        return self._source
