"""The one open segment of a worker: append and flush, seal, and never trust it after a failure.

A failed `fdatasync` may have dropped the dirty pages and marked them clean, so that the next one
succeeds with the data gone (LWN, "PostgreSQL's fsync() surprise", 2018). So after any failure the
segment is given up at the length of its last successful flush, and a new one is opened.
"""

import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ingest_server.segment import new_marker, segment_id
from ingest_server.spool import Spool, sync_directory

WRITEV_MAX_BUFFERS: Final = 1_024
"""IOV_MAX of Linux."""

log = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview


class SegmentWriter:
    """Appends groups of records to the open segment of worker number `worker`; for one thread at a time."""

    def __init__(self, spool: Spool, worker: int, max_bytes: int) -> None:
        self.marker = new_marker()
        self._spool = spool
        self._worker = worker
        self._max_bytes = max_bytes
        self._number = 0
        self._descriptor = -1
        self._path: Path | None = None
        self._durable_bytes = 0
        self._durable_pings = 0
        self._given_up: list[tuple[Path, int, int]] = []

    @property
    def is_open(self) -> bool:
        """Whether a segment is open."""
        return self._path is not None

    def append(self, buffers: Sequence[Buffer], length: int, pings: int) -> None:
        """Make `buffers` (`length` bytes, `pings` records) durable; seals the segment when it is full.

        Raises OSError when they may not be durable; they then never will be acknowledged.
        """
        is_new = self._path is None
        try:
            if is_new:
                self._open()
            _write_all(self._descriptor, buffers)
            os.fdatasync(self._descriptor)
            if is_new:
                sync_directory(self._spool.open_directory)
        except OSError:
            self._give_up()
            raise
        self._durable_bytes += length
        self._durable_pings += pings
        if self._durable_bytes >= self._max_bytes:
            self.seal()

    def seal(self) -> None:
        """Close the open segment, if there is one, and hand it to the shipper.

        A failure is logged, and `seal_given_up` tries again.
        """
        if self._path is not None:
            self._give_up()

    def seal_given_up(self) -> None:
        """Seal what could not be sealed before; what still cannot be waits for the next call."""
        waiting, self._given_up = self._given_up, []
        for path, pings, length in waiting:
            try:
                if pings:
                    self._spool.seal(path, pings, length)
                else:
                    self._spool.remove(path)
            except OSError as error:
                log.error("segment_not_sealed", extra={"segment": path.name, "error": str(error)})
                self._given_up.append((path, pings, length))

    def _open(self) -> None:
        self._number += 1
        name = segment_id(datetime.now(UTC), self._worker, self.marker, self._number)
        path = self._spool.open_path(name)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._path = path
        self._durable_bytes = self._durable_pings = 0

    def _give_up(self) -> None:
        """Stop appending to the open segment; its first durable bytes are sealed."""
        if self._path is None:
            return
        path, self._path = self._path, None
        descriptor, self._descriptor = self._descriptor, -1
        try:
            os.ftruncate(descriptor, self._durable_bytes)
        except OSError as error:
            # The length in the sealed name decides; a longer file is only a waste of space.
            log.warning("segment_not_cut", extra={"segment": path.name, "error": str(error)})
        finally:
            os.close(descriptor)
        self._given_up.append((path, self._durable_pings, self._durable_bytes))
        self.seal_given_up()


def _write_all(descriptor: int, buffers: Sequence[Buffer]) -> None:
    """Append all of `buffers`; raises OSError."""
    for start in range(0, len(buffers), WRITEV_MAX_BUFFERS):
        part = buffers[start : start + WRITEV_MAX_BUFFERS]
        missing = sum(map(len, part)) - os.writev(descriptor, part)
        if missing:
            rest = memoryview(b"".join(part))[-missing:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]
