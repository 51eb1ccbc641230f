"""The spool of one node: its directories, what waits in them, and how segments move between them.

::

    <spool directory>/<node>/lock                                        held by the running node
    <spool directory>/<node>/open/<segment id>.segment                   being appended to by a worker
    <spool directory>/<node>/sealed/<segment id>.<pings>-<bytes>.segment waiting to be shipped
    <spool directory>/<node>/unannounced/<segment id>.json               in S3; its message waits for SQS
    <spool directory>/<node>/failures/<segment id>                       how often it ended the shipper
    <spool directory>/<node>/damaged/…                                   set aside; never deleted by us

Every move is a rename followed by a flush of both directories, so it is there after a power failure
or it did not happen.
"""

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingest_server.segment import HEADER_BYTES, SALVAGED, SALVAGES_MAX, Scan, scan, split_segment_id

LOCK_WAIT_SECONDS: Final = 20
"""Longer than the workers of a node whose parent was killed go on answering."""
_LOCK_POLL_SECONDS: Final = 0.05
_SUFFIX: Final = ".segment"
_MESSAGE_SUFFIX: Final = ".json"
_SEALED_NAME: Final = re.compile(r"(?P<id>[^.]+)\.(?P<pings>\d+)-(?P<bytes>\d+)\.segment")

log = logging.getLogger(__name__)


