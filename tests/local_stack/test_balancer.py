"""Two real ingest nodes behind a real balancer: one may die, and clients notice nothing."""

import errno
import socket
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from local_stack.balancer import BalancerProcess
from local_stack.configuration import Balancer
from local_stack.ingest_nodes import IngestNode
from local_stack.program import LOOPBACK, find_server
from telemetry_lake.settings import PROJECT_ROOT
from tests.stack_fixture import Lake, RunningProgram, free_ports, wait_until

DEADLINE_SECONDS = 20.0


@pytest.fixture(params=[Balancer.HAPROXY, Balancer.NGINX])
def edge(
    request: pytest.FixtureRequest, lake: Lake, tmp_path: Path
) -> Iterator[tuple[str, list[RunningProgram]]]:
    """The balancer's address, and the nodes behind it."""
    kind = request.param
    if find_server(kind) is None:
        pytest.skip(f"{kind} is not installed")
    port = free_ports(3)
    nodes = [
        IngestNode(
            f"node-{number}",
            port + number,
            "",
            tmp_path / f"spool-{number}",
            PROJECT_ROOT,
            tmp_path / f"node-{number}.log",
        )
        for number in (1, 2)
    ]
    programs = [node.program(after=()) for node in nodes]
    running = [
        RunningProgram(replace(program, environment={**lake.environment, **program.environment}))
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


def _pings_taken(node: RunningProgram) -> float:
    """How many pings the node has acknowledged since it started."""
    return _metric(node, "request_seconds_count")


def _metric(node: RunningProgram, name: str) -> float:
    (port,) = node.program.ports
    name = f"telemetry_lake_ingest_{name} "
    lines = httpx.get(f"http://{LOOPBACK}:{port}/metrics").text.splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def _kill(node: RunningProgram) -> None:
    """Kill the node, and wait for the last of its workers: a ping that one of those had taken is an error."""
    (port,) = node.program.ports
    node.kill()

    def is_refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, port)) == errno.ECONNREFUSED

    wait_until(is_refused, deadline_seconds=DEADLINE_SECONDS, what="nobody listens any more")
