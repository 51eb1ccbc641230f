"""Golden rows: every kind of ping, one by one."""

import json
from datetime import date

import pytest

from lake_testing.ping_builders import (
    DOCUMENT_ID,
    RAW_KEY,
    REVISION,
    TIME,
    classic_document,
    convert,
    generic_path,
    glean_document,
    gzipped,
    histogram,
    linear,
    live_row,
    ping,
    rows_of,
    settings,
    telemetry_path,
    unified_document,
)
from lake_testing.realistic_pings import real_ping
from telemetry_lake.convert.converter import Converter
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.histograms.list_text import list_numbers
from telemetry_lake.histograms.stored import dense_counts

CLIENT = "5bf8dd85-7f2e-4cf9-8bb7-6cdfb3a6c8da"
FLAG = {"range": [1, 2], "bucket_count": 3, "histogram_type": 3}


def test_real_ping_of_a_firefox_23():
    path, body = real_ping()

    (row,), rejected = rows_of(convert([ping(f"/submit/telemetry/{path}", body)]))

    assert rejected == []
    histograms = row.pop("histograms")
    document = json.loads(row.pop("document"))
    assert row == {
        "document_id": DOCUMENT_ID,
        "namespace": "telemetry",
        "document_type": "idle-daily",
        "document_version": "1",
        "submission_timestamp": TIME,
        "submission_date": date(2026, 11, 23),
        "reason": "idle-daily",
        "app_name": "Firefox",
        "app_update_channel": "release",
        "app_version": "23.0.1",
        "app_build_id": "20130814063812",
        "normalized_channel": "release",
        "os": "WINNT",
        "os_version": "5.1",
        "normalized_os": "Windows",
        "architecture": "x86",
        "country": "??",
        "client_id": None,
        "sample_id": None,
        "request": {
            "method": "POST",
            "path": f"/submit/telemetry/{path}",
            "query": "v=4",
            "protocol": "HTTP/1.1",
            "host": "incoming.example",
        },
        "headers": [],
        "unknown_histograms": 2,
        "lifted": '{"/ver":"document_version:integer","/info/reason":"reason","/info/appName":"app_name",'
        '"/info/appUpdateChannel":"app_update_channel","/info/appVersion":"app_version",'
        '"/info/appBuildID":"app_build_id","/info/OS":"os","/info/version":"os_version",'
        '"/info/arch":"architecture","/histograms":"histograms"}',
        "document_bytes": 77_740,
        "raw_object": RAW_KEY,
        "raw_object_position": 0,
    }
    assert len(histograms) == 326
    assert sum(len(list_numbers(one["buckets"])) for one in histograms) == 2_831
    assert histograms[3] == {
        "process": "parent",
        "name": "CACHE_DEVICE_SEARCH_2",
        "key": None,
        "histogram_type": 0,
        "bucket_count": 50,
        "range_low": 1,
        "range_high": 10_000,
        "buckets": "0,14,20,29,34",
        "counts": "5523,22,1,5,0",
        "sum": 523.0,
        "log_sum": 82.3832015991211,
        "log_sum_squares": 244.2482485671876,
        "sum_squares_lo": -1.0,
        "sum_squares_hi": -1.0,
    }
    # Those that the definitions of its revision do not know stay in the document, and nothing else does.
    assert list(document["histograms"]) == ["HTTP_OFFLINE_CACHE_DOCUMENT_LOAD", "MIXED_CONTENT_PAGE_LOAD"]
    assert "reason" not in document["info"]


