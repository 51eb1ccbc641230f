"""An archive in a directory of this machine: for trials with a copy of a part of it."""

from collections.abc import Iterator
from pathlib import Path

from telemetry_lake.backfill.archive.source_record import ProblemKind, SourceProblem
from telemetry_lake.backfill.archive.storage import CHUNK_BYTES, Gap, StoredFile
from telemetry_lake.failures import RetriableError


class LocalFiles:
    """The files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def list_files(self, directory: str) -> Iterator[StoredFile | SourceProblem]:
        """Yield every file below `directory`; symbolic links are followed."""
        try:
            entries = sorted((self._root / directory).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            message = f"{self._root / directory} does not exist or is not a directory"
            yield SourceProblem(directory, None, ProblemKind.MISSING_DIRECTORY, message)
            return
        except OSError as error:
            raise RetriableError(f"listing {self._root / directory}: {error}") from error
        for entry in entries:
            path = entry.relative_to(self._root).as_posix()
            if entry.is_dir():
                yield from self.list_files(path)
            elif (file := self.look_up(path)) is not None:
                yield file

    def look_up(self, path: str) -> StoredFile | None:
        """Return the file as it is now."""
        try:
            found = (self._root / path).stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RetriableError(f"looking for {self._root / path}: {error}") from error
        return StoredFile(path, found.st_size, found.st_mtime_ns // 1_000_000, None)

    def read(self, path: str, start: int, end: int) -> Iterator[bytes | Gap]:
        """Yield the bytes `[start, end)`; a disk that fails is an error, not a gap."""
        try:
            with (self._root / path).open("rb", buffering=0) as file:
                file.seek(start)
                while start < end and (chunk := file.read(min(CHUNK_BYTES, end - start))):
                    start += len(chunk)
                    yield chunk
        except OSError as error:
            raise RetriableError(f"reading {self._root / path} at {start}: {error}") from error
