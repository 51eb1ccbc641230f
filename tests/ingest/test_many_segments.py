"""A spool of very many segments, as after a long outage of S3, and what keeps it from getting so many."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest_server.counters import Counters, shared_counters
from ingest_server.segment import new_marker, record_head, segment_id
from ingest_server.spool import Spool
from ingest_server.spool_look import look_at_spool
from ingest_server.worker import SEALED_ENOUGH
from lake_testing.stack import wait_until
from tests.ingest.running_node import RunningNode, request

NewNode = Callable[..., RunningNode]
OPENED = datetime(2026, 11, 1, tzinfo=UTC)
MANY = 20_000


def seal_many(spool: Spool, count: int) -> list[Path]:
    """Segments of one ping each, oldest first."""
    spool.prepare()
    marker = new_marker()
    record = record_head(marker, b"1\nPOST\n/submit/telemetry/x\n\nHTTP/1.1\n::1\nh", b"{}") + b"{}"
    paths = []
    for number in range(count):
        name = segment_id(OPENED + timedelta(seconds=5 * number), 0, marker, number)
        paths.append(spool.sealed_path(name, 1, len(record)))
        paths[-1].write_bytes(record)
    return paths


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "node")
    made.prepare()
    return made


@pytest.fixture
def counters() -> Counters:
    return shared_counters(1)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_many_segments_cost_the_worker_nothing(new_node: NewNode) -> None:
    node = new_node()
    paths = seal_many(node.spool, MANY)
    node.start()
    wait_until(
        lambda: node.children("worker") and node.children("observer"),
        deadline_seconds=60,
        what="both are there",
    )
    (worker,), (observer,) = node.children("worker"), node.children("observer")
    began = {pid: processor_seconds(pid) for pid in (worker, observer)}
    wait_until(
        lambda: processor_seconds(observer) - began[observer] >= 0.2,
        deadline_seconds=60,
        what="the observer looks several times",
    )
    spent = {pid: processor_seconds(pid) - before for pid, before in began.items()}
    # A look of its own would cost it as much. One that rests costs little, and more the longer this took.
    assert spent[worker] < spent[observer] / 2
    metrics = node.metrics()
    assert metrics['spool_segments{state="sealed"}'] == MANY
    assert metrics['spool_bytes{state="sealed"}'] == MANY * paths[0].stat().st_size


@pytest.mark.parametrize("waiting", [SEALED_ENOUGH - 1, SEALED_ENOUGH])
def test_segments_are_sealed_by_size_only_while_enough_wait(new_node: NewNode, waiting: int) -> None:
    node = new_node(segment_max_age_seconds=0.1, segment_max_bytes=50_000)
    paths = seal_many(node.spool, waiting)
    node.start()
    assert node.ask(request()).status == 200
    if waiting == SEALED_ENOUGH:
        (opened,) = node.spool.open_directory.iterdir()
        old_enough = opened.stat().st_ctime + 1
        wait_until(lambda: time.time() > old_enough, deadline_seconds=30, what="it is ten times the age")
        assert node.spool.waiting_sealed().segments == SEALED_ENOUGH
        # Its size still counts.
        for _ in range(2):
            assert node.ask(request(body=b"x" * 30_000)).status == 200
        wait_until(lambda: is_sealed(node), deadline_seconds=30, what="it is sealed by its size")
        assert node.ask(request()).status == 200
        # S3 is back: two were shipped.
        for path in paths[-2:]:
            path.unlink()
    wait_until(lambda: is_sealed(node), deadline_seconds=30, what="it is sealed by its age")


def is_sealed(node: RunningNode) -> bool:
    return node.spool.waiting_open().segments == 0


@pytest.mark.parametrize("size,status", [(100_000, 200), (100_001, 507)])
def test_what_is_set_aside_counts_up_to_the_limit_and_past_it(
    new_node: NewNode, size: int, status: int
) -> None:
    node = new_node(spool_max_bytes=100_000)
    node.spool.prepare()
    (node.spool.damaged_directory / f"{segment_id(OPENED, 0, new_marker(), 1)}.segment").write_bytes(
        b"x" * size
    )
    assert node.start().ask(request()).status == status


def test_a_look_counts_what_is_there_and_ignores_what_is_not_ours(spool: Spool, counters: Counters) -> None:
    first, *_ = seal_many(spool, 3)
    sealed_bytes = 3 * first.stat().st_size
    (spool.open_directory / first.name).write_bytes(b"x" * 7)
    (spool.damaged_directory / "0.segment").write_bytes(b"somebody else's")
    (spool.sealed_directory / "note.txt").write_text("not a segment")
    spool.keep_announcement(first.name.split(".")[0], "{}")
    look_at_spool(spool, counters)
    assert {
        state: (counters.total(f"spool_{state}_segments"), counters.total(f"spool_{state}_bytes"))
        for state in ("open", "sealed", "unannounced", "damaged")
    } == {"open": (1, 7), "sealed": (3, sealed_bytes), "unannounced": (1, 2), "damaged": (1, 15)}
    assert counters.total("spool_oldest_seconds") == OPENED.timestamp()
    assert counters.total("spool_before_bytes") == 7 + sealed_bytes + 2 + 15
    assert counters.total("spool_is_unreadable") == 0


def test_what_is_appended_after_a_look_counts_at_once(spool: Spool, counters: Counters) -> None:
    counters.add("appended_bytes", 1_000)
    look_at_spool(spool, counters)
    counters.add("appended_bytes", 500)
    assert counters.total("spool_before_bytes") + counters.total("appended_bytes") == 500


def test_a_spool_that_cannot_be_looked_at_is_said_to_be_unreadable(spool: Spool, counters: Counters) -> None:
    spool.sealed_directory.rmdir()
    look_at_spool(spool, counters)
    assert counters.total("spool_is_unreadable") == 1
    spool.prepare()
    look_at_spool(spool, counters)
    assert counters.total("spool_is_unreadable") == 0
