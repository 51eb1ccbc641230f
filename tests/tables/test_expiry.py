"""The history of a live table stays short, and what others rely on stays in it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRef
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotLogEntry, Summary

from lake_testing.sample_rows import sample_rows
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.commits import BATCH_ID_PROPERTY, CLOCKS_APART_MAX, find_batch
from telemetry_lake.tables.definitions import LIVE_PINGS
from telemetry_lake.tables.expiry import (
    COMPACTION_MAX,
    COMPACTION_TAG,
    EXPIRED_MAX,
    KEEP_APPENDS,
    expirable,
    expire_appends,
)
from telemetry_lake.tables.staged import Publication
from telemetry_lake.units import MIB

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RUN_EVERY = 10 * MINUTE
"""How often the DAG expires snapshots."""


def snapshot_of(number: int, at: datetime, operation: Operation = Operation.APPEND) -> Snapshot:
    """A snapshot as the drain makes it; the summary has what pyiceberg writes of a large table."""
    totals = {
        "added-data-files": "12",
        "added-files-size": "123456789",
        "added-records": "12345",
        "changed-partition-count": "12",
        "total-data-files": "123456",
        "total-delete-files": "0",
        "total-equality-deletes": "0",
        "total-files-size": "123456789012345",
        "total-position-deletes": "0",
        "total-records": "12345678901",
    }
    return Snapshot.model_validate(
        {
            "snapshot-id": 2**62 + number,
            "parent-snapshot-id": 2**62 + number - 1 if number > 1 else None,
            "sequence-number": number,
            "timestamp-ms": int(at.timestamp() * 1_000),
            "manifest-list": "s3://a-bucket-of-a-lake/warehouse/live/pings/metadata/"
            f"snap-{2**62 + number}-0-1bb4c6cb-93f6-4b63-a9bb-3f0d3a4f38a1.avro",
            "summary": Summary(operation, **totals, **{BATCH_ID_PROPERTY: f"{number:032x}"}),
            "schema-id": 0,
        }
    )


def with_history(metadata: TableMetadata, history: Sequence[Snapshot], **tags: int) -> TableMetadata:
    heads: dict[str, Any] = {"main": {"snapshot-id": history[-1].snapshot_id, "type": "branch"}}
    named = {name: {"snapshot-id": 2**62 + number, "type": "tag"} for name, number in tags.items()}
    log = [SnapshotLogEntry(snapshot_id=each.snapshot_id, timestamp_ms=each.timestamp_ms) for each in history]
    return metadata.model_copy(
        update={
            "snapshots": list(history),
            "snapshot_log": log,
            "current_snapshot_id": history[-1].snapshot_id,
            "refs": {name: SnapshotRef.model_validate(ref) for name, ref in (heads | named).items()},
        }
    )


@pytest.fixture
def table(settings: Settings) -> Table:
    return load_lake_catalog(settings).load_table(LIVE_PINGS)


def numbers(snapshot_ids: Sequence[int]) -> list[int]:
    return [each - 2**62 for each in snapshot_ids]


def hourly(*operations: Operation) -> list[Snapshot]:
    """One snapshot an hour until now, the first numbered 1."""
    hours = len(operations) - 1
    return [
        snapshot_of(number, NOW - timedelta(hours=hours - number + 1), operation)
        for number, operation in enumerate(operations, 1)
    ]


def test_appends_expire_but_for_the_newest_of_the_old_ones(table):
    history = hourly(*[Operation.APPEND] * 6)
    # The last two are younger than what is kept, and the fourth is the newest of the others.
    assert numbers(expirable(with_history(table.metadata, history), NOW)) == [1, 2, 3]


def test_at_the_limit_of_what_is_kept_a_snapshot_is_young(table):
    history = hourly(*[Operation.APPEND] * 6)
    metadata = with_history(table.metadata, history)
    then = NOW - timedelta(hours=1) + KEEP_APPENDS
    assert numbers(expirable(metadata, then)) == [1, 2, 3]
    assert numbers(expirable(metadata, then + timedelta(milliseconds=1))) == [1, 2, 3, 4]


@pytest.mark.parametrize("operation", [Operation.REPLACE, Operation.OVERWRITE, Operation.DELETE])
def test_what_took_files_out_stays_with_the_snapshot_before_it(table, operation):
    add = Operation.APPEND
    history = hourly(add, add, add, operation, add, add, add, add)
    assert numbers(expirable(with_history(table.metadata, history), NOW)) == [1, 2, 5]


def test_what_a_tag_names_stays(table):
    metadata = with_history(table.metadata, hourly(*[Operation.APPEND] * 6), kept=2)
    assert numbers(expirable(metadata, NOW)) == [1, 3]


def test_everything_since_a_running_compaction_began_stays_but_not_for_ever(table):
    metadata = with_history(table.metadata, hourly(*[Operation.APPEND] * 9), **{COMPACTION_TAG: 4})
    assert numbers(expirable(metadata, NOW)) == [1, 2]
    tagged_at = NOW - timedelta(hours=5)
    assert numbers(expirable(metadata, tagged_at + COMPACTION_MAX)) == [1, 2]
    assert numbers(expirable(metadata, tagged_at + COMPACTION_MAX + MINUTE)) == [1, 2, 3, 5, 6, 7, 8]


def test_a_table_without_snapshots_has_none_to_expire(table):
    assert expirable(table.metadata, NOW) == []


@pytest.mark.parametrize("commits_a_day", [6_000, 17_280])
def test_a_year_of_commits_leaves_less_than_a_megabyte(table, commits_a_day):
    """The history comes to a rest within hours, so a day and a half of it is that of a year."""
    between = timedelta(days=1) / commits_a_day
    history: list[Snapshot] = []
    largest, number, moment, next_run = 0, 0, NOW, NOW + RUN_EVERY
    while moment < NOW + timedelta(hours=6):
        number += 1
        history.append(snapshot_of(number, moment))
        moment += between
        if moment >= next_run:
            next_run += RUN_EVERY
            largest = max(largest, len(history))
            metadata = with_history(table.metadata, history)
            expired = set(expirable(metadata, moment))
            history = [each for each in history if each.snapshot_id not in expired]
            assert_recent_batches_are_sought_without_reading_rows(table, metadata, moment)
    of_the_largest = [snapshot_of(each, NOW + each * between) for each in range(1, largest + 1)]
    assert len(with_history(table.metadata, of_the_largest).model_dump_json()) < MIB


def assert_recent_batches_are_sought_without_reading_rows(
    table: Table, metadata: TableMetadata, now: datetime
) -> None:
    """Reading rows would fail: the lists of manifests of these snapshots do not exist."""
    aged = Table(table.name(), metadata, table.metadata_location, table.io, table.catalog)
    key = "raw/v1/2026-11-23/11/node/segment.arrows"
    publication = Publication(batch_id="f" * 32, raw_objects=(key,), files={}, rows={}, quarantined={})
    assert find_batch(aged, publication, now - (KEEP_APPENDS - CLOCKS_APART_MAX)) is None


def test_who_reads_an_expired_snapshot_goes_on(either_catalog_with_tables):
    settings = either_catalog_with_tables
    table = load_lake_catalog(settings).load_table(LIVE_PINGS)
    for number in range(3):
        table.append(sample_rows(LIVE_PINGS, [{"document_id": str(number)}]))
    first = table.metadata.snapshots[0].snapshot_id
    reader = table.scan(snapshot_id=first)
    later = datetime.now(UTC) + timedelta(days=1)
    assert expire_appends(settings.drain, load_lake_catalog(settings), LIVE_PINGS, now=later) == 2
    assert load_lake_catalog(settings).load_table(LIVE_PINGS).metadata.snapshot_by_id(first) is None
    assert reader.to_arrow().column("document_id").to_pylist() == ["0"]


def test_a_missing_table_is_said_with_what_to_do(either_catalog):
    load_lake_catalog(either_catalog).create_namespace("live")
    with pytest.raises(ConfigurationError, match="create-tables"):
        expire_appends(either_catalog.drain, load_lake_catalog(either_catalog), LIVE_PINGS, now=NOW)


def test_more_than_one_commit_can_expire_are_expired(settings, table, monkeypatch):
    monkeypatch.setattr("telemetry_lake.tables.expiry.EXPIRED_MAX", 2)
    assert EXPIRED_MAX > 2
    for number in range(6):
        table.append(sample_rows(LIVE_PINGS, [{"document_id": str(number)}]))
    later = datetime.now(UTC) + timedelta(days=1)
    assert expire_appends(settings.drain, load_lake_catalog(settings), LIVE_PINGS, now=later) == 5
    anew = load_lake_catalog(settings).load_table(LIVE_PINGS)
    assert len(anew.metadata.snapshots) == 1
    assert anew.scan().count() == 6
