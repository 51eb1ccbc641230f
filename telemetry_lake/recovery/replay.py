"""Replay: let the drain see again what it has set aside, or what it may never have seen.

Each kind is idempotent. What is committed already is recognised by the ledger and left alone, so that nothing
is ever doubled, however often something is replayed:

- dead letters go back to the queue, and a raw object that a batch was committed without is given back;
- raw objects of some days get their index messages again, if they are not committed;
- rejected pings: see `replay_rejected`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.dead_letters import DeadLetter
from telemetry_lake.drain.steps import utc_now
from telemetry_lake.failures import DamagedRawObject, ErrorType, TelemetryLakeError
from telemetry_lake.raw.index_message import IndexMessage, InvalidIndexMessage
from telemetry_lake.raw.index_queue import SQS_BATCH_MAX_ENTRIES, IndexQueue, ReceivedMessage
from telemetry_lake.recovery.announce import SENT_AT_ONCE, message_of
from telemetry_lake.recovery.keys import Keys
from telemetry_lake.recovery.replay_rejected import RejectedSelection, replay_rejected
from telemetry_lake.recovery.survey import State, days_in_bucket, survey_day
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectNotFound
from telemetry_lake.storage.records import Record, all_at_once


@dataclass(slots=True)
class Replayed:
    """What a replay did, by raw object."""

    sent: Keys = field(default_factory=Keys)
    already_committed: int = 0
    left_alone: Keys = field(default_factory=Keys)
    """What cannot be replayed, with the reason: not an index message, or a raw object that is damaged."""
    deleted: Keys = field(default_factory=Keys)
    """What was no index message, with the reason."""
    foreign: Keys = field(default_factory=Keys)
    """Keys in the raw bucket that are not those of raw objects; they are skipped."""
    rejected_pings: int = 0


class ReplayRequest(Record):
    """What an operator wants to have replayed; fields that do not belong to `what` are left alone."""

    what: Literal["dead letters", "rejected pings", "raw objects"]
    error_type: ErrorType | None = None
    document_type: str | None = None
    first_day: date | None = None
    last_day: date | None = None
    waive_gates: str | None = None


def replay(lake: LakeConnections, request: ReplayRequest) -> Replayed:
    """Do what `request` asks; see the functions below."""
    if request.what == "dead letters":
        return replay_dead_letters(lake, waive_gates=request.waive_gates)
    if request.what == "raw objects":
        first, last = request.first_day or request.last_day, request.last_day or request.first_day
        return replay_raw_objects(lake, first, last, waive_gates=request.waive_gates)
    selection = RejectedSelection(
        request.error_type, request.document_type, request.first_day, request.last_day
    )
    return Replayed(rejected_pings=replay_rejected(lake, selection))


def dead_letters(settings: Settings) -> list[DeadLetter]:
    """Return what is in the dead-letter queue now, and why; it stays there."""
    queue = IndexQueue(settings.sqs).dead_letters()
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


def replay_dead_letters(
    lake: LakeConnections, *, waive_gates: str | None = None, delete_foreign: bool = False
) -> Replayed:
    """Put the dead letters that are there now back on the queue.

    With `waive_gates`, the reason for doing so, batches that their gates stopped are published all the same.
    What is no index message stays, or is gone with `delete_foreign`: no raw object waits behind it.
    """
    queue = lake.queue.dead_letters()
    result = Replayed()
    kept: list[str] = []
    try:
        for message in _all_messages(queue):
            kept.append(message.receipt)
            index = message.index
            if isinstance(index, InvalidIndexMessage):
                words = f"{message.message_id}: {index}"
                if delete_foreign:
                    queue.delete([kept.pop()])
                    result.deleted.add(words)
                else:
                    result.left_alone.add(words)
                continue
            if _needs_work(lake, index.key, waive_gates):
                lake.queue.send(index)
                result.sent.add(index.key)
            else:
                result.already_committed += 1
            queue.delete([kept.pop()])
    except TelemetryLakeError:
        # Otherwise the next replay would not see them before their visibility timeout is over.
        with suppress(TelemetryLakeError):
            queue.show_again(kept)
        raise
    queue.show_again(kept)
    return result


def replay_raw_objects(
    lake: LakeConnections,
    first_day: date | None = None,
    last_day: date | None = None,
    *,
    waive_gates: str | None = None,
    skip_complete: bool = False,
    watch: Callable[[Sequence[date]], Iterable[date]] = iter,
) -> Replayed:
    """Send the index messages of all raw objects of these days (UTC, inclusive) that are not committed.

    Without days, those of all raw objects: so the queue is rebuilt from the raw bucket. With `skip_complete`,
    days that are marked complete are left out. A raw object that was set aside is given back by its batch.
    With `waive_gates`, the reason for doing so, batches that their gates stopped are published all the same.
    `watch` yields the days again, while it shows how far they have come.
    """
    result = Replayed()
    days = days_in_bucket(lake, result.foreign)
    done = lake.days.complete() if skip_complete else ()
    wanted = [day for day in days if (first_day or day) <= day <= (last_day or day) and day not in done]
    for day in watch(wanted):
        found = survey_day(lake, day, now=utc_now(), afresh=True)
        result.foreign.extend(found.foreign)
        for key, batch in found.set_aside:
            lake.ledger.release(key, batch)
        if waive_gates is not None:
            for held in {one.batch for one in found.unfinished if one.state is State.HELD_BACK}:
                lake.ledger.waive(str(held), waive_gates)
        keys = [*(one.key for one in found.unfinished), *(key for key, _ in found.set_aside)]
        result.already_committed += found.raw_objects - len(keys)
        for start in range(0, len(keys), SENT_AT_ONCE):
            _send(lake, keys[start : start + SENT_AT_ONCE], result)
    return result


def _send(lake: LakeConnections, keys: Sequence[str], result: Replayed) -> None:
    """Send the messages of some raw objects."""

    def made(key: str) -> IndexMessage | str:
        try:
            return message_of(lake, key)
        except (DamagedRawObject, ObjectNotFound) as error:
            return str(error)

    messages: list[IndexMessage] = []
    for message in all_at_once(made, keys):
        if isinstance(message, str):
            result.left_alone.add(message)
        else:
            messages.append(message)
    lake.queue.send_all(messages)
    for message in messages:
        result.sent.add(message.key)


def _needs_work(lake: LakeConnections, key: str, waive_gates: str | None) -> bool:
    """Return whether the drain has to see a raw object again; if so, make sure that it may."""
    batch = lake.ledger.ownership(key).batch
    if batch is None:
        return True
    commitment = lake.ledger.commitment(batch)
    if commitment is None:
        if waive_gates is not None:
            lake.ledger.waive(batch, waive_gates)
        return True
    if key in commitment.quarantined:
        lake.ledger.release(key, batch)
        return True
    return False


def _all_messages(queue: IndexQueue) -> Iterator[ReceivedMessage]:
    """Yield about as many messages as wait now, each once; what comes meanwhile is left for later."""
    seen: set[str] = set()
    for _ in range(queue.waiting() + 1):
        messages = queue.receive(SQS_BATCH_MAX_ENTRIES, wait_seconds=0)
        if not messages:
            return
        yield from (message for message in messages if message.message_id not in seen)
        seen.update(message.message_id for message in messages)
