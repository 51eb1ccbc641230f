"""Hadoop SequenceFiles of version 6, which every Hadoop since 2006 writes.

::

    header:  "SEQ", version, key class, value class, is compressed, is block-compressed, [codec class],
             number of metadata entries, that many keys and values, sync (16 random bytes)
    record:  length of key and value, length of key, key, value              (uncompressed, record-compressed)
    block:   number of records, then four times length and compressed bytes:
             lengths of keys, keys, lengths of values, values                              (block-compressed)
    marker:  FF FF FF FF, sync

A marker stands in front of every block, and between records about every 100 KB (2 KB before Hadoop 3). The
lengths of a record are big-endian integers of 4 bytes; class names, numbers in blocks and the length in front
of a `Text` are Hadoop's variable-length integers (`WritableUtils.readVInt`). A `BytesWritable` has its length
in 4 bytes in front. With record compression only the value is compressed.

What lies between two markers is a *segment*, and belongs to the range in which its first marker begins; the
one behind the header belongs to the range that begins at 0. So every cut of a file into ranges gives every
record once. After damage reading goes on at the next marker, and what lies in front of it is lost.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from telemetry_lake.backfill.archive.codecs import CODECS, DataTooLarge, Decompress, UndecodableData
from telemetry_lake.backfill.archive.source_record import (
    ProblemKind,
    SourceDamage,
    SourceProblem,
    SourceRecord,
)
from telemetry_lake.backfill.archive.storage import Window
from telemetry_lake.settings import SourceSettings
from telemetry_lake.units import KIB

MAGIC: Final = b"SEQ"
VERSION: Final = 6
HEADER_MAX_BYTES: Final = 256 * KIB
"""The longest header, metadata included."""
BLOCK_MAX_RECORDS: Final = 4_000_000
"""The most records of a block: their lengths are held in memory."""
_SYNC_BYTES: Final = 16
_ESCAPE: Final = b"\xff\xff\xff\xff"
_MARKER_BYTES: Final = len(_ESCAPE) + _SYNC_BYTES
_RECORD_HEAD: Final = struct.Struct(">ii")
_VINT_MAX_BYTES: Final = 5
_FRAME_MAX_BYTES: Final = 2 * _VINT_MAX_BYTES
"""How much longer a key and a value are than what is in them."""
_TEXT: Final = "org.apache.hadoop.io.Text"
_BYTES_WRITABLE: Final = "org.apache.hadoop.io.BytesWritable"


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file: how values are decoded, and the file's marker, escape included."""

    take_value: Callable[[bytes, int, int], bytes]
    decompress: Decompress | None
    is_block_compressed: bool
    marker: bytes
    end: int


def sequence_file_records(
    open_window: Callable[[int, int], Window], path: str, start: int, end: int, limits: SourceSettings
) -> Iterator[SourceRecord | SourceProblem]:
    """Yield the records of the segments of `[start, end)`; `open_window` takes the range to be read."""
    window = open_window(0, end if start == 0 else 0)
    try:
        header = _read_header(window)
    except SourceDamage as damage:
        yield damage.problem(path)
        return
    if start > 0:
        if header.end >= end:
            return
        window = open_window(max(start, header.end), end)
        while not window.find(header.marker, before=end):
            # What cannot be read belongs to the segment that reaches into it, and so to the range in front.
            if window.gap is None or window.gap.end >= end:
                return
            window.cross_gap()
    segments = _Segments(window, header, path, limits)
    if start == 0:
        yield from segments.read(is_first=True)
    while window.offset < end and segments.is_at_marker():
        yield from segments.read(is_first=False)


