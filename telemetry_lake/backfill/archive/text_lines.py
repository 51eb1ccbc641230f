"""Text in lines of `<document id><TAB><document>`, as it is or compressed with gzip, bzip2, xz or LZMA.

The first bytes of a file decide how it is compressed; a name that ends in `.gz`, `.bz2`, `.xz` or `.lzma`
must agree. Several gzip members, bzip2, xz or LZMA streams may follow each other in one file, and zeros may
follow them. Hadoop ends every line with a line feed: a last line without one is a record, and reported as
cut off.

Where the first bytes are lost, a file is plain text if its name does not say otherwise and the first line
behind the loss begins with a UUID and a tab, which compressed data does not by chance: 37 bytes would have to
fit. Every other file whose first bytes are lost is not read.

A line of plain text belongs to the range in which it begins. Compressed text belongs to the range that
begins at 0.
"""

import bz2
import lzma
import re
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from isal import igzip_lib

from telemetry_lake.backfill.archive.source_record import (
    ProblemKind,
    SourceDamage,
    SourceProblem,
    SourceRecord,
)
from telemetry_lake.backfill.archive.storage import CHUNK_BYTES, Window
from telemetry_lake.settings import SourceSettings
from telemetry_lake.units import MIB

LZMA_MEMORY_MAX_BYTES: Final = 192 * MIB
"""What `xz -9` needs is 65 MiB; a larger dictionary is refused."""
_LINE_FEED: Final = b"\n"
_TAB: Final = b"\t"


class Decompressor(Protocol):
    """One compressed stream: what bz2, lzma and isal have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached, and its checksum was right."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before something goes in."""

    @property
    def unused_data(self) -> bytes:
        """What follows the end of the stream."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most `max_length` bytes more."""


def _gzip() -> Decompressor:
    stream: Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return stream


def _xz() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY_MAX_BYTES)


def _lzma_alone() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY_MAX_BYTES)


_COMPRESSIONS: Final[dict[bytes, tuple[str, Callable[[], Decompressor]]]] = {
    b"\x1f\x8b": (".gz", _gzip),
    b"BZh": (".bz2", bz2.BZ2Decompressor),
    b"\xfd7zXZ\x00": (".xz", _xz),
    # Not a magic number: the parameters that every program uses, and a dictionary of a round size.
    b"\x5d\x00\x00": (".lzma", _lzma_alone),
}
_UNREADABLE: Final = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x89LZO": "lzop",
    b"\x04\x22\x4d\x18": "lz4",
    b"SEQ\x06": "a SequenceFile",
}
_UNREADABLE_SUFFIXES: Final = {".snappy", ".lz4", ".lzo", ".lzo_deflate", ".deflate", ".zst"}
"""What Hadoop's codecs without a magic number call their files."""
_MAGIC_MAX_BYTES: Final = max(map(len, _COMPRESSIONS))
_UUID_TAB: Final = re.compile(rb"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\t")
_UUID_TAB_BYTES: Final = 37


def is_compressed_text(path: str) -> bool:
    """Return whether the name says that the file cannot be read from its middle."""
    return path.endswith(tuple(suffix for suffix, _ in _COMPRESSIONS.values()))


def text_records(
    open_window: Callable[[int, int], Window], path: str, start: int, end: int, limits: SourceSettings
) -> Iterator[SourceRecord | SourceProblem]:
    """Yield the records of the lines of `[start, end)`; `open_window` takes the range to be read."""
    head = open_window(0, end if start == 0 else 0)
    try:
        # The range is the whole file, so that a lost block is one gap; only a line of it is read.
        compression = _compression(head, path, lambda: open_window(0, head.size))
    except SourceDamage as damage:
        yield damage.problem(path)
        return
    line_max_bytes = limits.record_max_bytes + len(_TAB)
    if compression is None:
        window = head if start == 0 else open_window(start - 1, end)
        lines = _plain_lines(window, start, end, line_max_bytes)
    elif start == 0:
        lines = _compressed_lines(head, compression, line_max_bytes)
    else:
        return
    for line in lines:
        if isinstance(line, SourceDamage):
            yield line.problem(path)
            continue
        text, offset, index = line
        document_id, tab, content = text.partition(_TAB)
        if tab:
            yield SourceRecord(document_id, content, offset, index)
        else:
            message = f"line {index} of the file" if index else "the line here"
            message += f" has no tab, in {len(text)} bytes; it is left out"
            yield SourceProblem(path, offset, ProblemKind.MALFORMED_LINE, message)


