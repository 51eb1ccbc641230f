"""Every line of docs/ingest_spec.md about requests and answers, over real sockets."""

import contextlib
import email.utils
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from ingest_server.edge import DISCARD_MAX_BYTES, PIPELINED_MAX, REQUESTS_WAITING_MAX
from ingest_server.request import HEAD_MAX_BYTES, HEAD_MAX_LINES, LEFT_OUT
from ingest_server.segment import CapturedPing
from lake_testing.stack import wait_until
from telemetry_lake.settings import IngestSettings
from telemetry_lake.units import MIB
from tests.ingest.running_node import (
    ANSWER_DEADLINE_SECONDS,
    WITHOUT_SERVICES,
    Client,
    RunningNode,
    request,
    wait_for_bytes,
)

DEFAULTS = IngestSettings()
DOCUMENT_ID = b"0a8b1c9e-52fe-4d3a-9c1c-6d3f7c1c1a01"
FIREFOX = b"/submit/telemetry/" + DOCUMENT_ID + b"/main/Firefox/120.0/release/20231106151204"
GENERIC = b"/submit/org-mozilla-fenix/baseline/1/" + DOCUMENT_ID
BARE = b"/submit/telemetry/" + DOCUMENT_ID
READ_MAX_BYTES = 256 * 1024
"""What uvloop reads at once."""
CHUNKED = b"Transfer-Encoding: chunked"
BEHIND_A_PROXY = {**WITHOUT_SERVICES, "TELEMETRY_LAKE_CONVERSION__TRUSTED_PROXIES": "1"}


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def stored_with(node: RunningNode, mark: bytes) -> list[CapturedPing]:
    """The stored pings whose path, query or body has `mark`."""
    return [ping for ping in node.stored() if mark in ping.path + b" " + ping.query + b" " + ping.body]


# --- requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"POST", b"PUT"])
@pytest.mark.parametrize(
    "target",
    [
        FIREFOX,
        GENERIC,
        BARE,
        FIREFOX + b"/",
        GENERIC + b"/",
        BARE + b"/",
        FIREFOX + b"?v=4",
        GENERIC + b"?a=b&c",
    ],
)
def test_accepts_every_form_of_path(node: RunningNode, method: bytes, target: bytes) -> None:
    assert node.ask(request(target, method=method)).status == 200


@pytest.mark.parametrize(
    "target",
    [
        b"/submit/telemetry/not-a-uuid",
        b"/submit/telemetry/1/main/Firefox",
        b"/submit/UPPER/%00/x/%FF",
        b"/submit/telemetry/..%2f..",
        b"/submit/telemetry",
        b"/submit/telemetry/",
        b"/submit/telemetry/1/2/3/4/5/6/7",
        b"/submit/a/b/c",
        b"/submit/a/b/c/d/e",
        b"/submit/a//c/d",
        b"/submit/telemetry/abc//",
        b"//submit/telemetry/abc",
        b"///submit/x",
    ],
)
def test_any_path_below_submit_is_accepted(node: RunningNode, target: bytes) -> None:
    assert node.ask(request(target + b"?odd=" + target)).status == 200
    assert node.ask(request(b"http://lake.example" + target)).status == 200
    (ping,) = [ping for ping in node.stored() if ping.query == b"odd=" + target]
    assert ping.path == target


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/submit",
        b"/submit/",
        b"//submit/",
        b"/submit?/telemetry/abc",
        b"/submitted/telemetry/abc",
        b"/SUBMIT/telemetry/abc",
        b"/../submit/telemetry/abc",
        b"/__heartbeat__/",
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"GET", b"OPTIONS"])
def test_other_paths_are_404_whatever_the_method(node: RunningNode, method: bytes, target: bytes) -> None:
    assert node.ask(request(target, method=method)).status == 404


def test_the_target_asterisk_is_404(node: RunningNode) -> None:
    assert node.ask(request(b"*", method=b"OPTIONS")).status == 404


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"PATCH", b"TRACE", b"PROPFIND"])
def test_other_methods_are_405_on_submissions(node: RunningNode, method: bytes) -> None:
    answer = node.ask(request(FIREFOX, None if method in (b"GET", b"HEAD") else b"", method=method))
    assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST, PUT")


PUBLIC_PAGES = (b"/__lbheartbeat__", b"/__version__")
PRIVATE_PAGES = (b"/__heartbeat__", b"/metrics")


@pytest.mark.parametrize("path", [*PUBLIC_PAGES, *PRIVATE_PAGES])
def test_pages_are_read_and_not_posted_to(node: RunningNode, path: bytes) -> None:
    with node.private_client() if path in PRIVATE_PAGES else node.client() as client:
        client.send(request(path, None, method=b"GET"))
        assert client.answer().status == 200
        client.send(request(path, None, method=b"HEAD"))
        head = client.answer(to_head=True)
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) > 0
        client.send(request(path))
        answer = client.answer()
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@pytest.mark.parametrize("path", PRIVATE_PAGES)
def test_what_is_for_operators_is_unknown_at_the_public_address(
    node: RunningNode, path: bytes, method: bytes
) -> None:
    for target in (path, path + b"?x=1", b"http://lake.example" + path):
        assert node.ask(request(target, None, method=method)).status == 404


def test_the_private_address_shows_all_pages_and_takes_no_ping(node: RunningNode) -> None:
    before = len(node.stored())
    with node.private_client() as client:
        for path in (*PUBLIC_PAGES, *PRIVATE_PAGES):
            client.send(request(path, None, method=b"GET"))
            assert client.answer().status == 200
        client.send(request())
        assert client.answer().status == 404
    assert len(node.stored()) == before


