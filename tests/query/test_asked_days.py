"""What a query cannot need is not read, and its answer is the same."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake_testing.sample_rows import sample_rows
from telemetry_lake.query.asked_days import asked_days
from telemetry_lake.query.lake import LOCKED, open_lake
from telemetry_lake.settings import CatalogSettings, Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS
from telemetry_lake.tables.files import snapshot_files, span_of_days

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 30)
ALL_DAYS = frozenset(FIRST + timedelta(days=number) for number in range(30))
P = "FROM live.pings"


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """Two tables with a row for each day and type, locked as for queries."""
    with duckdb.connect() as opened:
        opened.execute("CREATE SCHEMA live; CREATE SCHEMA stable")
        for table in ("live.pings", "stable.pings"):
            opened.execute(
                f"CREATE TABLE {table} AS SELECT CAST(d AS DATE) AS submission_date, t AS document_type "
                f"FROM generate_series(DATE '{FIRST}', DATE '{LAST}', INTERVAL 1 DAY) days(d), "
                "(VALUES ('main'), ('event')) types(t)"
            )
        opened.execute(LOCKED)
        yield opened


def days(connection: duckdb.DuckDBPyConnection, query: str) -> frozenset[date] | None:
    return asked_days(connection, query, LIVE_PINGS, FIRST, LAST)


def november(*numbers: int) -> frozenset[date]:
    return frozenset(date(2026, 11, number) for number in numbers)


@pytest.mark.parametrize(
    "query,expected",
    [
        (f"SELECT * {P} WHERE submission_date = '2026-11-03'", {3}),
        (f"{P} WHERE DATE '2026-11-03' = submission_date AND document_type = 'main'", {3}),
        (
            f"{P} AS p WHERE p.submission_date IN ('2026-11-03', '2026-11-05') AND length(document_type) > 1",
            {3, 5},
        ),
        (
            f"SELECT count(*) {P} WHERE pings.Submission_Date BETWEEN '2026-11-28' AND '2027-01-01'",
            {28, 29, 30},
        ),
        (f"{P} WHERE submission_date < DATE '2026-11-05' - 2", {1, 2}),
        (f"{P} WHERE submission_date >= current_date AND submission_date < today()", set()),
        (
            (
                f"{P} WHERE submission_date = '2026-11-03' "
                "OR (submission_date > '2026-11-28' AND submission_date != '2026-11-30')"
            ),
            {3, 29},
        ),
        (f"WITH a AS ({P} WHERE submission_date = '2026-11-03') SELECT count(*) FROM a, stable.pings", {3}),
        (f"SELECT (SELECT count(*) {P} p WHERE p.submission_date = '2026-11-03')", {3}),
        (f"(SELECT * {P} WHERE submission_date = '2026-11-03') UNION ALL FROM stable.pings", {3}),
    ],
)
def test_days_are_taken_from_conditions(
    connection: duckdb.DuckDBPyConnection, query: str, expected: set[int]
):
    assert days(connection, query) == november(*expected)


@pytest.mark.parametrize(
    "query",
    [
        P,
        f"{P} WHERE document_type = 'main'",
        f"{P} WHERE submission_date = '2026-11-03' OR document_type = 'main'",
        f"{P} WHERE NOT submission_date = '2026-11-03'",
        f"{P} WHERE submission_date IS NULL",
        f"{P} WHERE submission_date IS DISTINCT FROM '2026-11-03'",
        f"{P} WHERE submission_date = (SELECT max(submission_date) FROM stable.pings)",
        f"{P} WHERE random() < 0.5 OR submission_date = '2026-11-03'",
        f"{P} p JOIN stable.pings s USING (document_type) WHERE p.submission_date = '2026-11-03'",
        f"SELECT * {P} WHERE submission_date = '2026-11-03' UNION ALL {P}",
        f"FROM stable.pings s, LATERAL (SELECT * {P} p WHERE p.submission_date > s.submission_date)",
        f"{P} AS p(document_type, submission_date) WHERE submission_date = '2026-11-03'",
        f"{P} TABLESAMPLE 1 ROWS WHERE submission_date = '2026-11-03'",
        f"EXPLAIN {P} WHERE submission_date = '2026-11-03'",
        f"{P} WHERE submission_date = 'no date'",
        f"{P} WHERE",
    ],
)
def test_what_is_not_certain_is_no_condition(connection: duckdb.DuckDBPyConnection, query: str):
    assert days(connection, query) is None


DAY = st.integers(-2, 33).map(lambda number: f"DATE '{date(2026, 11, 1) + timedelta(days=number)}'")
COMPARISON = st.one_of(
    st.tuples(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), DAY).map(
        lambda parts: f"submission_date {parts[0]} {parts[1]}"
    ),
    st.lists(DAY, min_size=1, max_size=3).map(lambda some: f"submission_date IN ({', '.join(some)})"),
    st.lists(DAY, min_size=1, max_size=3).map(lambda some: f"submission_date NOT IN ({', '.join(some)})"),
    st.tuples(DAY, DAY).map(lambda ends: f"submission_date BETWEEN {ends[0]} AND {ends[1]}"),
    st.sampled_from(["document_type = 'main'", "submission_date IS NOT NULL", "true", "false", "NULL"]),
)
CONDITION = st.recursive(
    COMPARISON,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda condition: f"(NOT {condition})"),
    ),
    max_leaves=5,
)


@given(condition=CONDITION)
def test_rows_of_other_days_fulfil_no_condition(connection: duckdb.DuckDBPyConnection, condition: str):
    query = f"SELECT DISTINCT submission_date {P} WHERE {condition}"
    asked = days(connection, query)
    if asked is not None:
        assert {row[0] for row in connection.execute(query).fetchall()} <= asked <= ALL_DAYS


def test_manifests_of_other_days_are_not_read(tmp_path: Path):
    properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}"}
    settings = Settings(catalog=CatalogSettings(properties=properties))
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    assert span_of_days(catalog.load_table(LIVE_PINGS)) is None
    for number in (3, 5):
        rows = [{"submission_date": date(2026, 11, number), "document_type": "main"}]
        catalog.load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, rows))
    table = catalog.load_table(LIVE_PINGS)
    assert span_of_days(table) == (date(2026, 11, 3), date(2026, 11, 5))
    assert len(snapshot_files(table)) == 2
    assert len(snapshot_files(table, november(3, 4))) == 1
    assert snapshot_files(table, november(4)) == snapshot_files(table, frozenset()) == []

    snapshot = table.current_snapshot()
    assert snapshot is not None
    for manifest in snapshot.manifests(table.io):
        if manifest.added_snapshot_id == snapshot.snapshot_id:
            Path(manifest.manifest_path.removeprefix("file://")).unlink()
    with open_lake(settings) as lake:
        query = f"SELECT count(*), count(document_id) {P} WHERE submission_date = '2026-11-03'"
        assert lake.query(query).fetchall() == [(1, 1)]
        assert lake.query(f"SELECT count(*) {P} WHERE submission_date = '2026-11-04'").fetchall() == [(0,)]