def test_version_1_reads_back_as_dense_buckets():
    row = live_row(
        telemetry_path("saved-session"),
        classic_document(
            histograms={
                "STARTUP_CRASH_DETECTED": {**FLAG, "values": {"0": 1, "1": 0}, "sum": 0, "sum_squares_lo": 0},
                # Has the definition of DNS_LOOKUP_TIME: exponential, 1 to 60000 in 50 buckets.
                "STARTUP_DNS_LOOKUP_TIME": {
                    "range": [1, 60_000],
                    "bucket_count": 50,
                    "histogram_type": 0,
                    "values": {"62": 0, "77": 1, "95": 0},
                    "sum": 77,
                    "log_sum": 4.356709003448486,
                    "log_sum_squares": 18.980913162231445,
                },
                "NOBODY_KNOWS_ME": linear({"1": 2}),
            }
        ),
    )
    crash, lookup = histogram(row, "STARTUP_CRASH_DETECTED"), histogram(row, "STARTUP_DNS_LOOKUP_TIME")
    assert dense_counts(crash) == [1, 0, 0]
    assert (crash["sum"], crash["log_sum"], crash["sum_squares_lo"], crash["sum_squares_hi"]) == (
        0,
        -1,
        0,
        -1,
    )
    assert dense_counts(lookup) == [0] * 18 + [1] + [0] * 31
    assert row["unknown_histograms"] == 1
    assert json.loads(row["document"])["histograms"] == {"NOBODY_KNOWS_ME": linear({"1": 2})}


def test_version_1_without_histograms_needs_no_revision():
    document = classic_document(androidANR="…")
    del document["info"]["revision"]
    row = live_row(telemetry_path("android-anr-report"), document)
    assert (row["document_type"], row["document_version"]) == ("android-anr-report", "1")
    assert row["histograms"] == []


def test_version_2_has_its_dense_histograms_taken_apart():
    dense = [1, 0, 0, 0, -1, -1, 5, -1]
    document = classic_document(
        histograms={"STARTUP_CRASH_DETECTED": dense, "NOBODY_KNOWS_ME": [1, 2, 3, 4, 5]}
    )
    document["ver"] = 2
    row = live_row(telemetry_path("saved-session"), document)
    found = histogram(row, "STARTUP_CRASH_DETECTED")
    assert (found["buckets"], found["counts"], found["sum_squares_lo"]) == ("0", "1", 5)
    assert [*dense_counts(found), *(found[name] for name in SUMS)] == dense
    assert row["unknown_histograms"] == 1
    assert restore_document(row) == document


SUMS = ("sum", "log_sum", "log_sum_squares", "sum_squares_lo", "sum_squares_hi")


def test_version_3_of_firefox_os_has_its_dimensions_in_deviceinfo():
    document = {
        "ver": 3,
        "activationTime": 1395769944966,
        "deviceinfo.hardware": "qcom",
        "deviceinfo.os": "1.5.0.0-prerelease",
        "deviceinfo.platform_build_id": "20140325104133",
        "deviceinfo.platform_version": "31.0a1",
        "deviceinfo.update_channel": "default",
        "icc": {"mcc": "310", "spn": None},
        "pingID": DOCUMENT_ID,
    }
    row = live_row(telemetry_path("ftu"), document)
    assert [
        row[name] for name in ("reason", "app_name", "app_update_channel", "app_version", "app_build_id")
    ] == [
        "ftu",
        "FirefoxOS",
        "default",
        "31.0a1",
        "20140325104133",
    ]
    assert (row["document_version"], row["os_version"]) == ("3", "1.5.0.0-prerelease")
    assert json.loads(row["document"]) == {
        "activationTime": 1395769944966,
        "deviceinfo.hardware": "qcom",
        "icc": {"mcc": "310", "spn": None},
    }
    assert restore_document(row) == document


def test_version_5():
    document = classic_document(histograms={"STARTUP_CRASH_DETECTED": [0, 1, 0, 1, -1, -1, -1, -1]})
    document["ver"] = 5
    document["clientID"] = "5bf8dd85-7f2e-4cf9-8bb7-6cdfb3a6c8da"
    row = live_row(telemetry_path("saved-session"), document)
    assert (row["document_version"], row["client_id"], row["sample_id"]) == ("5", document["clientID"], 48)
    assert dense_counts(histogram(row, "STARTUP_CRASH_DETECTED")) == [0, 1, 0]
    assert restore_document(row) == document


