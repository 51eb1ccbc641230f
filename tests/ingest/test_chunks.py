"""Bodies in chunks: what they carry, where they end, and that nothing in a trailer changes anything."""

import asyncio
import contextlib
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_server.chunks import LINE_MAX_BYTES, ChunkedBody, MalformedChunks
from ingest_server.clients import Clients
from ingest_server.counters import shared_counters
from ingest_server.cross_origin import NO_OTHER_ORIGIN
from ingest_server.edge import PIPELINED_MAX, Connection, Edge
from ingest_server.gate import Gate
from ingest_server.request import HeadRules
from telemetry_lake.raw.submission_path import is_submission
from telemetry_lake.settings import IngestSettings
from tests.ingest.running_node import request

SETTINGS: Final = IngestSettings()
CHUNKED: Final = b"Transfer-Encoding: chunked"

_TRICKY: Final = (
    b"",
    b"ab\r\n\r\ncd",
    b"\r\nContent-Length: 9\r\n\r\n",
    b"0\r\n\r\n",
    b"POST / HTTP/1.1\r\n\r\n",
)
_bodies = st.one_of(st.sampled_from(_TRICKY), st.sampled_from(_TRICKY), st.binary(max_size=30))
_extensions = st.sampled_from([b"", b";a", b" ; a=b", b';q="\xff"'])
_trailers = st.lists(
    st.sampled_from(
        [
            b"A: b",
            b"Content-Length: 7",
            b"content-length:",
            b"Transfer-Encoding: gzip",
            b"Connection: close",
            b"Upgrade: h2c",
            b"Host: other",
            b"Expect: 100-continue",
        ]
    ),
    max_size=3,
)


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body, and its chunks with their trailer."""
    chunks = draw(st.lists(_bodies.filter(bool), max_size=4))
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), draw(_extensions), chunk) for chunk in chunks]
    parts.append(b"00%b\r\n" % draw(_extensions))
    parts.extend(line + b"\r\n" for line in draw(_trailers))
    return b"".join(chunks), b"".join(parts) + b"\r\n"


def pieces(draw: Callable[[st.SearchStrategy[set[int]]], set[int]], data: bytes) -> list[bytes]:
    """The data, cut anywhere, and often near the end of a line."""
    ends = [end for match in re.finditer(rb"\r\n", data) for end in range(match.start(), match.end() + 1)]
    places = st.one_of(st.sampled_from(ends), st.integers(0, len(data)))
    cuts = sorted(draw(st.sets(places, max_size=8)) | {0, len(data)})
    return [data[start:end] for start, end in pairwise(cuts)]


@given(st.data(), framed(), st.binary(max_size=20))
def test_a_body_is_what_its_chunks_carry_however_it_is_cut(
    data: st.DataObject, sent: tuple[bytes, bytes], behind: bytes
) -> None:
    body, chunks = sent
    reader, carried = ChunkedBody(), bytearray()
    for piece in (cut := pieces(data.draw, chunks))[:-1]:
        assert reader.read(piece, 0, carried.extend) is None
    # The first byte stands for what was before the body in the same read.
    assert reader.read(b"x" + cut[-1] + behind, 1, carried.extend) == 1 + len(cut[-1])
    assert carried == body


class _Parsed:
    """What llhttp takes from a body in chunks."""

    def __init__(self) -> None:
        self.body = b""
        self.is_complete = False

    def on_body(self, part: bytes) -> None:
        if not self.is_complete:
            self.body += part

    def on_message_complete(self) -> None:
        self.is_complete = True


_FRAMING: Final = (
    b"0",
    b"1",
    b"2",
    b"a",
    b"A",
    b"x",
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"-",
    b"\0",
    b"xx",
)


@given(st.lists(st.sampled_from(_FRAMING), max_size=10).map(b"".join))
def test_what_is_a_body_in_chunks_is_one_for_llhttp_too(chunks: bytes) -> None:
    parsed, carried = _Parsed(), bytearray()
    parser = httptools.HttpRequestParser(parsed)
    parser.feed_data(request(body=None, headers=(CHUNKED,)))
    with contextlib.suppress(httptools.HttpParserError):
        parser.feed_data(chunks)
    try:
        is_complete = ChunkedBody().read(chunks, 0, carried.extend) is not None
    except MalformedChunks:
        is_complete = False
    assert is_complete == parsed.is_complete
    if is_complete:
        assert carried == parsed.body


@pytest.mark.parametrize("begin", [b"1;", b"0\r\nA: "])
def test_a_line_at_its_limit_and_one_past(begin: bytes) -> None:
    line = len(begin.split(b"\n")[-1])
    for end in (b"\r\n", b""):
        fits = begin + b"e" * (LINE_MAX_BYTES - line - len(end)) + end
        assert ChunkedBody().read(fits, 0, bytearray().extend) is None
        with pytest.raises(MalformedChunks):
            ChunkedBody().read(fits.replace(b"e", b"ee", 1), 0, bytearray().extend)


class _Wire(asyncio.Transport):
    """A connection without a network: it keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        raise AssertionError("no request of this test ends its connection")


