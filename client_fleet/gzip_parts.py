"""Gzip bodies put together from parts that were compressed earlier.

Compressing a 72 KB document costs more than everything else that the fleet does for a ping. A deflate
stream may be cut anywhere (RFC 1951): a *section* is compressed once, on its own, and ends on a byte
boundary, so a body is a header, sections and freshly compressed *patches* in any order, an empty last
block, and the checksum of the whole. Every body is one ordinary gzip member with text of its own;
since sections cannot refer to each other, it is some 15 % larger than if it were compressed in one piece.
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from isal import isal_zlib

_RAW_DEFLATE: Final = -15
_PATCH_LEVEL: Final = 1
_SECTION_LEVEL: Final = 9
"""Makes up for what is lost because sections cannot refer to each other."""
_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK: Final = b"\x03\x00"
_SIZE_MODULUS: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Section:
    """A piece of a document that many documents share, with its compressed form."""

    text: bytes
    deflated: bytes


def section(text: bytes) -> Section:
    """`text` compressed once, to be used often."""
    compressor = zlib.compressobj(_SECTION_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    return Section(text, compressor.compress(text) + compressor.flush(zlib.Z_FULL_FLUSH))


@dataclass(frozen=True, slots=True)
class Document:
    """A document as sections and patches, in order."""

    parts: tuple[bytes | Section, ...]

    def json(self) -> bytes:
        """The text of the document."""
        return b"".join(part if isinstance(part, bytes) else part.text for part in self.parts)

    def gzip(self) -> bytes:
        """The document as one gzip member."""
        return gzip_of(self.parts)


def gzip_of(parts: Iterable[bytes | Section]) -> bytes:
    """One gzip member of the texts of `parts`."""
    pieces = [_HEADER]
    checksum = size = 0
    for part in parts:
        if isinstance(part, bytes):
            text = part
            pieces.append(_deflated_patch(part))
        else:
            text = part.text
            pieces.append(part.deflated)
        checksum = isal_zlib.crc32(text, checksum)
        size += len(text)
    pieces += (_LAST_BLOCK, struct.pack("<II", checksum, size % _SIZE_MODULUS))
    return b"".join(pieces)


def _deflated_patch(text: bytes) -> bytes:
    compressor = isal_zlib.compressobj(_PATCH_LEVEL, isal_zlib.DEFLATED, _RAW_DEFLATE)
    return compressor.compress(text) + compressor.flush(isal_zlib.Z_FULL_FLUSH)