def test_a_unified_ping_as_the_first_server_archived_it():
    """Its version was raised, `info` added, and its histograms made compact."""
    document = unified_document(histograms={"STARTUP_CRASH_DETECTED": [0, 1, 0, 1, -1, -1, -1, -1]})
    document["version"] = 5
    document["payload"]["info"]["revision"] = REVISION
    document["info"] = {"reason": "main", "appName": "Firefox", "appUpdateChannel": "esr"}
    row = live_row(telemetry_path("main"), document)
    assert (row["document_version"], row["app_name"], row["reason"]) == ("5", "Firefox", "shutdown")
    assert dense_counts(histogram(row, "STARTUP_CRASH_DETECTED")) == [0, 1, 0]
    assert restore_document(row) == document

    document["payload"]["info"]["revision"] = "of a build that no definitions are at hand for"
    row = live_row(telemetry_path("main"), document)
    assert (row["histograms"], row["unknown_histograms"]) == ([], 1)
    assert restore_document(row) == document


@pytest.mark.parametrize("document_type", ["sync", "saved-session"])
def test_a_unified_ping_of_version_5(document_type):
    document = unified_document(document_type)
    document["version"] = 5
    row = live_row(telemetry_path(document_type), document)
    assert (row["document_version"], row["client_id"]) == ("5", document["clientId"])
    assert restore_document(row) == document


def test_a_stray_version_of_another_format_decides_nothing():
    unified = {**unified_document(), "ver": 1}
    assert live_row(telemetry_path("main"), unified)["document_version"] == "4"
    classic = {**classic_document(), "version": 4}
    assert live_row(telemetry_path("idle-daily"), classic)["document_version"] == "1"


@pytest.mark.parametrize("ver", [2, 3, "3"])
def test_the_channel_of_firefox_os_under_its_other_name(ver):
    document = {"ver": ver, "app.update.channel": "nightly", "info": {"appUpdateChannel": "UNKNOWN"}}
    row = live_row(telemetry_path("ftu"), document)
    assert (row["app_update_channel"], row["document_version"]) == ("nightly", str(ver))
    assert restore_document(row) == document


@pytest.mark.parametrize("document_type", ["main", "saved-session", "first-shutdown"])
def test_unified_pings_with_measurements(document_type):
    document = unified_document(
        document_type,
        histograms={"GC_MS": linear({"0": 1, "4": 2, "10": 0}, sum=9)},
        keyedHistograms={
            "SEARCH_COUNTS": {"google.urlbar": linear({"1": 3}, sum=3), "ddg": linear({}, sum=0)},
            "EMPTY": {},
        },
        processes={
            "parent": {"scalars": {"a.b": 1}, "events": [[1, "c", "m", "o"]]},
            "content": {
                "histograms": {"GC_MS": linear({"7": 5}, sum=35)},
                "keyedHistograms": {"K": {"é": linear({"1": 1})}},
                "keyedScalars": {"x": {"y": True}},
            },
        },
    )
    row = live_row(telemetry_path(document_type), document)
    assert [
        (one["process"], one["name"], one["key"], one["buckets"], one["counts"], one["sum"])
        for one in row["histograms"]
    ] == [
        ("parent", "GC_MS", None, "0,4,10", "1,2,0", 9.0),
        ("parent", "SEARCH_COUNTS", "google.urlbar", "1", "3", 3.0),
        ("parent", "SEARCH_COUNTS", "ddg", None, None, 0.0),
        ("content", "GC_MS", None, "7", "5", 35.0),
        ("content", "K", "é", "1", "1", -1.0),
    ]
    assert dense_counts(histogram(row, "GC_MS")) == [1, 0, 2, 0, 0]
    assert row["client_id"] == "5bf8dd85-7f2e-4cf9-8bb7-6cdfb3a6c8da"
    assert [
        row[name] for name in ("reason", "app_name", "app_update_channel", "app_version", "app_build_id")
    ] == [
        "shutdown",
        "Firefox",
        "esr",
        "140.5.0",
        "20251103141854",
    ]
    assert [row[name] for name in ("sample_id", "normalized_channel", "normalized_os", "os_version")] == [
        48,
        "esr",
        "Linux",
        "6.12",
    ]
    assert row["architecture"] == "x86-64"
    assert json.loads(row["document"]) == {
        "creationDate": "2026-11-23T13:59:58.123Z",
        "application": {"vendor": "Mozilla"},
        "environment": {"system": {"os": {}, "memoryMB": 16000}},
        "payload": {
            "ver": 4,
            "info": {"subsessionCounter": 1},
            "histograms": {},
            "keyedHistograms": {"EMPTY": {}},
            "processes": {
                "parent": {"scalars": {"a.b": 1}, "events": [[1, "c", "m", "o"]]},
                "content": {"histograms": {}, "keyedHistograms": {}, "keyedScalars": {"x": {"y": True}}},
            },
        },
    }
    assert restore_document(row) == document


