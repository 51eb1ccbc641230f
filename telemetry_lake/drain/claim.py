"""Claim: cut what waits on the queue into batches that belong to us.

Every message that is received ends in one of these ways, in this order:

1. It is not an index message of this lake: to the dead letters, with the reason.
2. The batch that owns its raw object is committed: deleted. Or committed without the raw object, which
   was damaged: to the dead letters, with the reason.
3. It was received more than `max_receive_count` times: to the dead letters, with its batch and the last
   error that is known of it.
4. A batch owns its raw object and is not committed: that batch is resumed, all of it, also its members
   whose messages another drain holds. Two workers on one batch are harmless.
5. No batch owns its raw object: it becomes part of a new batch, whose manifest is written before its claims.

A process that dies in the middle leaves messages that come again, and perhaps a manifest with a part of
its claims; the next drain that receives one of these messages completes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from telemetry_lake.drain.batch import (
    ClaimedBatch,
    HeldMessage,
    Manifest,
    Member,
    cut_into_batches,
    cut_into_parts,
    new_manifest,
)
from telemetry_lake.drain.dead_letters import DeadLetter, move_to_dead_letters
from telemetry_lake.drain.ledger import Ledger, Ownership
from telemetry_lake.raw.index_message import IndexMessage, InvalidIndexMessage
from telemetry_lake.raw.index_queue import SQS_BATCH_MAX_ENTRIES, IndexQueue, ReceivedMessage
from telemetry_lake.settings import Settings


class Claimed(BaseModel):
    """The result of one claim.

    `already_committed` counts the messages that were deleted because their raw objects had been committed.
    """

    batches: list[ClaimedBatch] = []
    dead_letters: list[DeadLetter] = []
    already_committed: int = 0


@dataclass(frozen=True, slots=True)
class _Pointer:
    """A message together with the index message in it."""

    received: ReceivedMessage
    index: IndexMessage


def claim(settings: Settings, queue: IndexQueue, ledger: Ledger, *, created_at: datetime) -> Claimed:
    """Receive up to the limits of `settings.drain`; returns the batches to work on, oldest claims first.

    `created_at` goes into new manifests. Raises RetriableError when S3 or SQS is unavailable; the messages
    that were received by then come again.
    """
    claimed = Claimed()
    pointers: list[_Pointer] = []
    for message in _receive(settings, queue):
        index = _index_message(message, settings.s3.raw_bucket)
        if isinstance(index, IndexMessage):
            pointers.append(_Pointer(message, index))
        else:
            claimed.dead_letters.append(move_to_dead_letters(queue, message, reason=str(index)))
    ownerships = ledger.ownerships(pointer.index.key for pointer in pointers)
    open_pointers = _settle(settings, queue, ledger, pointers, ownerships, claimed)

    owners = [ownerships[pointer.index.key].batch for pointer in open_pointers]
    resumed = [ledger.manifest(batch) for batch in dict.fromkeys(filter(None, owners))]
    fresh = {
        pointer.index.key: Member(
            message=pointer.index, after_batch=ownerships[pointer.index.key].after_batch
        )
        for pointer in open_pointers
        if ownerships[pointer.index.key].batch is None
    }
    groups = cut_into_batches(
        list(fresh.values()),
        max_bytes=settings.drain.batch_max_bytes,
        max_members=settings.drain.batch_max_raw_objects,
    )
    started = [ledger.begin(new_manifest(group, created_at)) for group in groups]
    claimed.batches = _take(settings, ledger, [*resumed, *started], open_pointers)
    return claimed


def _receive(settings: Settings, queue: IndexQueue) -> list[ReceivedMessage]:
    """Return messages until a batch is full or nothing more comes; the first call alone waits."""
    received: list[ReceivedMessage] = []
    size = 0
    wait_seconds = settings.drain.receive_wait_seconds
    while size < settings.drain.batch_max_bytes and len(received) < settings.drain.batch_max_raw_objects:
        messages = queue.receive(SQS_BATCH_MAX_ENTRIES, wait_seconds=wait_seconds)
        if not messages:
            break
        received += messages
        size += sum(message.index.bytes for message in messages if isinstance(message.index, IndexMessage))
        wait_seconds = 0
    return received


def _index_message(message: ReceivedMessage, raw_bucket: str) -> IndexMessage | InvalidIndexMessage:
    """Return the index message if it points into the raw bucket of this lake, else what is wrong with it."""
    index = message.index
    if isinstance(index, IndexMessage) and index.bucket != raw_bucket:
        return InvalidIndexMessage(
            f"the message points into the bucket {index.bucket!r}, and the raw objects of this lake are in "
            f"{raw_bucket!r}: it was sent to the wrong queue, or TELEMETRY_LAKE_S3__RAW_BUCKET is wrong."
        )
    return index


def _settle(
    settings: Settings,
    queue: IndexQueue,
    ledger: Ledger,
    pointers: Sequence[_Pointer],
    ownerships: dict[str, Ownership],
    claimed: Claimed,
) -> list[_Pointer]:
    """Finish the messages that need no work; returns the others."""
    commitments = ledger.commitments(owned.batch for owned in ownerships.values() if owned.batch)
    done: list[str] = []
    rest: list[_Pointer] = []
    for pointer in pointers:
        key, message = pointer.index.key, pointer.received
        batch = ownerships[key].batch
        commitment = commitments.get(batch) if batch else None
        if commitment is not None and key in commitment.quarantined:
            reason = commitment.quarantined[key]
            claimed.dead_letters.append(
                move_to_dead_letters(queue, message, reason=reason, key=key, batch=batch)
            )
        elif commitment is not None:
            done.append(message.receipt)
        elif message.receive_count > settings.sqs.max_receive_count:
            reason = f"received {message.receive_count} times, and its batch did not finish in any of them"
            error = ledger.last_error(batch) if batch else None
            claimed.dead_letters.append(
                move_to_dead_letters(queue, message, reason=reason, key=key, batch=batch, last_error=error)
            )
        else:
            rest.append(pointer)
    queue.delete(done)
    claimed.already_committed = len(done)
    return rest


def _take(
    settings: Settings, ledger: Ledger, manifests: Sequence[Manifest], pointers: Sequence[_Pointer]
) -> list[ClaimedBatch]:
    """Claim the batches of `manifests`; returns those that have members, with the messages we hold of them.

    A new batch that lost all its raw objects to faster workers is left out, and a message whose raw object
    went to another batch at the last moment is left to come again.
    """
    batches = []
    for manifest in manifests:
        members = ledger.claim_members(manifest)
        if not members:
            continue
        held = tuple(
            HeldMessage(
                key=pointer.index.key,
                receipt=pointer.received.receipt,
                receive_count=pointer.received.receive_count,
                body=pointer.received.body,
            )
            for pointer in pointers
            if pointer.index.key in members
        )
        batch, limit = manifest.batch_id, settings.drain.part_max_bytes
        is_decided = ledger.publication(batch) is not None
        parts = () if is_decided else cut_into_parts(batch, members, held, max_bytes=limit)
        batches.append(ClaimedBatch(batch_id=batch, parts=parts, held=held))
    return batches
