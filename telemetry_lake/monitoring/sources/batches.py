"""Batches and their rows, from what the drain leaves in S3: claims, audits and commit records.

A look lists the raw objects and claims of the hours in which something moves, and the audits since the last
look; it reads each new record once. What is counted is kept in a file, so that a new start of the exporter
goes on where it was: nothing is counted twice, and what happened meanwhile is counted then. At the very first
start, what is there already is looked at and not counted.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel

from telemetry_lake.drain.batch import Manifest
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.ledger import AuditOutcome
from telemetry_lake.failures import ErrorType
from telemetry_lake.monitoring.exporter_metrics import BATCH_STAGES, CHANNELS
from telemetry_lake.monitoring.sources.facts import Fact, KeptRecord, age, oldest, value, values
from telemetry_lake.monitoring.sources.row_labels import RowCounter, RowLabels, channel_label, error_label
from telemetry_lake.storage.object_keys import (
    AUDIT_PREFIX,
    audit_entry_prefix,
    audit_key_from,
    claim_key,
    claim_prefix,
    raw_object_prefix,
    split_audit_entry_key,
    split_claim_key,
)
from telemetry_lake.storage.object_store import StoredObject

LOOK_SECONDS: Final = 20.0
HOUR_OVERLAP: Final = timedelta(minutes=10)
"""So long into an hour the one before is listed as well: nodes ship its last segments."""
WAITING_HOURS_LISTED_MAX: Final = 4
"""So many older hours in which raw objects wait are listed in a look, the oldest first."""
WAITING_HOURS_MAX: Final = 24 * 14
CLAIM_OVERLAP: Final = timedelta(minutes=2)
"""Claims this much older than the newest one that was seen are looked for again: clocks differ."""
AUDIT_OVERLAP: Final = timedelta(minutes=15)
"""An audit is written this long, at most, after the time in its key: the gates have to be asked."""
CATCH_UP_MAX: Final = timedelta(days=1)
"""After a longer pause, the rows of the time before are not counted any more."""
RECORDS_READ_MAX: Final = 2_000
"""So many records of each kind are read in a look; the next one goes on."""
COMMITS_ASKED_MAX: Final = 100
WATCHED_MAX: Final = 1_000
WATCHED_FOR: Final = timedelta(days=2)
"""A batch that is not committed after this long is left to the reconciler's figures."""
REMEMBERED_FOR: Final = timedelta(hours=2)
OUTCOME_WAIT: Final = timedelta(minutes=5)
"""A committed batch whose audit was not seen for this long is counted without its rows."""
SHIPPED_MINUTES: Final = 60
"""What arrived is kept by minute for so long, to say what a day like this hour costs."""


class WatchedBatch(BaseModel):
    """A batch between its claim and its commit."""

    claimed_at: AwareDatetime
    newest_row_at: AwareDatetime | None = None
    outcome: AuditOutcome | None = None
    committed_at: AwareDatetime | None = None

    @property
    def is_held_back(self) -> bool:
        """Whether the gates stopped it, and it waits for a person."""
        return self.outcome is not None and not self.outcome.may_be_published


class WaitingHour(BaseModel):
    """Raw objects of an hour that no batch claims."""

    count: int
    oldest_at: AwareDatetime


class Shipped(BaseModel):
    """What batches took over in a minute."""

    batches: int = 0
    raw_objects: int = 0
    bytes: int = 0


class BatchRecord(BaseModel):
    """What is known after a look; all of it is bounded by the limits of this module."""

    claims_seen_until: AwareDatetime
    audits_seen_until: AwareDatetime
    stages: dict[str, int] = dict.fromkeys(BATCH_STAGES, 0)
    rows: dict[str, int] = {}
    rejected_rows: dict[str, int] = {}
    folded_rows: int = 0
    watched: dict[str, WatchedBatch] = {}
    finished: dict[str, AwareDatetime] = {}
    """Batches that were committed lately, with the time of the look that saw it."""
    seen: dict[str, AwareDatetime] = {}
    """Keys of claims and audits that were read, with their times."""
    waiting: dict[str, WaitingHour] = {}
    shipped: dict[str, Shipped] = {}
    """By minute."""
    newest_row_at: AwareDatetime | None = None


class BatchSource:
    """The source `batches`; one thread reads it."""

    name = "batches"
    interval_seconds = LOOK_SECONDS

    def __init__(self, lake: LakeConnections, labels: RowLabels, directory: Path) -> None:
        self._lake = lake
        self._labels = labels
        self._kept = KeptRecord(directory, self.name, BatchRecord)
        self._record = self._kept.load()
        self.folded_rows = 0
        self.last_hour = Shipped()
        """What arrived within the last hour."""

    def read(self, now: datetime) -> list[Fact]:
        """Look once, keep what was counted, and return it."""
        is_first = self._record is None
        record = (
            BatchRecord(claims_seen_until=now - HOUR_OVERLAP, audits_seen_until=now - AUDIT_OVERLAP)
            if self._record is None
            else self._record.model_copy(deep=True)
        )
        look = _Look(self._lake, self._labels, record, now, counts=not is_first)
        look.take()
        # Only a look that came to its end counts: one that failed is repeated as a whole.
        self._record = record
        self._kept.save(record)
        self.folded_rows = record.folded_rows
        self.last_hour = _sum(record.shipped.values())
        return _facts(record)


