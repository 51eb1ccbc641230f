"""The DAGs of the tables run their jobs, in order and with what their forms say."""

from datetime import date

import pytest

from lake_testing.airflow_runs import run_dags
from lake_testing.sample_rows import sample_rows
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, STABLE_PINGS

DAY = date(2026, 11, 21)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_stable_tables_are_made_for_the_dates_of_the_form(tmp_path, lake):
    catalog = load_lake_catalog(lake.settings)
    create_tables(catalog)
    row = {"submission_date": DAY, "document_id": "sent twice"}
    catalog.load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, [row, row | {"raw_object": "later"}]))

    conf = {"dates": "2026-11-21", "late_dates": 0, "preceding_days": 2, "again": True}
    runs, _ = run_dags(tmp_path, lake, ("stable_tables", conf))

    assert runs[0]["tasks"] == {"stable_pings": ["success"], "histogram_aggregates": ["success"]}
    assert catalog.load_table(STABLE_PINGS).scan().count() == 1
    made = catalog.load_table("derived.made_dates").scan().to_arrow().to_pylist()
    assert {(row["table_name"], row["submission_date"]) for row in made} == {
        (STABLE_PINGS, DAY),
        ("derived.histogram_aggregates", DAY),
    }
    assert '"preceding_days": 2' in next(row["source"] for row in made if row["table_name"] == STABLE_PINGS)
