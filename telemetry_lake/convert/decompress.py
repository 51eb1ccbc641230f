"""The body of a ping as bytes of JSON text, decompressed within limits.

How a body is compressed shows in its first bytes, whatever the headers say: proxies lose `Content-Encoding`,
and some clients never sent it. The header counts for what has no such bytes: deflate without the header of
zlib, and codings that are not read here, which are to be called by their names.

A body may hold several gzip members (RFC 1952, 2.2) or zstd frames (RFC 8878, 3), one after the other, and
zeros behind the gzip data, as writers of whole blocks leave them.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
from isal import igzip_lib, isal_zlib

from telemetry_lake.failures import ErrorType, PingRejected, Stage
from telemetry_lake.units import MIB

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
MEMBERS_MAX_COUNT: Final = 16
"""Of gzip members or zstd frames. Clients send one. A body of 1 MiB can hold 50,000 empty ones."""
EXPANSION_FREE_BYTES: Final = 1 * MIB
"""Up to here a document may be any number of times as large as its body: small ones that repeat much are."""
ZSTD_WINDOW_LOG: Final = 23
"""A frame says how much memory its decompression takes: 8 MiB is the most for HTTP (RFC 9659)."""

_ZSTD_SKIPPABLE: Final = tuple(bytes((first,)) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
"""How frames without data begin, which may stand before others."""
_TOO_MUCH_MEMORY: Final = "too much memory"
"""What zstd says of a window that is too large."""
_ZLIB_METHOD: Final = 8
_ZLIB_CHECK: Final = 31
_ZLIB_DICTIONARY: Final = 0x20
_DIGIT_EIGHT: Final = ord("8")
_NAMES_BY_MAGIC: Final = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "LZ4",
    b"\xff\x06\x00\x00sNaPpY": "Snappy",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x9d": "compress",
    b"\x1f\xa0": "compress",
}
_READ_CODINGS: Final = frozenset({"", "identity", "gzip", "x-gzip", "deflate", "zstd"})
_DEFLATE: Final = "deflate"


class _Decompressor(Protocol):
    """What isal and zstd have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member was reached, and its checksum was right."""

    @property
    def unused_data(self) -> bytes:
        """What follows the end of the member."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return the first `max_length` bytes."""


class _Coding(NamedTuple):
    """How a body is compressed."""

    name: str
    open: Callable[[], _Decompressor]
    magics: tuple[bytes, ...]
    """How a further member begins; none when there cannot be one."""
    has_padding: bool
    """Whether zeros may follow a member."""
    damage: ErrorType


def _gzip() -> _Decompressor:
    return isal_zlib.decompressobj(31)


def _zlib() -> _Decompressor:
    return isal_zlib.decompressobj(15)


def _deflate() -> _Decompressor:
    return isal_zlib.decompressobj(-15)


def _zstd() -> _Decompressor:
    return ZstdDecompressor(options={DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})


_GZIP: Final = _Coding("gzip", _gzip, (GZIP_MAGIC,), True, ErrorType.INVALID_GZIP)
_ZLIB: Final = _Coding("zlib", _zlib, (), False, ErrorType.INVALID_COMPRESSION)
_RAW_DEFLATE: Final = _Coding("deflate", _deflate, (), False, ErrorType.INVALID_COMPRESSION)
_ZSTD: Final = _Coding("zstd", _zstd, (ZSTD_MAGIC, *_ZSTD_SKIPPABLE), False, ErrorType.INVALID_COMPRESSION)
_COMPRESSED: Final = (GZIP_MAGIC, ZSTD_MAGIC, *_NAMES_BY_MAGIC)
_COMPRESSED_FIRST_BYTES: Final = frozenset(magic[:1] for magic in _COMPRESSED)


def needs_header(body: bytes) -> bool:
    """Return whether `Content-Encoding` can matter to `body`."""
    return not body.startswith((GZIP_MAGIC, b'{"'))


