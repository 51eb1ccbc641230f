"""Generated requests, well-formed and not: never a 5xx, never a dead worker."""

import contextlib
import re
import socket
from collections import Counter
from typing import Final

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.ingest.running_node import RunningNode, request

REQUESTS_MIN: Final = 20_000
REQUESTS_AN_EXAMPLE: Final = 40
EXAMPLES: Final = REQUESTS_MIN // REQUESTS_AN_EXAMPLE
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")

_methods = st.sampled_from(
    [b"POST", b"PUT", b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"post", b"\xff"]
)
_segments = st.one_of(
    st.sampled_from(
        [b"telemetry", b"main", b"submit", b"..", b"", b"%00", b"%", b"a" * 300, b"*", b"http://a"]
    ),
    st.binary(max_size=12),
    st.from_regex(rb"[!-~]{0,20}", fullmatch=True),
)
_targets = st.one_of(
    st.lists(_segments, max_size=9).map(lambda parts: b"/submit/" + b"/".join(parts)),
    st.lists(_segments, max_size=4).map(lambda parts: b"/" + b"/".join(parts)),
    st.sampled_from(
        [
            b"/submit/telemetry/abc",
            b"/__lbheartbeat__",
            b"/__version__",
            b"*",
            b"",
            b"/submit/a/b/1/c?" + b"q" * 1_030,
            b"//submit/a//1/c/",
            b"http://a:80/submit/a/b/1/c",
            b"https://u@[::1]/submit/x",
        ]
    ),
)
_names = st.sampled_from(
    [
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Expect",
        b"Connection",
        b"Upgrade",
        b"Origin",
        b"Access-Control-Request-Headers",
        b"User-Agent",
        b"DNT",
        b"X",
        b"",
    ]
)
_values = st.one_of(
    st.sampled_from(
        [
            b"chunked",
            b"100-continue",
            b"close",
            b"keep-alive",
            b"Upgrade",
            b"h2c",
            b"0",
            b"-1",
            b"5",
            b"1e9",
            b"",
        ]
    ),
    st.integers(0, 2**70).map(lambda number: b"%d" % number),
    st.binary(max_size=40),
    st.sampled_from([b"u" * 1_024, b"u" * 1_025]),
)
_headers = st.lists(st.tuples(_names, _values).map(lambda pair: pair[0] + b": " + pair[1]), max_size=6).map(
    tuple
)
_bodies = st.one_of(
    st.none(), st.binary(max_size=60), st.sampled_from([b"x" * 20_000, b"5\r\nhello\r\n0\r\n\r\n"])
)
_hosts = st.sampled_from(
    [b"lake.example", b"lake.example", b"", None, b"[::1]:80", b"a b", b"a:99999", b"\xff"]
)
_chunked = st.builds(
    lambda head, chunks: head + b"".join(chunks),
    st.builds(request, _targets, st.none(), headers=st.just((b"Transfer-Encoding: chunked",))),
    st.lists(
        st.sampled_from(
            [
                b"2\r\n{}\r\n",
                b"2;a=b\r\n{}\r\n",
                b"0\r\n",
                b"\r\n",
                b"Content-Length: 3\r\n",
                b"A: b\r\n",
                b"x\n",
            ]
        ),
        max_size=6,
    ),
)
_requests = st.one_of(
    st.builds(
        request,
        _targets,
        _bodies,
        method=_methods,
        headers=_headers,
        version=st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""]),
        host=_hosts,
    ),
    st.builds(request, st.just(b"/submit/telemetry/fuzz"), st.binary(max_size=200), headers=_headers),
    st.builds(
        request, st.just(b"/submit/telemetry/fuzz"), st.none(), method=st.just(b"OPTIONS"), headers=_headers
    ),
    _chunked,
    st.binary(max_size=80),
)


def answers_to(node: RunningNode, data: bytes) -> list[bytes]:
    """The statuses of all answers to `data`; none when the server resets the connection."""
    with contextlib.suppress(ConnectionError), node.client() as client:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
        received = bytearray()
        while part := client.socket.recv(65_536):
            received += part
        return _STATUS.findall(received)
    return []


@pytest.mark.slow
def test_no_5xx_and_no_dead_worker(new_node) -> None:
    node = new_node().start()
    sent = 0
    statuses: Counter[bytes] = Counter()

    @settings(max_examples=EXAMPLES, phases=[Phase.generate], derandomize=True, database=None)
    @given(st.lists(_requests, min_size=REQUESTS_AN_EXAMPLE, max_size=REQUESTS_AN_EXAMPLE))
    def send(requests: list[bytes]) -> None:
        """Each on a connection of its own, and then all of them pipelined on one."""
        nonlocal sent
        for data in (*requests, b"".join(requests)):
            found = answers_to(node, data)
            statuses.update(found)
            assert not [status for status in found if status >= b"500"], data
        sent += len(requests)

    send()
    assert sent >= REQUESTS_MIN
    # Too rare among what is generated to be there each time.
    for rare in (request(b"/submit/a/b/1/c?" + b"q" * 1_030, b"{}"), request(b"/submit/a/b/1/c", None)):
        statuses.update(answers_to(node, rare))
    assert set(statuses) >= {b"200", b"204", b"400", b"404", b"405", b"411", b"431"}
    assert node.ask(request()).status == 200
    metrics = node.metrics()
    assert metrics['child_restarts_total{child="worker"}'] == 0
    assert metrics['requests_total{status="500"}'] == 0
    assert not node.events("request_failed")
