"""Finding a batch in a table's history, and the loop around a compare-and-swap."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRef
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.types import LongType, NestedField

from telemetry_lake.failures import RetriableError
from telemetry_lake.settings import DrainSettings
from telemetry_lake.tables.commits import (
    BATCH_ID_PROPERTY,
    RETRY_WAIT_MAX_SECONDS,
    find_batch,
    history,
    retrying,
)
from telemetry_lake.tables.staged import Publication

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
COUNT = 5


def batch(number: int) -> str:
    return f"{number:032x}"


def publication_of(number: int) -> Publication:
    return Publication(batch_id=batch(number), raw_objects=(), files={}, rows={}, quarantined={})


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """A table with `COUNT` snapshots, one an hour; that of the batch 1 is the first, of 5 the newest."""
    catalog = load_catalog(
        "test", type="sql", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=(tmp_path / "w").as_uri()
    )
    catalog.create_namespace("some")
    table = catalog.create_table("some.table", Schema(NestedField(1, "n", LongType())))
    snapshots = [snapshot_of(number) for number in range(1, COUNT + 1)]
    table.metadata = table.metadata.model_copy(
        update={
            "snapshots": snapshots,
            "current_snapshot_id": COUNT,
            "refs": {"main": SnapshotRef.model_validate({"snapshot-id": COUNT, "type": "branch"})},
        }
    )
    return table


def snapshot_of(number: int) -> Snapshot:
    at = NOW - timedelta(hours=COUNT - number)
    return Snapshot.model_validate(
        {
            "snapshot-id": number,
            "parent-snapshot-id": number - 1 or None,
            "sequence-number": number,
            "timestamp-ms": int(at.timestamp() * 1_000),
            "manifest-list": "nowhere",
            "summary": Summary(Operation.APPEND, **{BATCH_ID_PROPERTY: batch(number)}),
        }
    )


def test_the_history_is_newest_first_and_ends_where_a_parent_has_expired(table):
    assert [snapshot.snapshot_id for snapshot in history(table)] == [5, 4, 3, 2, 1]
    kept = [snapshot for snapshot in table.metadata.snapshots if snapshot.snapshot_id != 2]
    table.metadata = table.metadata.model_copy(update={"snapshots": kept})
    assert [snapshot.snapshot_id for snapshot in history(table)] == [5, 4, 3]


@pytest.mark.parametrize("number", range(1, COUNT + 1))
def test_a_batch_is_found_however_long_ago_it_was_begun(table, number):
    begun = snapshot_of(number).timestamp_ms / 1_000
    for created_at in (datetime.fromtimestamp(begun, UTC), NOW - timedelta(days=30)):
        assert find_batch(table, publication_of(number), created_at) == number


def test_a_batch_is_found_that_was_committed_by_a_slower_clock(table):
    created_at = NOW - timedelta(hours=COUNT - 2) + timedelta(minutes=59)
    assert find_batch(table, publication_of(2), created_at) == 2


def test_the_search_ends_where_the_batch_cannot_have_been_committed(table):
    looked_at: list[int] = []

    class Watched(Snapshot):
        def __getattribute__(self, name: str) -> object:
            if name == "summary":
                looked_at.append(int(super().__getattribute__("snapshot_id")))
            return super().__getattribute__(name)

    snapshots = [Watched.model_validate(snapshot_of(number).model_dump()) for number in range(1, COUNT + 1)]
    looked_at.clear()
    table.metadata = table.metadata.model_copy(update={"snapshots": snapshots})
    assert find_batch(table, publication_of(99), NOW) is None
    assert set(looked_at) == {4, 5}


def test_a_retry_always_waits_and_gives_up_with_the_last_error():
    settings = DrainSettings(commit_max_attempts=12)
    waits: list[float] = []
    attempts: list[int] = []

    def fail() -> None:
        attempts.append(len(attempts))
        raise RetriableError(f"attempt {len(attempts)}")

    with pytest.raises(RetriableError, match="attempt 12"):
        retrying(settings).copy(sleep=waits.append)(fail)
    assert len(waits) == 11
    assert all(0 < wait <= RETRY_WAIT_MAX_SECONDS for wait in waits)
    assert len(set(waits)) > 5
