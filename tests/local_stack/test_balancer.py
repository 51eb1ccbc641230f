"""Two real ingest nodes behind a real balancer: one may die, and clients notice nothing."""

import contextlib
import errno
import select
import selectors
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from ingest_server.segment import CapturedPing, pings, scan, split_segment_id
from lake_testing.stack import Lake, RunningProgram, free_ports, wait_until
from local_stack.balancer import CLIENT_CONNECTIONS_MAX, HEAD_TIMEOUT_SECONDS, BalancerProcess
from local_stack.configuration import Balancer
from local_stack.ingest_nodes import IngestNode
from local_stack.program import LOOPBACK, find_server
from telemetry_lake.project_files import PROJECT_ROOT

DEADLINE_SECONDS = 20.0


@pytest.fixture(params=[Balancer.HAPROXY, Balancer.NGINX])
def edge(
    request: pytest.FixtureRequest, lake: Lake, tmp_path: Path
) -> Iterator[tuple[str, list[RunningProgram]]]:
    """The balancer's address, and the nodes behind it."""
    kind = request.param
    if find_server(kind) is None:
        pytest.skip(f"{kind} is not installed")
    port = free_ports(5)
    nodes = [
        IngestNode(
            node=f"node-{number}",
            port=port + number,
            port_variable="",
            private_port=port + 2 + number,
            private_port_variable="",
            spool_directory=tmp_path / f"spool-{number}",
            project_root=PROJECT_ROOT,
            log_file=tmp_path / f"node-{number}.log",
        )
        for number in (1, 2)
    ]
    programs = [node.program(after=()) for node in nodes]
    behind_a_balancer = {**lake.environment, "TELEMETRY_LAKE_CONVERSION__TRUSTED_PROXIES": "1"}
    running = [
        RunningProgram(replace(program, environment={**behind_a_balancer, **program.environment}))
        for program in programs
    ]
    balancer = BalancerProcess(kind, port, nodes, tmp_path / "balancer", tmp_path / "balancer.log")
    entrance = RunningProgram(balancer.program(after=()))
    try:
        for program in (*running, entrance):
            program.start()
        yield balancer.url, running
    finally:
        for program in (entrance, *running):
            program.kill()


def test_a_dead_node_costs_no_client_an_error(edge: tuple[str, list[RunningProgram]]) -> None:
    url, nodes = edge

    def send(client: httpx.Client) -> int:
        return client.post(f"{url}/submit/test/ping/1/{uuid.uuid4()}", content=b"{}").status_code

    with httpx.Client() as client:
        assert {send(client) for _ in range(10)} == {200}
        _kill(nodes[0])
        assert [send(client) for _ in range(20)] == [200] * 20
        nodes[0].start()
        wait_until(
            lambda: send(client) == 200 and _pings_taken(nodes[0]) > 0,
            deadline_seconds=DEADLINE_SECONDS,
            what="the balancer sends pings to the first node again",
        )
        _kill(nodes[1])
        assert [send(client) for _ in range(20)] == [200] * 20


def test_connections_to_the_nodes_are_kept(edge: tuple[str, list[RunningProgram]]) -> None:
    url, nodes = edge
    with httpx.Client() as client:
        for _ in range(4):
            client.post(f"{url}/submit/test/ping/1/{uuid.uuid4()}", content=b"{}").raise_for_status()
        # One is that of the request for the metrics, and for a moment there may be a health check's.
        assert [min(_metric(node, "connections") for _ in range(5)) for node in nodes] == [2, 2]


def test_what_is_for_operators_is_answered_by_the_nodes_only(
    edge: tuple[str, list[RunningProgram]],
) -> None:
    url, nodes = edge
    for path in ("/metrics", "/__heartbeat__"):
        for target in (path, f"{path}?x=1", f"http://127.0.0.1{path}"):
            assert _answer(urlsplit(url).port, target).split()[1:2] == [b"404"], target
            assert _answer(_private_port(nodes[0]), target).split()[1:2] == [b"200"], target
    for path in ("/__lbheartbeat__", "/__version__"):
        assert httpx.get(f"{url}{path}").status_code == httpx.codes.OK


