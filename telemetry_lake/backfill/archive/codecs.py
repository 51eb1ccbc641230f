"""Hadoop's compression codecs, by the class names that stand in a SequenceFile's header.

Each decompresses one whole buffer within a limit. What they write: DefaultCodec and DeflateCodec a zlib
stream (RFC 1950), GzipCodec a gzip member (RFC 1952), BZip2Codec a bzip2 stream, SnappyCodec raw Snappy in
the frames of Hadoop's BlockCompressorStream: big-endian length of what follows once decompressed, then, until
that much is there, big-endian length of a piece and the piece.
"""

import bz2
import struct
from collections.abc import Callable
from typing import Final, Protocol

import pyarrow as pa
from isal import igzip_lib, isal_zlib

_ZLIB_WINDOW_BITS: Final = 15
_GZIP_WINDOW_BITS: Final = 31
_VARINT_MAX_BYTES: Final = 5
_SNAPPY: Final = pa.Codec("snappy")


class UndecodableData(Exception):
    """The bytes are not what the codec writes."""


class DataTooLarge(Exception):
    """The bytes become more than the limit once decompressed."""


class _Stream(Protocol):
    """What the decompressors of isal and of the standard library have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


Decompress = Callable[[bytes, int], bytes]
"""Takes a whole compressed buffer and the largest length of the result."""


def _inflate(data: bytes, max_bytes: int, window_bits: int) -> bytes:
    stream = isal_zlib.decompressobj(window_bits)
    try:
        text = stream.decompress(data, max_bytes + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub calls it a value
        raise UndecodableData(str(error)) from error
    if len(text) > max_bytes:
        raise DataTooLarge
    _require_end(stream)
    return text


def _require_end(stream: "_Stream") -> None:
    """Raise UndecodableData unless the compressed data ended, and with it all that was given."""
    if not stream.eof:
        raise UndecodableData("the compressed data ends too early")
    # Zeros are padding, as for gunzip.
    if stream.unused_data.strip(b"\0"):
        raise UndecodableData(f"{len(stream.unused_data)} bytes follow the end of the compressed data")


def _zlib(data: bytes, max_bytes: int) -> bytes:
    return _inflate(data, max_bytes, _ZLIB_WINDOW_BITS)


def _gzip(data: bytes, max_bytes: int) -> bytes:
    return _inflate(data, max_bytes, _GZIP_WINDOW_BITS)


def _bzip2(data: bytes, max_bytes: int) -> bytes:
    stream = bz2.BZ2Decompressor()
    try:
        text = stream.decompress(data, max_bytes + 1)
    except (OSError, ValueError) as error:
        raise UndecodableData(str(error)) from error
    if len(text) > max_bytes:
        raise DataTooLarge
    _require_end(stream)
    return text


def _snappy(data: bytes, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    room = max_bytes
    at = 0
    while at < len(data):
        frame, at = _length(data, at)
        if frame > room:
            raise DataTooLarge
        room -= frame
        while frame:
            size, at = _length(data, at)
            piece = data[at : at + size]
            at += size
            if len(piece) < size:
                raise UndecodableData("the compressed data ends too early")
            pieces.append(_raw_snappy(piece, frame))
            frame -= len(pieces[-1])
    return b"".join(pieces)


def _length(data: bytes, at: int) -> tuple[int, int]:
    try:
        (length,) = struct.unpack_from(">I", data, at)
    except struct.error as error:
        raise UndecodableData("the compressed data ends too early") from error
    return length, at + 4


def _raw_snappy(piece: bytes, max_bytes: int) -> bytes:
    # Arrow needs the length, which stands in front (little-endian, seven bits a byte), and fills up with
    # what is in the memory when it is given too much.
    length = 0
    for place, byte in enumerate(piece[:_VARINT_MAX_BYTES]):
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    if not 0 < length <= max_bytes:
        raise UndecodableData(f"a piece of Snappy data announces {length} bytes")
    try:
        text: bytes = _SNAPPY.decompress(piece, decompressed_size=length, asbytes=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise UndecodableData(str(error)) from error
    return text


CODECS: Final[dict[str, Decompress]] = {
    f"org.apache.hadoop.io.compress.{name}": decompress
    for name, decompress in {
        "DefaultCodec": _zlib,
        "DeflateCodec": _zlib,
        "GzipCodec": _gzip,
        "BZip2Codec": _bzip2,
        "SnappyCodec": _snappy,
    }.items()
}
"""How to decompress, by the codec's class name."""