def test_absolute_target_is_taken_for_its_path(node: RunningNode) -> None:
    assert node.ask(request(b"http://lake.example:80" + BARE + b"?absolute=1")).status == 200
    (ping,) = stored_with(node, b"absolute=1")
    assert (ping.path, ping.host) == (BARE, b"lake.example:80")
    assert node.ask(request(b"http://lake.example?x", None, method=b"GET")).status == 404


def test_the_authority_of_an_absolute_target_counts_whatever_host_says(node: RunningNode) -> None:
    target = b"https://[2001:db8::1]:8443" + BARE + b"?authority=1"
    assert node.ask(request(target, host=b"other.example")).status == 200
    (ping,) = stored_with(node, b"authority=1")
    assert ping.host == b"[2001:db8::1]:8443"


@pytest.mark.parametrize(
    "host",
    [b"", b"a", b"a_b-c.example.", b"a%41:", b"192.0.2.1:65535", b"[::1]", b"[v1.a:b]:80", b"a,b!$&'()*+;=~"],
)
def test_every_valid_authority_is_a_host(node: RunningNode, host: bytes) -> None:
    assert node.ask(request(BARE + b"?host=" + host.hex().encode(), host=host)).status == 200
    (ping,) = [ping for ping in node.stored() if ping.query == b"host=" + host.hex().encode()]
    assert ping.host == host


def test_body_is_opaque_and_may_be_empty(node: RunningNode) -> None:
    every_byte = bytes(range(256)) * 3
    gzip_like = b"\x1f\x8b\x08 truncated"
    for mark, body in ((b"m-every", every_byte), (b"m-gzip", gzip_like), (b"m-empty", b"")):
        assert node.ask(request(BARE + b"?" + mark, body)).status == 200
        (ping,) = stored_with(node, mark)
        assert ping.body == body


def test_answer_has_date_and_length(node: RunningNode) -> None:
    answer = node.ask(request())
    date = email.utils.parsedate_to_datetime(answer.headers["date"])
    assert abs(datetime.now(UTC) - date) < timedelta(seconds=5)
    assert answer.headers["content-length"] == "0"


def test_refusals_say_what_is_wrong(node: RunningNode) -> None:
    answer = node.ask(request(b"/nowhere"))
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"/submit/" in answer.body


# --- length, chunks and limits ----------------------------------------------------------------


def test_no_length_is_411(node: RunningNode) -> None:
    assert node.ask(request(body=None)).status == 411
    assert node.ask(request(body=None, method=b"PUT")).status == 411


@pytest.mark.parametrize("size", [1, 1_000, DEFAULTS.max_body_bytes])
def test_body_up_to_the_limit(node: RunningNode, size: int) -> None:
    assert node.ask(request(body=b"x" * size)).status == 200
    with node.client() as client:
        client.send(request(body=None, headers=(CHUNKED,)))
        half = size // 2
        client.send(chunked(b"y" * half, b"z" * (size - half)) if half else chunked(b"z"))
        assert client.answer().status == 200


def test_body_one_past_the_limit_is_413(node: RunningNode) -> None:
    body = b"x" * (DEFAULTS.max_body_bytes + 1)
    answer = node.ask(request(body=body))
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    with node.client() as client:
        client.send(request(body=None, headers=(CHUNKED,)) + chunked(body[:-1], b"x"))
        assert client.answer().status == 413
        assert client.is_closed_by_server()


def test_413_comes_before_the_body(node: RunningNode) -> None:
    with node.client() as client:
        client.send(request(body=None, headers=(b"Content-Length: 99999999999",)))
        assert client.answer().status == 413
        assert client.is_closed_by_server()


def test_413_reaches_a_client_that_sends_its_whole_body_first(node: RunningNode) -> None:
    """A reset that overtakes the answer would make the client send the ping again for ever."""
    with node.client() as client:
        client.send(request(body=b"x" * (8 * 1024 * 1024)))
        assert client.answer().status == 413


def test_a_ten_megabyte_limit_can_be_set(new_node) -> None:
    limit = 10 * 1024 * 1024
    node = new_node(max_body_bytes=limit).start()
    assert node.ask(request(body=b"x" * limit)).status == 200
    assert node.ask(request(body=b"x" * (limit + 1))).status == 413


def test_chunk_extensions_and_trailers_are_dropped(node: RunningNode) -> None:
    body = b"5;ext=1\r\nhello\r\n0\r\nUser-Agent: from-the-trailer\r\n\r\n"
    assert node.ask(request(BARE + b"?trailer=1", None, headers=(CHUNKED,)) + body).status == 200
    (ping,) = stored_with(node, b"trailer=1")
    assert ping.body == b"hello"
    assert b"user-agent" not in dict(ping.headers)


def test_chunks_of_one_byte(node: RunningNode) -> None:
    assert node.ask(request(body=None, headers=(CHUNKED,)) + chunked(*[b"x"] * 20_000)).status == 200


def test_a_chunked_body_that_is_mostly_overhead_is_400(node: RunningNode) -> None:
    with node.client() as client:
        client.send(request(body=None, headers=(CHUNKED,)))
        client.send(b"1;" + b"e" * 1_000_000 + b"\r\n")
        assert client.answer().status == 400


def target_of(size: int, *, path_bytes: int) -> bytes:
    path = b"/submit/telemetry/".ljust(path_bytes, b"a")
    return path + b"?" + b"q" * (size - path_bytes - 1)


def test_path_and_query_at_their_limit_and_one_past(node: RunningNode) -> None:
    most = DEFAULTS.max_captured_field_bytes
    for path, query, status in ((most, most, 200), (most + 1, most, 431), (most, most + 1, 431)):
        assert node.ask(request(target_of(path + 1 + query, path_bytes=path))).status == status