def test_a_head_that_comes_too_slowly_is_cut_without_an_answer(
    edge: tuple[str, list[RunningProgram]],
) -> None:
    """408 would make a client delete its ping; one that comes in pieces but in time is stored."""
    url, _ = edge
    head = (
        f"POST /submit/test/ping/1/{uuid.uuid4()} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n".encode()
    )
    slow = socket.create_connection((LOOPBACK, urlsplit(url).port or 0))
    honest = socket.create_connection((LOOPBACK, urlsplit(url).port or 0))
    with slow, honest:
        began = time.monotonic()
        honest.sendall(head[:20])
        answer = b"no end"
        for byte in head[:12]:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                slow.sendall(bytes((byte,)))
            if select.select([slow], [], [], 2)[0]:
                try:
                    answer = slow.recv(100)
                except ConnectionResetError:
                    answer = b""
                break
            if byte == ord("S"):
                honest.sendall(head[20:] + b"{}")
                assert honest.recv(100).startswith(b"HTTP/1.1 200 ")
        assert answer == b""
        assert HEAD_TIMEOUT_SECONDS - 1 < time.monotonic() - began < HEAD_TIMEOUT_SECONDS + 8


def test_the_address_that_the_balancer_saw_is_the_last_one(
    edge: tuple[str, list[RunningProgram]], tmp_path: Path
) -> None:
    """What a client says of itself stands before it, however it says it."""
    url, _ = edge
    said = [("X-Forwarded-For", "203.0.113.1"), ("x-forwarded-for", "203.0.113.2, 203.0.113.3")]
    httpx.post(f"{url}/submit/test/ping/1/{uuid.uuid4()}", content=b"{}", headers=said).raise_for_status()
    (ping,) = (
        ping
        for number in (1, 2)
        for directory in ("open", "sealed")
        for segment in (tmp_path / f"spool-{number}" / f"node-{number}" / directory).iterdir()
        for ping in pings_of(segment)
    )
    chain = b",".join(value for name, value in ping.headers if name == b"x-forwarded-for").split(b",")
    assert chain[-1].strip() == LOOPBACK.encode()
    assert len(chain) == len(said) + 2


def test_one_address_gets_its_part_of_the_connections_only(edge: tuple[str, list[RunningProgram]]) -> None:
    url, _ = edge
    port = urlsplit(url).port or 0
    clients: list[socket.socket] = []
    with contextlib.ExitStack() as stack:

        def hold_one_more() -> None:
            client = socket.create_connection((LOOPBACK, port), source_address=("127.0.0.2", 0))
            stack.enter_context(client)
            # An incomplete body is what both balancers count.
            client.sendall(b"POST /submit/test/ping/1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            clients.append(client)

        def is_one_more_refused() -> bool:
            if _is_refused(port, "127.0.0.2"):
                return True
            # A balancer on a busy machine has ended one of the others, or has not counted it yet.
            with contextlib.suppress(ConnectionError):
                hold_one_more()
            return False

        for _ in range(CLIENT_CONNECTIONS_MAX):
            hold_one_more()
        # Up to the limit each is served.
        with selectors.DefaultSelector() as answered:
            for client in clients:
                answered.register(client, selectors.EVENT_READ)
            assert answered.select(0) == []
        wait_until(
            is_one_more_refused, deadline_seconds=DEADLINE_SECONDS, what="one connection more is refused"
        )
        assert httpx.get(f"{url}/__version__").status_code == httpx.codes.OK


def _is_refused(port: int, address: str) -> bool:
    with socket.create_connection((LOOPBACK, port), source_address=(address, 0)) as more:
        try:
            more.sendall(b"GET /__version__ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = more.recv(100)
        except ConnectionError:
            return True
    return not answer.startswith(b"HTTP/1.1 200 ")


def pings_of(segment: Path) -> list[CapturedPing]:
    data = segment.read_bytes()
    return list(pings(data, scan(data, split_segment_id(segment.name.split(".")[0]).marker).records))


def _answer(port: int | None, target: str) -> bytes:
    with socket.create_connection((LOOPBACK, port or 0)) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return client.recv(100)


def _pings_taken(node: RunningProgram) -> float:
    """How many pings the node has acknowledged since it started."""
    return _metric(node, "request_seconds_count")


def _metric(node: RunningProgram, name: str) -> float:
    port = _private_port(node)
    name = f"telemetry_lake_ingest_{name} "
    lines = httpx.get(f"http://{LOOPBACK}:{port}/metrics").text.splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def _port(node: RunningProgram) -> int:
    port, _ = node.program.ports
    return port


def _private_port(node: RunningProgram) -> int:
    _, port = node.program.ports
    return port


def _kill(node: RunningProgram) -> None:
    """Kill the node, and wait for the last of its workers: a ping that one of those had taken is an error."""
    port = _port(node)
    node.kill()

    def is_refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, port)) == errno.ECONNREFUSED

    wait_until(is_refused, deadline_seconds=DEADLINE_SECONDS, what="nothing listens on the port any more")
