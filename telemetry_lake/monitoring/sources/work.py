"""The source `work`: when each thing that is made again and again was last made, and whether it is late.

It goes by what a work leaves behind: a table, an object, a record. A work that has nothing to do because
nothing new arrived is not late.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel

from telemetry_lake.backfill.journal import Journal
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.monitoring.sources.facts import Fact, KeptRecord, age, value
from telemetry_lake.monitoring.sources.lake_sources import TableSource
from telemetry_lake.storage.object_keys import (
    BACKFILL_PREFIX,
    COMPLETENESS_KEY,
    DASHBOARD_POINTER_KEY,
    RECONCILED_KEY,
    tallies_prefix,
)
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES, LIVE_PINGS, STABLE_PINGS

WORK_SECONDS: Final = 60.0
BACKFILL_LOOK_EVERY: Final = timedelta(minutes=10)
"""An unfinished backfill has a record for each unit, which takes long to list."""
BACKFILL_MAX_COUNT: Final = 200
"""The backfills that are looked at, the last ones by their ids' order."""
BACKFILL_IDLE_MAX: Final = timedelta(hours=2)
_DAILY: Final = timedelta(hours=27)
_HOURLY: Final = timedelta(hours=2, minutes=15)


@dataclass(frozen=True, slots=True)
class Rule:
    """A work is late when its source has changed, and it was not done for longer than `within`.

    `table` is the table that it writes and `source` the one that it reads; without a source it is due always.
    """

    within: timedelta
    table: str | None = None
    source: str | None = None


RULES: Final = {
    "maintenance": Rule(_DAILY, "derived.maintenance_runs", LIVE_PINGS),
    "stable_pings": Rule(_DAILY, STABLE_PINGS, LIVE_PINGS),
    "histogram_aggregates": Rule(_DAILY, HISTOGRAM_AGGREGATES, LIVE_PINGS),
    "ping_volumes": Rule(_HOURLY, "derived.ping_volumes", LIVE_PINGS),
    "ping_counts": Rule(_HOURLY, "derived.ping_counts", LIVE_PINGS),
    "dashboard_cubes": Rule(_DAILY, source=HISTOGRAM_AGGREGATES),
    # The DAG runs daily, and Reconcile keeps the same figures each time that it has looked at every day.
    "completeness": Rule(timedelta(hours=1)),
    "reconcile": Rule(timedelta(hours=1)),
    "backfill": Rule(BACKFILL_IDLE_MAX),
}
"""Every work; a backfill has a rule of its own."""


class WorkRecord(BaseModel):
    """When the exporter first saw the lake: works that were never done are late from then on."""

    first_seen_at: AwareDatetime


def late(work: str, done_at: datetime, changed_at: datetime | None, now: datetime) -> Fact:
    """Return how late a work is that was done at `done_at`; its source changed at `changed_at`, if ever."""
    due_at = done_at + RULES[work].within
    if changed_at is None or changed_at <= due_at or now <= due_at:
        return value("work_late_seconds", 0, work)
    return age("work_late_seconds", due_at, work)


@dataclass(slots=True)
class _Backfills:
    """What was found of all backfills when they were looked at last."""

    looked_at: datetime
    copied: int = 0
    open: int = 0
    last_unit_at: datetime | None = None
    begun_at: datetime | None = None
    """When the last one that is not finished was begun."""


class WorkSource:
    """The source `work`; one thread reads it."""

    name = "work"
    interval_seconds = WORK_SECONDS

    def __init__(self, lake: LakeConnections, tables: TableSource, directory: Path) -> None:
        self._lake = lake
        self._tables = tables
        self._kept = KeptRecord(directory, self.name, WorkRecord)
        self._record = self._kept.load()
        self._backfills: _Backfills | None = None
        self._finished: dict[str, int] = {}
        """The units of backfills that are finished, by their ids: they stay as they are."""

    def read(self, now: datetime) -> list[Fact]:
        """Return how old the results of all works are, and which are late."""
        if self._record is None:
            self._record = WorkRecord(first_seen_at=now)
            self._kept.save(self._record)
        looks = self._tables.looks(now)
        done_at = {
            work: looks[rule.table].written_at
            for work, rule in RULES.items()
            if rule.table is not None and rule.table in looks
        }
        done_at["dashboard_cubes"] = self._written_at(DASHBOARD_POINTER_KEY)
        done_at["completeness"] = self._written_at(COMPLETENESS_KEY)
        done_at["reconcile"] = self._written_at(RECONCILED_KEY)
        facts = []
        for work, at in done_at.items():
            rule = RULES[work]
            if at is not None:
                facts.append(age("work_age_seconds", at, work))
            if rule.source is None or rule.source in looks:
                changed_at = now if rule.source is None else looks[rule.source].written_at
                facts.append(late(work, at or self._record.first_seen_at, changed_at, now))
        return [*facts, *self._facts_of_backfills(now)]

    def _written_at(self, key: str) -> datetime | None:
        found = self._lake.store.read(self._lake.settings.s3.lake_bucket, key)
        return None if found is None else found.modified_at

    def _facts_of_backfills(self, now: datetime) -> Iterable[Fact]:
        found = self._backfills
        if found is None or now - found.looked_at >= BACKFILL_LOOK_EVERY:
            found = self._backfills = self._look_at_backfills(now)
        yield value("backfill_units", found.copied, "copied")
        yield value("backfill_units", found.open, "open")
        if found.last_unit_at is not None:
            yield age("work_age_seconds", found.last_unit_at, "backfill")
        moved_at = max((at for at in (found.last_unit_at, found.begun_at) if at is not None), default=now)
        if found.open and now - moved_at > BACKFILL_IDLE_MAX:
            yield age("work_late_seconds", moved_at + BACKFILL_IDLE_MAX, "backfill")
        else:
            yield value("work_late_seconds", 0, "backfill")

    def _look_at_backfills(self, now: datetime) -> _Backfills:
        bucket, store = self._lake.settings.s3.lake_bucket, self._lake.store
        journal = Journal(store, bucket)
        found = _Backfills(now)
        for backfill in list(store.list_folders(bucket, BACKFILL_PREFIX))[-BACKFILL_MAX_COUNT:]:
            if backfill in self._finished:
                found.copied += self._finished[backfill]
                continue
            manifest = journal.manifest(backfill)
            if manifest is None:
                continue
            units = sum(reference.units for reference in manifest.dates)
            times = [item.modified_at for item in store.list_objects(bucket, tallies_prefix(backfill))]
            found.copied += len(times)
            found.last_unit_at = max(
                (at for at in (*times, found.last_unit_at) if at is not None), default=None
            )
            if len(times) >= units:
                self._finished[backfill] = len(times)
            else:
                found.open += units - len(times)
                found.begun_at = max(found.begun_at or manifest.created_at, manifest.created_at)
        return found
