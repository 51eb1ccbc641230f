"""The gate: whether this worker takes pings, and what it answers while it does not."""

import logging
import time
from typing import Final

from ingest_server import answers
from ingest_server.answers import Answer
from ingest_server.counters import Counters
from telemetry_lake.settings import IngestSettings

REFUSAL_AFTER_FAILURE_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class Gate:
    """Closed while the spool or its disk is full, and for a moment after a ping could not be made durable.

    It never looks at the disk: the observer does, and leaves what it saw in the counters.
    """

    def __init__(self, settings: IngestSettings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._spool_bytes = 0.0
        self._spool_refusal: Answer | None = None
        self._failure: Answer | None = None
        self._failure_ends_seconds = 0.0
        self.refusal: Answer | None = None
        """The answer to every ping, None while they are taken."""

    def update(self) -> None:
        """Decide by what the observer saw last and what all workers have appended since."""
        settings, total = self._settings, self._counters.total
        appended = total("appended_bytes")
        self._spool_bytes = total("spool_before_bytes") + appended
        is_full = (
            self._spool_bytes > settings.spool_max_bytes
            or total("spool_free_before_bytes") - appended < settings.spool_min_free_bytes
        )
        self._spool_refusal = answers.DISK_FULL if is_full else None
        if total("spool_is_unreadable"):
            self._spool_refusal = answers.NOT_DURABLE
        self.decide()

    def stored(self, length: int) -> None:
        """Count `length` bytes that were appended to the spool."""
        self._counters.add("appended_bytes", length)
        self._spool_bytes += length
        if self._spool_bytes > self._settings.spool_max_bytes and self._spool_refusal is None:
            self._spool_refusal = answers.DISK_FULL
            self.decide()

    def failed(self, answer: Answer) -> None:
        """Close the gate for REFUSAL_AFTER_FAILURE_SECONDS: pings are refused without touching the disk."""
        self._failure = answer
        self._failure_ends_seconds = time.monotonic() + REFUSAL_AFTER_FAILURE_SECONDS
        self.decide()

    def decide(self) -> None:
        """Set `refusal`; called several times a second, so that the gate opens again after a failure."""
        if self._failure is not None and time.monotonic() >= self._failure_ends_seconds:
            self._failure = None
        refusal = self._failure or self._spool_refusal
        if refusal is not self.refusal:
            status = refusal.status if refusal else 200
            log.warning("accepting" if refusal is None else "refusing", extra={"status": status})
            self._counters.set("refusing_status", 0 if refusal is None else status)
            self.refusal = refusal
