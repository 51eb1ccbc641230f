"""The sources that are read with few requests: queue, tables, completeness, analyses, anomalies, cost."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import AwareDatetime, BaseModel
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from telemetry_lake.analysis_jobs.documents import RunState
from telemetry_lake.analysis_jobs.runs import Runs
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.days import DayLedger
from telemetry_lake.monitoring.exporter_metrics import (
    ANOMALY_KINDS,
    ANOMALY_SEVERITIES,
    DAY_STATES,
    RAW_OBJECT_STATES,
)
from telemetry_lake.monitoring.metric import OTHER
from telemetry_lake.monitoring.sources.batches import BatchSource
from telemetry_lake.monitoring.sources.facts import Fact, age, oldest, value, values
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.recovery.survey import State
from telemetry_lake.settings import MonitoringSettings
from telemetry_lake.storage.object_keys import ANOMALY_STATE_KEY
from telemetry_lake.storage.records import RecordStore
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.definitions import table_names
from telemetry_lake.units import GIB

QUEUE_SECONDS: Final = 15.0
TABLES_SECONDS: Final = 60.0
COMPLETENESS_SECONDS: Final = 60.0
ANALYSES_SECONDS: Final = 60.0
COST_SECONDS: Final = 60.0
ANOMALIES_SECONDS: Final = 30.0
SECONDS_IN_DAY: Final = 86_400
HOURS_IN_DAY: Final = 24
DAYS_IN_MONTH: Final = 30
WRITES_OF_A_BATCH: Final = 25
"""Requests of a batch that write, besides a claim for each raw object: records, files, two commits."""
READS_OF_A_BATCH: Final = 60
REQUESTS_OF_A_MESSAGE: Final = 3
"""Send, receive and delete."""
LOOKS_MAX_AGE: Final = timedelta(minutes=5)
DOORBELLS_IN_DAY: Final = 86_400
"""The queue is asked for its length about once a second."""


class QueueSource:
    """The source `queue`: what SQS says of both queues."""

    name = "queue"
    interval_seconds = QUEUE_SECONDS

    def __init__(self, queue: IndexQueue) -> None:
        self._queues = {"index": queue, "dead_letters": queue.dead_letters()}

    def read(self, now: datetime) -> list[Fact]:  # noqa: ARG002 (a source)
        """Return the lengths of both queues."""
        facts = []
        for name, queue in self._queues.items():
            state = queue.state()
            facts += [
                value("queue_messages", state.waiting, name, "waiting"),
                value("queue_messages", state.hidden, name, "in_flight"),
            ]
        return facts


@dataclass(frozen=True, slots=True)
class TableLook:
    """What the metadata of a table says; `written_at` is None before rows were ever added to it."""

    rows: int
    bytes: int
    files: int
    snapshots: int
    oldest_snapshot_at: datetime | None
    written_at: datetime | None


class TableSource:
    """The source `tables`: what the catalog says of each table, without reading a file of it."""

    name = "tables"
    interval_seconds = TABLES_SECONDS

    def __init__(self, lake: LakeConnections) -> None:
        self._lake = lake
        self._looks: Mapping[str, TableLook] = {}
        self._looked_at = datetime.min.replace(tzinfo=UTC)

    def looks(self, now: datetime) -> Mapping[str, TableLook]:
        """Return what the last reading found, by table; nothing when that is too long ago."""
        return self._looks if now - self._looked_at <= LOOKS_MAX_AGE else {}

    def read(self, now: datetime) -> list[Fact]:
        """Look at every table that exists."""
        looks: dict[str, TableLook] = {}
        with catalog_failures("looking at the tables"):
            for name in table_names():
                try:
                    looks[name] = look_at(self._lake.catalog.load_table(name))
                except NoSuchTableError:
                    continue
        self._looks, self._looked_at = looks, now
        return [fact for name, look in looks.items() for fact in _facts_of_table(name, look)]


def look_at(table: Table) -> TableLook:
    """Return what the metadata of a table says."""
    current = table.current_snapshot()
    summary = current.summary if current is not None else None
    times = [_time(snapshot.timestamp_ms) for snapshot in table.metadata.snapshots]
    writes = [
        _time(snapshot.timestamp_ms)
        for snapshot in table.metadata.snapshots
        if snapshot.summary is not None
        and snapshot.summary.operation in (Operation.APPEND, Operation.OVERWRITE)
    ]
    # Where only a compaction is left of the history, its time is the nearest that is known.
    written_at = max(writes or times, default=None)

    def count(name: str) -> int:
        return 0 if summary is None else int(summary[name] or 0)

    return TableLook(
        rows=count("total-records"),
        bytes=count("total-files-size"),
        files=count("total-data-files"),
        snapshots=len(times),
        oldest_snapshot_at=min(times, default=None),
        written_at=written_at,
    )


def _facts_of_table(name: str, look: TableLook) -> list[Fact]:
    facts = [
        value("table_rows", look.rows, name),
        value("table_bytes", look.bytes, name),
        value("table_files", look.files, name),
        value("table_snapshots", look.snapshots, name),
    ]
    if look.written_at is not None:
        facts.append(age("table_commit_age_seconds", look.written_at, name))
    if look.oldest_snapshot_at is not None:
        facts.append(age("table_oldest_snapshot_age_seconds", look.oldest_snapshot_at, name))
    return facts


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC)


class CompletenessSource:
    """The source `completeness`: what the last look at all days found."""

    name = "completeness"
    interval_seconds = COMPLETENESS_SECONDS

    def __init__(self, days: DayLedger) -> None:
        self._days = days

    def read(self, now: datetime) -> list[Fact]:  # noqa: ARG002 (a source)
        """Return what was found; nothing before the first look."""
        found = self._days.completeness()
        if found is None:
            return []
        facts: list[Fact] = []
        for state, label in zip(State, RAW_OBJECT_STATES, strict=True):
            overdue = found.overdue.get(state)
            facts += [
                value("unfinished_raw_objects", found.open.get(state, 0), label),
                value("overdue_raw_objects", overdue.count if overdue is not None else 0, label),
            ]
        return [
            *facts,
            *values("days", dict(zip(DAY_STATES, (found.open_days, found.complete_days), strict=True))),
            oldest("unfinished_oldest_age_seconds", [found.oldest_since] if found.oldest_since else []),
            value("set_aside_raw_objects", found.set_aside),
            value("days_reopened", len(found.reopened)),
            value("foreign_keys", found.foreign.count),
            value("queue_problems", len(found.queues)),
        ]


class AnalysisSource:
    """The source `analyses`: runs that are late or open, and how jobs ended last."""

    name = "analyses"
    interval_seconds = ANALYSES_SECONDS

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def read(self, now: datetime) -> list[Fact]:
        """Look at the documents of the service; Airflow is not asked."""
        jobs = self._runs.jobs.all()
        latest = self._runs.jobs.latest()
        outcomes = dict.fromkeys(("new", "good", "failed"), 0)
        for job in jobs:
            last = latest.get(job.name)
            outcomes[
                "new" if last is None else "good" if last.last_state is RunState.SUCCESS else "failed"
            ] += 1
        return [
            value("analysis_runs_late", len(self._runs.late(now))),
            value("analysis_runs_open", self._runs.open_count()),
            *(value("analysis_jobs", count, outcome) for outcome, count in outcomes.items()),
        ]


class _OpenAnomaly(BaseModel):
    kind: str
    severity: str
    silenced: bool = False


class _Anomalies(BaseModel):
    """What the exporter needs to know of the state of the anomalies."""

    checked_at: AwareDatetime | None = None
    open: tuple[_OpenAnomaly, ...] = ()


class AnomalySource:
    """The source `anomalies`: which ones the last look left open."""

    name = "anomalies"
    interval_seconds = ANOMALIES_SECONDS

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def read(self, now: datetime) -> list[Fact]:  # noqa: ARG002 (a source)
        """Count what is open; nothing is before the first look."""
        found = self._records.read(ANOMALY_STATE_KEY, _Anomalies) or _Anomalies()
        counts = Counter(
            (
                one.kind if one.kind in ANOMALY_KINDS else OTHER,
                one.severity if one.severity in ANOMALY_SEVERITIES else OTHER,
            )
            for one in found.open
            if not one.silenced
        )
        facts = [
            value("anomalies", counts[kind, severity], kind, severity)
            for kind in ANOMALY_KINDS
            for severity in ANOMALY_SEVERITIES
        ]
        if found.checked_at is not None:
            facts.append(age("anomalies_age_seconds", found.checked_at))
        return facts


class CostSource:
    """The source `cost`: an estimate from what the sources `batches` and `tables` have read."""

    name = "cost"
    interval_seconds = COST_SECONDS

    def __init__(self, settings: MonitoringSettings, batches: BatchSource, tables: TableSource) -> None:
        self._settings = settings
        self._batches = batches
        self._tables = tables

    def read(self, now: datetime) -> list[Fact]:
        """Return the parts of the estimate."""
        prices, hour = self._settings.prices, self._batches.last_hour
        gib_arriving = hour.bytes * HOURS_IN_DAY / GIB
        table_gib = sum(look.bytes for look in self._tables.looks(now).values()) / GIB
        writes = (2 * hour.raw_objects + WRITES_OF_A_BATCH * hour.batches) * HOURS_IN_DAY
        reads = (hour.raw_objects + READS_OF_A_BATCH * hour.batches) * HOURS_IN_DAY
        messages = hour.raw_objects * HOURS_IN_DAY * REQUESTS_OF_A_MESSAGE + DOORBELLS_IN_DAY
        gib_day = prices.storage_gib_month / DAYS_IN_MONTH
        parts = {
            "machines": prices.machines_day,
            "raw_storage": gib_arriving * self._settings.raw_kept_days * gib_day,
            "table_storage": table_gib * gib_day,
            "requests": (writes * prices.storage_writes_thousand + reads * prices.storage_reads_thousand)
            / 1_000,
            "queue": messages * prices.queue_requests_million / 1_000_000,
            "traffic": gib_arriving * prices.traffic_gib,
        }
        return [value("cost_dollars_per_day", dollars, part) for part, dollars in parts.items()]
