"""From the spool to S3 and SQS: one raw object a segment, whatever was there before."""

import hashlib
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from ingest_server.segment import new_marker, record_head, segment_id
from ingest_server.ship import ANNOUNCEMENTS_MAX, FAILURES_MAX, LANES
from ingest_server.spool import Spool
from lake_testing.lake_of_roles import LakeOfRoles
from lake_testing.lossy_proxy import lossy_proxy
from lake_testing.stack import Lake, wait_until
from local_stack.lake_environment import role_keys_text
from telemetry_lake.deploy.roles import RIGHTS, Objects
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.raw_object import RAW_SCHEMA, RawObject
from telemetry_lake.settings import AccessKey, Role
from telemetry_lake.storage.object_keys import raw_object_key
from telemetry_lake.storage.object_store import ObjectStore
from tests.ingest.running_node import NOBODY, NODE, RunningNode, request
from tests.ingest.shipped import raw_objects, read_shipped, receive_all

FIRST = datetime(2026, 11, 23, 14, 59, 59, 999_999, tzinfo=UTC)
TIMES = ("first_submission_timestamp", "last_submission_timestamp")
NewNode = Callable[..., RunningNode]


def sealed_segment(
    spool: Spool, bodies: list[bytes], *, damage: int | None = None, time: bytes = b"%d"
) -> str:
    """A segment of an earlier life of the node, each ping a second after the one before; its id."""
    marker = new_marker()
    data = b""
    for number, body in enumerate(bodies):
        microseconds = int(FIRST.timestamp()) * 1_000_000 + 999_999 + number * 1_000_000
        fields = (
            time.replace(b"%d", b"%d" % microseconds),
            b"POST",
            b"/submit/telemetry/%d" % number,
            b"v=4",
            b"HTTP/1.1",
            b"::1",
            b"h",
        )
        data += record_head(marker, b"\n".join((*fields, b"user-agent", b"\xff")), body) + body
    if damage is not None:
        data = data[:damage] + bytes([data[damage] ^ 1]) + data[damage + 1 :]
    name = segment_id(FIRST, 0, marker, 1)
    spool.prepare()
    spool.sealed_path(name, len(bodies), len(data)).write_bytes(data)
    return name


def has_sealed(node: RunningNode, segments: int) -> bool:
    return node.spool.waiting_sealed().segments >= segments


def is_drained(node: RunningNode) -> bool:
    return node.spool.waiting_sealed().segments == 0


def wait_until_drained(node: RunningNode) -> None:
    wait_until(lambda: is_drained(node), deadline_seconds=60, what="the spool is shipped")


@pytest.mark.slow
def test_a_right_that_is_missing_keeps_segments_and_is_said_once_a_minute(
    lake_of_roles: LakeOfRoles, new_node: NewNode
) -> None:
    may_put = next(right for right in RIGHTS[Role.NODE] if isinstance(right, Objects))
    settings = lake_of_roles.without(Role.NODE, may_put).s3
    assert settings.access_key_id is not None
    assert settings.secret_access_key is not None
    key = AccessKey(access_key_id=settings.access_key_id, secret_access_key=settings.secret_access_key)
    puts: list[str] = []

    def on_answer(line: str) -> bool:
        puts.extend([line] if line.startswith("PUT ") else ())
        return True

    with lossy_proxy(lake_of_roles.s3.s3_url, on_answer) as s3:
        node = new_node(
            {
                **lake_of_roles.environment,
                "TELEMETRY_LAKE_ROLE_KEYS": role_keys_text({Role.NODE: key}),
                "TELEMETRY_LAKE_S3__ENDPOINT_URL": s3,
            },
            segment_max_age_seconds=0.2,
        ).start()
        # One after another, so that each is a segment of its own: two lanes have more than they can ship.
        for number in range(LANES + 2):
            assert node.ask(request(b"/submit/a/b/1/c", b"body")).status == 200
            wait_until(
                partial(has_sealed, node, number + 1), deadline_seconds=60, what="another segment is sealed"
            )
        wait_until(lambda: len(puts) >= LANES, deadline_seconds=60, what="both lanes were refused")
        wait_until(
            lambda: node.metrics()["upload_errors_total"] >= LANES, deadline_seconds=60, what="it is counted"
        )
        assert node.spool.waiting_sealed().segments == LANES + 2
        assert len(puts) == LANES
        said = [line for line in node.log().splitlines() if "upload_errors" in line]
        assert len(said) == 1
        assert "it needs the right s3:PutObject" in said[0]
        assert "Traceback" not in node.log()


