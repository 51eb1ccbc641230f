"""The queries of sql/examples/ run, and answer what they say they answer."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lake_testing.sample_rows import sample_rows
from lake_testing.stack import Lake as LakeOfTest
from telemetry_lake.histograms.list_text import list_text
from telemetry_lake.query.lake import Lake, open_lake
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, SQL_DIRECTORY, STABLE_PINGS

PING_COUNTS = "derived.ping_counts"
NOW = datetime.now(UTC)
DAY = NOW.date()
DAY_BEFORE = DAY - timedelta(days=1)
LONG_AGO = DAY - timedelta(days=60)

Row = dict[str, Any]
BUCKETS_TO_10 = {"histogram_type": 1, "bucket_count": 5, "range_low": 1, "range_high": 10}
"""The buckets 0, 1, 4, 7 and 10."""
BUCKETS_TO_100 = {"histogram_type": 0, "bucket_count": 4, "range_low": 1, "range_high": 100}
"""The buckets 0, 1, 10 and 100."""


def histogram(name: str, counts: dict[int, int], **more: Any) -> Row:
    sums = dict.fromkeys(("sum", "log_sum", "log_sum_squares", "sum_squares_lo", "sum_squares_hi"), -1.0)
    buckets = {"buckets": list_text(counts), "counts": list_text(counts.values())}
    return {"process": "parent", "name": name, **BUCKETS_TO_10, **buckets, **sums, **more}


def request(path: str) -> Row:
    return {"method": "POST", "path": path, "query": "", "protocol": "HTTP/1.1", "host": "incoming.example"}


def of_version(version: str) -> Row:
    return request(f"/submit/telemetry/some-id/main/Firefox/{version}/release/20261109174512")


def client(name: str, channel: str, version: str, build: str, os: str, os_version: str, country: str) -> Row:
    return {
        "client_id": name,
        "normalized_channel": channel,
        "app_version": version,
        "app_build_id": build,
        "normalized_os": os,
        "os_version": os_version,
        "architecture": "x86-64",
        "country": country,
    }


def main_ping(
    of: Row,
    *,
    subsession: int = 1,
    seconds: Any = 3_600,
    first_paint: Any = None,
    memory_mb: int | None = None,
    addons: Any = None,
    experiments: Any = None,
    uptime: Any = None,
    scalars: Any = None,
    keyed_scalars: Any = None,
    **row: Any,
) -> Row:
    """A row of a main ping with what the examples look at in its document."""
    document = {
        "environment": {
            "system": {"memoryMB": memory_mb},
            "addons": {"activeAddons": addons},
            "experiments": experiments,
        },
        "payload": {
            "info": {"subsessionCounter": subsession, "subsessionLength": seconds},
            "simpleMeasurements": {"firstPaint": first_paint, "uptime": uptime},
            "processes": {"parent": {"scalars": scalars, "keyedScalars": keyed_scalars}},
        },
    }
    return {**of, "document_type": "main", "document": json.dumps(document), **row}


def event_ping(of: Row, session: str, events: Any) -> Row:
    document = {"payload": {"sessionId": session, "events": events}}
    return {**of, "document_type": "event", "document": json.dumps(document)}


def glean_ping(of: Row, document_type: str, *, events: Any = None, **metrics: Any) -> Row:
    document = {"metrics": metrics, "events": events}
    return {**of, "document_type": document_type, "document": json.dumps(document)}


def crash_ping(of: Row, **payload: Any) -> Row:
    return {**of, "document_type": "crash", "document": json.dumps({"payload": payload})}


OLD, NEW, NIGHTLY = "20261109174512", "20261117203001", "20261122093955"
ANNA = client("anna", "release", "158.0", OLD, "Windows", "10.0", "DE")
BERT = client("bert", "release", "158.0.1", NEW, "Windows", "10.0", "FR")
CARL = client("carl", "release", "158.0.1", NEW, "Linux", "6.8", "DE")
DORA = client("dora", "release", "158.0.1", NEW, "Linux", "6.8", "DE")
EMIL = client("emil", "nightly", "160.0a1", NIGHTLY, "Mac", "24.6", "US")
FAYE = client("faye", "release", "158.0", OLD, "Android", "16", "DE")
NOBODY: Row = {**client("", "beta", "159.0", OLD, "Windows", "10.0", "DE"), "client_id": None}

STABLE: list[Row] = [
    main_ping(
        ANNA,
        submission_date=DAY_BEFORE,
        seconds=7_200,
        first_paint=1_000,
        memory_mb=2_048,
        addons={"ublock": {"version": "1.0"}, "webcompat@mozilla.org": {"isSystem": True}},
        experiments={"a-b-test": {"branch": "control"}},
        reason="shutdown",
        uptime=30,
        scalars={"browser.engagement.total_uri_count": 10},
        keyed_scalars={"telemetry.event_counts": {"a#b": 2, "c": 5}},
        histograms=[histogram("GC_MS", {0: 2, 4: 4, 10: 0}), histogram("OTHER_MS", {0: 100})],
    ),
    # The same session: its start is repeated, and the add-on has been updated.
    main_ping(ANNA, subsession=2, first_paint=1_000, memory_mb=2_048, addons={"ublock": {"version": "1.1"}}),
    main_ping(
        BERT,
        first_paint=3_000,
        memory_mb=4_096,
        addons={"ublock": {"version": "1.1"}, "dark": {"version": "5", "isSystem": False}},
        experiments={"a-b-test": {"branch": "treatment"}, "rollout": {}},
        reason="shutdown",
        uptime=90,
        scalars={"browser.engagement.total_uri_count": 20},
        keyed_scalars={"telemetry.event_counts": {"a#b": 4, "d": "many"}},
        histograms=[
            histogram("GC_MS", {4: 2, 7: 2}),
            histogram("GC_MS", {1: 50}, process="content"),
            histogram("GC_MS", {1: 50}, key="keyed"),
        ],
    ),
    # Another definition of the histogram; lists where objects are usual.
    main_ping(
        CARL,
        first_paint=12_000,
        memory_mb=16_384,
        addons=[],
        experiments=["none"],
        histograms=[histogram("GC_MS", {10: 4, 100: 0}, **BUCKETS_TO_100)],
    ),
    # Values that cannot be.
    main_ping(DORA, seconds="long", first_paint=999_999_999, addons={}),
    main_ping(DORA, seconds=10**9, first_paint="fast", subsession=1),
    main_ping(
        EMIL,
        seconds=36_000,
        first_paint=500,
        memory_mb=8_192,
        histograms=[histogram("GC_MS", {1: 1, 4: -7})],
        reason="shutdown",
        uptime=-1,
        scalars={"browser.engagement.total_uri_count": "many"},
        keyed_scalars={"telemetry.event_counts": [1]},
    ),
    crash_ping(ANNA, processType="main"),
    crash_ping(ANNA, processType="content"),
    crash_ping(EMIL),
    crash_ping(NOBODY, processType="gpu"),
    event_ping(
        ANNA,
        "first",
        {
            "parent": [
                [1, "navigation", "search", "urlbar", "enter", {}],
                [2, "navigation", "search", "urlbar"],
            ]
        },
    ),
    event_ping(BERT, "second", {"parent": [[3, "navigation", "search", "urlbar"]], "content": "none"}),
    event_ping(CARL, "third", []),
    glean_ping(
        FAYE,
        "baseline",
        counter={"browser.engagement.uri_count": 7},
        timespan={"glean.baseline.duration": {"time_unit": "second", "value": 90}},
        rate={"network.cache.hits": {"numerator": 1, "denominator": 4}},
    ),
    glean_ping(
        CARL,
        "metrics",
        boolean={"browser.shell.default_browser": True},
        string={"search.default_engine": "ddg"},
        quantity={"gfx.adapter.ram": 4_096},
        labeled_counter={"networking.http_response_version": {"http_1": 1, "http_2": 5}},
        events=[{"category": "tabs", "name": "opened", "timestamp": at} for at in (0, 900)],
    ),
    glean_ping(
        DORA,
        "metrics",
        boolean={"browser.shell.default_browser": False},
        timespan={"glean.baseline.duration": {"time_unit": "minute", "value": 2}},
        labeled_counter={"networking.http_response_version": {"http_1": 3, "http_2": "many"}},
        events={"category": "tabs"},
    ),
    # Too long ago for every question.
    main_ping(FAYE, submission_date=LONG_AGO, first_paint=1, addons={"old": {}}, experiments={"old": {}}),
]


@pytest.fixture(scope="module")
def lake(new_lake: Callable[[], LakeOfTest]) -> Iterator[Lake]:
    settings = new_lake().settings
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    of_day = {"submission_date": DAY, "document_type": "main"}
    arrived = {"submission_timestamp": NOW}
    rows: dict[str, list[Row]] = {
        STABLE_PINGS: STABLE,
        LIVE_PINGS: [
            {
                "document_id": "a",
                "normalized_channel": "release",
                "client_id": "x",
                "request": of_version("158.0"),
                "histograms": [histogram("GC_MS", {0: 1, 10: 2}), histogram("OTHER_MS", {0: 100})],
            },
            {
                "document_id": "a",
                "normalized_channel": "release",
                "client_id": "x",
                "request": of_version("158.0"),
                "histograms": [histogram("GC_MS", {10: 5}, **BUCKETS_TO_100)],
            },
            {
                "document_id": "b",
                "normalized_channel": "beta",
                "request": of_version("159.0"),
                "histograms": [histogram("GC_MS", {10: 1})],
            },
        ],
        LIVE_REJECTED_PINGS: [
            {
                "error_type": "invalid_json",
                "stage": "decode",
                "error_message": "not JSON at byte 3",
                "request": of_version("158.0"),
            },
            {
                "error_type": "invalid_json",
                "stage": "decode",
                "error_message": "not JSON at byte 3",
                "request": of_version("158.0"),
            },
            {
                "error_type": "empty_body",
                "stage": "decompress",
                "error_message": "nothing",
                "request": request("/submit/org-example-app/main/1/some-id"),
            },
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


TEN, HUNDRED = "5 to 10 type 1", "4 to 100 type 0"
EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "pings_by_channel": [(DAY, "release", 2, 1), (DAY, "beta", 1, 0)],
    "rejected_by_error_type": [
        ("invalid_json", "decode", 2, 1, NOW, "not JSON at byte 3"),
        ("empty_body", "decompress", 1, 1, NOW, "nothing"),
    ],
    "repeated_documents": [(DAY, "main", 3, 1, 33.33)],
    "histogram_sum": [(HUNDRED, 10, 5, 100.0), (TEN, 0, 1, 25.0), (TEN, 10, 3, 100.0)],
    "pings_by_day": [(DAY, "telemetry", "main", 3, 1, 2.0)],
    "startup_by_build": [
        ("nightly", "160.0a1", NIGHTLY, 1, 500, 500),
        # 3,000 and 12,000 ms: half way, and 95 % of the way from one to the other.
        ("release", "158.0.1", NEW, 2, 7_500, 11_550),
        ("release", "158.0", OLD, 1, 1_000, 1_000),
    ],
    "crash_rate_by_channel": [
        # 2 + 1 + 1 + 1 hours.
        ("release", 1, 1, 5.0, 200.0, 200.0),
        ("nightly", 1, 0, 10.0, 100.0, 0.0),
        ("beta", 0, 0, None, None, None),
    ],
    "os_distribution": [
        ("Linux", "6.8", "x86-64", 2, 33.33),
        ("Windows", "10.0", "x86-64", 2, 33.33),
        ("Android", "16", "x86-64", 1, 16.67),
        ("Mac", "24.6", "x86-64", 1, 16.67),
    ],
    "active_clients": [
        (DAY, "release", "DE", 4, 1.0),
        (DAY, "nightly", "US", 1, 1.0),
        (DAY, "release", "FR", 1, 1.0),
        (DAY_BEFORE, "release", "DE", 1, 0.25),
    ],
    # Of anna, bert and dora: carl and emil did not tell.
    "addon_adoption": [("ublock", 2, 66.7, 2), ("dark", 1, 33.3, 1)],
    "slow_start_share": [
        ("Linux", "4: more than 8 GB", 1, 100.0),
        ("Mac", "3: up to 8 GB", 1, 0.0),
        ("Windows", "1: up to 2 GB", 1, 0.0),
        ("Windows", "2: up to 4 GB", 1, 0.0),
    ],
    "version_adoption": [
        (DAY_BEFORE, "158.0", 1, 100.0),
        (DAY, "158.0.1", 3, 60.0),
        (DAY, "158.0", 2, 40.0),
    ],
    "histogram_percentiles": [
        ("nightly", TEN, 1, 2.5, 3.9),
        ("release", HUNDRED, 4, 55.0, 95.5),
        # 2 samples from 0, 6 from 4 and 2 from 7: the 5th is the third of the six, the 9.5th in the last two.
        ("release", TEN, 10, 5.5, 9.3),
    ],
    "scalars": [("release", 6, 2, 15.0, 15.0, 20), ("nightly", 1, 0, None, None, None)],
    "keyed_scalars": [("a#b", 2, 6), ("c", 1, 5), ("d", 1, None)],
    "simple_measurements": [("release", 2, 60.0, 87.0)],
    "unified_events": [("parent", "navigation", "search", "urlbar", 3, 2)],
    "glean_values": [
        ("metrics", 2, 1, "ddg", 4_096, None, 120, None),
        ("baseline", 1, 0, None, None, 7, 90, 25.0),
    ],
    "glean_labeled_counters": [("http_2", 2, 5), ("http_1", 2, 4)],
    "glean_events": [("metrics", "tabs", "opened", 2, 1)],
    "experiment_branches": [
        ("a-b-test", "control", 1, 50.0),
        ("a-b-test", "treatment", 1, 50.0),
        ("rollout", "(none)", 1, 100.0),
    ],
    "rejected_by_version": [
        ("main", "(generic)", "", 1, 1, 100.0),
        ("main", "Firefox", "158.0", 4, 2, 50.0),
    ],
}


@pytest.mark.parametrize("example", sorted(SQL_DIRECTORY.glob("examples/*.sql")), ids=lambda file: file.stem)
def test_an_example_gives_what_it_promises(example: Any, lake: Lake):
    # Examples ask for the last days. Midnight may have passed since this module was imported.
    rows = lake.query(example.read_text().replace("current_date", f"DATE '{DAY}'")).fetchall()
    if example.stem == "freshness":
        ((document_type, newest, age),) = rows
        assert (document_type, newest) == ("main", NOW)
        assert timedelta(0) < age < timedelta(hours=1)
    else:
        assert rows == EXPECTED[example.stem]


@pytest.mark.parametrize("example", sorted(SQL_DIRECTORY.glob("examples/*.sql")), ids=lambda file: file.stem)
def test_an_example_says_its_question_how_to_read_the_answer_and_what_it_costs(example: Any):
    heading = re.match(
        r"(-- [^\n]*\?\n)--\n(-- How to read it: .*?)(-- Cost: .*?)(SELECT|WITH)",
        example.read_text(),
        re.DOTALL,
    )
    assert heading, "see the other examples"
    assert all(line.startswith("-- ") for line in heading[0].splitlines() if line not in ("--", heading[4]))


def test_every_answer_is_of_an_example():
    assert {*EXPECTED, "freshness"} == {file.stem for file in SQL_DIRECTORY.glob("examples/*.sql")}
