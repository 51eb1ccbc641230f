"""When a group of pings is written: at once, or together with those that can still be expected."""

import asyncio

import pytest

from ingest_server import group_commit
from ingest_server.group_commit import GROUP_ENOUGH_PINGS, GroupCommit
from ingest_server.segment_writer import SegmentWriter
from ingest_server.spool import Spool

FOR_EVER_SECONDS = 3_600.0
"""As an interval: what does not start for another reason does not start in this test."""
TIMEOUT_SECONDS = 60
SEGMENT_BYTES = 1_000_000


class Ping:
    """Waits until it is durable."""

    def __init__(self):
        self.error = asyncio.get_running_loop().create_future()

    def committed(self, error):
        self.error.set_result(error)


class Node:
    """A group commit on a real spool, with so many clients connected; `groups` has the size of each group."""

    def __init__(self, directory, connections):
        spool = Spool(directory / "node-1")
        spool.prepare()
        self.groups: list[int] = []
        self.commit = GroupCommit(
            asyncio.get_running_loop(),
            SegmentWriter(spool, 0, SEGMENT_BYTES),
            range(connections),
            lambda _error, pings, _bytes, _seconds: self.groups.append(pings),
        )

    def submit(self, count=1):
        pings = [Ping() for _ in range(count)]
        for ping in pings:
            self.commit.submit(ping, b"metadata", b"body")
        return pings

    async def durable(self, pings):
        async with asyncio.timeout(TIMEOUT_SECONDS):
            assert [await ping.error for ping in pings] == [None] * len(pings)


@pytest.fixture
def run_with(tmp_path, monkeypatch):
    """Runs a coroutine function with a node, on which a ping has just become durable."""

    def run(body, *, connections, interval_seconds=FOR_EVER_SECONDS):
        async def all_of_it():
            node = Node(tmp_path, connections)
            await node.durable(node.submit())
            await body(node)
            await node.commit.close()
            return node.groups[1:]

        monkeypatch.setattr(group_commit, "GROUP_INTERVAL_SECONDS", interval_seconds)
        return asyncio.run(all_of_it())

    return run


def test_who_is_alone_never_waits(run_with):
    async def one_after_the_other(node):
        for _ in range(5):
            await node.durable(node.submit())

    assert run_with(one_after_the_other, connections=1) == [1] * 5


def test_a_group_waits_for_those_who_are_connected(run_with):
    async def one_then_the_others(node):
        early = node.submit()
        await _rounds_of_the_loop()
        assert not early[0].error.done()
        await node.durable(early + node.submit(2))

    assert run_with(one_then_the_others, connections=3) == [3]


def test_a_group_does_not_wait_for_more_than_enough(run_with):
    async def one_less_than_enough_then_one(node):
        early = node.submit(GROUP_ENOUGH_PINGS - 1)
        await _rounds_of_the_loop()
        assert not early[0].error.done()
        await node.durable(early + node.submit())
        await node.durable(node.submit(GROUP_ENOUGH_PINGS))

    assert run_with(one_less_than_enough_then_one, connections=1_000) == [GROUP_ENOUGH_PINGS] * 2


def test_a_group_starts_when_the_interval_has_passed(run_with):
    async def one(node):
        await node.durable(node.submit())

    assert run_with(one, connections=1_000, interval_seconds=0.001) == [1]


def test_the_end_does_not_lose_a_group_that_waits(run_with):
    pings = []

    async def leave_one(node):
        pings.extend(node.submit())

    assert run_with(leave_one, connections=1_000, interval_seconds=0.05) == [1]
    assert pings[0].error.result() is None


async def _rounds_of_the_loop():
    """Long enough for a group to start, if it were to."""
    for _ in range(10):
        await asyncio.sleep(0)
