"""What has arrived in S3 and SQS, read as a consumer would."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from lake_testing.stack import Lake, wait_until
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.storage.object_keys import RAW_PREFIX
from telemetry_lake.storage.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class Shipped:
    """All raw objects of a lake: how often each path occurs in them, and the pings themselves."""

    paths: Counter[bytes]
    keys: set[str]
    pings: list[dict[str, Any]]


def receive_all(lake: Lake, keys: int, *, deadline_seconds: float = 60) -> list[IndexMessage]:
    """The messages of the queue, received and deleted, once `keys` different raw objects are named."""
    queue = IndexQueue(lake.settings.sqs)
    received: list[IndexMessage] = []

    def enough() -> bool:
        messages = queue.receive(10, wait_seconds=0)
        received.extend(IndexMessage.from_json(message.body) for message in messages)
        queue.delete([message.receipt for message in messages])
        return not messages and len({message.key for message in received}) >= keys

    wait_until(enough, deadline_seconds=deadline_seconds, what=f"{keys} raw objects are announced")
    return received


def raw_objects(lake: Lake) -> list[str]:
    """The keys of all raw objects."""
    bucket = lake.settings.s3.raw_bucket
    return [item.key for item in ObjectStore(lake.settings.s3).list_objects(bucket, RAW_PREFIX)]


def read_shipped(lake: Lake) -> Shipped:
    """Every ping in S3; each raw object is verified against its index message."""
    store = ObjectStore(lake.settings.s3)
    keys = raw_objects(lake)
    messages = receive_all(lake, len(keys))
    assert {message.key for message in messages} == set(keys)
    found: list[dict[str, Any]] = []
    for message in {message.key: message for message in messages}.values():
        raw = RawObject(message.key, store.get(message.bucket, message.key))
        raw.verify(message)
        for batch in raw.record_batches():
            found.extend(batch.to_pylist())
    return Shipped(Counter(ping["path"] for ping in found), set(keys), found)