class _Segments:
    """Reads the segments of one file, one after another."""

    def __init__(self, window: Window, header: Header, path: str, limits: SourceSettings) -> None:
        self._window = window
        self._header = header
        self._path = path
        self._record_max_bytes = limits.record_max_bytes
        self._block_max_bytes = limits.block_max_bytes

    def is_at_marker(self) -> bool:
        """Return whether the next bytes are the file's marker."""
        window = self._window
        return window.have(_MARKER_BYTES) and window.buffer.startswith(self._header.marker, window.at)

    def read(self, *, is_first: bool) -> Iterator[SourceRecord | SourceProblem]:
        """Yield what lies before the next marker or the file's end, and move the cursor there."""
        if not is_first:
            self._window.take(_MARKER_BYTES)
        read = self._blocks if self._header.is_block_compressed else self._records
        try:
            yield from read(is_first)
        except SourceDamage as damage:
            yield self._resume(damage).problem(self._path)

    def _resume(self, damage: SourceDamage) -> SourceDamage:
        """Move the cursor to the next marker or the file's end; return `damage` with what is lost by it."""
        window = self._window
        reasons = [damage.message]
        while not (found := window.find(self._header.marker)) and window.gap is not None:
            reasons.append(window.cross_gap().reason)
        start, end = damage.offset, window.offset
        reasons.append(f"the {end - start} bytes from {start} to {end} are lost")
        kind = ProblemKind.CORRUPT if found and damage.kind is ProblemKind.TRUNCATED else damage.kind
        return SourceDamage(kind, start, "; ".join(reasons))

    def _is_at_end(self) -> bool:
        """Return whether nothing is left of the file; SourceDamage when it is shorter than it was listed."""
        window = self._window
        if window.have(1):
            return False
        if window.gap is not None:
            message = "the storage cannot give the bytes that follow"
            raise SourceDamage(ProblemKind.UNREADABLE_BYTES, window.offset, message)
        if window.offset < window.size:
            message = f"the file ends here and was listed with {window.size} bytes"
            raise SourceDamage(ProblemKind.TRUNCATED, window.offset, message)
        return True

    def _need(self, count: int, what: str, start: int) -> None:
        """Read `count` bytes into the window; SourceDamage when there are fewer, or a marker in them."""
        window = self._window
        if not window.have(count):
            if window.gap is not None:
                message = f"{what} reaches into bytes that the storage cannot give"
                raise SourceDamage(ProblemKind.UNREADABLE_BYTES, start, message)
            raise SourceDamage(ProblemKind.TRUNCATED, start, f"the file ends inside {what}")
        stop = window.at + count + _MARKER_BYTES - 1
        if window.buffer.find(self._header.marker, window.at, stop) >= 0:
            raise SourceDamage(ProblemKind.CORRUPT, start, f"a sync marker is inside {what}")

    # --- Uncompressed and record-compressed --------------------------------------------------------

    def _records(self, _is_first: bool) -> Iterator[SourceRecord | SourceProblem]:
        window = self._window
        while not self._is_at_end():
            start = window.offset
            if window.buffer.startswith(_ESCAPE, window.at) or not window.have(_RECORD_HEAD.size):
                if self.is_at_marker():
                    return
                self._need(_MARKER_BYTES, "a sync marker", start)
                yield self._damaged_marker()
                continue
            length, key_length = _RECORD_HEAD.unpack_from(window.buffer, window.at)
            if not 0 < key_length <= length:
                message = f"a record cannot have {length} bytes, {key_length} of them the key"
                raise SourceDamage(ProblemKind.CORRUPT, start, message)
            size = _RECORD_HEAD.size + length
            if length > self._record_max_bytes + _FRAME_MAX_BYTES:
                yield self._pass_by(size)
                continue
            self._need(size, "a record", start)
            at = window.at + _RECORD_HEAD.size
            window.at += size
            try:
                document_id = _take_text(window.buffer, at, at + key_length)
                content = self._value(window.buffer, at + key_length, at + length)
            except UndecodableData as error:
                yield self._undecodable(start, size, str(error))
            except DataTooLarge:
                yield self._too_large(start, f"a record of {size} bytes becomes larger")
            else:
                yield self._within_limit(SourceRecord(document_id, content, start, 0))

    def _value(self, buffer: bytes, start: int, end: int) -> bytes:
        header = self._header
        if header.decompress is None:
            return header.take_value(buffer, start, end)
        value = header.decompress(buffer[start:end], self._record_max_bytes + _VINT_MAX_BYTES)
        return header.take_value(value, 0, len(value))

    def _undecodable(self, start: int, size: int, why: str) -> SourceProblem:
        """Return the loss of this record if another seems to follow; else raise, its length may be wrong."""
        window = self._window
        if window.have(_RECORD_HEAD.size):
            length, key_length = _RECORD_HEAD.unpack_from(window.buffer, window.at)
            is_plausible = 0 < key_length <= length <= self._record_max_bytes or self.is_at_marker()
        else:
            is_plausible = window.gap is None and window.offset == window.size
        if not is_plausible:
            raise SourceDamage(ProblemKind.CORRUPT, start, why)
        message = f"{why}; this record of {size} bytes is lost"
        return SourceProblem(self._path, start, ProblemKind.CORRUPT, message)

    def _pass_by(self, size: int) -> SourceProblem:
        """Move the cursor behind a record that is too large to be held."""
        window = self._window
        start, end = window.offset, window.offset + size
        if end > window.size:
            message = f"the file ends inside a record of {size} bytes"
            raise SourceDamage(ProblemKind.TRUNCATED, start, message)
        if window.find(self._header.marker, before=end):
            message = f"a sync marker is inside a record of {size} bytes"
            raise SourceDamage(ProblemKind.CORRUPT, start, message)
        if window.offset < end:
            kind = ProblemKind.TRUNCATED if window.gap is None else ProblemKind.UNREADABLE_BYTES
            raise SourceDamage(kind, start, f"a record of {size} bytes cannot be read to its end")
        return self._too_large(start, f"a record has {size} bytes")

    # --- Block-compressed --------------------------------------------------------------------------

    def _blocks(self, is_first: bool) -> Iterator[SourceRecord | SourceProblem]:
        window = self._window
        if not is_first:
            yield from self._block()
        while not self._is_at_end():
            if self.is_at_marker():
                return
            start = window.offset
            self._need(_MARKER_BYTES, "a sync marker", start)
            found = window.buffer[window.at : window.at + _MARKER_BYTES]
            if not (found.startswith(_ESCAPE) or found.endswith(self._header.marker[len(_ESCAPE) :])):
                raise SourceDamage(ProblemKind.CORRUPT, start, "no sync marker is where one must be")
            yield self._damaged_marker()
            yield from self._block()

    def _block(self) -> Iterator[SourceRecord | SourceProblem]:
        start = self._window.offset - _MARKER_BYTES
        try:
            count = self._vint(start)
            if count > BLOCK_MAX_RECORDS:
                message = f"a block announces {count} records, more than {BLOCK_MAX_RECORDS}"
                raise SourceDamage(ProblemKind.TOO_LARGE, start, message)
            key_lengths = _vints(self._buffer(start, count * _VINT_MAX_BYTES), count)
            keys = self._buffer(start, self._block_max_bytes)
            value_lengths = _vints(self._buffer(start, count * _VINT_MAX_BYTES), count)
            values = self._buffer(start, self._block_max_bytes)
            if (sum(key_lengths), sum(value_lengths)) != (len(keys), len(values)):
                raise UndecodableData("its lengths do not add up")
            found = self._cut(keys, key_lengths, values, value_lengths, start)
        except UndecodableData as error:
            raise SourceDamage(ProblemKind.CORRUPT, start, f"a block of records: {error}") from error
        except DataTooLarge as error:
            message = f"a block becomes more than {self._block_max_bytes} bytes once decompressed"
            raise SourceDamage(ProblemKind.TOO_LARGE, start, message) from error
        yield from found

    def _cut(
        self, keys: bytes, key_lengths: list[int], values: bytes, value_lengths: list[int], start: int
    ) -> list[SourceRecord | SourceProblem]:
        """Return the records of a block; raises UndecodableData when one of them is damaged."""
        take_value = self._header.take_value
        found: list[SourceRecord | SourceProblem] = []
        key_at = value_at = 0
        for index, (key_length, value_length) in enumerate(zip(key_lengths, value_lengths, strict=True)):
            document_id = _take_text(keys, key_at, key_at + key_length)
            content = take_value(values, value_at, value_at + value_length)
            found.append(self._within_limit(SourceRecord(document_id, content, start, index)))
            key_at += key_length
            value_at += value_length
        return found

    def _vint(self, start: int) -> int:
        window = self._window
        self._need(1, "a block", start)
        size = _vint_bytes(window.buffer[window.at])
        self._need(size, "a block", start)
        value, _ = _vint_at(window.take(size), 0, size)
        return value

    def _buffer(self, start: int, max_bytes: int) -> bytes:
        """Return the next of the four buffers of a block."""
        size = self._vint(start)
        if size > self._block_max_bytes:
            message = f"a block has {size} compressed bytes in one piece, more than {self._block_max_bytes}"
            raise SourceDamage(ProblemKind.TOO_LARGE, start, message)
        self._need(size, "a block", start)
        assert self._header.decompress is not None
        return self._header.decompress(self._window.take(size), max_bytes)

    # --- Problems that stop nothing ----------------------------------------------------------------

    def _within_limit(self, record: SourceRecord) -> SourceRecord | SourceProblem:
        size = len(record.document_id) + len(record.content)
        if size <= self._record_max_bytes:
            return record
        return self._too_large(record.offset, f"record {record.index} here has {size} bytes")

    def _too_large(self, offset: int, what: str) -> SourceProblem:
        message = f"{what}, the limit is {self._record_max_bytes}; it is left out"
        return SourceProblem(self._path, offset, ProblemKind.TOO_LARGE, message)

    def _damaged_marker(self) -> SourceProblem:
        offset = self._window.offset
        self._window.take(_MARKER_BYTES)
        message = "the sync marker here is damaged; no record is lost by that alone"
        return SourceProblem(self._path, offset, ProblemKind.CORRUPT, message)