class _Look:
    """One look, which changes `record`."""

    def __init__(
        self, lake: LakeConnections, labels: RowLabels, record: BatchRecord, now: datetime, *, counts: bool
    ) -> None:
        self._lake = lake
        self._labels = labels
        self._record = record
        self._now = now
        self._counts = counts
        self._rows = RowCounter(CHANNELS, record.rows)
        self._rejected = RowCounter(tuple(ErrorType), record.rejected_rows)

    def take(self) -> None:
        """Look at claims, audits and commits, in the order in which they come about."""
        for counter in (self._rows, self._rejected):
            counter.begin_with(self._labels.kinds())
        for hour in self._hours():
            self._look_at_hour(hour)
        self._look_at_audits()
        self._look_at_commits()
        self._record.folded_rows += self._rows.folded + self._rejected.folded
        self._forget()

    # Hours

    def _hours(self) -> list[datetime]:
        """Return the hours to list: those in which nodes ship, and the oldest in which raw objects wait."""
        this = self._now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        hours = {this}
        if self._now - this < HOUR_OVERLAP:
            hours.add(this - timedelta(hours=1))
        waiting = sorted(datetime.fromisoformat(hour) for hour in self._record.waiting)
        hours.update(waiting[:WAITING_HOURS_LISTED_MAX])
        return sorted(hours)

    def _look_at_hour(self, hour: datetime) -> None:
        settings = self._lake.settings.s3
        name = f"{hour.hour:02d}/"
        # Raw objects first: one that arrives between the two listings is not taken for one that waits.
        raws = self._list(settings.raw_bucket, raw_object_prefix(hour.date()) + name)
        claims = self._list(settings.lake_bucket, claim_prefix(hour.date()) + name)
        claimed = {item.key for item in claims}
        waiting = [raw.modified_at for raw in raws if _waits(raw.key, claimed)]
        if waiting and len(self._record.waiting) < WAITING_HOURS_MAX:
            self._record.waiting[hour.isoformat()] = WaitingHour(count=len(waiting), oldest_at=min(waiting))
        else:
            self._record.waiting.pop(hour.isoformat(), None)
        since = self._record.claims_seen_until - CLAIM_OVERLAP
        new = [item for item in claims if item.modified_at >= since and item.key not in self._record.seen]
        for item in sorted(new, key=lambda item: item.modified_at)[:RECORDS_READ_MAX]:
            self._look_at_claim(item)

    def _list(self, bucket: str, prefix: str) -> list[StoredObject]:
        return list(self._lake.store.list_objects(bucket, prefix))

    def _look_at_claim(self, item: StoredObject) -> None:
        record = self._record
        if item.key in record.seen:  # by the manifest of another claim
            return
        record.seen[item.key] = item.modified_at
        raw, after = split_claim_key(item.key)
        batch = self._lake.ledger.owner(raw, after)
        if batch is None or batch in record.finished:
            return
        manifest = self._lake.ledger.manifest(batch)
        for member in manifest.members:
            record.seen[claim_key(member.key, after=member.after_batch)] = item.modified_at
        if batch not in record.watched:
            self._watch(manifest, item.modified_at)

    def _watch(self, manifest: Manifest, claimed_at: datetime) -> None:
        messages = [member.message for member in manifest.members]
        self._record.watched[manifest.batch_id] = WatchedBatch(
            claimed_at=claimed_at,
            newest_row_at=max(message.last_submission_timestamp for message in messages),
        )
        self._count("claimed")
        minute = self._record.shipped.setdefault(f"{claimed_at:%Y-%m-%dT%H:%M}Z", Shipped())
        minute.batches += 1
        minute.raw_objects += len(messages)
        minute.bytes += sum(message.bytes for message in messages)

    # Audits

    def _look_at_audits(self) -> None:
        record = self._record
        since = max(record.audits_seen_until - AUDIT_OVERLAP, self._now - CATCH_UP_MAX)
        day = since.astimezone(UTC).date()
        left = RECORDS_READ_MAX
        while day <= self._now.astimezone(UTC).date() and left:
            listed = self._lake.store.list_objects(
                self._lake.settings.s3.lake_bucket, audit_entry_prefix(day), after=audit_key_from(since)
            )
            for item in listed:
                if item.key in record.seen:
                    continue
                at, batch = split_audit_entry_key(item.key)
                outcome = self._lake.records.read(item.key, AuditOutcome)
                record.seen[item.key] = at
                record.audits_seen_until = max(record.audits_seen_until, at)
                if outcome is not None and batch not in record.finished:
                    self._audited(batch, at, outcome)
                left -= 1
                if not left:
                    break
            day += timedelta(days=1)

    def _audited(self, batch: str, at: datetime, outcome: AuditOutcome) -> None:
        if batch not in self._record.watched:
            # Its raw objects are of an hour that was not listed.
            self._watch(self._lake.ledger.manifest(batch), at)
        watched = self._record.watched[batch]
        if watched.outcome is None:
            self._count("converted")
        if not outcome.may_be_published and not watched.is_held_back:
            self._count("held_back")
        watched.outcome = outcome

    # Commits

    def _look_at_commits(self) -> None:
        oldest_first = sorted(self._record.watched.items(), key=lambda item: item[1].claimed_at)
        asked = [batch for batch, _ in oldest_first]
        if len(asked) > COMMITS_ASKED_MAX:
            asked = asked[: COMMITS_ASKED_MAX // 2] + asked[-COMMITS_ASKED_MAX // 2 :]
        committed = self._lake.ledger.commitments(asked)
        for batch in committed:
            watched = self._record.watched[batch]
            watched.committed_at = watched.committed_at or self._now
            if watched.outcome is not None or self._now - watched.committed_at > OUTCOME_WAIT:
                self._finish(batch, watched)

    def _finish(self, batch: str, watched: WatchedBatch) -> None:
        record = self._record
        self._count("committed")
        if self._counts and watched.outcome is not None:
            for count in watched.outcome.counts:
                kind = self._labels.of_kind(count)
                if count.error_type is None:
                    self._rows.add(kind, channel_label(count.channel), count.rows)
                else:
                    self._rejected.add(kind, error_label(count.error_type), count.rows)
        if watched.newest_row_at is not None:
            record.newest_row_at = max(record.newest_row_at or watched.newest_row_at, watched.newest_row_at)
        del record.watched[batch]
        record.finished[batch] = self._now

    def _count(self, stage: str) -> None:
        if self._counts:
            self._record.stages[stage] += 1

    # Bounds

    def _forget(self) -> None:
        record, now = self._record, self._now
        claims = [at for key, at in record.seen.items() if not key.startswith(AUDIT_PREFIX)]
        if claims:
            record.claims_seen_until = max(record.claims_seen_until, *claims)
        claims_since = record.claims_seen_until - CLAIM_OVERLAP
        audits_since = record.audits_seen_until - AUDIT_OVERLAP
        record.seen = {
            key: at
            for key, at in record.seen.items()
            if at >= (audits_since if key.startswith(AUDIT_PREFIX) else claims_since)
        }
        record.finished = {batch: at for batch, at in record.finished.items() if now - at <= REMEMBERED_FOR}
        first_minute = f"{now - timedelta(minutes=SHIPPED_MINUTES):%Y-%m-%dT%H:%M}Z"
        record.shipped = {
            minute: shipped for minute, shipped in record.shipped.items() if minute > first_minute
        }
        newest_first = sorted(record.watched.items(), key=lambda item: item[1].claimed_at, reverse=True)
        record.watched = {
            batch: watched
            for batch, watched in newest_first[:WATCHED_MAX]
            if now - watched.claimed_at <= WATCHED_FOR
        }


def _waits(raw: str, claims: Collection[str]) -> bool:
    try:
        return claim_key(raw) not in claims
    except ValueError:  # something else lies in the raw bucket: completeness counts it
        return False


def _sum(shipped: Iterable[Shipped]) -> Shipped:
    parts = list(shipped)
    return Shipped(
        batches=sum(part.batches for part in parts),
        raw_objects=sum(part.raw_objects for part in parts),
        bytes=sum(part.bytes for part in parts),
    )


def _facts(record: BatchRecord) -> list[Fact]:
    waiting = record.waiting.values()
    is_open = [
        batch.claimed_at
        for batch in record.watched.values()
        if batch.committed_at is None and not batch.is_held_back
    ]
    facts = [
        *values("batches_total", record.stages),
        value("raw_objects_waiting", sum(hour.count for hour in waiting)),
        value("batches_open", len(is_open)),
        oldest("queue_oldest_age_seconds", (hour.oldest_at for hour in waiting)),
        oldest("batches_open_oldest_age_seconds", is_open),
        *(value("rows_total", rows, *key.split("/")) for key, rows in record.rows.items()),
        *(value("rejected_rows_total", rows, *key.split("/")) for key, rows in record.rejected_rows.items()),
    ]
    if record.newest_row_at is not None:
        facts.append(age("live_newest_row_age_seconds", record.newest_row_at))
    return facts
