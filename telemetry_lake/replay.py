"""Replay: let the drain see again what it has set aside, or what it may never have seen.

Each kind is idempotent. What is committed already is recognised by the ledger and left alone, so that nothing
is ever doubled, however often something is replayed:

- dead letters go back to the queue, and a raw object that a batch was committed without is given back;
- raw objects of some days get their index messages again, if they are not committed;
- rejected pings: see `replay_rejected`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from telemetry_lake.dead_letters import DeadLetter
from telemetry_lake.drain import Drain
from telemetry_lake.failures import DamagedRawObject, ErrorType
from telemetry_lake.index_message import IndexMessage, InvalidIndexMessage
from telemetry_lake.index_queue import SQS_BATCH_MAX_ENTRIES, IndexQueue, ReceivedMessage
from telemetry_lake.object_keys import RAW_PREFIX, raw_object_prefix
from telemetry_lake.raw_object import RawObject
from telemetry_lake.replay_rejected import RejectedSelection, replay_rejected
from telemetry_lake.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Replayed:
    """What a replay did, by raw object."""

    sent: list[str] = field(default_factory=list)
    already_committed: list[str] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)
    """What cannot be replayed, with the reason: not an index message, or a raw object that is damaged."""
    rejected_pings: int = 0


class ReplayRequest(BaseModel):
    """What somebody asks to be replayed; fields that do not belong to `what` are left alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["dead letters", "rejected pings", "raw objects"]
    error_type: ErrorType | None = None
    document_type: str | None = None
    first_day: date | None = None
    last_day: date | None = None
    waive_gates: str | None = None


def replay(drain: Drain, request: ReplayRequest) -> Replayed:
    """Do what `request` asks; see the functions below."""
    if request.what == "dead letters":
        return replay_dead_letters(drain, waive_gates=request.waive_gates)
    if request.what == "raw objects":
        return replay_raw_objects(drain, request.first_day, request.last_day)
    selection = RejectedSelection(
        request.error_type, request.document_type, request.first_day, request.last_day
    )
    return Replayed(rejected_pings=replay_rejected(drain, selection))


def dead_letters(settings: Settings) -> list[DeadLetter]:
    """What lies in the dead-letter queue now, and why; it stays there."""
    queue = IndexQueue.of_dead_letters(settings.sqs)
    letters: list[DeadLetter] = []
    receipts: list[str] = []
    for message in _all_messages(queue):
        receipts.append(message.receipt)
        letters.append(
            DeadLetter(
                reason=message.reasons.get("reason", "moved here by the queue's own redrive policy"),
                **{
                    name: "" if (text := message.reasons.get(name, "-")) == "-" else text
                    for name in ("raw_object", "batch", "last_error")
                },
            )
        )
    queue.show_again(receipts)
    return letters


def replay_dead_letters(drain: Drain, *, waive_gates: str | None = None) -> Replayed:
    """Put the dead letters that are there now back on the queue.

    With `waive_gates`, the reason for doing so, batches that their gates stopped are published all the same.
    """
    queue = IndexQueue.of_dead_letters(drain.settings.sqs)
    result = Replayed()
    kept: list[str] = []
    for message in _all_messages(queue):
        try:
            index = IndexMessage.from_json(message.body)
        except InvalidIndexMessage as error:
            result.left_alone.append(f"{message.message_id}: {error}")
            kept.append(message.receipt)
            continue
        if _needs_work(drain, index.key, waive_gates):
            drain.queue.send(index)
            result.sent.append(index.key)
        else:
            result.already_committed.append(index.key)
        queue.delete([message.receipt])
    queue.show_again(kept)
    return result


def replay_raw_objects(drain: Drain, first_day: date | None = None, last_day: date | None = None) -> Replayed:
    """Send the index messages of all raw objects of these days (UTC, inclusive) that are not committed.

    Without days, of all raw objects there are: so the queue is rebuilt from the raw bucket.
    """
    result = Replayed()
    bucket = drain.settings.s3.raw_bucket
    for prefix in _prefixes(first_day, last_day):
        for item in drain.store.list_objects(bucket, prefix):
            if not _needs_work(drain, item.key, None):
                result.already_committed.append(item.key)
                continue
            try:
                drain.queue.send(RawObject(item.key, drain.store.get(bucket, item.key)).index_message(bucket))
            except DamagedRawObject as error:
                result.left_alone.append(str(error))
            else:
                result.sent.append(item.key)
    return result


def _needs_work(drain: Drain, key: str, waive_gates: str | None) -> bool:
    """Whether the drain has to see a raw object again; makes sure that it may."""
    batch = drain.ledger.tenure(key).batch
    if batch is None:
        return True
    commitment = drain.ledger.commitment(batch)
    if commitment is None:
        if waive_gates is not None:
            drain.ledger.waive(batch, waive_gates)
        return True
    if key in commitment.quarantined:
        drain.ledger.release(key, batch)
        return True
    return False


def _prefixes(first_day: date | None, last_day: date | None) -> Iterator[str]:
    if first_day is None and last_day is None:
        yield RAW_PREFIX
        return
    day, end = first_day or last_day, last_day or first_day
    while day is not None and end is not None and day <= end:
        yield raw_object_prefix(day)
        day += timedelta(days=1)


def _all_messages(queue: IndexQueue) -> Iterator[ReceivedMessage]:
    """About as many messages as wait now, each once: what dies again meanwhile is left for the next time."""
    seen: set[str] = set()
    for _ in range(queue.waiting() + 1):
        messages = queue.receive(SQS_BATCH_MAX_ENTRIES, wait_seconds=0)
        if not messages:
            return
        yield from (message for message in messages if message.message_id not in seen)
        seen.update(message.message_id for message in messages)
