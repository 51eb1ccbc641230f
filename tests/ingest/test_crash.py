"""Nothing that was acknowledged is lost or doubled, whatever dies while clients hammer the node."""

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from lake_testing.stack import EmbeddedS3, Lake, wait_until
from tests.ingest.hammers import assert_nothing_lost_or_doubled, wait_until_shipped
from tests.ingest.running_node import RunningNode, request
from tests.ingest.shipped import raw_objects, read_shipped

KILLS: Final = 30
SEED: Final = 20_261_123
NewNode = Callable[..., RunningNode]


@pytest.mark.slow
def test_kill_9_at_random_moments(lake: Lake, new_node: NewNode, hammers) -> None:
    """The whole node, or one of its processes, at a random moment after new acknowledgements."""
    moments = random.Random(SEED)
    node = new_node(
        lake.environment, workers=2, segment_max_age_seconds=0.5, segment_max_bytes=1_000_000
    ).start()
    hammer = hammers(node)
    for number in range(KILLS):
        hammer.wait_for_more(20)
        time.sleep(moments.random() * 0.2)
        kind = ("node", "worker", "shipper")[number % 3]
        if kind == "node":
            node.kill()
            node.start()
            continue
        victims = wait_until(partial(node.children, kind), deadline_seconds=60, what=f"a {kind}")
        os.kill(moments.choice(victims), signal.SIGKILL)
    hammer.wait_for_more(20)
    hammer.stop()
    wait_until_shipped(node)
    assert node.stop() == 0
    assert hammer.statuses == {200}
    assert len(hammer.acknowledged) > KILLS * 20
    assert_nothing_lost_or_doubled(lake, node, hammer)


def test_a_dead_worker_and_a_dead_shipper_are_started_again(lake: Lake, new_node: NewNode) -> None:
    node = new_node(lake.environment, segment_max_age_seconds=0.2).start()
    for kind in ("worker", "shipper"):
        (victim,) = wait_until(partial(node.children, kind), deadline_seconds=60, what=f"a {kind}")
        os.kill(victim, signal.SIGKILL)
        wait_until(
            partial(_has_another_child, node, kind, victim), deadline_seconds=60, what=f"another {kind}"
        )
        assert node.ask(request()).status == 200
        assert node.metrics()[f'child_restarts_total{{child="{kind}"}}'] == 1


def test_children_of_a_killed_parent_stop_and_let_go(lake: Lake, new_node: NewNode) -> None:
    node = new_node(lake.environment, workers=2).start()
    assert node.ask(request(b"/submit/telemetry/before")).status == 200
    os.kill(node.pid, signal.SIGKILL)
    assert node.process is not None
    node.process.wait(10)
    node.start()
    wait_until(
        partial(_is_acknowledged, node, request(b"/submit/telemetry/after")),
        deadline_seconds=60,
        what="an answer of the new node",
    )
    assert node.stop() == 0
    assert sorted(read_shipped(lake).paths) == [b"/submit/telemetry/after", b"/submit/telemetry/before"]


def _has_another_child(node: RunningNode, kind: str, victim: int) -> bool:
    return bool(set(node.children(kind)) - {victim})


def _is_acknowledged(node: RunningNode, ping: bytes) -> bool:
    """Whether the node takes the ping; a connection that nobody accepted goes with its listener."""
    try:
        return node.ask(ping).status == 200
    except ConnectionError:
        return False


@pytest.mark.slow
def test_what_cannot_be_shipped_waits_for_the_next_start(
    lake: Lake, new_node: NewNode, embedded_s3: EmbeddedS3
) -> None:
    node = new_node(lake.environment, stop_ship_seconds=0.5).start()
    embedded_s3.kill()
    try:
        assert node.ask(request(b"/submit/telemetry/waits")).status == 200
        assert node.stop() == 0
        assert node.spool.waiting_sealed().segments == 1
    finally:
        embedded_s3.start()
    node.start()
    wait_until(lambda: raw_objects(lake), deadline_seconds=60, what="it is shipped")
    assert read_shipped(lake).paths == {b"/submit/telemetry/waits": 1}
