"""Support for tests of the drain: shipping as an ingest node does, and looking into tables and queues."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.raw.raw_object import Promise, RawPing, write_raw_object
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import raw_object_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS

MORNING = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
GREETING = "/submit/lake-demo/greeting/1/"
SAMPLE_MESSAGE = IndexMessage(
    bucket="raw",
    key=raw_object_key(MORNING, "node-1", "segment-1"),
    bytes=1,
    ping_count=1,
    sha256="0" * 64,
    first_submission_timestamp=MORNING,
    last_submission_timestamp=MORNING,
)
"""The index message of a raw object that is not there."""


def greeting(document_id: str, *, at: datetime = MORNING, body: bytes = b'{"text": "hello"}') -> RawPing:
    """Return a ping that becomes a row of live.pings, unless `body` is not a greeting."""
    return RawPing(
        submission_timestamp=at,
        method="POST",
        path=f"{GREETING}{document_id}".encode(),
        query=b"",
        protocol="HTTP/1.1",
        remote_address="198.51.100.7",
        host=b"telemetry.example",
        headers=(("content-type", b"application/json"), ("x-forwarded-for", b"198.51.100.7")),
        body=body,
    )


@dataclass
class Shipped:
    """Raw objects that were shipped, by their messages and by the document ids in them."""

    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    messages: list[IndexMessage] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return [message.key for message in self.messages]

    def __add__(self, other: "Shipped") -> "Shipped":
        return Shipped(self.good + other.good, self.bad + other.bad, self.messages + other.messages)


def ship(settings: Settings, *, objects: int = 1, good: int = 3, bad: int = 0, send: bool = True) -> Shipped:
    """Put raw objects into the raw bucket and, with `send`, their index messages on the queue."""
    shipped = Shipped()
    for _ in range(objects):
        goods, bads = [str(uuid.uuid4()) for _ in range(good)], [str(uuid.uuid4()) for _ in range(bad)]
        pings = [greeting(name) for name in goods] + [greeting(name, body=b"{") for name in bads]
        shipped.messages.append(ship_pings(settings, pings, send=send))
        shipped.good += goods
        shipped.bad += bads
    return shipped


def ship_pings(
    settings: Settings, pings: Sequence[RawPing], *, first: datetime = MORNING, send: bool = True
) -> IndexMessage:
    """Ship one raw object of these pings, none of which is older than `first`."""
    segment = uuid.uuid4().hex
    last = max(ping.submission_timestamp for ping in pings)
    body = write_raw_object(pings, Promise(len(pings), first, last, "node-1", segment))
    return ship_bytes(settings, body, segment=segment, count=len(pings), first=first, last=last, send=send)


def ship_bytes(
    settings: Settings,
    body: bytes,
    *,
    segment: str | None = None,
    count: int = 1,
    first: datetime = MORNING,
    last: datetime | None = None,
    send: bool = True,
    described: bool = True,
    **promised: object,
) -> IndexMessage:
    """Ship `body` as a raw object; `promised` replaces what its message should say.

    One that is not `described` has no metadata, as those of the first version.
    """
    key = raw_object_key(first, "node-1", segment or uuid.uuid4().hex)
    truth: dict[str, object] = {
        "bucket": settings.s3.raw_bucket,
        "key": key,
        "bytes": max(1, len(body)),
        "ping_count": count,
        "sha256": hashlib.sha256(body).hexdigest(),
        "first_submission_timestamp": first,
        "last_submission_timestamp": last or first,
    }
    message = IndexMessage.model_validate({**truth, **promised})
    metadata = message.metadata() if described else {}
    ObjectStore(settings.s3).put_if_absent(settings.s3.raw_bucket, key, body, metadata=metadata)
    if send:
        IndexQueue(settings.sqs).send(message)
    return message


def live_document_ids(settings: Settings) -> list[str]:
    """Return the document ids of all rows of live.pings, sorted, duplicates included."""
    return _document_ids(settings, LIVE_PINGS)


def rejected_document_ids(settings: Settings) -> list[str]:
    """Return the document ids of all rows of live.rejected_pings, sorted, duplicates included."""
    return _document_ids(settings, LIVE_REJECTED_PINGS)


def assert_each_once(settings: Settings, shipped: Shipped) -> None:
    """Assert that every shipped ping is one row of its table, and that there are no others."""
    assert live_document_ids(settings) == sorted(shipped.good)
    assert rejected_document_ids(settings) == sorted(shipped.bad)


def queue_is_empty(settings: Settings) -> bool:
    """Return whether no message is left: neither to be received nor hidden."""
    queue = IndexQueue(settings.sqs)
    answer = queue._sqs.get_queue_attributes(
        QueueUrl=queue._url(settings.sqs.index_queue_name),
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )
    return all(int(count) == 0 for count in answer["Attributes"].values())


def later(settings: Settings, seconds: float) -> datetime:
    """Return a moment after now, for what depends on the clock."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _document_ids(settings: Settings, table: str) -> list[str]:
    rows = load_lake_catalog(settings).load_table(table).scan(selected_fields=("document_id",)).to_arrow()
    return sorted(str(value) for value in rows.column("document_id").to_pylist())
