"""From the spool to S3 and SQS: one raw object a segment, whatever was there before."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from ingest_server.segment import new_marker, record_head, segment_id
from ingest_server.spool import Spool
from telemetry_lake.object_keys import raw_object_key
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.raw_object import RAW_SCHEMA, RawObject
from tests.ingest.running_node import NODE, RunningNode, request
from tests.ingest.shipped import raw_objects, read_shipped, receive_all
from tests.stack_fixture import Lake, wait_until

FIRST = datetime(2026, 11, 23, 14, 59, 59, 999_999, tzinfo=UTC)
NewNode = Callable[..., RunningNode]


def sealed_segment(spool: Spool, bodies: list[bytes], *, damage: int | None = None) -> str:
    """A segment of an earlier life of the node, each ping a second after the one before; its id."""
    marker = new_marker()
    data = b""
    for number, body in enumerate(bodies):
        microseconds = int(FIRST.timestamp()) * 1_000_000 + 999_999 + number * 1_000_000
        fields = (
            b"%d" % microseconds,
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


def is_drained(node: RunningNode) -> bool:
    return node.spool.waiting_sealed().segments == 0


def wait_until_drained(node: RunningNode) -> None:
    wait_until(lambda: is_drained(node), deadline_seconds=60, what="the spool is shipped")


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
    raw = RawObject(message.key, ObjectStore(lake.settings.s3).get(message.bucket, message.key))
    raw.verify(message)
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
    assert metrics['spool_segments{state="damaged"}'] == 1
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