def test_a_ping_arrives_as_it_was_received(lake: Lake, new_node: NewNode) -> None:
    node = new_node(lake.environment, segment_max_age_seconds=0.2).start()
    body = bytes(range(256)) * 40
    lines = (
        b"User-Agent: caf\xc3\xa9 \xff",
        b"X-Forwarded-For: 203.0.113.1",
        b"X-Forwarded-For: 203.0.113.2",
    )
    before = datetime.now(UTC)
    assert node.ask(request(b"/submit/a/b/1/c?d=e", body, headers=lines)).status == 200
    (message,) = receive_all(lake, 1)
    store = ObjectStore(lake.settings.s3)
    raw = RawObject(message.key, store.get(message.bucket, message.key))
    raw.verify(message)
    head = store.head(message.bucket, message.key)
    assert head is not None
    assert IndexMessage.from_metadata(message.bucket, message.key, head.bytes, head.metadata) == message
    (ping,) = [ping for batch in raw.record_batches() for ping in batch.to_pylist()]
    assert before <= ping.pop("submission_timestamp") <= datetime.now(UTC)
    assert ping == {
        "method": "POST",
        "path": b"/submit/a/b/1/c",
        "query": b"d=e",
        "protocol": "HTTP/1.1",
        "remote_address": "127.0.0.1",
        "host": b"lake.example",
        "headers": [
            ("user-agent", b"caf\xc3\xa9 \xff"),
            ("x-forwarded-for", b"203.0.113.1"),
            ("x-forwarded-for", b"203.0.113.2"),
            ("content-length", b"10240"),
        ],
        "body": body,
    }
    wait_until_drained(node)
    metrics = node.metrics()
    assert [metrics[f"shipped_{what}_total"] for what in ("segments", "pings", "bytes")] == [1, 1, raw.bytes]


REPORTS_MODULES = """
import os, pathlib, signal, sys

def report(*_):
    folder = pathlib.Path(os.environ["REPORTS_FOLDER"])
    (folder / "draft").write_text(" ".join(sys.modules))
    (folder / "draft").rename(folder / str(os.getpid()))

signal.signal(signal.SIGUSR1, report)
"""
"""Runs at the start of the node, and lets each of its processes write down what it has imported."""