def _read_header(window: Window) -> Header:
    """Return the header at the cursor, and move the cursor behind it; raises SourceDamage."""
    # As much as there is: whether it is complete shows while it is parsed.
    window.have(min(HEADER_MAX_BYTES, window.size))
    buffer = window.buffer[:HEADER_MAX_BYTES]
    if not buffer.startswith(MAGIC[: len(buffer)]):
        message = f"not a SequenceFile: it begins with {buffer[:8].hex(' ')}, not with {MAGIC.hex(' ')} (SEQ)"
        raise SourceDamage(ProblemKind.BAD_HEADER, 0, message)
    try:
        header = _parse_header(buffer)
    except IndexError:
        if window.gap is not None:
            message = f"the header cannot be read: {window.gap.reason}"
            raise SourceDamage(ProblemKind.UNREADABLE_BYTES, 0, message) from None
        if len(buffer) == HEADER_MAX_BYTES:
            message = f"the header is longer than {HEADER_MAX_BYTES} bytes"
            raise SourceDamage(ProblemKind.BAD_HEADER, 0, message) from None
        message = f"the file ends inside its header, after {len(buffer)} bytes"
        raise SourceDamage(ProblemKind.TRUNCATED, 0, message) from None
    except UndecodableData as error:
        raise SourceDamage(ProblemKind.BAD_HEADER, 0, f"the header: {error}") from error
    window.take(header.end)
    return header


