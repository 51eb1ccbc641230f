"""The framing of a chunked body (RFC 9112, section 7.1): what it carries, and where it ends.

llhttp treats the fields of a trailer as it treats those of a head: `Content-Length` there ends the request
as malformed, `Connection` ends the connection. A trailer must change nothing, so a chunked body is read here.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Final

LINE_MAX_BYTES: Final = 64 * 1024
"""The longest line of a size with its extensions, and the longest one of a trailer."""

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_SIZE_MAX_BYTES: Final = 2**63 - 1
_FIELD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")
_CRLF: Final = b"\r\n"


class MalformedChunks(Exception):
    """The framing is not that of a chunked body: where the request ends cannot be known."""


class _Line(Enum):
    """What is expected where no part of a chunk is."""

    SIZE = "the size of a chunk"
    END_OF_CHUNK = "the end of a chunk"
    TRAILER = "a field of the trailer, or the empty line that ends the body"


class ChunkedBody:
    """Reads one chunked body in however many pieces it comes."""

    __slots__ = ("_expected", "_left_bytes", "_line")

    def __init__(self) -> None:
        self._left_bytes = 0
        """What is to come of the current chunk."""
        self._expected = _Line.SIZE
        self._line = bytearray()
        """The beginning of a line whose end has not come."""

    def read(self, data: bytes, position: int, take: Callable[[bytes], None]) -> int | None:
        """Give what `data` has of the body from `position` on to `take`.

        Returns where the body ends in `data`, None when it does not. Raises MalformedChunks.
        """
        while True:
            if self._left_bytes:
                part = data[position : position + self._left_bytes]
                if not part:
                    return None
                position += len(part)
                self._left_bytes -= len(part)
                take(part)
                continue
            line, position = self._whole_line(data, position)
            if not line:
                return None
            if self._expected is _Line.SIZE:
                size = _SIZE.fullmatch(line)
                if size is None or (length := int(size[1], 16)) > _SIZE_MAX_BYTES:
                    raise MalformedChunks
                self._left_bytes = length
                self._expected = _Line.END_OF_CHUNK if length else _Line.TRAILER
            elif self._expected is _Line.END_OF_CHUNK:
                if line != _CRLF:
                    raise MalformedChunks
                self._expected = _Line.SIZE
            elif line == _CRLF:
                return position
            elif _FIELD.fullmatch(line) is None:
                raise MalformedChunks

    def _whole_line(self, data: bytes, position: int) -> tuple[bytes, int]:
        """Return a line with its end and where the next one begins; nothing while its end has not come."""
        end = data.find(b"\n", position) + 1
        piece = data[position:end] if end else data[position:]
        if len(self._line) + len(piece) > LINE_MAX_BYTES:
            raise MalformedChunks
        if not end:
            self._line += piece
            return b"", len(data)
        if self._line:
            piece = bytes(self._line) + piece
            self._line.clear()
        return piece, end
