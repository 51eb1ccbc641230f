"""Gzip bodies put together from parts that were compressed earlier.

Compressing a 72 KB document costs more than everything else that the fleet does for a ping. A deflate
stream may be cut anywhere (RFC 1951): a *section* is compressed once, on its own, and ends on a byte
boundary, so a body is a header, sections and *patches* in any order, an empty last block, and the checksum
of the whole. Patches are stored blocks, which hold their text as it is. Every body is one ordinary gzip
member with text of its own; since sections cannot refer to each other, and patches are not compressed, it
is some 15 % larger than if it were compressed in one piece. Small documents are.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from isal import isal_zlib

_RAW_DEFLATE: Final = -zlib.MAX_WBITS
_GZIP: Final = zlib.MAX_WBITS | 16
_SMALL_DOCUMENT_LEVEL: Final = 1
_SECTION_LEVEL: Final = 6
"""What Firefox compresses its pings with (zlib's default)."""
_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_STORED_BLOCK: Final = struct.Struct("<xHH")
"""A block that is not the last one, and stored: its length, and the complement of that."""
_STORED_MAX_BYTES: Final = 0xFFFF
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
    """A document as sections and patches, in order; a patch has at most 65,535 bytes."""

    parts: tuple[bytes | Section, ...]

    def json(self) -> bytes:
        """Return the text of the document."""
        return b"".join(part if isinstance(part, bytes) else part.text for part in self.parts)

    def gzip(self) -> bytes:
        """Return the document as one gzip member; raises struct.error where a patch is too long."""
        pieces = [_HEADER]
        checksum = size = 0
        for part in self.parts:
            if isinstance(part, bytes):
                text = part
                pieces += (_STORED_BLOCK.pack(len(part), len(part) ^ _STORED_MAX_BYTES), part)
            else:
                text = part.text
                pieces.append(part.deflated)
            checksum = isal_zlib.crc32(text, checksum)
            size += len(text)
        pieces += (_LAST_BLOCK, struct.pack("<II", checksum, size % _SIZE_MODULUS))
        return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class SmallDocument:
    """A document that is compressed in one piece."""

    text: bytes

    def json(self) -> bytes:
        """Return the text of the document."""
        return self.text

    def gzip(self) -> bytes:
        """Return the document as one gzip member."""
        return isal_zlib.compress(self.text, _SMALL_DOCUMENT_LEVEL, wbits=_GZIP)