def decompress_document(
    body: bytes, document_max_bytes: int, document_max_expansion: int, content_encoding: str = ""
) -> bytes:
    """Return the JSON text in `body`, at most `document_max_bytes` long.

    Above `EXPANSION_FREE_BYTES`, it is at most `document_max_expansion` times as long as the body. No more
    than one byte over these limits is ever decompressed. `content_encoding` is the header of that name.
    Raises PingRejected with `empty_body`, `too_large`, `too_costly`, `invalid_gzip`, `invalid_compression` or
    `unsupported_encoding`.
    """
    if not body:
        raise PingRejected(ErrorType.EMPTY_BODY, "the ping has no body", stage=Stage.DECOMPRESS)
    coding = _GZIP if body.startswith(GZIP_MAGIC) else _coding_of(body, content_encoding)
    if coding is None:
        if len(body) > document_max_bytes:
            raise _too_large(document_max_bytes)
        return body
    members: list[bytes] = []
    expanded_max_bytes = max(EXPANSION_FREE_BYTES, document_max_expansion * len(body))
    room = min(document_max_bytes, expanded_max_bytes)
    while True:
        if len(members) == MEMBERS_MAX_COUNT:
            raise _too_costly(f"the body has more than {MEMBERS_MAX_COUNT} {coding.name} members")
        member = coding.open()
        text = _decompressed(member, body, room + 1, coding)
        room -= len(text)
        if room < 0:
            if expanded_max_bytes < document_max_bytes:
                raise _too_costly(
                    f"the document is larger than {expanded_max_bytes} bytes once decompressed: more than "
                    f"{EXPANSION_FREE_BYTES}, and than {document_max_expansion} times its body"
                )
            raise _too_large(document_max_bytes)
        if not member.eof:
            raise _damaged(coding, f"the data ends inside a {coding.name} member")
        members.append(text)
        body = member.unused_data
        if body and coding.has_padding:
            body = body.lstrip(b"\0")
        if not body:
            break
        if not body.startswith(coding.magics):
            raise _damaged(coding, f"{len(body)} bytes follow the end of the {coding.name} data")
    document = members[0] if len(members) == 1 else b"".join(members)
    if document[:1] in _COMPRESSED_FIRST_BYTES and document.startswith(_COMPRESSED):
        raise _unsupported("the body is compressed twice")
    return document


def _coding_of(body: bytes, content_encoding: str) -> _Coding | None:
    """Return how a body that is not gzip is compressed; None when it is not.

    Raises PingRejected with `unsupported_encoding`.
    """
    if body.startswith(_ZSTD.magics):
        return _ZSTD
    if _begins_as_zlib(body):
        return _ZLIB
    for magic, name in _NAMES_BY_MAGIC.items():
        if body.startswith(magic):
            raise _unsupported(f"the body begins as {name}")
    codings = [coding.strip().lower() for coding in content_encoding.split(",")]
    if _READ_CODINGS.issuperset(codings) and _DEFLATE not in codings:
        return None
    # What a proxy has decompressed still has the header.
    if _is_json_like(body):
        return None
    for coding in codings:
        if coding not in _READ_CODINGS:
            raise _unsupported(f"the request says Content-Encoding: {coding[:40]}")
    return _RAW_DEFLATE


def _begins_as_zlib(body: bytes) -> bool:
    """Return whether `body` begins with the header of zlib (RFC 1950, 2.2), which JSON does not.

    A number may, and is not an object either way.
    """
    if len(body) < 2 or body[0] == _DIGIT_EIGHT:
        return False
    method, flags = body[0], body[1]
    return (
        method & 0xF == _ZLIB_METHOD
        and method >> 4 < _ZLIB_METHOD
        and (method << 8 | flags) % _ZLIB_CHECK == 0
        and not flags & _ZLIB_DICTIONARY
    )


def _is_json_like(body: bytes) -> bool:
    """Return whether `body` is a text that begins as an object does."""
    if not body.lstrip().startswith(b"{"):
        return False
    try:
        body.decode()
    except ValueError:
        return False
    return True


def _decompressed(member: _Decompressor, body: bytes, most: int, coding: _Coding) -> bytes:
    try:
        return member.decompress(body, most)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub calls it a value
        raise _damaged(coding, str(error)) from error
    except ZstdError as error:
        if _TOO_MUCH_MEMORY in str(error):
            raise _too_costly(
                f"the body needs a window of more than {1 << ZSTD_WINDOW_LOG} bytes to be decompressed"
            ) from error
        raise _damaged(coding, str(error)) from error


def _too_large(document_max_bytes: int) -> PingRejected:
    return PingRejected(
        ErrorType.TOO_LARGE,
        f"the document is larger than {document_max_bytes} bytes once decompressed",
        stage=Stage.DECOMPRESS,
    )


def _too_costly(why: str) -> PingRejected:
    return PingRejected(ErrorType.TOO_COSTLY, why, stage=Stage.DECOMPRESS)


def _damaged(coding: _Coding, why: str) -> PingRejected:
    return PingRejected(coding.damage, f"the body cannot be decompressed: {why}", stage=Stage.DECOMPRESS)


def _unsupported(why: str) -> PingRejected:
    return PingRejected(
        ErrorType.UNSUPPORTED_ENCODING,
        f"{why}; a body is read as it is, or in gzip, zlib, deflate or zstd",
        stage=Stage.DECOMPRESS,
    )