def test_no_process_of_a_node_imports_a_table_library(lake: Lake, new_node: NewNode, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(REPORTS_MODULES)
    reports = {"PYTHONPATH": str(tmp_path), "REPORTS_FOLDER": str(tmp_path)}
    node = new_node({**lake.environment, **reports}, segment_max_age_seconds=0.2).start()
    for body in (b"{}", bytes(range(256))):
        assert node.ask(request(b"/submit/a/b/1/c", body, headers=(b"User-Agent: a",))).status == 200
    assert node.get_privately("/metrics").status == 200
    receive_all(lake, 1)
    wait_until_drained(node)
    (worker,) = node.children("worker")
    (shipper,) = node.children("shipper")
    imported = {}
    for pid in (node.pid, worker, shipper):
        os.kill(pid, signal.SIGUSR1)
        report = tmp_path / str(pid)
        wait_until(report.exists, deadline_seconds=60, what=f"process {pid} reports its modules")
        imported[pid] = set(report.read_text().split())
    assert "uvloop" in imported[worker]
    assert "pyarrow" in imported[shipper]
    heavy = {"pandas", "polars", "numba", "pyiceberg"}
    assert {pid: modules & heavy for pid, modules in imported.items()} == {pid: set() for pid in imported}


def test_key_is_made_of_the_first_ping(lake: Lake, new_node: NewNode) -> None:
    node = new_node(lake.environment)
    name = sealed_segment(node.spool, [b"one", b"two"])
    node.start()
    wait_until_drained(node)
    assert raw_objects(lake) == [f"raw/v1/2026-11-23/14/{NODE}/{name}.arrows"]


def ship_once(lake: Lake, node: RunningNode, bodies: list[bytes]) -> tuple[str, bytes, bytes]:
    """Ship a segment, and put it back as if the node had died before it deleted it: key, segment, object."""
    name = sealed_segment(node.spool, bodies)
    (sealed,) = node.spool.sealed_segments()
    content = sealed.path.read_bytes()
    node.start()
    wait_until_drained(node)
    node.kill()
    sealed.path.write_bytes(content)
    key = raw_object_key(FIRST, NODE, name)
    return key, content, ObjectStore(lake.settings.s3).get(lake.settings.s3.raw_bucket, key)


def test_shipping_again_changes_nothing(lake: Lake, new_node: NewNode) -> None:
    node = new_node(lake.environment)
    key, _, stored = ship_once(lake, node, [b"one", b"two"])
    node.start()
    wait_until_drained(node)
    assert ObjectStore(lake.settings.s3).get(lake.settings.s3.raw_bucket, key) == stored
    messages = receive_all(lake, 1)
    assert len(messages) == 2
    assert {(message.key, message.sha256) for message in messages} == {
        (key, hashlib.sha256(stored).hexdigest())
    }


def test_same_pings_in_another_encoding_are_announced_as_they_are(lake: Lake, new_node: NewNode) -> None:
    """What an upgrade of Arrow between two tries looks like."""
    node = new_node(lake.environment)
    key, _, stored = ship_once(lake, node, [b"one" * 1_000, b"two" * 1_000])
    receive_all(lake, 1)
    schema = pa.ipc.open_stream(stored).schema
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in RawObject(key, stored).record_batches():
            for row in range(batch.num_rows):
                writer.write_batch(batch.slice(row, 1))
    other = sink.getvalue().to_pybytes()
    assert other != stored
    ObjectStore(lake.settings.s3).put(lake.settings.s3.raw_bucket, key, other)
    node.start()
    wait_until_drained(node)
    (message,) = receive_all(lake, 1)
    assert message.sha256 == hashlib.sha256(other).hexdigest()
    RawObject(key, ObjectStore(lake.settings.s3).get(message.bucket, key)).verify(message)
    assert node.spool.set_aside_already().segments == 0


def other_pings(stored: bytes, key: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.ipc.open_stream(stored).schema) as writer:
        for batch in RawObject(key, stored).record_batches():
            rows = [{**row, "body": b"other"} for row in batch.to_pylist()]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=RAW_SCHEMA))
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("what", [other_pings, lambda *_: b"no Arrow at all"], ids=["other pings", "rubbish"])
def test_other_pings_under_the_key_set_the_segment_aside(
    lake: Lake, new_node: NewNode, what: Callable[[bytes, str], bytes]
) -> None:
    node = new_node(lake.environment)
    key, content, stored = ship_once(lake, node, [b"one", b"two"])
    receive_all(lake, 1)
    other = what(stored, key)
    store = ObjectStore(lake.settings.s3)
    store.put(lake.settings.s3.raw_bucket, key, other)
    node.start()
    wait_until(lambda: node.metrics()["damaged_segments_total"] == 1, deadline_seconds=60, what="the alarm")
    (kept,) = node.spool.damaged_directory.iterdir()
    assert kept.read_bytes() == content
    assert store.get(lake.settings.s3.raw_bucket, key) == other
    assert node.events("segment_conflicts")


def test_a_sealed_segment_that_went_bad_is_salvaged(lake: Lake, new_node: NewNode) -> None:
    node = new_node(lake.environment)
    name = sealed_segment(node.spool, [b"one", b"two", b"three"], damage=40)
    node.start()
    (message,) = receive_all(lake, 1)
    assert message.key == f"raw/v1/2026-11-23/15/{NODE}/{name}-salvaged.arrows"
    wait_until_drained(node)
    assert [ping["body"] for ping in read_shipped_without_messages(lake)] == [b"two", b"three"]
    metrics = node.metrics()
    assert metrics["damaged_segments_total"] == 1
    assert metrics["salvaged_pings_total"] == 2
    wait_until(
        lambda: node.metrics()['spool_segments{state="damaged"}'] == 1,
        deadline_seconds=60,
        what="the observer looks at the spool",
    )
    assert node.events("segment_damaged")[0]["level"] == "error"


def test_a_sealed_segment_that_lost_its_end_is_salvaged(lake: Lake, new_node: NewNode) -> None:
    node = new_node(lake.environment)
    sealed_segment(node.spool, [b"one", b"two" * 100])
    (sealed,) = node.spool.sealed_segments()
    content = sealed.path.read_bytes()
    sealed.path.write_bytes(content[:-100])
    node.start()
    receive_all(lake, 1)
    assert [ping["body"] for ping in read_shipped_without_messages(lake)] == [b"one"]
    assert node.spool.set_aside_already().segments == 1


