"""Announce: send the index messages of raw objects again that the drain seems to have lost.

Most unfinished raw objects wait for their turn, and their messages are on the queue. A message is taken
for lost only when one of these holds:

- the queue is empty, hidden messages included;
- it was sent longer ago than the queue keeps a message;
- the queue is short, and the drain has claimed others since, long after this one was sent.

So a drain that is stopped or behind is not sent anything. What is taken for lost is sent less and less
often: each time a record below `ledger/sent/` is written first, so that a raw object gets at most one
message in each of the waits, however many reconcilers there are and wherever they are killed. One that is
killed between record and message makes the raw object wait for its next turn.

The message is made of the object's metadata. Raw objects of before there was any are read, once.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.failures import DamagedRawObject
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.recovery.survey import State, Unfinished
from telemetry_lake.storage.object_keys import sent_key, sent_prefix, split_sent_key
from telemetry_lake.storage.object_store import ObjectNotFound
from telemetry_lake.storage.records import Record, all_at_once

LATER_WAITS: Final = (timedelta(hours=1), timedelta(hours=6), timedelta(days=1))
"""How long after a first, second and any further message the next one is sent; before the first it is the
grace period."""
SHORT_QUEUE_MAX_MESSAGES: Final = 1_000
"""With more messages waiting, the drain is behind, and what it has not claimed is not lost."""
SENT_AT_ONCE: Final = 100
"""How many raw objects are announced between two looks at the clock."""

_log = logging.getLogger(__name__)


class Sent(Record):
    """A message that was sent again; `error` says why none could be made of the raw object."""

    message: IndexMessage | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Turn:
    """When a raw object was announced last; `step` is that of its last record, None before the first."""

    last: datetime
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Announced:
    """A raw object whose message was sent again, or could not be made, for the reason `error`."""

    key: str
    state: State
    error: str | None = None


class Announcer:
    """Announces raw objects at the time `now`; `last_claim_at` is when the drain last claimed one.

    Making it asks the queue for its state. Raises RetriableError when SQS is unavailable.
    """

    def __init__(self, lake: LakeConnections, *, now: datetime, last_claim_at: datetime | None) -> None:
        self._lake = lake
        self._now = now
        self._last_claim_at = last_claim_at
        self._grace = timedelta(seconds=lake.settings.drain.reconcile_grace_seconds)
        self._queue = lake.queue.state()

    def saw_claim(self, at: datetime | None) -> None:
        """Note that the drain claimed a raw object at this time."""
        if at is not None and (self._last_claim_at is None or at > self._last_claim_at):
            self._last_claim_at = at

    @property
    def last_claim_at(self) -> datetime | None:
        """When the drain last claimed a raw object, as far as is known."""
        return self._last_claim_at

    def announce(
        self, day: date, unfinished: Iterable[Unfinished], *, is_over: Callable[[], bool]
    ) -> list[Announced]:
        """Send the messages of those raw objects of a day again that are due, until `is_over`.

        Raises RetriableError when S3 or SQS is unavailable; what was recorded by then waits for its turn.
        """
        candidates = [
            one
            for one in unfinished
            if one.state is not State.HELD_BACK and self._may_be_due(_Turn(one.since))
        ]
        if not candidates:
            return []
        turns = self._turns(day)
        due = []
        for one in candidates:
            turn = turns.get(one.key, _Turn(one.since))
            turn = _Turn(max(turn.last, one.since), turn.step)
            if self._may_be_due(turn):
                due.append((one, turn))
        announced: list[Announced] = []
        for start in range(0, len(due), SENT_AT_ONCE):
            if is_over():
                break
            announced += self._send(due[start : start + SENT_AT_ONCE])
        return announced

    def _may_be_due(self, turn: _Turn) -> bool:
        wait = self._grace if turn.step is None else LATER_WAITS[min(turn.step, len(LATER_WAITS) - 1)]
        return self._now - turn.last >= wait and self._seems_lost(turn.last)

    def _seems_lost(self, sent_at: datetime) -> bool:
        """Return whether a message that was sent at this time is probably on the queue no more."""
        queue = self._queue
        if queue.is_empty:
            return True
        if queue.retention is not None and self._now - sent_at > queue.retention:
            return True
        claimed_at = self._last_claim_at
        return (
            queue.waiting <= SHORT_QUEUE_MAX_MESSAGES
            and claimed_at is not None
            and claimed_at > sent_at + self._grace
        )

    def _turns(self, day: date) -> dict[str, _Turn]:
        """Return how often the raw objects of a day were announced, for those that were."""
        turns: dict[str, _Turn] = {}
        for item in self._lake.store.list_objects(self._lake.settings.s3.lake_bucket, sent_prefix(day)):
            key, step = split_sent_key(item.key)
            before = turns.get(key, _Turn(item.modified_at))
            turns[key] = _Turn(max(before.last, item.modified_at), step)
        return turns

    def _send(self, due: Sequence[tuple[Unfinished, _Turn]]) -> list[Announced]:
        records = [record for record in all_at_once(self._record, due) if record is not None]
        self._lake.queue.send_all([sent.message for _, sent in records if sent.message is not None])
        for one, sent in records:
            if sent.error is None:
                _log.warning("sent the index message of %s again", one.key)
            else:
                _log.error("no message can be made of a raw object: %s", sent.error)
        return [Announced(one.key, one.state, sent.error) for one, sent in records]

    def _record(self, due: tuple[Unfinished, _Turn]) -> tuple[Unfinished, Sent] | None:
        """Record that a raw object is announced; returns what, or None when another process does it."""
        one, turn = due
        before = None
        if turn.step is not None:
            before = self._lake.records.read(sent_key(one.key, turn.step), Sent)
        try:
            sent = Sent(message=message_of(self._lake, one.key, before))
        except DamagedRawObject as error:
            sent = Sent(message=None, error=str(error))
        except ObjectNotFound:  # deleted since it was listed
            return None
        key = sent_key(one.key, 0 if turn.step is None else turn.step + 1)
        return (one, sent) if self._lake.records.put_if_absent(key, sent) else None


def message_of(lake: LakeConnections, key: str, before: Sent | None = None) -> IndexMessage:
    """Return the index message of a raw object, made of its metadata, or of the object where it has none.

    `before` is what was sent of it before, which saves reading it again. Raises ObjectNotFound, and
    DamagedRawObject when no message can be made.
    """
    bucket = lake.settings.s3.raw_bucket
    head = lake.store.head(bucket, key)
    if head is None:
        raise ObjectNotFound(f"s3://{bucket}/{key} is not there")
    message = IndexMessage.from_metadata(bucket, key, head.bytes, head.metadata)
    if message is not None:
        return message
    if before is not None and before.message is not None and before.message.bytes == head.bytes:
        return before.message
    with lake.store.opened(bucket, key) as file:
        return RawObject(key, file).index_message(bucket)
