"""S3 and SQS of a simulated world, with the faces of boto3's clients: what the pipeline calls of them.

The pipeline's own `ObjectStore` and `IndexQueue` run over them as they are.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import md5
from io import BytesIO
from typing import Any, Final, TypeVar

from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.response import StreamingBody

from lake_testing.simulation.world import Service, World

LIST_PAGE_MAX_KEYS: Final = 1_000
SQS_RETENTION: Final = timedelta(days=14)
"""The longest that SQS keeps a message (SQS developer guide, MessageRetentionPeriod)."""

Answer = dict[str, Any]
T = TypeVar("T")


def _refused(what: str) -> Exception:
    return EndpointConnectionError(endpoint_url=what)


def _error(code: str, status: int, operation: str) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


@dataclass(slots=True)
class _Object:
    body: bytes
    modified_at: datetime
    metadata: Mapping[str, str]


class SimulatedS3:
    """Buckets in memory: conditional puts, reads and listings."""

    def __init__(self, world: World, buckets: Sequence[str]) -> None:
        self._world = world
        self._buckets: dict[str, dict[str, _Object]] = {bucket: {} for bucket in buckets}

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes,
        IfNoneMatch: str = "",
        Metadata: Mapping[str, str] | None = None,
        **_: object,
    ) -> Answer:
        def put() -> Answer:
            if IfNoneMatch and Key in self._buckets[Bucket]:
                raise _error("PreconditionFailed", 412, "PutObject")
            self._buckets[Bucket][Key] = _Object(Body, self._world.now, dict(Metadata or {}))
            return {}

        return self._call(put, f"put s3://{Bucket}/{Key}")

    def get_object(self, *, Bucket: str, Key: str) -> Answer:
        def get() -> Answer:
            found = self._buckets[Bucket].get(Key)
            if found is None:
                raise _error("NoSuchKey", 404, "GetObject")
            return {"Body": StreamingBody(BytesIO(found.body), len(found.body))}

        return self._call(get, f"get s3://{Bucket}/{Key}")

    def head_object(self, *, Bucket: str, Key: str) -> Answer:
        def head() -> Answer:
            found = self._buckets[Bucket].get(Key)
            if found is None:
                raise _error("404", 404, "HeadObject")
            return {
                "ContentLength": len(found.body),
                "LastModified": found.modified_at,
                "Metadata": dict(found.metadata),
            }

        return self._call(head, f"head s3://{Bucket}/{Key}")

    def delete_object(self, *, Bucket: str, Key: str) -> Answer:
        def delete() -> Answer:
            self._buckets[Bucket].pop(Key, None)
            return {}

        return self._call(delete, f"delete s3://{Bucket}/{Key}")

    def head_bucket(self, *, Bucket: str) -> Answer:
        def head() -> Answer:
            if Bucket not in self._buckets:
                raise _error("404", 404, "HeadBucket")
            return {}

        return self._call(head, f"head s3://{Bucket}")

    def get_paginator(self, operation: str) -> "_Paginator":
        assert operation == "list_objects_v2"
        return _Paginator(self)

    def folders(self, bucket: str, prefix: str) -> Iterator[Answer]:
        """List the next parts of the keys below a prefix."""

        def page() -> list[str]:
            keys = [key.removeprefix(prefix) for key in self._buckets[bucket] if key.startswith(prefix)]
            return sorted({key.partition("/")[0] for key in keys if "/" in key})

        found = self._call(page, f"list folders of s3://{bucket}/{prefix}")
        yield {"CommonPrefixes": [{"Prefix": f"{prefix}{name}/"} for name in found]}

    def pages(self, bucket: str, prefix: str) -> Iterator[Answer]:
        """List the objects below a prefix, a page at a time."""
        start = ""
        while True:

            def page(start: str = start) -> list[tuple[str, _Object]]:
                keys = sorted(key for key in self._buckets[bucket] if key > start and key.startswith(prefix))
                return [(key, self._buckets[bucket][key]) for key in keys[:LIST_PAGE_MAX_KEYS]]

            found = self._call(page, f"list s3://{bucket}/{prefix}")
            yield {
                "Contents": [
                    {
                        "Key": key,
                        "Size": len(item.body),
                        "LastModified": item.modified_at,
                        "ETag": f'"{md5(item.body, usedforsecurity=False).hexdigest()}"',
                    }
                    for key, item in found
                ]
            }
            if len(found) < LIST_PAGE_MAX_KEYS:
                return
            start = found[-1][0]

    def _call(self, act: Callable[[], T], what: str) -> T:
        return self._world.call(Service.S3, act, _refused, what)


@dataclass(frozen=True, slots=True)
class _Paginator:
    s3: SimulatedS3

    def paginate(self, *, Bucket: str, Prefix: str, Delimiter: str = "") -> Iterator[Answer]:
        return self.s3.folders(Bucket, Prefix) if Delimiter else self.s3.pages(Bucket, Prefix)


@dataclass(slots=True)
class _Message:
    message_id: str
    body: str
    attributes: Mapping[str, Any]
    sent_at: datetime
    visible_at: datetime
    receive_count: int = 0
    receipt: str = ""


@dataclass(slots=True)
class _Queue:
    messages: list[_Message] = field(default_factory=list)


class SimulatedSqs:
    """Standard queues: in no order, at least once, and for no longer than their retention.

    `delivers_twice` is the chance that a hidden message is received by a second receiver.
    """

    def __init__(self, world: World, queues: Sequence[str], *, delivers_twice: float = 0.0) -> None:
        self._world = world
        self.delivers_twice = delivers_twice
        self.retention = SQS_RETENTION
        self.sent: Counter[str] = Counter()
        """How often each body was sent, to any queue."""
        self.most_receives = 0
        """The highest receive count that any message reached."""
        self.before_delete: Callable[[str, str], None] = lambda _queue, _body: None
        """Is given the queue and the body of each message that is about to be deleted."""
        self._queues = {name: _Queue() for name in queues}
        self._numbers = itertools.count()

    def get_queue_url(self, *, QueueName: str) -> Answer:
        # Never a call of its own: the pipeline asks once a process.
        return {"QueueUrl": QueueName}

    def send_message(
        self, *, QueueUrl: str, MessageBody: str, MessageAttributes: Mapping[str, Any] | None = None
    ) -> Answer:
        def send() -> Answer:
            now, number = self._world.now, next(self._numbers)
            self._queues[QueueUrl].messages.append(
                _Message(f"message-{number}", MessageBody, dict(MessageAttributes or {}), now, now)
            )
            self.sent[MessageBody] += 1
            return {}

        return self._call(send, f"send to {QueueUrl}")

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> Answer:
        def send() -> Answer:
            now = self._world.now
            self._queues[QueueUrl].messages += [
                _Message(f"message-{next(self._numbers)}", entry["MessageBody"], {}, now, now)
                for entry in Entries
            ]
            self.sent.update(entry["MessageBody"] for entry in Entries)
            return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

        return self._call(send, f"send to {QueueUrl}")

    def receive_message(
        self, *, QueueUrl: str, MaxNumberOfMessages: int, VisibilityTimeout: float, **_: object
    ) -> Answer:
        def receive() -> Answer:
            chance, now = self._world.chance(), self._world.now
            left = self.left(QueueUrl)
            chance.shuffle(left)
            ready = [
                message
                for message in left
                if message.visible_at <= now or chance.random() < self.delivers_twice
            ][:MaxNumberOfMessages]
            for message in ready:
                message.receive_count += 1
                self.most_receives = max(self.most_receives, message.receive_count)
                message.visible_at = now + timedelta(seconds=VisibilityTimeout)
                message.receipt = f"{message.message_id}#{message.receive_count}"
            return {"Messages": [_as_received(message) for message in ready]}

        return self._call(receive, f"receive from {QueueUrl}")

    def change_message_visibility_batch(
        self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]
    ) -> Answer:
        def change() -> Answer:
            by_receipt = {entry["ReceiptHandle"]: entry["VisibilityTimeout"] for entry in Entries}
            for message in self.left(QueueUrl):
                if message.receipt in by_receipt:
                    message.visible_at = self._world.now + timedelta(seconds=by_receipt[message.receipt])
            return {}

        return self._call(change, f"change visibility in {QueueUrl}")

    def delete_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> Answer:
        def delete() -> Answer:
            receipts = {entry["ReceiptHandle"] for entry in Entries}
            left = self.left(QueueUrl)
            for message in left:
                if message.receipt in receipts:
                    self.before_delete(QueueUrl, message.body)
            self._queues[QueueUrl].messages = [message for message in left if message.receipt not in receipts]
            return {}

        return self._call(delete, f"delete from {QueueUrl}")

    def get_queue_attributes(self, *, QueueUrl: str, **_: object) -> Answer:
        def ask() -> Answer:
            left = self.left(QueueUrl)
            visible = sum(message.visible_at <= self._world.now for message in left)
            oldest = max((self._world.now - message.sent_at for message in left), default=timedelta())
            return {
                "Attributes": {
                    "ApproximateNumberOfMessages": str(visible),
                    "ApproximateNumberOfMessagesNotVisible": str(len(left) - visible),
                    "ApproximateAgeOfOldestMessage": str(int(oldest.total_seconds())),
                    "MessageRetentionPeriod": str(int(self.retention.total_seconds())),
                }
            }

        return self._call(ask, f"ask for the length of {QueueUrl}")

    def left(self, queue: str) -> list[_Message]:
        """Return the messages whose retention has not passed, hidden ones included."""
        found = self._queues[queue]
        oldest = self._world.now - self.retention
        found.messages = [message for message in found.messages if message.sent_at >= oldest]
        return list(found.messages)

    def _call(self, act: Callable[[], T], what: str) -> T:
        return self._world.call(Service.SQS, act, _refused, what)


def _as_received(message: _Message) -> Answer:
    return {
        "MessageId": message.message_id,
        "ReceiptHandle": message.receipt,
        "Body": message.body,
        "Attributes": {
            "ApproximateReceiveCount": str(message.receive_count),
            "SentTimestamp": str(int(message.sent_at.timestamp() * 1_000)),
        },
        "MessageAttributes": dict(message.attributes),
    }