class SpoolInUse(Exception):
    """Another node holds the lock of this spool."""


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A segment that waits to be shipped; the first `length` bytes of the file hold `pings` pings."""

    path: Path
    segment_id: str
    pings: int
    length: int

    def read(self) -> bytes:
        """Return what the segment holds, without what lies behind the promised length."""
        with self.path.open("rb") as file:
            return file.read(self.length)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The files of one state: how many, their bytes, and when the oldest was opened (seconds since 1970)."""

    segments: int
    bytes: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the recovery of open segments found."""

    sealed_segments: int
    pings: int
    torn_bytes: int
    damaged_segments: int
    salvaged_pings: int


class Spool:
    """The directories of one node below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.open_directory = directory / "open"
        self.sealed_directory = directory / "sealed"
        self.unannounced_directory = directory / "unannounced"
        self.failures_directory = directory / "failures"
        self.damaged_directory = directory / "damaged"

    def prepare(self) -> None:
        """Create what is missing; raises OSError."""
        for directory in (
            self.open_directory,
            self.sealed_directory,
            self.unannounced_directory,
            self.failures_directory,
            self.damaged_directory,
        ):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (self.directory, self.directory.parent):
            sync_directory(directory)

    def lock(self, wait_seconds: float = LOCK_WAIT_SECONDS) -> int:
        """Take the spool for this process and its children, and return the descriptor that holds it.

        Raises SpoolInUse when another node keeps it for `wait_seconds`.
        """
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise SpoolInUse(
                        f"another ingest node uses the spool {self.directory}: stop it, or give this one "
                        "another TELEMETRY_LAKE_INGEST__NODE"
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)

    def open_path(self, segment_id: str) -> Path:
        """Return where the segment is while it is appended to."""
        return self.open_directory / f"{segment_id}{_SUFFIX}"

    def sealed_path(self, segment_id: str, pings: int, length: int) -> Path:
        """Return where the segment waits to be shipped."""
        return self.sealed_directory / f"{segment_id}.{pings}-{length}{_SUFFIX}"

    def seal(self, path: Path, pings: int, length: int) -> None:
        """Move an open segment, durable up to `length`, to those that wait; raises OSError.

        May be called again after a failure: what is moved already is only flushed.
        """
        with contextlib.suppress(FileNotFoundError):
            path.rename(self.sealed_path(path.name.removesuffix(_SUFFIX), pings, length))
        sync_directory(self.sealed_directory)
        sync_directory(self.open_directory)

    def remove(self, path: Path) -> None:
        """Delete a segment that is shipped or holds nothing; raises OSError."""
        path.unlink(missing_ok=True)
        sync_directory(path.parent)

    def sealed_segments(self) -> list[SealedSegment]:
        """Return those that wait, oldest first."""
        found = []
        for path in sorted(self.sealed_directory.iterdir()):
            match = _SEALED_NAME.fullmatch(path.name)
            if match is not None:
                found.append(SealedSegment(path, match["id"], int(match["pings"]), int(match["bytes"])))
        return found

    def recover(self, worker: int | None = None) -> Recovered:
        """Seal what dead workers left open: those of `worker`, or of all. Raises OSError.

        Must not run while a worker of that number lives.
        """
        sealed = pings = torn = damaged = salvaged = 0
        for path in sorted(self.open_directory.glob(f"*{_SUFFIX}")):
            segment_id = path.name.removesuffix(_SUFFIX)
            name = split_segment_id(segment_id)
            if worker is not None and name.worker != worker:
                continue
            data = path.read_bytes()
            found = scan(data, name.marker)
            torn += found.torn_bytes
            if found.damaged:
                damaged += 1
                salvaged += self.set_aside(path, segment_id, data, found, "bad records in an open segment")
            elif found.records:
                _sync_file(path)
                self.seal(path, len(found.records), found.end)
                sealed += 1
                pings += len(found.records)
            else:
                self.remove(path)
        return Recovered(sealed, pings, torn, damaged, salvaged)

    def set_aside(self, path: Path, segment_id: str, data: bytes, found: Scan, why: str) -> int:
        """Move a damaged segment away, seal its intact records as a segment, and return their number.

        The records are sealed before the file is moved: after a crash in between, all of it happens again
        and gives the same segment, whose raw object has the same key. Raises OSError.
        """
        log.error(
            "segment_damaged",
            extra={
                "segment": segment_id,
                "why": why,
                "damaged_ranges": [list(item) for item in found.damaged],
                "salvaged_pings": len(found.records),
                "action": f"look at {self.damaged_directory / path.name}; its intact pings are shipped",
            },
        )
        salvaged = len(found.records) if segment_id.count(SALVAGED) < SALVAGES_MAX else 0
        if salvaged:
            self._write_salvaged(segment_id, data, found)
        self.move_to_damaged(path)
        return salvaged

    def move_to_damaged(self, path: Path) -> None:
        """Set a segment aside as it is; raises OSError."""
        path.rename(self.damaged_directory / path.name)
        sync_directory(self.damaged_directory)
        sync_directory(path.parent)

    def keep_announcement(self, segment_id: str, message: str) -> None:
        """Keep the index message of a raw object that is in S3, durably; raises OSError."""
        path = self.unannounced_directory / f"{segment_id}{_MESSAGE_SUFFIX}"
        draft = path.with_suffix(".draft")
        with draft.open("w") as file:
            file.write(message)
            file.flush()
            os.fdatasync(file.fileno())
        draft.rename(path)
        sync_directory(self.unannounced_directory)

    def has_announcements(self) -> bool:
        """Return whether an index message is kept."""
        with os.scandir(self.unannounced_directory) as entries:
            return any(entry.name.endswith(_MESSAGE_SUFFIX) for entry in entries)

    def waiting_announcements(self) -> list[Path]:
        """Return the files of the index messages that were kept, oldest first."""
        return sorted(self.unannounced_directory.glob(f"*{_MESSAGE_SUFFIX}"))

    def count_failure(self, segment_id: str) -> int:
        """Count that a segment ended the shipper, and return how often it has; raises OSError."""
        path = self.failures_directory / segment_id
        failures = 1 + (int(path.read_text()) if path.exists() else 0)
        path.write_text(str(failures))
        return failures

    def forget_failures(self, segment_id: str) -> None:
        """Forget what `count_failure` counted; raises OSError."""
        (self.failures_directory / segment_id).unlink(missing_ok=True)

    def waiting_unannounced(self) -> Waiting:
        """Return the index messages that wait for SQS."""
        return _waiting(self.unannounced_directory, _MESSAGE_SUFFIX)

    def waiting_open(self) -> Waiting:
        """Return the segments that workers append to."""
        return _waiting(self.open_directory)

    def waiting_sealed(self) -> Waiting:
        """Return the segments that wait to be shipped."""
        return _waiting(self.sealed_directory, is_sealed=True)

    def set_aside_already(self) -> Waiting:
        """Return the damaged ones."""
        return _waiting(self.damaged_directory)

    def free_bytes(self) -> int:
        """Return what the spool's disk has left for us."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize

    def _write_salvaged(self, segment_id: str, data: bytes, found: Scan) -> None:
        salvaged_id = segment_id + SALVAGED
        ranges = list(_record_ranges(found))
        draft = self.damaged_directory / f"{salvaged_id}.draft"
        with draft.open("wb") as file:
            for start, end in ranges:
                file.write(memoryview(data)[start:end])
            file.flush()
            os.fdatasync(file.fileno())
        length = sum(end - start for start, end in ranges)
        draft.rename(self.sealed_path(salvaged_id, len(found.records), length))
        sync_directory(self.sealed_directory)
        sync_directory(self.damaged_directory)


def sync_directory(directory: Path) -> None:
    """Make what was created, renamed or deleted in `directory` durable; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _record_ranges(found: Scan) -> Iterator[tuple[int, int]]:
    """Return where the intact records lie, headers included."""
    for metadata_start, _, body_end in found.records:
        yield metadata_start - HEADER_BYTES, body_end


def _waiting(directory: Path, suffix: str = _SUFFIX, *, is_sealed: bool = False) -> Waiting:
    """Count what is in a directory; asks for the size of a file unless its name says it."""
    segments = total = 0
    oldest: str | None = None
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name
            if not name.endswith(suffix):
                continue
            if is_sealed and (match := _SEALED_NAME.fullmatch(name)):
                total += int(match["bytes"])
            else:
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:
                    continue
            segments += 1
            # Names begin with the time of opening.
            oldest = name if oldest is None else min(oldest, name)
    return Waiting(segments, total, None if oldest is None else _opened_seconds(oldest))


def _opened_seconds(name: str) -> float | None:
    """Return when the segment was opened; None when somebody else has put the file there."""
    try:
        return split_segment_id(name.split(".", 1)[0]).opened.timestamp()
    except ValueError:
        return None
