"""Acknowledge: the messages of a batch, after its commit and never before.

The messages of committed raw objects are deleted, those of quarantined ones go to the dead letters with the
reason. When a batch was stopped by its gates, all its messages go there, because trying again would give
the same answer. A batch that has come to no end keeps its messages: they come again.
"""

from collections.abc import Mapping

from pydantic import BaseModel

from telemetry_lake.audit import Audit
from telemetry_lake.batch import ClaimedBatch, HeldMessage, Member
from telemetry_lake.checks import Severity
from telemetry_lake.dead_letters import DeadLetter, bury
from telemetry_lake.index_queue import IndexQueue, ReceivedMessage
from telemetry_lake.ledger import Ledger


class Acknowledged(BaseModel):
    """What became of a batch."""

    batch_id: str
    committed: bool
    deleted: int = 0
    dead_letters: list[DeadLetter] = []


def acknowledge(queue: IndexQueue, ledger: Ledger, batch: ClaimedBatch) -> Acknowledged:
    """Finish the messages that this run holds of a batch; running it again is harmless."""
    members = ledger.members(ledger.manifest(batch.batch_id))
    commitment = ledger.commitment(batch.batch_id)
    done = Acknowledged(batch_id=batch.batch_id, committed=commitment is not None)
    if commitment is not None:
        receipts = [held.receipt for held in batch.held if held.key not in commitment.quarantined]
        reasons: Mapping[str, str] = commitment.quarantined
        queue.delete(receipts)
        done.deleted = len(receipts)
    elif (reason := _stopped_by(ledger, batch.batch_id)) is not None:
        reasons = dict.fromkeys(members, reason)
    else:
        reasons = {}
    done.dead_letters = [
        bury(
            queue,
            _as_received(held, members[held.key]),
            reason=reasons[held.key],
            key=held.key,
            batch=batch.batch_id,
        )
        for held in batch.held
        if held.key in reasons
    ]
    return done


def _stopped_by(ledger: Ledger, batch: str) -> str | None:
    """The gates that stopped a batch, in words, when they did."""
    audit = ledger.audit(batch, Audit)
    if audit is None or audit.may_be_published or ledger.publication(batch) is not None:
        return None
    return f"gates failed: {'; '.join(map(str, audit.failures(Severity.FAIL)))}"


def _as_received(held: HeldMessage, member: Member) -> ReceivedMessage:
    return ReceivedMessage(held.message_id, held.receipt, held.receive_count, member.message.to_json())
