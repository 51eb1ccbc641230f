"""Nothing that was acknowledged is lost or doubled, whatever dies while clients hammer the node."""

import contextlib
import http.client
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import pytest

from tests.ingest.running_node import RunningNode, request
from tests.ingest.shipped import raw_objects, read_shipped
from tests.stack_fixture import EmbeddedS3, EmbeddedSqs, Lake, wait_until

KILLS: Final = 30
HAMMERS: Final = 4
SEED: Final = 20_261_123
NewNode = Callable[..., RunningNode]


@dataclass
class Hammers:
    """Clients that send pings one after another until they are stopped; none sends a document id twice."""

    port: int
    acknowledged: set[bytes] = field(default_factory=set)
    statuses: set[int] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(HAMMERS):
            self._threads.append(threading.Thread(target=self._run, args=(number,)))
            self._threads[-1].start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        """Until `count` more pings are acknowledged."""
        enough = len(self.acknowledged) + count
        wait_until(
            lambda: len(self.acknowledged) >= enough,
            deadline_seconds=60,
            what=f"{count} more acknowledgements",
        )

    def _run(self, number: int) -> None:
        sizes = random.Random(SEED + number)
        sent = 0
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with contextlib.suppress(OSError, http.client.HTTPException):
                while not self._stop.is_set():
                    sent += 1
                    path = f"/submit/telemetry/{number}-{sent}"
                    connection.request("POST", path, body=b"x" * sizes.choice((10, 1_000, 8_000)))
                    answer = connection.getresponse()
                    answer.read()
                    self.statuses.add(answer.status)
                    if answer.status == 200:
                        self.acknowledged.add(path.encode())
                    # A pace that the shipper keeps up with on a busy machine.
                    self._stop.wait(0.002 if answer.status == 200 else 0.05)
            connection.close()
            # Nobody listens while the node starts again.
            self._stop.wait(0.01)


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


def wait_until_shipped(node: RunningNode) -> None:
    wait_until(
        lambda: node.spool.waiting_open().segments + node.spool.waiting_sealed().segments == 0,
        deadline_seconds=120,
        what="everything is shipped",
    )


def assert_nothing_lost_or_doubled(lake: Lake, node: RunningNode, hammers: Hammers) -> None:
    """After the hammers and the node have stopped and the spool is shipped."""
    assert node.spool.waiting_open().segments == node.spool.waiting_sealed().segments == 0, node.log()[
        -2_000:
    ]
    assert node.spool.set_aside_already().segments == 0
    paths = read_shipped(lake).paths
    assert hammers.acknowledged <= set(paths), "acknowledged pings are missing"
    assert {path: count for path, count in paths.items() if count != 1} == {}, "pings are doubled"


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
def test_s3_away_and_back(lake: Lake, new_node: NewNode, embedded_s3: EmbeddedS3, hammers) -> None:
    node = new_node(
        {**lake.environment, "TELEMETRY_LAKE_S3__MAX_ATTEMPTS": "1"},
        segment_max_age_seconds=0.3,
        segment_max_bytes=1_000_000,
    ).start()
    hammer = hammers(node)
    hammer.wait_for_more(50)
    embedded_s3.kill()
    try:
        wait_until(
            lambda: node.metrics()["upload_errors_total"] >= 3, deadline_seconds=60, what="failed uploads"
        )
        wait_until(lambda: node.spool.waiting_sealed().segments >= 3, deadline_seconds=60, what="a queue")
        assert node.get("/__heartbeat__").status == 200
        hammer.wait_for_more(50)
    finally:
        embedded_s3.start()
    hammer.wait_for_more(50)
    hammer.stop()
    wait_until_shipped(node)
    assert node.stop() == 0
    assert hammer.statuses == {200}
    assert_nothing_lost_or_doubled(lake, node, hammer)


@pytest.mark.slow
def test_sqs_away_and_back(lake: Lake, new_node: NewNode, embedded_sqs: EmbeddedSqs, hammers) -> None:
    node = new_node(
        {**lake.environment, "TELEMETRY_LAKE_SQS__MAX_ATTEMPTS": "1"},
        segment_max_age_seconds=0.3,
        segment_max_bytes=1_000_000,
    ).start()
    hammer = hammers(node)
    hammer.wait_for_more(50)
    embedded_sqs.kill()
    try:
        wait_until(
            lambda: node.metrics()["queue_errors_total"] >= 3, deadline_seconds=60, what="failed sends"
        )
        # Objects are in S3 whose segments wait for their message: the shipper dies right there.
        (shipper,) = node.children("shipper")
        os.kill(shipper, signal.SIGKILL)
        hammer.wait_for_more(50)
    finally:
        embedded_sqs.start()
    hammer.wait_for_more(50)
    hammer.stop()
    wait_until_shipped(node)
    assert node.stop() == 0
    assert_nothing_lost_or_doubled(lake, node, hammer)


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