def _parse_header(buffer: bytes) -> Header:
    """Parse the header; raises IndexError when the buffer ends inside it."""
    at = len(MAGIC)

    def take(count: int) -> bytes:
        nonlocal at
        if at + count > len(buffer):
            raise IndexError
        at += count
        return buffer[at - count : at]

    def text() -> str:
        nonlocal at
        length, at = _vint_at(buffer, at, len(buffer))
        return take(length).decode(errors="replace")

    def flag() -> bool:
        (byte,) = take(1)
        if byte > 1:
            raise UndecodableData(f"byte {at - 1} must be 0 or 1 and is {byte}")
        return bool(byte)

    (version,) = take(1)
    if version != VERSION:
        raise UndecodableData(f"SequenceFiles of version {version} are not read, only those of {VERSION}")
    key_class, value_class = text(), text()
    is_compressed, is_block_compressed = flag(), flag()
    codec = text() if is_compressed else None
    (entries,) = struct.unpack(">i", take(4))
    if not 0 <= entries <= HEADER_MAX_BYTES:
        raise UndecodableData(f"its metadata cannot have {entries} entries")
    for _ in range(2 * entries):
        text()
    marker = _ESCAPE + take(_SYNC_BYTES)
    if key_class != _TEXT or value_class not in _VALUES:
        raise UndecodableData(
            f"the file holds {key_class} and {value_class};"
            f" ids must be {_TEXT}, documents {' or '.join(_VALUES)}"
        )
    if is_block_compressed and not is_compressed:
        raise UndecodableData("the file says that it is compressed in blocks and that it is not compressed")
    if codec is not None and codec not in CODECS:
        message = f"compressed with {codec}, which is not read; those that are: {', '.join(CODECS)}"
        raise SourceDamage(ProblemKind.UNREADABLE_CODEC, 0, message)
    decompress = CODECS[codec] if codec else None
    return Header(_VALUES[value_class], decompress, is_block_compressed, marker, at)


