"""Queries give the right rows, and read no more files than they need."""

import socket
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, LongType, NestedField, StringType

from lake_testing.filled_lake import FILES, MONDAY, PINGS, SUNDAY, FilledLake
from lake_testing.sample_rows import sample_rows
from telemetry_lake.failures import ConfigurationError, RetriableError
from telemetry_lake.query.duckdb_files import WHOLE_FILE_MAX_BYTES
from telemetry_lake.query.lake import LOCKED, Lake, open_lake
from telemetry_lake.query.statements import QueryError
from telemetry_lake.settings import CatalogSettings, Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, table_definition, table_names

ALL_PINGS = [ping for append in PINGS for ping in append]


@pytest.fixture
def lake(filled_lake: FilledLake) -> Iterator[Lake]:
    with open_lake(filled_lake.lake.settings) as opened:
        yield opened


@pytest.fixture
def local_settings(tmp_path: Path) -> Settings:
    """A SQL catalog and tables in local files, where names may hold what SeaweedFS refuses."""
    properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}"}
    return Settings(catalog=CatalogSettings(properties=properties))


def rows(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    return lake.query(sql).fetchall()


def test_every_column_of_a_row_comes_back_as_it_was_written(lake: Lake, filled_lake: FilledLake):
    written = filled_lake.catalog.load_table(LIVE_PINGS).scan().to_arrow().to_pylist()
    result = lake.query("FROM live.pings")
    names = [column[0] for column in result.description]
    read = [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    assert names == [column.name for column in table_definition(LIVE_PINGS).columns]
    for row in written:
        row["headers"] = dict(row["headers"])
    assert sorted(read, key=str) == sorted(written, key=str)
    assert len(read) == len(ALL_PINGS)


def test_bytes_and_times_keep_their_types(lake: Lake):
    (row,) = rows(lake, "SELECT body, submission_timestamp FROM live.rejected_pings")
    assert row == (b"{\xff", datetime(2026, 11, 23, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM live.pings",
        "SELECT submission_date, document_type, count(*) FROM live.pings GROUP BY ALL ORDER BY ALL",
        "SELECT count(DISTINCT document_type), max(submission_date) FROM live.pings",
        "SELECT count(*) FROM live.pings WHERE submission_date = DATE '2026-11-22'",
        "SELECT count(*) FROM live.pings WHERE document_type = 'main' AND submission_date > '2026-11-22'",
        "SELECT (SELECT count(*) FROM live.rejected_pings), (SELECT count(*) FROM live.pings)",
    ],
)
def test_a_query_of_partition_columns_alone_opens_no_file_and_is_right(lake: Lake, sql: str):
    from_metadata = rows(lake, sql)
    assert not lake.files_opened

    # The same query with a condition that is always true, and that only a file can answer.
    for table in ("live.pings", "live.rejected_pings"):
        sql = sql.replace(table, f"(FROM {table} WHERE raw_object_position >= 0)")
    assert rows(lake, sql) == from_metadata
    assert lake.files_opened


@pytest.mark.parametrize(
    "condition, files",
    [
        ("submission_date = DATE '2026-11-23'", 2),
        ("submission_date >= '2026-11-23'", 2),
        ("document_type = 'crash'", 1),
        ("document_type IN ('crash', 'event') AND submission_date = '2026-11-22'", 1),
        ("document_type = 'crash' OR submission_date = '2026-11-23'", 3),
        ("submission_date = '2001-01-01'", 0),
        ("document_bytes > 0", FILES),
    ],
)
def test_a_condition_on_a_partition_column_leaves_files_unopened(lake: Lake, condition: str, files: int):
    (result,) = rows(lake, f"SELECT sum(document_bytes) FROM live.pings WHERE {condition}")
    assert (result == (None,)) == (files == 0)
    assert len(lake.files_opened) == files


def test_aggregates_agree_with_what_was_written(lake: Lake):
    counted = rows(
        lake,
        "SELECT submission_date, document_type, app_update_channel, count(*) FROM live.pings GROUP BY ALL",
    )
    assert {row[:3]: row[3] for row in counted} == Counter(ALL_PINGS)


def test_joins_subqueries_and_lateral_unnesting_of_tables_work(lake: Lake):
    joined = "SELECT count(*) FROM live.pings p JOIN live.rejected_pings r USING (submission_date)"
    assert rows(lake, joined) == [(sum(day == MONDAY for day, *_ in ALL_PINGS),)]
    assert rows(lake, "SELECT count(*) FROM live.pings, unnest(histograms)") == [(0,)]
    assert rows(lake, 'WITH a AS (FROM "live"."pings") SELECT count(*) FROM a') == [(len(ALL_PINGS),)]
    assert rows(
        lake, "PIVOT live.pings ON document_type USING count(*) GROUP BY submission_date ORDER BY ALL"
    ) == [
        (SUNDAY, 1, 0, 3),
        (MONDAY, 0, 1, 1),
    ]


def test_a_query_sees_what_was_committed_before_it(filled_lake: FilledLake):
    table = filled_lake.catalog.create_table("derived.growing", Schema(NestedField(1, "n", LongType())))
    with open_lake(filled_lake.lake.settings) as lake:
        assert rows(lake, "SELECT count(*), max(n) FROM derived.growing") == [(0, None)]
        for n in range(3):
            table.append(pa.table({"n": [n]}))
            assert rows(lake, "SELECT count(*), max(n) FROM derived.growing") == [(n + 1, n)]


def test_partition_values_of_any_kind_are_found_again(local_settings: Settings):
    names = ["plain", "with space", "a/b", "ünï", "?*[x]", "!", "'quoted'", "100%", "", None]
    schema = Schema(
        NestedField(1, "name", StringType()),
        NestedField(2, "day", DateType()),
        NestedField(3, "number", LongType()),
        NestedField(4, "n", LongType()),
    )
    spec = PartitionSpec(
        *(
            PartitionField(i, 1000 + i, IdentityTransform(), schema.find_column_name(i) or "")
            for i in (1, 2, 3)
        )
    )
    days = [date(1969, 7, 20), None] * (len(names) // 2)
    numbers = [-1, None] * (len(names) // 2)
    positions = list(range(len(names)))
    catalog = load_lake_catalog(local_settings)
    catalog.create_namespace("derived")
    catalog.create_table("derived.odd_names", schema, partition_spec=spec).append(
        pa.table(
            {
                "name": pa.array(names, pa.string()),
                "day": pa.array(days, pa.date32()),
                "number": pa.array(numbers, pa.int64()),
                "n": pa.array(positions, pa.int64()),
            }
        )
    )
    with open_lake(local_settings) as lake:
        assert rows(lake, "SELECT name, day, number, n FROM derived.odd_names ORDER BY n") == [
            *zip(names, days, numbers, positions, strict=True)
        ]
        for name, n in zip(names, positions, strict=True):
            result = lake.query(
                "SELECT n FROM derived.odd_names WHERE name IS NOT DISTINCT FROM " + sql_text(name)
            )
            assert result.fetchall() == [(n,)]


def sql_text(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def test_columns_and_partitions_may_change_while_old_files_stay(filled_lake: FilledLake):
    table = filled_lake.catalog.create_table(
        "derived.changing", Schema(NestedField(1, "kind", StringType()), NestedField(2, "n", LongType()))
    )
    table.append(pa.table({"kind": ["old"], "n": [1]}))
    with table.update_spec() as spec:
        spec.add_identity("kind")
    with table.update_schema() as schema:
        schema.add_column("later", StringType())
    table.append(pa.table({"kind": ["new"], "n": [2], "later": ["there"]}))

    with open_lake(filled_lake.lake.settings) as lake:
        assert rows(lake, "FROM derived.changing ORDER BY n") == [("old", 1, None), ("new", 2, "there")]
        assert rows(lake, "SELECT n FROM derived.changing WHERE kind = 'old'") == [(1,)]
        assert rows(lake, "SELECT count(*) FROM derived.changing") == [(2,)]


def test_a_large_file_is_read_in_parts(filled_lake: FilledLake):
    noise = [f"{number:x}" * 40 for number in range(10**6, 10**6 + 40_000)]
    table = filled_lake.catalog.create_table(
        "derived.large",
        Schema(NestedField(1, "n", LongType()), NestedField(2, "noise", StringType())),
        properties={"write.parquet.compression-codec": "uncompressed"},
    )
    table.append(pa.table({"n": list(range(len(noise))), "noise": noise}))
    (file,) = table.scan().plan_files()
    assert file.file.file_size_in_bytes > 4 * WHOLE_FILE_MAX_BYTES
    with open_lake(filled_lake.lake.settings) as lake:
        assert rows(lake, "SELECT sum(n), max(noise) FROM derived.large") == [
            (sum(range(len(noise))), max(noise))
        ]


def test_the_answer_can_be_written_to_a_parquet_file(lake: Lake, tmp_path: Path):
    file = tmp_path / "it's an answer.parquet"
    assert (
        lake.write_parquet("SELECT document_id, headers FROM live.pings ORDER BY 1 -- all", file, limit=2)
        == 2
    )
    assert pq.read_table(file).column("document_id").to_pylist() == [
        "00000000-0000-4000-8000-000000000000",
        "00000000-0000-4000-8000-000000000001",
    ]


def test_a_parquet_file_that_cannot_be_written_is_named(lake: Lake, tmp_path: Path):
    file = tmp_path / "no_folder" / "answer.parquet"
    with pytest.raises(RetriableError, match=r"cannot be read or written: FileNotFoundError.*no_folder"):
        lake.write_parquet("SELECT 1", file)


@pytest.mark.parametrize(
    "sql, says",
    [
        ("SELECT 1 FROM live.pingz", "there is no table live.pingz; tables: derived."),
        ("SELECT 1 FROM nowhere.pings", "there is no table nowhere.pings; tables: derived."),
        ("SELECT 1 FROM pings", "there is no table pings; tables: derived."),
        ("SELECT documentid FROM live.pings", "LINE 1: SELECT documentid"),
        ("SELEKT 1", 'syntax error at or near "SELEKT"'),
        ("SELECT 1; SELECT 2", "one query at a time: this is 2 statements"),
        ("", "one query at a time: this is 0 statements"),
        ("DELETE FROM live.pings", "DELETE is not possible here"),
        ("COPY live.pings TO '/tmp/x'", "COPY is not possible here"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/x'", "EXPLAIN of what is not a SELECT is not possible"),
        ("EXPLAIN -- a plan\nCOPY (SELECT 1) TO '/tmp/x'", "EXPLAIN of what is not a SELECT is not possible"),
        ("EXPLAIN CREATE TABLE x AS SELECT 1", "EXPLAIN of what is not a SELECT is not possible"),
        ("COPY (PIVOT live.pings ON document_type USING count(*)) TO '/tmp/x'", "COPY is not possible here"),
        ("CREATE TABLE x AS PIVOT live.pings ON reason USING count(*)", "CREATE is not possible here"),
        ("WITH new AS (DELETE FROM live.pings RETURNING *) FROM new", "Can only delete from base table"),
        ("SET enable_external_access = true", "SET is not possible here"),
        ("SELECT CAST(document_id AS INT) FROM live.pings", "Could not convert string"),
    ],
)
def test_what_is_wrong_with_a_query_is_said(lake: Lake, sql: str, says: str):
    with pytest.raises(QueryError) as failure:
        rows(lake, sql)
    assert says in str(failure.value)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{file}')",
        "FROM read_blob('{file}')",
        "FROM read_csv('{file}')",
        "FROM sniff_csv('{file}')",
        "FROM glob('{folder}/*')",
        "FROM read_text('file://{file}')",
        "FROM query('FROM read_text(''{file}'')')",
        "FROM '{file}'",
    ],
)
def test_a_query_cannot_read_the_files_of_its_machine(lake: Lake, tmp_path: Path, sql: str):
    file = tmp_path / "secret.csv"
    file.write_text("name,value\nkey,1234\n")
    with pytest.raises(QueryError) as failure:
        rows(lake, sql.format(file=file, folder=tmp_path))
    assert "1234" not in str(failure.value)


def test_only_files_of_tables_are_in_the_file_system_of_queries(lake: Lake, tmp_path: Path):
    for path in (f"lakefile://{tmp_path}/x", "lakefile://../etc/passwd", "lakefile://output/0"):
        with pytest.raises(RetriableError, match="not a file of a table") as failure:
            rows(lake, f"FROM read_text('{path}')")
        assert len(str(failure.value).splitlines()) == 1


@pytest.mark.parametrize("explain", ["EXPLAIN", "EXPLAIN ANALYZE", "EXPLAIN (FORMAT json)", "explain /* */ "])
def test_a_query_can_be_explained(lake: Lake, explain: str):
    ((_, plan),) = rows(lake, f"{explain} SELECT count(*) FROM live.pings WHERE document_bytes > 0")
    assert "document_bytes" in plan


def test_a_query_may_take_more_room_than_the_memory_that_it_is_given(lake: Lake, tmp_path: Path):
    numbers = "SELECT repeat(i::VARCHAR, 10) AS text FROM range(2_000_000) AS numbers(i) ORDER BY hash(i)"
    spilling = duckdb.connect(
        config={"memory_limit": "60MB", "threads": "1", "temp_directory": str(tmp_path)}
    )
    spilling.execute(LOCKED)
    assert len(spilling.execute(numbers).fetchall()) == 2_000_000


def test_nothing_is_queried_without_a_catalog():
    with pytest.raises(ConfigurationError, match="make run"), open_lake(Settings()):
        pass


def test_a_catalog_that_is_away_is_told_from_a_wrong_query():
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{nobody_listens.getsockname()[1]}"
        settings = Settings(catalog=CatalogSettings(properties={"type": "rest", "uri": uri}))
        with pytest.raises(RetriableError, match=f"{uri}: it does not answer.*make run"), open_lake(settings):
            pass


def test_a_sql_catalog_with_local_files_answers_too(local_settings: Settings):
    catalog = load_lake_catalog(local_settings)
    create_tables(catalog)
    catalog.load_table(LIVE_PINGS).append(
        sample_rows(LIVE_PINGS, [{"submission_date": MONDAY, "document_type": "main", "document_bytes": 7}])
    )
    with open_lake(local_settings) as lake:
        assert lake.table_names() == table_names()
        assert rows(lake, "SELECT document_type, document_bytes FROM live.pings") == [("main", 7)]
        assert rows(lake, "FROM live.rejected_pings") == []


def test_a_summary_counts_rows_and_bytes_without_reading_them(lake: Lake):
    summary = lake.summary(LIVE_PINGS)
    assert summary.rows == len(ALL_PINGS)
    assert summary.bytes is not None
    assert summary.bytes > 0
    assert summary.description.startswith("One row for each ping that could be converted")
    assert lake.summary("derived.ping_counts").rows is None
    assert not lake.files_opened


def test_columns_are_told_with_their_meaning(lake: Lake):
    columns = {column.name: column for column in lake.columns(LIVE_PINGS)}
    assert [name for name, column in columns.items() if column.partitions] == [
        "document_type",
        "submission_date",
    ]
    assert columns["headers"].type == "MAP(VARCHAR, VARCHAR)"
    assert columns["document_id"].description != ""
    assert not columns["client_id"].required