_Line = tuple[bytes, int, int]
"""The line without its line feed, its offset and its index."""


def _compression(
    window: Window, path: str, open_head: Callable[[], Window]
) -> Callable[[], Decompressor] | None:
    """Return how the text is compressed, None when it is not; raises SourceDamage.

    `window` is at the beginning of the file and stays there; `open_head` opens another one.
    """
    window.have(min(_MAGIC_MAX_BYTES, window.size))
    suffix = path[path.rindex(".") :] if "." in path.rpartition("/")[2] else ""
    if not window.buffer and window.gap is not None:
        if not is_compressed_text(path) and suffix not in _UNREADABLE_SUFFIXES and _is_text(open_head()):
            return None
        raise SourceDamage(
            ProblemKind.UNREADABLE_BYTES, 0, f"the file's beginning cannot be read: {window.gap.reason}"
        )
    unreadable = [name for magic, name in _UNREADABLE.items() if window.buffer.startswith(magic)]
    if unreadable or suffix in _UNREADABLE_SUFFIXES:
        message = (
            f"the file is {(unreadable or [suffix])[0]}; text is read plain or as gzip, bzip2, xz or LZMA"
        )
        raise SourceDamage(ProblemKind.UNREADABLE_CODEC, 0, message)
    found = [entry for magic, entry in _COMPRESSIONS.items() if window.buffer.startswith(magic)]
    named = [(magic, entry) for magic, entry in _COMPRESSIONS.items() if entry[0] == suffix]
    if named and named[0][1] not in found:
        if named[0][0].startswith(window.buffer):
            raise SourceDamage(ProblemKind.TRUNCATED, 0, f"the file ends inside the header of a {suffix}")
        message = f"the name ends in {suffix}, and the file begins with {window.buffer[:8].hex(' ')}"
        raise SourceDamage(ProblemKind.BAD_HEADER, 0, message)
    return found[0][1] if found else None


def _is_text(window: Window) -> bool:
    """Return whether the first line that begins behind what cannot be read is one of plain text."""
    while not window.find(_LINE_FEED):
        if window.gap is None:
            return False
        window.cross_gap()
    return (
        window.have(len(_LINE_FEED) + _UUID_TAB_BYTES)
        and _UUID_TAB.match(window.buffer, window.at + len(_LINE_FEED)) is not None
    )


def _plain_lines(window: Window, start: int, end: int, line_max_bytes: int) -> Iterator[_Line | SourceDamage]:
    if start > 0:
        # The window begins one byte in front: the line of this byte belongs to the range before.
        while not window.find(_LINE_FEED, before=end):
            if window.gap is None or window.gap.end >= end:
                return
            window.cross_gap()
        window.take(1)
    while window.offset < end:
        offset = window.offset
        length = _line_length(window, line_max_bytes)
        if length is not None:
            yield window.take(length), offset, 0
            window.take(1)
        elif window.have(line_max_bytes + 1):
            yield _pass_line(window, ProblemKind.TOO_LARGE, f"a line of more than {line_max_bytes} bytes")
        elif window.gap is not None:
            yield _pass_line(window, ProblemKind.UNREADABLE_BYTES, "a line cannot be read to its end")
        else:
            left = window.take(len(window.buffer) - window.at)
            if left:
                yield left, offset, 0
            if left or window.offset < window.size:
                yield _cut_off(offset)
            return


def _cut_off(offset: int, where: str = "") -> SourceDamage:
    message = f"the last line{where} has no line feed at its end: the file may be cut off here"
    return SourceDamage(ProblemKind.TRUNCATED, offset, message)


