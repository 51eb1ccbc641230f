"""The queries of sql/examples/ run, and answer what they say they answer."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from telemetry_lake.catalog import create_tables, load_lake_catalog
from telemetry_lake.query import Lake, open_lake
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS, SQL_DIRECTORY
from tests.query.sample_rows import sample_rows
from tests.stack_fixture import Lake as LakeOfTest

PING_COUNTS = "derived.ping_counts"
# Examples ask for the last days; what arrives today stays among them if midnight comes during the test.
NOW = datetime.now(UTC)
DAY = NOW.date()


def histogram(name: str, buckets: list[int], counts: list[int]) -> dict[str, Any]:
    sums = dict.fromkeys(("sum", "log_sum", "log_sum_squares", "sum_squares_lo", "sum_squares_hi"), -1.0)
    return {"process": "parent", "name": name, "buckets": buckets, "counts": counts, **sums}


@pytest.fixture(scope="module")
def lake(new_lake: Callable[[], LakeOfTest]) -> Iterator[Lake]:
    settings = new_lake().settings
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    of_day = {"submission_date": DAY, "document_type": "main"}
    arrived = {"submission_timestamp": NOW}
    rows: dict[str, list[dict[str, Any]]] = {
        LIVE_PINGS: [
            {
                "document_id": "a",
                "normalized_channel": "release",
                "client_id": "x",
                "histograms": [histogram("GC_MS", [0, 10], [1, 2]), histogram("OTHER_MS", [0], [100])],
            },
            {"document_id": "a", "normalized_channel": "release", "client_id": "x"},
            {"document_id": "b", "normalized_channel": "beta", "histograms": [histogram("GC_MS", [10], [1])]},
        ],
        LIVE_REJECTED_PINGS: [
            {"error_type": "invalid_json", "stage": "decode", "error_message": "not JSON at byte 3"},
            {"error_type": "invalid_json", "stage": "decode", "error_message": "not JSON at byte 3"},
            {"error_type": "empty_body", "stage": "decompress", "error_message": "nothing"},
        ],
        PING_COUNTS: [
            {"namespace": "telemetry", "pings": 3, "distinct_document_ids": 2, "document_bytes": 6000}
        ],
    }
    for table, of_table in rows.items():
        catalog.load_table(table).append(
            sample_rows(
                table, [{**of_day, **({} if table == PING_COUNTS else arrived), **row} for row in of_table]
            )
        )
    with open_lake(settings) as opened:
        yield opened


EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "pings_by_channel": [(DAY, "release", 2, 1), (DAY, "beta", 1, 0)],
    "rejected_by_error_type": [
        ("invalid_json", "decode", 2, 1, NOW, "not JSON at byte 3"),
        ("empty_body", "decompress", 1, 1, NOW, "nothing"),
    ],
    "repeated_documents": [(DAY, "main", 3, 1, 33.33)],
    "histogram_sum": [(0, 1, 25.0), (10, 3, 100.0)],
    "pings_by_day": [(DAY, "telemetry", "main", 3, 1, 2.0)],
}


@pytest.mark.parametrize("example", sorted(SQL_DIRECTORY.glob("examples/*.sql")), ids=lambda file: file.stem)
def test_an_example_gives_what_it_promises(example: Any, lake: Lake):
    text = example.read_text()
    assert text.startswith("-- ")
    assert "?" in text.split("SELECT")[0], "an example says the question that it answers"
    rows = lake.query(text).fetchall()
    if example.stem == "freshness":
        ((document_type, newest, age),) = rows
        assert (document_type, newest) == ("main", NOW)
        assert timedelta(0) < age < timedelta(hours=1)
    else:
        assert rows == EXPECTED[example.stem]
