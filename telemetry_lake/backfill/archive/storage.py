"""The interface of a storage of the historic archive, and a sliding window over one of its files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from telemetry_lake.backfill.archive.source_record import SourceProblem
from telemetry_lake.units import MIB

CHUNK_BYTES: Final = MIB
"""How much a storage reads at a time."""
LOOKAHEAD_BYTES: Final = MIB
"""How far behind its end a range is read at first: the last record of a range ends behind it."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as its storage lists it; the fields are those of `SourceFile`."""

    path: str
    bytes: int
    modified_ms: int
    checksum: str | None


@dataclass(frozen=True, slots=True)
class Gap:
    """The storage cannot give the bytes `[start, end)` of a file, for a reason."""

    start: int
    end: int
    reason: str


class Storage(Protocol):
    """Where the archive is. Paths are relative to the archive's root.

    Every method raises RetriableError when the storage does not answer, or refuses for now.
    """

    def list_files(self, directory: str) -> Iterator[StoredFile | SourceProblem]:
        """Yield every file below `directory` (`""`: the root), depth first in the order of names."""

    def look_up(self, path: str) -> StoredFile | None:
        """Return the file as it is now; None when it is not there."""

    def read(self, path: str, start: int, end: int) -> Iterator[bytes | Gap]:
        """Yield the bytes `[start, end)` in stretches, in order; fewer when the file is shorter."""


class Window:
    """A stretch of a file in memory that slides forward; `at` is the cursor's place in `buffer`.

    It ends where the file ends or where a gap begins; `cross_gap` goes on behind the gap.
    """

    def __init__(
        self,
        storage: Storage,
        path: str,
        size: int,
        start: int,
        end: int,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self._storage = storage
        self._path = path
        self._size = size
        self._on_bytes = on_bytes
        self._base = start
        self._read_to = start
        self._requested_to = min(end + LOOKAHEAD_BYTES, size)
        self._stretches = storage.read(path, start, self._requested_to)
        self.buffer = b""
        self.at = 0
        self.gap: Gap | None = None
        """What lies behind the buffer and cannot be read."""

    @property
    def offset(self) -> int:
        """The cursor's position in the file."""
        return self._base + self.at

    @property
    def size(self) -> int:
        """The length of the file, as it was listed."""
        return self._size

    def have(self, count: int) -> bool:
        """Read up to `count` bytes from the cursor; return whether that many are in the buffer."""
        missing = self.at + count - len(self.buffer)
        if missing <= 0:
            return True
        parts = [self.buffer[self.at :]]
        while missing > 0 and (stretch := self._next_stretch()) is not None:
            parts.append(stretch)
            missing -= len(stretch)
        self._base += self.at
        self.at = 0
        self.buffer = b"".join(parts)
        return missing <= 0

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes and move the cursor behind them; `have` must have found them."""
        assert self.at + count <= len(self.buffer)
        self.at += count
        return self.buffer[self.at - count : self.at]

    def give_back(self, count: int) -> None:
        """Move the cursor back over `count` bytes of those that `take` gave last."""
        assert count <= self.at
        self.at -= count

    def find(self, pattern: bytes, before: int | None = None) -> bool:
        """Move the cursor to the next `pattern`, forget what it passes, and return whether there was one.

        Without one, the cursor is at the offset `before`, or where the file or its readable part ends.
        """
        keep = len(pattern) - 1
        while (found := self.buffer.find(pattern, self.at)) < 0:
            self.at = max(self.at, len(self.buffer) - keep)
            if before is not None and self.offset >= before:
                self.at = before - self._base
                return False
            if not self.have(keep + 1):
                self.at = len(self.buffer)
                if before is not None and self.offset > before:
                    self.at = before - self._base
                return False
        if before is not None and self._base + found >= before:
            self.at = before - self._base
            return False
        self.at = found
        return True

    def cross_gap(self) -> Gap:
        """Forget what is left in front of the gap, go on behind it, and return the gap."""
        assert self.gap is not None
        gap, self.gap = self.gap, None
        self.buffer, self.at, self._base = b"", 0, gap.end
        return gap

    def _next_stretch(self) -> bytes | None:
        while self.gap is None:
            stretch = next(self._stretches, None)
            if isinstance(stretch, Gap):
                self.gap = stretch
                self._read_to = stretch.end
            elif stretch is not None:
                self._read_to += len(stretch)
                if self._on_bytes is not None:
                    self._on_bytes(len(stretch))
                return stretch
            elif self._requested_to <= self._read_to < self._size:
                self._requested_to = min(self._read_to + LOOKAHEAD_BYTES, self._size)
                self._stretches = self._storage.read(self._path, self._read_to, self._requested_to)
            else:
                return None
        return None