def _line_length(window: Window, line_max_bytes: int) -> int | None:
    """Return how long the line at the cursor is; None when it ends neither in memory nor within the limit."""
    searched = 0
    while True:
        found = window.buffer.find(_LINE_FEED, window.at + searched, window.at + line_max_bytes + 1)
        if found >= 0:
            return found - window.at
        searched = len(window.buffer) - window.at
        if searched > line_max_bytes or not window.have(searched + 1):
            return None


def _pass_line(window: Window, kind: ProblemKind, what: str) -> SourceDamage:
    """Move the cursor behind the next line feed, however far; return what is lost by that."""
    start = window.offset
    reasons = [what]
    while not (found := window.find(_LINE_FEED)) and window.gap is not None:
        reasons.append(window.cross_gap().reason)
    if found:
        window.take(1)
    reasons.append(f"the {window.offset - start} bytes from {start} to {window.offset} are lost")
    return SourceDamage(kind, start, "; ".join(reasons))


def _compressed_lines(
    window: Window, open_stream: Callable[[], Decompressor], line_max_bytes: int
) -> Iterator[_Line | SourceDamage]:
    number = 0
    rest = b""
    too_long = False
    try:
        for text in _decompressed(window, open_stream):
            *lines, last = (rest + text).split(_LINE_FEED) if rest else text.split(_LINE_FEED)
            for line in lines:
                number += 1
                if too_long or len(line) > line_max_bytes:
                    yield _line_too_long(number, line_max_bytes)
                    too_long = False
                else:
                    yield line, 0, number
            rest = last
            if len(rest) > line_max_bytes:
                too_long, rest = True, b""
    except SourceDamage as damage:
        message = f"{damage.message}; what follows line {number} of the text is lost"
        yield SourceDamage(damage.kind, damage.offset, message)
        return
    if too_long:
        yield _line_too_long(number + 1, line_max_bytes)
    elif rest:
        yield rest, 0, number + 1
    if rest or too_long:
        yield _cut_off(window.size, f", number {number + 1},")


def _line_too_long(number: int, line_max_bytes: int) -> SourceDamage:
    message = f"line {number} of the text has more than {line_max_bytes} bytes; it is left out"
    return SourceDamage(ProblemKind.TOO_LARGE, 0, message)


def _decompressed(window: Window, open_stream: Callable[[], Decompressor]) -> Iterator[bytes]:
    """Yield the text, at most CHUNK_BYTES at a time; raises SourceDamage where it cannot go on."""
    while True:
        begin = window.offset
        stream = open_stream()
        try:
            data = b""
            while not stream.eof:
                if stream.needs_input:
                    if not window.have(1):
                        raise _ended(window, begin)
                    data = window.take(len(window.buffer) - window.at)
                text = stream.decompress(data, CHUNK_BYTES)
                data = b""
                if text:
                    yield text
        except (OSError, EOFError, ValueError, MemoryError, lzma.LZMAError, igzip_lib.IsalError) as error:  # type: ignore[misc]
            message = f"compressed data that begins at {begin} is damaged: {error}"
            raise SourceDamage(ProblemKind.CORRUPT, window.offset, message) from error
        window.give_back(len(stream.unused_data))
        _pass_padding(window)
        if not window.have(1):
            if window.gap is not None or window.offset < window.size:
                raise _ended(window, window.offset)
            return


def _pass_padding(window: Window) -> None:
    """Move the cursor behind the zeros that writers of whole blocks leave; no stream begins with one."""
    while window.have(1):
        data = window.take(len(window.buffer) - window.at)
        rest = data.lstrip(b"\0")
        if rest:
            window.give_back(len(rest))
            return


def _ended(window: Window, begin: int) -> SourceDamage:
    if window.gap is not None:
        return SourceDamage(ProblemKind.UNREADABLE_BYTES, window.offset, window.gap.reason)
    message = f"the file ends inside compressed data that begins at {begin}"
    return SourceDamage(ProblemKind.TRUNCATED, window.offset, message)
