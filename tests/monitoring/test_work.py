"""Which works are late: by what they left behind, and only when there was something to do."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lake_testing.stack import Lake
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.monitoring.exporter_metrics import DAGS, WORKS
from telemetry_lake.monitoring.sources.airflow import WITHIN, AirflowRecord
from telemetry_lake.monitoring.sources.lake_sources import TableSource
from telemetry_lake.monitoring.sources.work import RULES, WorkSource, late
from telemetry_lake.storage.object_keys import RECONCILED_KEY
from telemetry_lake.tables.definitions import table_names

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_rules_name_works_and_tables_that_exist():
    assert set(RULES) == set(WORKS)
    named = {name for rule in RULES.values() for name in (rule.table, rule.source) if name is not None}
    assert named <= set(table_names())
    assert WITHIN.keys() <= set(DAGS)


@pytest.mark.parametrize(
    "done, changed, seconds",
    [
        (NOW - HOUR, NOW, 0),  # as long as it may take, to the second
        (NOW - HOUR - timedelta(seconds=1), NOW, 1),
        (NOW - 5 * HOUR, NOW, 4 * 3_600),
        (NOW - 5 * HOUR, NOW - 5 * HOUR, 0),  # nothing arrived since
        (NOW - 5 * HOUR, NOW - 4 * HOUR, 0),  # what arrived was in time for it
        (NOW - 5 * HOUR, None, 0),  # there is nothing at all
    ],
)
def test_a_work_is_late_when_its_source_went_on_without_it(done, changed, seconds):
    fact = late("reconcile", done, changed, NOW)
    assert fact.value_at(NOW.timestamp()) == pytest.approx(seconds)


def test_a_work_that_was_never_done_is_late_from_the_first_look_on(tabled_lake: Lake, tmp_path: Path):
    lake = LakeConnections(tabled_lake.settings)
    assert shown(WorkSource(lake, TableSource(lake), tmp_path), NOW)[("work_late_seconds", "reconcile")] == 0
    again = WorkSource(lake, TableSource(lake), tmp_path)
    assert shown(again, NOW + 3 * HOUR)[("work_late_seconds", "reconcile")] == 2 * 3_600
    lake.store.put(tabled_lake.settings.s3.lake_bucket, RECONCILED_KEY, b"{}")
    found = shown(again, datetime.now(UTC))
    assert found[("work_late_seconds", "reconcile")] == 0
    assert found[("work_age_seconds", "reconcile")] < 60


def shown(source: WorkSource, now: datetime) -> dict[tuple[str, ...], float]:
    return {
        (fact.name.removeprefix("telemetry_lake_"), *fact.labels): fact.value_at(now.timestamp())
        for fact in source.read(now)
    }


def test_what_is_known_of_airflow_is_kept_as_it_was():
    record = AirflowRecord(first_seen_at=NOW, runs={"drain/failed": 2}, last_success={"drain": NOW})
    assert AirflowRecord.model_validate_json(record.model_dump_json()) == record
