"""The form of a segment file: framed pings, each checked by its own checksums.

A record is a header of 24 bytes, the metadata, the body::

    marker            8 bytes   random for each worker process, and part of the segment's name
    metadata length   4 bytes   little-endian, as all numbers here
    body length       4 bytes
    content CRC-32    4 bytes   of metadata and body
    header CRC-32     4 bytes   of the 20 bytes before it

The header has a checksum of its own so that a record cut short by a crash (its header is right and the
file ends too early) differs from a record that went bad (everything is there and does not match): the
first was never acknowledged, the second may have been.
"""

import re
import secrets
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from isal.isal_zlib import crc32

_HEADER: Final = struct.Struct("<8sIII")
_CHECKSUM: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEADER.size + _CHECKSUM.size
MARKER_BYTES: Final = 8
SALVAGED: Final = "-salvaged"
SALVAGES_MAX: Final = 3
"""A segment of salvaged records may be damaged in its turn: how often its records are salvaged again."""

_SEGMENT_ID: Final = re.compile(
    r"(?P<opened>\d{8}T\d{6}\d{6}Z)-w(?P<worker>\d+)-(?P<marker>[0-9a-f]{16})-(?P<number>\d{6,})(-salvaged){0,3}"
)
_OPENED_FORMAT: Final = "%Y%m%dT%H%M%S%fZ"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Record = tuple[int, int, int]
"""Where the metadata begins, where the body begins and where it ends."""


@dataclass(frozen=True, slots=True)
class SegmentName:
    """What a segment id says: when it was opened (UTC), by which worker, and its records' marker."""

    opened: datetime
    worker: int
    marker: bytes


@dataclass(frozen=True, slots=True)
class Scan:
    """What is in a segment.

    `records` are the intact ones in their order. `end` is where the last of them ends. `torn_bytes`
    behind it were never acknowledged. `damaged` are the ranges that once may have been records and
    are not any more.
    """

    records: Sequence[Record]
    end: int
    torn_bytes: int
    damaged: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class CapturedPing:
    """One record decoded: when the request was complete, in microseconds since 1970, and its parts."""

    microseconds: int
    method: bytes
    path: bytes
    query: bytes
    protocol: bytes
    remote_address: bytes
    host: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def submission_timestamp(self) -> datetime:
        """The server's clock when the request was complete, in UTC."""
        return _EPOCH + timedelta(microseconds=self.microseconds)


def new_marker() -> bytes:
    """Return the marker of one worker process."""
    return secrets.token_bytes(MARKER_BYTES)


def segment_id(opened: datetime, worker: int, marker: bytes, number: int) -> str:
    """Return the name of the `number`-th segment of a worker process; names sort by the time of opening."""
    return f"{opened.strftime(_OPENED_FORMAT)}-w{worker}-{marker.hex()}-{number:06d}"


def split_segment_id(text: str) -> SegmentName:
    """Return what `text` says; raises ValueError when it is not a segment id."""
    match = _SEGMENT_ID.fullmatch(text)
    if match is None:
        raise ValueError(f"not the id of a segment: {text!r}")
    return SegmentName(
        datetime.strptime(match["opened"], _OPENED_FORMAT).replace(tzinfo=UTC),
        int(match["worker"]),
        bytes.fromhex(match["marker"]),
    )


def record_head(marker: bytes, metadata: bytes, body: bytes | bytearray) -> bytes:
    """Header and metadata of a record; `body` follows it in the file."""
    header = _HEADER.pack(marker, len(metadata), len(body), crc32(body, crc32(metadata)))
    return b"".join((header, _CHECKSUM.pack(crc32(header)), metadata))


def scan(data: bytes, marker: bytes) -> Scan:
    """Find the records of a segment, its torn tail and whatever is damaged."""
    records: list[Record] = []
    damaged: list[tuple[int, int]] = []
    position = end = 0
    while position < len(data):
        record = _record_at(data, position, marker)
        if record is None:
            following = _next_record(data, position + 1, marker)
            if following is None:
                break
            damaged.append((position, following))
            position = following
        else:
            records.append(record)
            position = end = record[2]
    torn_bytes = 0
    if end < len(data):
        if _is_torn(data, end, marker):
            torn_bytes = len(data) - end
        else:
            damaged.append((end, len(data)))
    return Scan(records, end, torn_bytes, damaged)


def pings(data: bytes, records: Sequence[Record]) -> Iterator[CapturedPing]:
    """Decode records of a segment that `scan` found intact."""
    for metadata_start, body_start, body_end in records:
        fields = data[metadata_start:body_start].split(b"\n")
        headers = tuple(zip(fields[7::2], fields[8::2], strict=True))
        microseconds, method, path, query, protocol, remote_address, host = fields[:7]
        yield CapturedPing(
            int(microseconds),
            method,
            path,
            query,
            protocol,
            remote_address,
            host,
            headers,
            data[body_start:body_end],
        )


def _header_at(data: bytes, position: int, marker: bytes) -> tuple[int, int, int] | None:
    """Lengths and content checksum of the header at `position`, if one is there and intact."""
    if position + HEADER_BYTES > len(data) or not data.startswith(marker, position):
        return None
    if _CHECKSUM.unpack_from(data, position + _HEADER.size)[0] != crc32(
        data[position : position + _HEADER.size]
    ):
        return None
    _, metadata_bytes, body_bytes, content = _HEADER.unpack_from(data, position)
    return metadata_bytes, body_bytes, content


def _record_at(data: bytes, position: int, marker: bytes) -> Record | None:
    header = _header_at(data, position, marker)
    if header is None:
        return None
    metadata_bytes, body_bytes, content = header
    start = position + HEADER_BYTES
    end = start + metadata_bytes + body_bytes
    if end > len(data) or crc32(memoryview(data)[start:end]) != content:
        return None
    return start, start + metadata_bytes, end


def _next_record(data: bytes, position: int, marker: bytes) -> int | None:
    while (position := data.find(marker, position)) >= 0:
        if _record_at(data, position, marker) is not None:
            return position
        position += 1
    return None


def _is_torn(data: bytes, position: int, marker: bytes) -> bool:
    """Return whether what starts at `position` is a record that was never written to its end."""
    rest = len(data) - position
    if data.count(b"\0", position) == rest:
        return True
    if rest < HEADER_BYTES:
        return marker.startswith(data[position : position + MARKER_BYTES]) or data.startswith(
            marker, position
        )
    header = _header_at(data, position, marker)
    return header is not None and position + HEADER_BYTES + header[0] + header[1] > len(data)
