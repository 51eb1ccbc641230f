"""Who did what in the analysis service: events, each an object that is written once."""

import uuid
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

from telemetry_lake.analysis_jobs.documents import Event, What
from telemetry_lake.storage.object_keys import job_event_key, job_event_prefix
from telemetry_lake.storage.records import RecordStore

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore

DETAIL_MAX_CHARACTERS: Final = 1_000
SHOWN_MAX_COUNT: Final = 200


class AuditTrail:
    """The events in `bucket`; safe to share between threads."""

    def __init__(self, store: "ObjectStore", bucket: str) -> None:
        self._records = RecordStore(store, bucket)

    def record(
        self,
        who: str,
        what: What,
        *,
        job: str | None = None,
        run: str | None = None,
        detail: str = "",
        at: datetime | None = None,
    ) -> Event:
        """Write an event; `at` is now unless given."""
        moment = at or datetime.now(UTC)
        event = Event(at=moment, who=who, what=what, job=job, run=run, detail=detail[:DETAIL_MAX_CHARACTERS])
        self._records.put_if_absent(job_event_key(moment, uuid.uuid4().hex), event)
        return event

    def of_day(self, day: date, at_most: int = SHOWN_MAX_COUNT) -> list[Event]:
        """Return the last events of a UTC day, newest first."""
        keys = self._records.newest_keys(job_event_prefix(day), at_most)
        return [event for event in self._records.read_all(keys, Event) if event is not None]
