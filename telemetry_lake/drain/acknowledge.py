"""Acknowledge: the messages of a batch, after its commit and never before.

The messages of committed raw objects are deleted, those of quarantined ones go to the dead letters with the
reason. When a batch was stopped by its gates, all its messages go there, because trying again would give
the same answer. A batch that did not finish keeps its messages: they come again.
"""

from collections.abc import Mapping

from pydantic import BaseModel

from telemetry_lake.drain.audit import Audit
from telemetry_lake.drain.batch import ClaimedBatch
from telemetry_lake.drain.dead_letters import DeadLetter, move_to_dead_letters
from telemetry_lake.drain.ledger import Ledger
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.tables.checks import Severity


class Acknowledged(BaseModel):
    """What happened to the messages of a batch."""

    batch_id: str
    committed: bool
    deleted: int = 0
    dead_letters: list[DeadLetter] = []


def acknowledge(queue: IndexQueue, ledger: Ledger, batch: ClaimedBatch) -> Acknowledged:
    """Finish the messages that this run holds of a batch; running it again is harmless."""
    commitment = ledger.commitment(batch.batch_id)
    done = Acknowledged(batch_id=batch.batch_id, committed=commitment is not None)
    reasons: Mapping[str, str] = {}
    if commitment is not None:
        receipts = [held.receipt for held in batch.held if held.key not in commitment.quarantined]
        reasons = commitment.quarantined
        queue.delete(receipts)
        done.deleted = len(receipts)
    elif (reason := stopped_by(ledger, batch.batch_id)) is not None:
        reasons = {held.key: reason for held in batch.held}
    done.dead_letters = [
        move_to_dead_letters(queue, held, reason=reasons[held.key], key=held.key, batch=batch.batch_id)
        for held in batch.held
        if held.key in reasons
    ]
    return done


def stopped_by(ledger: Ledger, batch: str) -> str | None:
    """Return the gates that stopped a batch, in words, or None when it was not stopped."""
    audit = ledger.audit(batch, Audit)
    if audit is None or audit.may_be_published or ledger.publication(batch) is not None:
        return None
    return f"gates failed: {'; '.join(map(str, audit.failures(Severity.FAIL)))}"
