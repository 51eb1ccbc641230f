"""The body of a ping as bytes of JSON text, decompressed within a limit.

Gzip is recognised by its magic bytes, whatever the headers say: proxies lose `Content-Encoding`, and
some clients never sent it. A body may hold several gzip members behind each other (RFC 1952, 2.2).
"""

from typing import Final

from isal import igzip_lib, isal_zlib

from telemetry_lake.failures import ErrorType, PingRejected, Stage

GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW_BITS: Final = 31


def decompress_document(body: bytes, document_max_bytes: int) -> bytes:
    """The JSON text in `body`, at most `document_max_bytes` long.

    No more than one byte over the limit is ever decompressed. Raises PingRejected with `empty_body`,
    `too_large` or `invalid_gzip`.
    """
    if not body:
        raise PingRejected(ErrorType.EMPTY_BODY, "the ping has no body", stage=Stage.DECOMPRESS)
    if not body.startswith(GZIP_MAGIC):
        if len(body) > document_max_bytes:
            raise _too_large(document_max_bytes)
        return body
    members: list[bytes] = []
    room = document_max_bytes
    while body:
        member = isal_zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            text = member.decompress(body, room + 1)
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub calls it a value
            raise _invalid_gzip(str(error)) from error
        room -= len(text)
        if room < 0:
            raise _too_large(document_max_bytes)
        if not member.eof:
            raise _invalid_gzip("the data ends inside a gzip member")
        if members or member.unused_data:
            members.append(text)
        else:
            return text
        body = member.unused_data
        if body and not body.startswith(GZIP_MAGIC):
            raise _invalid_gzip(f"{len(body)} bytes follow the end of the gzip data")
    return b"".join(members)


def _too_large(document_max_bytes: int) -> PingRejected:
    return PingRejected(
        ErrorType.TOO_LARGE,
        f"the document is larger than {document_max_bytes} bytes once decompressed",
        stage=Stage.DECOMPRESS,
    )


def _invalid_gzip(why: str) -> PingRejected:
    return PingRejected(
        ErrorType.INVALID_GZIP, f"the body cannot be decompressed: {why}", stage=Stage.DECOMPRESS
    )