def _vint_bytes(first: int) -> int:
    """Return the length in bytes of a variable-length integer whose first byte is `first`."""
    if first < 0x80 or first >= 0x90:  # -112 to 127: the number itself
        return 1
    return 0x91 - first if first >= 0x88 else 0x89 - first


def _vint_at(buffer: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the length at `at`, and where it ends.

    Raises IndexError behind the end, and UndecodableData for what is not a length.
    """
    if at >= end:
        raise IndexError
    first = buffer[at]
    if first < 0x80:
        return first, at + 1
    size = _vint_bytes(first)
    if size == 1 or first < 0x88 or size > _VINT_MAX_BYTES:
        raise UndecodableData("a length is negative or has more than four bytes")
    if at + size > end:
        raise IndexError
    return int.from_bytes(buffer[at + 1 : at + size], "big"), at + size


def _vints(buffer: bytes, count: int) -> list[int]:
    """Return the `count` lengths that fill the buffer."""
    lengths = []
    at, end = 0, len(buffer)
    try:
        for _ in range(count):
            length, at = _vint_at(buffer, at, end)
            lengths.append(length)
    except IndexError:
        raise UndecodableData(f"only {len(lengths)} of {count} lengths are there") from None
    if at != end:
        raise UndecodableData(f"more than {count} lengths are there")
    return lengths


def _take_text(buffer: bytes, start: int, end: int) -> bytes:
    """Return the bytes of the `Text` that fills `buffer[start:end]`."""
    try:
        length, at = _vint_at(buffer, start, end)
    except IndexError:
        length, at = -1, end
    if at + length != end:
        raise UndecodableData(f"a Text does not fill its {end - start} bytes")
    return buffer[at:end]


def _take_bytes_writable(buffer: bytes, start: int, end: int) -> bytes:
    """Return the bytes of the `BytesWritable` that fills `buffer[start:end]`."""
    if end - start < 4 or int.from_bytes(buffer[start : start + 4], "big") != end - start - 4:
        raise UndecodableData(f"a BytesWritable does not fill its {end - start} bytes")
    return buffer[start + 4 : end]


_VALUES: Final = {_TEXT: _take_text, _BYTES_WRITABLE: _take_bytes_writable}
