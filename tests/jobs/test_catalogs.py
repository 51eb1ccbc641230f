"""What pyiceberg writes Spark reads, and the other way round, on every kind of catalog."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession
from pyspark.sql.functions import lit, unix_micros

from lake_testing.sample_rows import sample_rows
from telemetry_lake.failures import FatalError
from telemetry_lake.query.lake import open_lake
from telemetry_lake.settings import Settings
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS

HISTOGRAM = {
    "process": "content",
    "name": "GC_MS",
    "key": "a key",
    "histogram_type": 1,
    "bucket_count": 3,
    "range_low": 0,
    "range_high": 2**30,
    "buckets": "0,1,1073741824",
    "counts": "1073741824,0,1",
    "sum": 1.5,
    "log_sum": -1.0,
    "log_sum_squares": -1.0,
    "sum_squares_lo": -1.0,
    "sum_squares_hi": -1.0,
}
WRITTEN = {
    "document_id": "00000000-0000-4000-8000-000000000001",
    "document_type": "main ü/1",
    "submission_date": date(2026, 11, 23),
    "submission_timestamp": datetime(2026, 11, 23, 23, 59, 59, 999_999, tzinfo=UTC),
    "client_id": None,
    "sample_id": 99,
    "headers": [("user-agent", "größer"), ("x-debug-id", "")],
    "histograms": [HISTOGRAM, {**HISTOGRAM, "key": None, "buckets": None, "counts": None}],
    "document": '{"a":"\\u0000 \U0001f98a"}',
}


def as_spark_gives_it(value: Any) -> Any:
    """A value of pyiceberg's as Spark's Python rows have it."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    return value


def test_spark_reads_every_column_that_pyiceberg_wrote(spark: SparkSession, catalog: Catalog):
    table = catalog.load_table(LIVE_PINGS)
    table.append(sample_rows(LIVE_PINGS, [WRITTEN]))
    (expected,) = table.scan().to_arrow().to_pylist()
    at = expected.pop("submission_timestamp")

    # A timestamp becomes a naive one of this machine's time zone on its way to Python: compare numbers.
    (read,) = (
        spark.table(LIVE_PINGS)
        .withColumn("submission_timestamp", unix_micros("submission_timestamp"))
        .collect()
    )
    row = read.asDict(recursive=True)
    assert row.pop("submission_timestamp") == round(at.timestamp() * 1_000_000)
    assert row == {name: as_spark_gives_it(value) for name, value in expected.items()}
    assert row["histograms"][0] == HISTOGRAM


def test_pyiceberg_and_queries_read_what_spark_wrote(
    spark: SparkSession, catalog: Catalog, settings: Settings
):
    catalog.load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, [WRITTEN]))
    spark.table(LIVE_PINGS).withColumn("document_id", lit("by Spark")).writeTo(LIVE_PINGS).append()

    by_id = {row["document_id"]: row for row in catalog.load_table(LIVE_PINGS).scan().to_arrow().to_pylist()}
    assert set(by_id) == {"by Spark", WRITTEN["document_id"]}
    assert {**by_id["by Spark"], "document_id": WRITTEN["document_id"]} == by_id[WRITTEN["document_id"]]
    with open_lake(settings) as lake:
        columns = "submission_timestamp, headers, histograms, document_type"
        first, second = lake.query(f"SELECT {columns} FROM live.pings").fetchall()
        assert first == second
        assert first[0] == WRITTEN["submission_timestamp"]
        assert lake.query("SELECT document_id FROM live.pings WHERE document_type = 'main ü/1'").fetchall()


def test_binary_columns_keep_their_bytes(spark: SparkSession, catalog: Catalog):
    body = bytes(range(256))
    row = {"submission_date": date(2026, 11, 23), "body": body}
    catalog.load_table(LIVE_REJECTED_PINGS).append(sample_rows(LIVE_REJECTED_PINGS, [row]))
    spark.table(LIVE_REJECTED_PINGS).writeTo(LIVE_REJECTED_PINGS).append()
    assert [bytes(row.body) for row in spark.table(LIVE_REJECTED_PINGS).select("body").collect()] == [
        body
    ] * 2
    assert catalog.load_table(LIVE_REJECTED_PINGS).scan().to_arrow().column("body").to_pylist() == [body] * 2


def test_rows_deleted_beside_their_files_are_not_shown_by_mistake(
    spark: SparkSession, catalog: Catalog, settings: Settings
):
    spark.sql("DROP TABLE IF EXISTS derived.with_deletes")
    spark.sql(
        "CREATE TABLE derived.with_deletes (n INT) USING iceberg "
        "TBLPROPERTIES ('format-version' = '2', 'write.delete.mode' = 'merge-on-read')"
    )
    spark.sql("INSERT INTO derived.with_deletes SELECT /*+ COALESCE(1) */ * FROM VALUES (1), (2), (3)")
    spark.sql("DELETE FROM derived.with_deletes WHERE n = 2")
    with open_lake(settings) as lake:
        with pytest.raises(FatalError, match="deleted by separate files") as refusal:
            lake.query("SELECT sum(n) FROM derived.with_deletes")
        _, _, advice = str(refusal.value).partition("In Spark SQL: ")
        for statement in advice.split("; "):
            spark.sql(statement)
        assert lake.query("SELECT sum(n) FROM derived.with_deletes").fetchall() == [(4,)]