def test_unified_ping_is_checked_with_definitions_when_there_are_some():
    document = unified_document(
        histograms={"CYCLE_COLLECTOR_FULL": linear({"1": 1}), "NEW": linear({"4": 1})}
    )
    document["payload"]["info"]["revision"] = (
        "https://hg.mozilla.org/releases/mozilla-release/rev/a55c55edf302"
    )
    row = live_row(telemetry_path("main"), document)
    assert [one["name"] for one in row["histograms"]] == ["CYCLE_COLLECTOR_FULL"]
    assert row["unknown_histograms"] == 1
    assert restore_document(row) == document


def test_any_other_unified_ping():
    document = unified_document("activation", histograms={"STAYS": {"values": 3}})
    row = live_row(telemetry_path("activation"), document)
    assert (row["document_type"], row["document_version"]) == ("activation", "4")
    assert row["histograms"] == []
    assert json.loads(row["document"])["payload"]["histograms"] == {"STAYS": {"values": 3}}
    assert restore_document(row) == document


def test_glean_ping():
    document = glean_document()
    row = live_row(generic_path("org-mozilla-fenix", "baseline"), gzipped(document))
    assert {
        name: row[name]
        for name in (
            "namespace",
            "document_type",
            "document_version",
            "reason",
            "app_name",
            "app_update_channel",
            "app_version",
            "app_build_id",
            "normalized_channel",
            "normalized_os",
            "client_id",
            "sample_id",
        )
    } == {
        "namespace": "org-mozilla-fenix",
        "document_type": "baseline",
        "document_version": "1",
        "reason": "inactive",
        "app_name": "org-mozilla-fenix",
        "app_update_channel": "nightly",
        "app_version": "145.0",
        "app_build_id": "2016123456",
        "normalized_channel": "nightly",
        "normalized_os": "Android",
        "client_id": "c0ffeec0-ffee-4ff0-ffee-c0ffeec0ffee",
        "sample_id": 5,
    }
    assert json.loads(row["document"])["metrics"] == document["metrics"]
    assert restore_document(row) == document


def test_type_of_one_s_own():
    document = {"text": "hello", "client_id": CLIENT, "count": 1e3, "big": 123456789012345678901234567890}
    row = live_row(generic_path("lake-demo", "greeting"), document)
    assert (row["client_id"], row["app_name"], row["reason"]) == (CLIENT, "lake-demo", "UNKNOWN")
    assert row["document"] == '{"text":"hello","count":1000.0,"big":123456789012345678901234567890}'
    assert restore_document(row) == document


def test_namespace_that_accepts_unknown_types():
    converter = Converter(settings(accept_unknown_types_of={"startup"}))
    row = live_row(generic_path("startup", "whatever", "9"), {"clientId": CLIENT, "x": [1]}, converter)
    assert (row["document_type"], row["document_version"], row["client_id"]) == ("whatever", "9", CLIENT)


def test_what_the_document_says_comes_before_what_the_path_says():
    document = unified_document("event")
    document["application"] = {}
    row = live_row(telemetry_path("event"), document)
    assert [row[name] for name in ("app_name", "app_version", "app_update_channel", "app_build_id")] == [
        "Firefox",
        "120.0",
        "release",
        "20231116134553",
    ]
    assert restore_document(row) == document


def test_headers_and_paths_that_are_not_ascii_survive():
    (row,), _ = rows_of(
        convert(
            [
                ping(
                    generic_path("lake-demo", "greeting"),
                    {"text": ""},
                    headers=(("user-agent", b"caf\xe9"), ("x-source-tags", b"a"), ("x-source-tags", b"b")),
                )
            ]
        )
    )
    assert dict(row["headers"]) == {"user-agent": "café", "x-source-tags": "a, b"}