class _Kept:
    """A store that keeps the bodies in memory."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def submit(self, waiter: Connection, _metadata: bytes, body: bytes | bytearray, /) -> None:
        self.bodies.append(bytes(body))
        waiter.committed(None)


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[bytes, list[int], list[bytes]]:
    """Requests on one connection, their answers, and the bodies that are stored."""
    data, statuses, bodies = b"", [], []
    for _ in range(draw(st.integers(1, PIPELINED_MAX // 4))):
        data += draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]))
        target, status = draw(st.sampled_from([(b"/submit/a/b/1/c", 200), (b"/nowhere", 404)]))
        kind = draw(st.sampled_from(["chunks", "length", "nothing"]))
        if kind == "nothing":
            data += request(target, None, method=b"OPTIONS")
            status = {200: 204}.get(status, status)
        elif kind == "length":
            body = draw(_bodies)
            data += request(target, body, headers=(b"A: Content-Length: 3",))
        else:
            body, chunks = draw(framed())
            data += request(target, None, headers=(CHUNKED,)) + chunks
        if status == 200:
            bodies.append(body)
        statuses.append(status)
    return data, statuses, bodies


def assert_exchange(pieces_of_requests: list[bytes], statuses: list[int], bodies: list[bytes]) -> None:
    """Send the pieces on one connection, and look at the answers and at what is stored."""
    counters, store, wire = shared_counters(1), _Kept(), _Wire()
    rules = HeadRules(SETTINGS, {}, is_submission, NO_OTHER_ORIGIN, is_behind_proxies=False)
    clients = Clients(SETTINGS, trusted_proxies=0)
    edge = Edge(SETTINGS, rules, counters, store, Gate(SETTINGS, counters), set(), clients)
    connection = Connection(edge)
    connection.connection_made(wire)
    for piece in pieces_of_requests:
        connection.data_received(piece)
    found = [int(answer[:3]) for answer in wire.written.split(b"HTTP/1.1 ")[1:]]
    assert (found, store.bodies) == (statuses, bodies)
    assert connection.is_idle
    assert clients.held_bytes == 0


@given(st.data(), exchanges())
def test_requests_follow_each_other_however_they_are_framed_and_cut(
    data: st.DataObject, sent: tuple[bytes, list[int], list[bytes]]
) -> None:
    requests, statuses, bodies = sent
    assert_exchange(pieces(data.draw, requests), statuses, bodies)


def test_requests_follow_each_other_wherever_they_are_cut() -> None:
    plain = request(b"/submit/a/b/1/c", b"a\r\n\r\nb\r\n\r\n", headers=(b"A: Content-Length: 3",))
    lines = b"3;x\r\n\r\n\r\r\n0\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"
    chunks = request(b"/submit/a/b/1/c", None, headers=(CHUNKED,)) + lines
    refused = request(b"/nowhere", None, headers=(CHUNKED,)) + lines
    requests = b"".join((plain, b"\r\n", chunks, refused, b"\r\n\r\n", chunks, plain, plain, chunks))
    statuses = [200, 200, 404, 200, 200, 200, 200]
    bodies = [b"a\r\n\r\nb\r\n\r\n", b"\r\n\r"]
    stored = [bodies[number] for number in (0, 1, 1, 0, 0, 1)]
    for cut in range(len(requests)):
        assert_exchange([requests[:cut], requests[cut:]], statuses, stored)
        # And a read that ends nowhere near the end of another.
        assert_exchange([requests[:cut], requests[cut : cut + 60], requests[cut + 60 :]], statuses, stored)
