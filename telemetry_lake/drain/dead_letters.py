"""Dead letters: index messages that are out of the way until an operator looks at them.

Our own code moves them, by the receive count or because trying again cannot help, and says why in the
message's attributes: `reason`, `raw_object`, `batch`, `last_error`, `receive_count`. Each one is also logged
as an error, and turns the run that moved it red; the data of the other raw objects is committed all the same.
`replay` brings them back.
"""

import logging

from telemetry_lake.raw.index_queue import IndexQueue, QueueMessage
from telemetry_lake.storage.records import Record

_log = logging.getLogger(__name__)


class DeadLetter(Record):
    """A message that was moved to the dead-letter queue, and why; what is not known is empty."""

    reason: str
    raw_object: str = ""
    batch: str = ""
    last_error: str = ""

    def __str__(self) -> str:
        return f"{self.raw_object or 'a message'}: {self.reason}"


def move_to_dead_letters(
    queue: IndexQueue,
    message: QueueMessage,
    *,
    reason: str,
    key: str | None = None,
    batch: str | None = None,
    last_error: str | None = None,
) -> DeadLetter:
    """Move `message` to the dead-letter queue of `queue`, with the reason; returns what is kept of it."""
    letter = DeadLetter(reason=reason, raw_object=key or "", batch=batch or "", last_error=last_error or "")
    _log.error(
        "moved to the dead letters: %s (batch %s, last error %s)",
        letter,
        letter.batch or "none",
        letter.last_error or "none",
    )
    queue.move_to_dead_letters(
        message,
        {
            "reason": letter.reason,
            "raw_object": letter.raw_object,
            "batch": letter.batch,
            "last_error": letter.last_error,
            "receive_count": str(message.receive_count),
        },
    )
    return letter