def test_target_at_its_limit_and_one_past(node: RunningNode) -> None:
    most = DEFAULTS.max_path_bytes
    assert node.ask(request(target_of(most, path_bytes=100))).status == 431
    answer = node.ask(request(target_of(most + 1, path_bytes=100)))
    assert (answer.status, answer.headers["connection"]) == (414, "close")
    assert node.ask(request(b"/" + b"x" * 200_000)).status == 414


def test_a_target_without_end_is_414_in_however_many_pieces_it_comes(node: RunningNode) -> None:
    with node.client() as client:
        for piece in (b"POST /", b"x" * (HEAD_MAX_BYTES // 2), b"x" * HEAD_MAX_BYTES):
            client.send(piece)
            # The answer to somebody else shows that the worker has read what was sent before.
            assert node.ask(request()).status == 200
        assert client.answer().status == 414
        assert client.is_closed_by_server()


def test_a_longer_path_can_be_allowed(new_node) -> None:
    node = new_node(max_path_bytes=8_192, max_captured_field_bytes=8_192).start()
    assert node.ask(request(b"/submit/telemetry/".ljust(8_192, b"a"))).status == 200
    assert node.ask(request(b"/submit/telemetry/".ljust(8_193, b"a"))).status == 414


def test_host_at_its_limit_and_one_past(node: RunningNode) -> None:
    most = DEFAULTS.max_captured_field_bytes
    for size, status in ((most, 200), (most + 1, 431)):
        assert node.ask(request(host=b"h" * size)).status == status
        target = b"http://" + b"h" * size + BARE
        assert node.ask(request(target)).status == status


@pytest.mark.parametrize(
    "name", sorted(set(DEFAULTS.captured_headers) - {"Content-Length", "X-Forwarded-For"})
)
def test_captured_header_at_its_limit_and_one_past(node: RunningNode, name: str) -> None:
    most = DEFAULTS.max_captured_field_bytes
    lower = name.lower().encode()
    mark = b"long=" + lower
    for size in (most, most + 1):
        line = name.encode() + b":  " + b"h" * size + b" "
        assert node.ask(request(BARE + b"?" + mark, headers=(line,))).status == 200
    kept, left_out = [dict(ping.headers) for ping in node.stored() if ping.query == mark]
    assert kept == {lower: b"h" * most, b"content-length": b"2"}
    assert left_out == {b"content-length": b"2", LEFT_OUT: lower}


def test_every_header_that_is_left_out_is_noted_once_and_others_are_kept(node: RunningNode) -> None:
    long = b": " + b"v" * 2_000
    lines = (b"User-Agent" + long, b"DNT: 1", b"user-agent" + long, b"Date" + long, b"User-Agent: short")
    assert node.ask(request(BARE + b"?several=1", headers=lines)).status == 200
    (ping,) = stored_with(node, b"several=1")
    assert ping.headers == (
        (b"dnt", b"1"),
        (b"user-agent", b"short"),
        (b"content-length", b"2"),
        (LEFT_OUT, b"user-agent, date"),
    )
    # A client cannot pretend it.
    assert node.ask(request(headers=(LEFT_OUT + b": dnt",))).status == 400


def test_what_proxies_have_added_is_not_the_fault_of_the_client(node: RunningNode) -> None:
    chain = b", ".join([b"203.0.113.1"] * 1_000)
    assert node.ask(request(BARE + b"?proxied=1", headers=(b"X-Forwarded-For: " + chain,))).status == 200
    (ping,) = stored_with(node, b"proxied=1")
    assert dict(ping.headers)[b"x-forwarded-for"] == chain


def test_other_headers_may_be_longer(node: RunningNode) -> None:
    assert node.ask(request(headers=(b"Cookie: " + b"c" * 30_000,))).status == 200


def test_all_header_lines_at_their_limit_and_one_past(node: RunningNode) -> None:
    fixed = len("Host") + len("lake.example") + 4 + len("Content-Length") + len("2") + 4 + len("A") + 4
    for size, status in ((HEAD_MAX_BYTES - fixed, 200), (HEAD_MAX_BYTES - fixed + 1, 431)):
        assert node.ask(request(headers=(b"A: " + b"a" * size,))).status == status


def test_header_lines_that_come_in_pieces_are_added_up(node: RunningNode) -> None:
    half = b"A: " + b"a" * (HEAD_MAX_BYTES // 2)
    data = request(headers=(half, half))
    with node.client() as client:
        for piece in (data[:40_000], data[40_000:60_000], data[60_000:]):
            client.send(piece)
            # The answer to somebody else shows that the worker has read what was sent before.
            assert node.ask(request()).status == 200
        assert client.answer().status == 431


def test_number_of_header_lines_at_its_limit_and_one_past(node: RunningNode) -> None:
    for count, status in ((HEAD_MAX_LINES - 2, 200), (HEAD_MAX_LINES - 1, 431)):
        assert node.ask(request(headers=tuple(b"A%d: 1" % index for index in range(count)))).status == status


def test_a_header_without_end_is_431_and_then_cut(node: RunningNode) -> None:
    with node.client() as client:
        client.send(b"POST /submit/telemetry/abc HTTP/1.1\r\nA: ")
        with pytest.raises(OSError, match=r"reset|pipe"):
            client.send(b"a" * (2 * DISCARD_MAX_BYTES))


def test_header_lines_without_end_are_431(node: RunningNode) -> None:
    with node.client() as client:
        client.send(b"POST /submit/telemetry/abc HTTP/1.1\r\n" + b"A: a\r\n" * (HEAD_MAX_LINES + 2))
        assert client.answer().status == 431
        assert client.is_closed_by_server()


def test_a_head_that_is_too_long_in_two_ways_is_answered_once(node: RunningNode) -> None:
    answered = 'requests_total{status="431"}'
    before = node.metrics()[answered]
    with node.client() as client:
        client.send(b"POST /submit/telemetry/abc HTTP/1.1\r\n")
        assert node.ask(request()).status == 200
        client.send((b"A: " + b"a" * 600 + b"\r\n") * (HEAD_MAX_LINES + 2))
        assert client.answer().status == 431
        assert client.is_closed_by_server()
    assert node.metrics()[answered] == before + 1


def test_a_refused_request_whose_chunks_are_mostly_overhead_is_answered_once(node: RunningNode) -> None:
    answered = 'requests_total{status="400"}'
    before = node.metrics()[answered]
    long_target = request(target_of(DEFAULTS.max_path_bytes + 1, path_bytes=100), None, headers=(CHUNKED,))
    with node.client() as client:
        client.send(long_target[:1_000])
        # The answer to somebody else shows that the worker has read what was sent before.
        assert node.ask(request()).status == 200
        client.send(long_target[1_000:] + b"1;" + b"e" * 100_000)
        assert client.answer().status == 414
        assert client.is_closed_by_server()
    assert node.metrics()[answered] == before


def test_202_instead_of_413_and_414_when_set(new_node) -> None:
    node = new_node(answer_too_large_with_202="true").start()
    assert node.ask(request(body=b"x" * (DEFAULTS.max_body_bytes + 1))).status == 202
    assert node.ask(request(target_of(DEFAULTS.max_path_bytes + 1, path_bytes=100))).status == 202
    assert node.ask(request(host=b"h" * 1_025)).status == 431
    assert node.stored() == []


@pytest.mark.parametrize(
    "data,status",
    [
        (request(b"/" + b"x" * 5_000, None, method=b"GET", host=b"h" * 2_000), 414),
        (request(b"/nowhere", None, host=b"h" * 2_000), 431),
        (request(b"/nowhere", None, method=b"DELETE"), 404),
        (request(BARE, None, method=b"DELETE"), 405),
        (request(b"/nowhere", None, host=None, headers=(b"Content-Length: 9999999",)), 400),
        (request(b"/nowhere", None, headers=(b"Content-Length: 9999999",)), 404),
    ],
    ids=[
        "414 before 431",
        "431 before 404",
        "404 before 405 and 411",
        "405 before 411",
        "400 first",
        "404 before 413",
    ],
)
def test_the_first_check_that_fails_answers(node: RunningNode, data: bytes, status: int) -> None:
    assert node.ask(data).status == status


# --- malformed --------------------------------------------------------------------------------

_LINE = b"POST /submit/telemetry/abc HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"POST /submit/telemetry/abc HTTP/1.2\r\nHost: x\r\n\r\n", id="version 1.2"),
        pytest.param(b"POST /submit/telemetry/abc HTTP/2.0\r\nHost: x\r\n\r\n", id="version 2.0"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="preface of HTTP/2"),
        pytest.param(b"GET /__lbheartbeat__\r\n\r\n", id="version 0.9"),
        pytest.param(b"BREW /submit/telemetry/abc HTTP/1.1\r\nHost: x\r\n\r\n", id="unknown method"),
        pytest.param(b"post /submit/telemetry/abc HTTP/1.1\r\nHost: x\r\n\r\n", id="lower-case method"),
        pytest.param(b"POST /submit/telemetry/a b HTTP/1.1\r\nHost: x\r\n\r\n", id="space in the target"),
        pytest.param(b"POST /submit/telemetry/\0 HTTP/1.1\r\nHost: x\r\n\r\n", id="NUL in the target"),
        pytest.param(b"POST /submit/telemetry/\x7f HTTP/1.1\r\nHost: x\r\n\r\n", id="DEL in the target"),
        pytest.param(
            b"POST /submit/telemetry/\xff HTTP/1.1\r\nHost: x\r\n\r\n", id="not ASCII in the target"
        ),
        pytest.param(b"POST submit/telemetry/a HTTP/1.1\r\nHost: x\r\n\r\n", id="relative target"),
        pytest.param(b"POST /submit/telemetry/abc HTTP/1.1\nHost: x\n\n", id="LF alone"),
        pytest.param(_LINE + b"Content-Length : 2\r\n\r\n{}", id="space before the colon"),
        pytest.param(_LINE + b"A: 1\r\n 2\r\nContent-Length: 2\r\n\r\n{}", id="folded header"),
        pytest.param(_LINE + b"A: \0\r\nContent-Length: 2\r\n\r\n{}", id="NUL in a value"),
        pytest.param(_LINE + b"A: \x01\r\nContent-Length: 2\r\n\r\n{}", id="control character in a value"),
        pytest.param(_LINE + b"A: a\rb\r\nContent-Length: 2\r\n\r\n{}", id="CR in a value"),
        pytest.param(_LINE + b"A(: 1\r\nContent-Length: 2\r\n\r\n{}", id="separator in a name"),
        pytest.param(_LINE + b"\xff: 1\r\nContent-Length: 2\r\n\r\n{}", id="not ASCII in a name"),
        pytest.param(_LINE + b"no colon\r\nContent-Length: 2\r\n\r\n{}", id="no colon"),
        pytest.param(_LINE + b"Content-Length:\r\n\r\n{}", id="empty length"),
        pytest.param(_LINE + b"Content-Length: -2\r\n\r\n{}", id="negative length"),
        pytest.param(_LINE + b"Content-Length: +2\r\n\r\n{}", id="signed length"),
        pytest.param(_LINE + b"Content-Length: 2,2\r\n\r\n{}", id="list of lengths"),
        pytest.param(_LINE + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", id="length twice"),
        pytest.param(_LINE + b"Content-Length: 99999999999999999999\r\n\r\n{}", id="length beyond 64 bits"),
        pytest.param(_LINE + b"Content-Length: 0x2\r\n\r\n{}", id="hexadecimal length"),
        pytest.param(
            _LINE + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", id="length and coding"
        ),
        pytest.param(
            _LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", id="coding and length"
        ),
        pytest.param(_LINE + b"Transfer-Encoding: gzip\r\n\r\n", id="coding that is not chunked"),
        pytest.param(_LINE + b"Transfer-Encoding: chunked, gzip\r\n\r\n", id="chunked not last"),
        pytest.param(_LINE + b"Transfer-Encoding: xchunked\r\n\r\n", id="coding unknown"),
        pytest.param(_LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n", id="two codings"),
        pytest.param(_LINE + b"Transfer-Encoding: chunked, chunked\r\n\r\n", id="chunked twice"),
        pytest.param(_LINE + CHUNKED + b"\r\n" + CHUNKED + b"\r\n\r\n", id="coding twice"),
        pytest.param(
            _LINE + b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"\r\n\r\n", id="codings in two lines"
        ),
        pytest.param(_LINE + b"Transfer-Encoding:\r\n\r\n", id="empty coding"),
        pytest.param(_LINE + CHUNKED + b"\r\n\r\nzz\r\n", id="chunk size that is none"),
        pytest.param(_LINE + CHUNKED + b"\r\n\r\n-1\r\n", id="negative chunk"),
        pytest.param(_LINE + CHUNKED + b"\r\n\r\nfffffffffffffffff\r\n", id="chunk beyond 64 bits"),
        pytest.param(_LINE + CHUNKED + b"\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", id="chunk that does not end"),
        pytest.param(_LINE + CHUNKED + b"\r\n\r\n2\n{}\r\n0\r\n\r\n", id="LF alone behind a size"),
        pytest.param(_LINE + CHUNKED + b"\r\n\r\n2;a\rb\r\n{}\r\n", id="CR in an extension"),
        pytest.param(_LINE + CHUNKED + b"\r\n\r\n0\r\nno colon\r\n\r\n", id="trailer without a colon"),
        pytest.param(_LINE + CHUNKED + b"\r\n\r\n0\r\nA: \0\r\n\r\n", id="NUL in a trailer"),
        pytest.param(_LINE + CHUNKED + b"\r\n\r\n0\r\n b: c\r\n\r\n", id="folded trailer"),
        pytest.param(
            request(body=None, headers=(CHUNKED,), version=b"HTTP/1.0") + chunked(b"{}"), id="chunks in 1.0"
        ),
        pytest.param(request(host=None), id="no host"),
        pytest.param(request(headers=(b"Host: y",)), id="two hosts"),
        pytest.param(request(host=b"a b"), id="space in the host"),
        pytest.param(request(host=b"a/b"), id="path in the host"),
        pytest.param(request(host=b"user@a"), id="user in the host"),
        pytest.param(request(host=b"a:b"), id="port that is none"),
        pytest.param(request(host=b"a:65536"), id="port beyond 16 bits"),
        pytest.param(request(host=b"::1"), id="address of IPv6 without brackets"),
        pytest.param(request(host=b"[::1"), id="half a bracket"),
        pytest.param(request(host=b"[1:2]"), id="no address of IPv6"),
        pytest.param(request(host=b"a%4"), id="half an escape"),
        pytest.param(request(host=b"\xe4.example"), id="host that is not ASCII"),
        pytest.param(request(b"http:///submit/x"), id="target without a host"),
        pytest.param(request(b"http://user@a/submit/x"), id="user in the target"),
        pytest.param(request(b"http://a:65536/submit/x"), id="port beyond 16 bits in the target"),
        pytest.param(request(b"http://a/submit/x", host=b"a b"), id="invalid host beside a target with one"),
        pytest.param(request(host=b"a b", version=b"HTTP/1.0"), id="invalid host in 1.0"),
        pytest.param(request(headers=(b"Connection: Upgrade", b"Upgrade: h2c")), id="upgrade"),
        pytest.param(b"CONNECT lake.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", id="connect"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"\0" * 100, id="zeros"),
    ],
)
def test_malformed_requests_are_400_and_end_the_connection(node: RunningNode, data: bytes) -> None:
    before = len(node.stored())
    with node.client() as client:
        client.send(data)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert client.is_closed_by_server()
    assert len(node.stored()) == before


def test_http_10_needs_no_host_and_closes(node: RunningNode) -> None:
    with node.client() as client:
        client.send(request(BARE + b"?old=1", version=b"HTTP/1.0", host=None))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed_by_server()
    (ping,) = stored_with(node, b"old=1")
    assert ping.protocol == b"HTTP/1.0"


def test_http_10_keeps_alive_when_asked(node: RunningNode) -> None:
    with node.client() as client:
        for _ in range(2):
            client.send(request(version=b"HTTP/1.0", headers=(b"Connection: keep-alive",)))
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")


# --- connections ------------------------------------------------------------------------------


def test_connection_stays_open_after_answers_that_do_not_end_it(node: RunningNode) -> None:
    with node.client() as client:
        for data, status in (
            (request(), 200),
            (request(b"/nowhere", b"x" * 10_000), 404),
            (request(method=b"DELETE"), 405),
            (request(body=None), 411),
            (request(host=b"h" * 2_000), 431),
            (request(method=b"OPTIONS", body=b"x"), 204),
            (request(), 200),
        ):
            client.send(data)
            assert client.answer().status == status


def test_connection_closes_when_asked(node: RunningNode) -> None:
    with node.client() as client:
        client.send(request(headers=(b"Connection: close",)))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed_by_server()


def test_what_follows_connection_close_is_no_request(node: RunningNode) -> None:
    with node.client() as client:
        client.send(request(headers=(b"Connection: close",)) + request(BARE + b"?after-close"))
        assert client.answer().status == 200
        assert client.is_closed_by_server()
    assert stored_with(node, b"after-close") == []


def test_pipelined_requests_are_answered_in_order(node: RunningNode) -> None:
    kinds = (
        (request(), 200),
        (request(b"/nowhere"), 404),
        (request(body=None), 411),
        (request(body=b"x" * 9_000), 200),
    )
    count = PIPELINED_MAX - 1
    with node.client() as client:
        sender = threading.Thread(
            target=client.send, args=(b"".join(kinds[index % 4][0] for index in range(count)),)
        )
        sender.start()
        assert [client.answer().status for _ in range(count)] == [
            kinds[index % 4][1] for index in range(count)
        ]
        sender.join()


def test_megabytes_of_pipelined_requests(node: RunningNode) -> None:
    """Reads begin and end in the middle of requests; none of them is taken for one endless request."""
    count = 20 * REQUESTS_WAITING_MAX
    data = request(body=b"x" * 9_000)
    assert len(data) * PIPELINED_MAX > READ_MAX_BYTES
    with node.client() as client:
        sender = threading.Thread(target=client.send, args=(data * count,))
        sender.start()
        assert {client.answer().status for _ in range(count)} == {200}
        sender.join()


@pytest.mark.parametrize("data,status", [(request(), 200), (request(b"/nowhere"), 404)])
def test_requests_in_one_read_up_to_the_limit_and_past_it(
    node: RunningNode, data: bytes, status: int
) -> None:
    for count in (PIPELINED_MAX - 1, PIPELINED_MAX, PIPELINED_MAX + 1):
        with node.client() as client:
            client.send(data * count)
            answers = [client.answer() for _ in range(min(count, PIPELINED_MAX))]
            assert {answer.status for answer in answers} == {status}
            if count < PIPELINED_MAX:
                client.send(data)
                assert client.answer().status == status
            else:
                assert answers[-1].headers["connection"] == "close"
                assert client.is_closed_by_server()


def test_a_malformed_request_behind_pings_is_answered_behind_them(node: RunningNode) -> None:
    with node.client() as client:
        client.send(request() + request() + b"nonsense\r\n\r\n" + request(BARE + b"?behind-nonsense"))
        assert [client.answer().status for _ in range(3)] == [200, 200, 400]
        assert client.is_closed_by_server()
    assert stored_with(node, b"behind-nonsense") == []


def test_a_request_byte_by_byte(node: RunningNode) -> None:
    with node.client() as client:
        for byte in request(FIREFOX + b"?bytewise=1", b"hello", headers=(b"User-Agent: slow \xff",)):
            client.send(bytes([byte]))
        assert client.answer().status == 200
    (ping,) = stored_with(node, b"bytewise=1")
    assert (ping.path, ping.body, dict(ping.headers)[b"user-agent"]) == (FIREFOX, b"hello", b"slow \xff")


def test_expect_continue(node: RunningNode) -> None:
    with node.client() as client:
        client.send(request(body=None, headers=(b"Expect: 100-continue", b"Content-Length: 5")))
        assert client.answer().status == 100
        client.send(b"hello")
        assert client.answer().status == 200
    with node.client() as client:
        client.send(request(b"/nowhere", None, headers=(b"Expect: 100-Continue", b"Content-Length: 5")))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (404, "close")


def test_http_10_gets_no_interim_answer(node: RunningNode) -> None:
    with node.client() as client:
        head = (b"Expect: 100-continue", b"Content-Length: 5")
        client.send(request(body=None, headers=head, version=b"HTTP/1.0"))
        assert node.ask(request()).status == 200
        client.send(b"hello")
        assert client.answer().status == 200


@pytest.mark.parametrize(
    "trailer",
    [
        b"Host: other",
        b"Content-Encoding: gzip",
        b"Content-Length: 5",
        b"Content-Length: x\r\ncontent-length: 99999999999999999999",
        CHUNKED,
        b"Transfer-Encoding: gzip",
        b"Connection: close",
        b"Connection: Upgrade\r\nUpgrade: h2c",
        b"Expect: 100-continue",
        b"User-Agent: " + b"u" * 2_000,
        b"Origin: https://a.example\r\nX-Forwarded-For: 203.0.113.1",
    ],
)
def test_fields_in_a_trailer_change_nothing(node: RunningNode, trailer: bytes) -> None:
    """Behind the head of a ping, or behind pings in the same read."""
    mark = trailer[:40].hex().encode()
    data = request(BARE + b"?framed=" + mark, None, headers=(CHUNKED,))
    data += b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n"
    behind = request(BARE + b"?behind=1", b"x\r\n\r\n")
    with node.client() as client:
        client.send(b"\r\n" + behind + b"\r\n\r\n" + data + data + behind)
        assert [client.answer().status for _ in range(4)] == [200] * 4
        client.send(data)
        assert client.answer().status == 200
    pings = stored_with(node, b"framed=" + mark)
    assert [(ping.body, ping.host, ping.headers) for ping in pings] == [(b"hello", b"lake.example", ())] * 3


def test_half_closed_client_gets_its_answer(node: RunningNode) -> None:
    with node.client() as client:
        client.send(request())
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer().status == 200
        assert client.is_closed_by_server()


def test_aborted_request_is_not_stored_and_counted(node: RunningNode) -> None:
    before = node.metrics()["aborted_requests_total"]
    for data in (request(BARE + b"?aborted", b"x" * 100)[:-1], request(BARE + b"?aborted", None)[:-2]):
        with node.client() as client:
            client.send(data)
    wait_until(
        lambda: node.metrics()["aborted_requests_total"] == before + 2,
        deadline_seconds=10,
        what="both are counted",
    )
    assert stored_with(node, b"aborted") == []


def test_slow_head_and_slow_body_are_closed_without_an_answer(new_node) -> None:
    node = new_node(head_timeout_seconds=0.5, body_timeout_seconds=0.5).start()
    for data in (b"POST /submit", request(body=b"x" * 100)[:-1], b""):
        with node.client() as client:
            client.send(data)
            assert client.is_closed_by_server()
    assert node.stored() == []


def test_a_dripping_head_earns_no_more_time(new_node) -> None:
    node = new_node(head_timeout_seconds=0.5).start()
    with node.client() as client:
        deadline = time.monotonic() + 10
        answered = False
        for byte in request(headers=(b"A: " + b"a" * 10_000,)):
            try:
                client.send(bytes([byte]))
                answered = wait_for_bytes(client, 0.02)
            except OSError:
                break
            assert time.monotonic() < deadline
        assert not answered


def test_idle_connection_is_closed(new_node) -> None:
    node = new_node(keep_alive_seconds=0.5).start()
    with node.client() as client:
        client.send(request())
        assert client.answer().status == 200
        assert client.is_closed_by_server()


def open_connections(node: RunningNode, count: int, *addresses: str) -> list[Client]:
    """`count` connections from each address, all of which are served."""
    clients = [node.client(address=address) for address in addresses for _ in range(count)]
    for client in clients:
        client.send(request())
    assert {client.answer().status for client in clients} == {200}
    return clients


def assert_is_one_too_many(node: RunningNode, address: str) -> None:
    """A connection that is answered at once, before it sends anything, and cut."""
    with node.client(address=address) as client:
        answer = client.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "60")
        assert client.is_closed_by_server()


def test_connections_up_to_the_limit_and_one_past(new_node) -> None:
    node = new_node(connections_max=200, connections_per_address_max=100).start()
    clients = open_connections(node, 100, "127.0.0.2", "127.0.0.3")
    try:
        assert_is_one_too_many(node, "127.0.0.4")
        # One more does not count, however long its client keeps it open: nor do ten.
        kept = [node.client() for _ in range(10)]
        assert {client.answer().status for client in kept} == {503}
        assert node.metrics()["refused_connections_total"] == 11
        clients.pop().close()
        wait_until(
            partial(_is_accepted, node), deadline_seconds=ANSWER_DEADLINE_SECONDS, what="room for another"
        )
    finally:
        for client in (*clients, *kept):
            client.close()
    wait_until(lambda: node.metrics()["connections"] < 10, deadline_seconds=10, what="they are gone")


def test_connections_of_one_address_up_to_the_limit_and_one_past(new_node) -> None:
    node = new_node(connections_per_address_max=50).start()
    clients = open_connections(node, 50, "127.0.0.2")
    try:
        assert_is_one_too_many(node, "127.0.0.2")
        assert node.ask(request()).status == 200
        clients.pop().close()
        wait_until(
            lambda: _is_accepted(node, address="127.0.0.2"),
            deadline_seconds=ANSWER_DEADLINE_SECONDS,
            what="room for another",
        )
    finally:
        for client in clients:
            client.close()


def test_a_proxy_of_our_own_may_have_any_number_of_connections(new_node) -> None:
    node = new_node(BEHIND_A_PROXY, connections_per_address_max=5).start()
    for client in open_connections(node, 20, "127.0.0.2"):
        client.close()


def announced(node: RunningNode, size: int, address: str = "127.0.0.1", *headers: bytes) -> Client:
    """A connection that announces a body and sends nothing of it; the node has read its head."""
    client = node.client(address=address)
    expects = (b"Content-Length: %d" % size, b"Expect: 100-continue", *headers)
    client.send(request(body=None, headers=expects))
    return client


def test_announced_bodies_up_to_the_limit_and_past_it(new_node) -> None:
    node = new_node(memory_max_bytes=4 * MIB, memory_per_address_max_bytes=4 * MIB).start()
    size = DEFAULTS.max_body_bytes
    # The heads of the three take the room of the fourth.
    clients = [announced(node, size, f"127.0.0.{2 + number}") for number in range(3)]
    assert [client.answer().status for client in clients] == [100] * 3
    with announced(node, size, "127.0.0.9") as one_too_many:
        answer = one_too_many.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "60")
    # Smaller ones fit.
    assert node.ask(request(body=b"x" * (size // 2))).status == 200
    wait_until(lambda: node.metrics()["held_bytes"] > 3 * size, deadline_seconds=10, what="it is shown")
    for client in clients:
        client.send(b"x" * size)
        assert client.answer().status == 200
        client.close()
    wait_until(lambda: node.metrics()["held_bytes"] == 0, deadline_seconds=10, what="nothing is held")


def test_one_address_gets_its_part_of_the_memory_only(new_node) -> None:
    node = new_node(memory_per_address_max_bytes=3 * MIB).start()
    size = DEFAULTS.max_body_bytes
    clients = [announced(node, size, "127.0.0.2") for _ in range(2)]
    assert [client.answer().status for client in clients] == [100] * 2
    with announced(node, size, "127.0.0.2") as one_too_many:
        assert one_too_many.answer().status == 503
    assert node.ask(request(body=b"x" * size)).status == 200
    for client in clients:
        client.close()
    wait_until(lambda: node.metrics()["held_bytes"] == 0, deadline_seconds=10, what="nothing is held")


def test_behind_a_proxy_the_part_of_the_memory_is_that_of_the_address_it_saw(new_node) -> None:
    node = new_node(BEHIND_A_PROXY, memory_per_address_max_bytes=3 * MIB).start()
    size = DEFAULTS.max_body_bytes
    forwarded = b"X-Forwarded-For: "
    clients = [
        announced(node, size, "127.0.0.1", forwarded + b"198.51.100.%d, 203.0.113.1" % number)
        for number in range(2)
    ]
    assert [client.answer().status for client in clients] == [100] * 2
    # What the client says of itself, in whatever header, makes it no other one.
    with announced(node, size, "127.0.0.1", forwarded + b"192.0.2.3", forwarded + b"203.0.113.1") as more:
        assert more.answer().status == 503
    with announced(node, size, "127.0.0.1", forwarded + b"203.0.113.1, 203.0.113.2") as other:
        assert other.answer().status == 100
    for client in clients:
        client.close()
    wait_until(lambda: node.metrics()["held_bytes"] == 0, deadline_seconds=10, what="nothing is held")


def send_until_refused(node: RunningNode, begin: bytes, piece: bytes, address: str) -> tuple[int, bytes]:
    """Send pieces, each on a connection of its own, until one is refused: how many were sent, the status."""
    with contextlib.ExitStack() as stack:
        for sent in range(1_000):
            client = stack.enter_context(node.client(address=address))
            client.send(begin)
            # The answer to somebody else shows that the worker has read what was sent before.
            assert node.ask(request()).status == 200
            client.send(piece)
            assert node.ask(request()).status == 200
            if wait_for_bytes(client, 0.001):
                return sent, b"%d" % client.answer().status
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize(
    "begin,piece",
    [
        (b"POST /submit/telemetry/abc HTTP/1.1\r\nHost: x\r\n", b"A: " + b"a" * 60_000),
        (request(body=None, headers=(CHUNKED,)), b"e000\r\n" + b"x" * 0xE000),
        (request(body=None, headers=(CHUNKED,)) + b"1\r\nx\r\n0\r\n", b"A: " + b"a" * 60_000),
        (request(body=None, headers=(b"User-Agent: u", b"X-Forwarded-For: " + b"1" * 60_000)), b""),
    ],
    ids=["heads", "chunks", "trailers", "heads of slow bodies"],
)
def test_what_comes_without_announcement_is_held_as_it_comes(new_node, begin: bytes, piece: bytes) -> None:
    node = new_node(memory_per_address_max_bytes=2 * MIB, max_body_bytes=MIB // 2).start()
    if b"Content-Length" not in begin and b"chunked" not in begin and not piece:
        begin = begin[:-2] + b"Content-Length: 10\r\n\r\n"
    sent, status = send_until_refused(node, begin, piece or b"x", "127.0.0.2")
    assert status == b"503"
    # 60,000 bytes, and 20 KiB for the objects of the head.
    assert 20 <= sent <= 26
    wait_until(lambda: node.metrics()["held_bytes"] == 0, deadline_seconds=10, what="nothing is held")


def _is_accepted(node: RunningNode, **options: str) -> bool:
    with node.client(**options) as client:
        client.send(request())
        return client.answer().status == 200


def test_a_client_that_reads_no_answer_does_not_disturb_others(node: RunningNode) -> None:
    with node.client(timeout_seconds=1) as deaf:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with pytest.raises((TimeoutError, ConnectionError)):
            deaf.send(request(b"/nowhere") * 600_000)
        assert node.ask(request()).status == 200


# --- what is captured -------------------------------------------------------------------------


def test_everything_is_captured(node: RunningNode) -> None:
    lines = tuple(
        name.encode() + b": value of " + name.encode()
        for name in DEFAULTS.captured_headers
        if name != "Content-Length"
    )
    before = datetime.now(UTC)
    assert node.ask(request(FIREFOX + b"?captured=1&v=4", b"{}", method=b"PUT", headers=lines)).status == 200
    (ping,) = stored_with(node, b"captured=1")
    assert before <= ping.submission_timestamp <= datetime.now(UTC)
    assert (ping.method, ping.path, ping.query) == (b"PUT", FIREFOX, b"captured=1&v=4")
    assert (ping.protocol, ping.remote_address, ping.host) == (b"HTTP/1.1", b"127.0.0.1", b"lake.example")
    expected = [(name.lower().encode(), b"value of " + name.encode()) for name in DEFAULTS.captured_headers]
    assert ping.headers == (
        *(pair for pair in expected if pair[0] != b"content-length"),
        (b"content-length", b"2"),
    )


def test_values_survive_as_bytes_repeated_and_in_order(node: RunningNode) -> None:
    value = bytes(range(0x80, 0x100))
    lines = (
        b"USER-agent: \t one \t",
        b"x-debug-id:",
        b"User-Agent: " + value,
        b"X-Unknown: dropped",
        b"date: a\tb",
    )
    assert node.ask(request(BARE + b"?values=1", headers=lines)).status == 200
    (ping,) = stored_with(node, b"values=1")
    assert ping.headers == (
        (b"user-agent", b"one"),
        (b"x-debug-id", b""),
        (b"user-agent", value),
        (b"date", b"a\tb"),
        (b"content-length", b"2"),
    )


def test_captured_headers_are_configuration(new_node) -> None:
    node = new_node(captured_headers='["X-Mine"]').start()
    assert node.ask(request(headers=(b"x-mine: 1", b"User-Agent: 2"))).status == 200
    (ping,) = node.stored()
    assert ping.headers == ((b"x-mine", b"1"),)


def test_a_client_cannot_forge_records(node: RunningNode) -> None:
    """A body that holds a whole segment is one ping."""
    segment = next(node.spool.open_directory.iterdir()).read_bytes()[:200_000]
    before = len(node.stored())
    assert node.ask(request(BARE + b"?forged=1", segment)).status == 200
    assert len(node.stored()) == before + 1


def test_logs_name_no_client(node: RunningNode) -> None:
    node.ask(request(headers=(b"User-Agent: secret-agent", b"X-Forwarded-For: 203.0.113.77")))
    node.ask(b"nonsense\r\n\r\n")
    assert "secret-agent" not in node.log()
    assert "203.0.113.77" not in node.log()
    log = node.log()
    for port in (node.port, node.private_port):
        log = log.replace(f'"127.0.0.1:{port}"', "")
    assert '"127.0.0.1' not in log
