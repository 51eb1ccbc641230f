"""How bodies are compressed: by their first bytes, else by what the request says; within limits."""

import bz2
import gzip
import lzma
import time
import zlib

import pytest
from backports import zstd

from lake_testing.ping_builders import convert, generic_path, ping, rows_of
from telemetry_lake.convert.decompress import (
    EXPANSION_FREE_BYTES,
    MEMBERS_MAX_COUNT,
    ZSTD_WINDOW_LOG,
    decompress_document,
)
from telemetry_lake.failures import PingRejected

TEXT = b'{"text":"' + b"a text that is worth compressing; " * 20 + b'"}'
MAX_BYTES, MAX_EXPANSION = 8 * 2**20, 64
SKIPPABLE = b"\x5f\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"


def raw_deflate(text: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(text) + stream.flush()


def zstd_frame(text: bytes, **parameters: int) -> bytes:
    options = {int(zstd.CompressionParameter[name]): value for name, value in parameters.items()}
    stream = zstd.ZstdCompressor(options=options)
    # Two writes, so that the frame does not say how long its content is.
    return stream.compress(text[:1]) + stream.compress(text[1:]) + stream.flush()


def read(body: bytes, content_encoding: str = "") -> bytes:
    return decompress_document(body, MAX_BYTES, MAX_EXPANSION, content_encoding)


def why_not(body: bytes, content_encoding: str = "") -> tuple[str, str]:
    with pytest.raises(PingRejected) as rejection:
        read(body, content_encoding)
    return rejection.value.error_type.value, rejection.value.message


@pytest.mark.parametrize(
    "body,content_encoding",
    [
        (TEXT, ""),
        (TEXT, "gzip"),
        (TEXT, "br"),
        (b"\n " + TEXT, "deflate"),
        (gzip.compress(TEXT, mtime=0), ""),
        (gzip.compress(TEXT, mtime=0), "br"),
        (gzip.compress(TEXT, mtime=0) + bytes(700), ""),
        (
            gzip.compress(TEXT[:50], mtime=0) + bytes(10) + gzip.compress(TEXT[50:], mtime=0) + bytes(1),
            "x-gzip",
        ),
        (zlib.compress(TEXT, 0), ""),
        (zlib.compress(TEXT, 9), "Deflate"),
        (raw_deflate(TEXT), "deflate"),
        (zstd.compress(TEXT), ""),
        (zstd_frame(TEXT, checksum_flag=1), "zstd"),
        (SKIPPABLE + zstd_frame(TEXT[:50]) + SKIPPABLE + zstd.compress(TEXT[50:]), ""),
        (zstd_frame(TEXT, window_log=ZSTD_WINDOW_LOG), ""),
    ],
)
def test_what_is_read(body: bytes, content_encoding: str) -> None:
    assert read(body, content_encoding).strip() == TEXT


@pytest.mark.parametrize(
    "body,content_encoding,error_type,message",
    [
        (
            gzip.compress(TEXT, mtime=0) + bytes(3) + b"x",
            "",
            "invalid_gzip",
            "1 bytes follow the end of the gzip data",
        ),
        (zlib.compress(TEXT)[:-1] + b"x", "", "invalid_compression", "ncorrect checksum"),
        (zlib.compress(TEXT) + b"x", "", "invalid_compression", "1 bytes follow the end of the zlib data"),
        (raw_deflate(TEXT)[:-5], "deflate", "invalid_compression", "the data ends inside a deflate member"),
        (zstd.compress(TEXT)[:-5], "", "invalid_compression", "the data ends inside a zstd member"),
        (zstd.compress(TEXT) + bytes(9), "", "invalid_compression", "9 bytes follow"),
        (zstd_frame(TEXT, checksum_flag=1)[:-4] + b"oops", "", "invalid_compression", "checksum"),
        (b"\x1b\x00\x00\x00\xa4\xb0\xb2\xea", "br", "unsupported_encoding", "says Content-Encoding: br;"),
        (
            b"\x1b\x00\x00\x00\xa4\xb0\xb2\xea",
            "gzip, BR",
            "unsupported_encoding",
            "says Content-Encoding: br;",
        ),
        (bz2.compress(TEXT), "", "unsupported_encoding", "begins as bzip2"),
        (lzma.compress(TEXT), "", "unsupported_encoding", "begins as xz"),
        (gzip.compress(zstd.compress(TEXT), mtime=0), "", "unsupported_encoding", "compressed twice"),
        (SKIPPABLE * MEMBERS_MAX_COUNT + zstd.compress(TEXT), "", "too_costly", "more than 16 zstd members"),
        (zstd_frame(TEXT, window_log=ZSTD_WINDOW_LOG + 1), "", "too_costly", "a window of more than 8388608"),
        (zstd.compress(bytes(2**30)), "", "too_costly", "64 times its body"),
        (zlib.compress(bytes(EXPANSION_FREE_BYTES + 1)), "", "too_costly", "64 times its body"),
    ],
)
def test_what_is_not_read(body: bytes, content_encoding: str, error_type: str, message: str) -> None:
    found = why_not(body, content_encoding)
    assert (found[0], message in found[1]) == (error_type, True), found


def test_what_is_too_large_in_every_coding() -> None:
    # Text that compresses to a tenth.
    text = b"".join(f"{number * 7919 % 99991:05}".encode() * 8 for number in range(MAX_BYTES // 40 + 1))
    for body in (gzip.compress(text, 1, mtime=0), zlib.compress(text, 1), zstd.compress(text, 1)):
        assert why_not(body)[0] == "too_large"
        assert decompress_document(body, len(text), MAX_EXPANSION) == text


@pytest.mark.parametrize("piece", [gzip.compress(b"", mtime=0), SKIPPABLE[:4] + bytes(4), zstd.compress(b"")])
def test_a_body_of_a_million_bytes_of_members_takes_milliseconds(piece: bytes) -> None:
    body = piece * (2**20 // len(piece))
    started = time.process_time()
    assert why_not(body)[0] == "too_costly"
    assert time.process_time() - started < 0.2


def test_the_header_of_the_request_counts() -> None:
    path = generic_path("lake-demo", "greeting")
    body = raw_deflate(b'{"text":"hello"}')
    headers = [("content-encoding", b"deflate"), ("user-agent", b"x")]
    (row,), rejected = rows_of(convert([ping(path, body, headers=headers)]))
    assert (row["document"], rejected) == ('{"text":"hello"}', [])
    live, (refused,) = rows_of(convert([ping(path, b"\x8b\x03\x80", headers=[("content-encoding", b"br")])]))
    assert (live, refused["error_type"], refused["stage"]) == ([], "unsupported_encoding", "decompress")