def test_what_lies_behind_the_promised_length_is_not_shipped(lake: Lake, new_node: NewNode) -> None:
    """A failed flush whose truncation did not reach the disk either."""
    node = new_node(lake.environment)
    sealed_segment(node.spool, [b"one", b"two"])
    (sealed,) = node.spool.sealed_segments()
    with sealed.path.open("ab") as file:
        file.write(sealed.path.read_bytes())
    node.start()
    shipped = wait_until(lambda: raw_objects(lake), deadline_seconds=60, what="a raw object")
    assert len(shipped) == 1
    assert len(read_shipped(lake).pings) == 2


def read_shipped_without_messages(lake: Lake) -> list[dict[str, object]]:
    store = ObjectStore(lake.settings.s3)
    return [
        ping
        for key in raw_objects(lake)
        for batch in RawObject(key, store.get(lake.settings.s3.raw_bucket, key)).record_batches()
        for ping in batch.to_pylist()
    ]


def test_uploads_go_on_without_sqs(lake: Lake, new_node: NewNode) -> None:
    away = {"TELEMETRY_LAKE_SQS__ENDPOINT_URL": NOBODY, "TELEMETRY_LAKE_SQS__MAX_ATTEMPTS": "1"}
    node = new_node({**lake.environment, **away})
    names = {sealed_segment(node.spool, [b"one", b"two"]) for _ in range(3)}
    node.start()
    wait_until_drained(node)
    wait_until(
        lambda: len(node.spool.waiting_announcements()) == len(names), deadline_seconds=60, what="all is kept"
    )
    assert len(raw_objects(lake)) == len(names)
    wait_until(
        lambda: node.metrics()['spool_segments{state="unannounced"}'] == len(names),
        deadline_seconds=60,
        what="the observer looks at the spool",
    )
    metrics = node.metrics()
    assert metrics["shipped_segments_total"] == 0
    assert metrics["oldest_segment_age_seconds"] > 0
    assert node.events("segment_not_announced")
    node.kill()

    again = new_node(lake.environment).start()
    messages = receive_all(lake, len(names))
    assert {message.key for message in messages} == set(raw_objects(lake))
    wait_until(lambda: not again.spool.waiting_announcements(), deadline_seconds=60, what="all is announced")
    assert again.metrics()["shipped_pings_total"] == 2 * len(names)


@pytest.mark.parametrize("kept", [ANNOUNCEMENTS_MAX - 1, ANNOUNCEMENTS_MAX])
def test_no_more_messages_are_kept_than_the_limit(lake: Lake, new_node: NewNode, kept: int) -> None:
    away = {"TELEMETRY_LAKE_SQS__ENDPOINT_URL": NOBODY, "TELEMETRY_LAKE_SQS__MAX_ATTEMPTS": "1"}
    node = new_node({**lake.environment, **away})
    name = sealed_segment(node.spool, [b"one"])
    message = IndexMessage(
        bucket="raw",
        key=raw_object_key(FIRST, NODE, "s"),
        bytes=1,
        ping_count=1,
        sha256="0" * 64,
        **dict.fromkeys(TIMES, FIRST),
    )
    for number in range(kept):
        (node.spool.unannounced_directory / f"{number}.json").write_text(message.to_json())
    node.start()
    wait_until_drained(node)
    is_kept = (node.spool.unannounced_directory / f"{name}.json").exists()
    assert is_kept == (kept < ANNOUNCEMENTS_MAX)
    assert bool(node.events("announcement_not_kept")) == (not is_kept)


def test_a_segment_that_ends_the_shipper_is_set_aside(lake: Lake, new_node: NewNode) -> None:
    """Its records are intact, and one holds what no worker writes: a time that is not a number."""
    node = new_node(lake.environment)
    name = sealed_segment(node.spool, [b"one"], time=b"noon")
    sealed_segment(node.spool, [b"two"])
    node.start()
    wait_until_drained(node)
    receive_all(lake, 1)
    assert [ping["body"] for ping in read_shipped_without_messages(lake)] == [b"two"]
    (kept,) = node.spool.damaged_directory.iterdir()
    assert kept.name.startswith(name)
    assert node.metrics()["damaged_segments_total"] == 1
    wait_until(
        lambda: node.metrics()['child_restarts_total{child="shipper"}'] == FAILURES_MAX,
        deadline_seconds=60,
        what="the shipper is started again",
    )
    (alarm,) = node.events("segment_cannot_be_shipped")
    assert (alarm["segment"], alarm["failures"]) == (name, FAILURES_MAX)
    assert not list(node.spool.failures_directory.iterdir())
