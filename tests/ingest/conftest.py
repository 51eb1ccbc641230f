"""Nodes for the tests of the ingest server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ingest.hammers import Hammers
from tests.ingest.running_node import WITHOUT_SERVICES, RunningNode


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node without S3 and SQS, for tests of the HTTP edge; its pings stay in the spool."""
    running = RunningNode(tmp_path_factory.mktemp("spool"), WITHOUT_SERVICES)
    try:
        yield running.start()
    finally:
        running.kill()


@pytest.fixture
def new_node(tmp_path: Path) -> Iterator[Callable[..., RunningNode]]:
    """Makes nodes that are not started yet; they are killed at the end of the test."""
    made: list[RunningNode] = []

    def make(environment: dict[str, str] = WITHOUT_SERVICES, **ingest: object) -> RunningNode:
        directory = tmp_path / "spool"
        directory.mkdir(exist_ok=True)
        made.append(RunningNode(directory, environment, **ingest))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def hammers() -> Iterator[Callable[[RunningNode], Hammers]]:
    started: list[Hammers] = []

    def start(node: RunningNode) -> Hammers:
        started.append(Hammers(node.port))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()
