"""Web pages of other origins: what a browser asks before a ping, and may read after it."""

from typing import Final

import pytest

from ingest_server.cross_origin import PREFLIGHT_MAX_AGE_SECONDS, REQUESTED_HEADERS_MAX_BYTES
from telemetry_lake.settings import IngestSettings
from tests.ingest.running_node import Response, RunningNode, request

TARGET: Final = b"/submit/org-example-page/main/1/0a8b1c9e-52fe-4d3a-9c1c-6d3f7c1c1a01"
ORIGIN: Final = "https://page.example"
ALLOWED: Final = "access-control-allow-origin"


def preflight(node: RunningNode, headers: bytes, origin: str = ORIGIN) -> Response:
    asked = (
        b"Origin: " + origin.encode(),
        b"Access-Control-Request-Method: POST",
        b"Access-Control-Request-Headers: " + headers,
    )
    return node.ask(request(TARGET, None, method=b"OPTIONS", headers=asked))


def test_a_preflight_is_answered_without_a_body(node: RunningNode) -> None:
    before = node.metrics()['requests_total{status="204"}']
    asked = b"content-encoding,content-type,x-telemetry-agent,x-debug-id,x-source-tags"
    with node.client() as client:
        for _ in range(2):
            head = (b"Origin: null", b"Access-Control-Request-Headers: " + asked)
            client.send(request(TARGET, None, method=b"OPTIONS", headers=head))
            answer = client.answer()
            assert (answer.status, answer.body) == (204, b"")
            assert answer.headers[ALLOWED] == "*"
            assert answer.headers["access-control-allow-methods"] == "POST, PUT"
            assert answer.headers["access-control-allow-headers"] == asked.decode()
            assert answer.headers["access-control-max-age"] == str(PREFLIGHT_MAX_AGE_SECONDS)
            assert "content-length" not in answer.headers
    assert node.metrics()['requests_total{status="204"}'] == before + 2
    assert not [ping for ping in node.stored() if ping.method == b"OPTIONS"]


@pytest.mark.parametrize("asked", [b"", b"a b", b"a,,b", b"a\tb", b"\xff", b"a: b", b"a,"])
def test_what_is_no_list_of_headers_is_not_allowed(node: RunningNode, asked: bytes) -> None:
    answer = preflight(node, asked)
    assert (answer.status, answer.headers[ALLOWED]) == (204, "*")
    assert "access-control-allow-headers" not in answer.headers


def test_requested_headers_at_their_limit_and_one_past(node: RunningNode) -> None:
    for size in (REQUESTED_HEADERS_MAX_BYTES, REQUESTED_HEADERS_MAX_BYTES + 1):
        answer = preflight(node, b"a" * size)
        is_allowed = "access-control-allow-headers" in answer.headers
        assert is_allowed == (size == REQUESTED_HEADERS_MAX_BYTES)


@pytest.mark.parametrize(
    "data,status",
    [
        (request(TARGET), 200),
        (request(TARGET, version=b"HTTP/1.0"), 200),
        (request(TARGET, headers=(b"Connection: close",)), 200),
        (b"nonsense\r\n\r\n", 400),
        (request(b"/nowhere"), 404),
        (request(TARGET, b"", method=b"DELETE"), 405),
        (request(TARGET, None), 411),
        (request(TARGET, None, headers=(b"Content-Length: 99999999",)), 413),
        (request(TARGET + b"x" * 5_000), 414),
        (request(TARGET, host=b"h" * 2_000), 431),
    ],
)
def test_every_answer_can_be_read_by_a_page_of_another_origin(
    node: RunningNode, data: bytes, status: int
) -> None:
    answer = node.ask(data)
    assert (answer.status, answer.headers[ALLOWED]) == (status, "*")


def test_answers_of_a_node_that_takes_no_pings_can_be_read_too(new_node) -> None:
    node = new_node(spool_min_free_bytes=2**62).start()
    answer = node.ask(request(TARGET))
    assert (answer.status, answer.headers[ALLOWED]) == (507, "*")
    assert preflight(node, b"content-type").status == 204


def test_what_is_no_answer_to_a_ping_cannot_be_read(node: RunningNode) -> None:
    """A page that an operator visits must not read the metrics of a node on the same machine."""
    for path in (b"/__lbheartbeat__", b"/__version__"):
        for method in (b"GET", b"OPTIONS"):
            assert ALLOWED not in node.ask(request(path, None, method=method)).headers
    for path in (b"/metrics", b"/__heartbeat__", b"/__version__", b"/nowhere", TARGET):
        for method in (b"GET", b"OPTIONS"):
            with node.private_client() as client:
                client.send(request(path, None, method=method))
                assert ALLOWED not in client.answer().headers
    with node.private_client() as client:
        client.send(b"nonsense\r\n\r\n")
        assert ALLOWED not in client.answer().headers


def test_origins_can_be_named(new_node) -> None:
    node = new_node(cors_allowed_origins=f'["{ORIGIN}", "null"]').start()
    for origin in (ORIGIN, "null", "https://other.example", "https://page.example:443", "*"):
        is_allowed = origin in (ORIGIN, "null")
        ping = request(TARGET, headers=(b"Origin: " + origin.encode(),))
        for answer in (node.ask(ping), preflight(node, b"x", origin)):
            assert answer.headers.get(ALLOWED) == (origin if is_allowed else None)
            assert answer.headers["vary"] == "Origin"
    # The answer of one request on a connection is not that of the next.
    with node.client() as client:
        for lines, allowed in (((b"Origin: null",), "null"), ((), None)):
            client.send(request(TARGET, headers=lines))
            assert client.answer().headers.get(ALLOWED) == allowed


def test_a_node_can_keep_its_answers_from_all_other_origins(new_node) -> None:
    node = new_node(cors_allowed_origins="[]").start()
    answer = node.ask(request(TARGET, headers=(b"Origin: " + ORIGIN.encode(),)))
    assert answer.status == 200
    assert not {ALLOWED, "vary"} & set(answer.headers)


@pytest.mark.parametrize(
    "origin", ["https://a.example/", "a.example", "HTTPS://a.example", "", "https://a b"]
)
def test_what_is_no_origin_is_refused_by_the_settings(origin: str) -> None:
    with pytest.raises(ValueError, match="cors_allowed_origins"):
        IngestSettings(cors_allowed_origins=(origin,))
