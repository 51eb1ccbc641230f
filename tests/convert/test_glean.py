"""Pings of Glean: every form of them is a row, what Glean's schema forbids is not."""

import copy
import shutil

import pytest

from lake_testing.ping_builders import (
    generic_path,
    glean_document,
    glean_metrics,
    live_row,
    rejected_row,
    settings,
)
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.histogram_readers import READERS
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.histograms.bucket_ranges import BUCKETS_MAX_COUNT, FUNCTIONAL_RANGES, HistogramType
from telemetry_lake.settings import ConversionSettings

PATH = generic_path("an-application", "its-own-ping")
EVENT = {"timestamp": 0, "category": "page", "name": "shown", "extra": {"glean_timestamp": "1795979971942"}}
SESSION = {
    "session_id": "s",
    "session_seq": 1,
    "event_seq": 0,
    "session_sample_rate": 0.5,
    "session_start_time": "2026-11-29T19:19:31Z",
}


def without(document, *names):
    return {name: value for name, value in document.items() if name not in names}


@pytest.mark.parametrize(
    "document",
    [
        glean_document(metrics=glean_metrics()),
        without(glean_document(), "client_info"),
        without(glean_document(), "ping_info"),
        without(glean_document(), "ping_info", "metrics"),
        {"metrics": {"counter": {"example.clicks": 1}}},
        {
            "$schema": "moz://mozilla.org/schemas/glean/ping/1",
            "events": [EVENT, {**EVENT, "session": SESSION}],
        },
        # What Glean.js sends from a web page.
        {
            "ping_info": {
                "seq": 0,
                "start_time": "2026-11-29T19:19-00:00",
                "end_time": "2026-11-29T19:19-00:00",
                "experiments": {"a": {"branch": "b", "extra": {"type": "t", "enrollment_id": "e"}}},
            },
            "client_info": {
                **glean_document()["client_info"],
                "session_id": "f1307d80-d63f-4d97-bbc4-731f203b0832",
                "session_count": 1,
                "first_run_date": "2026-11-29-00:00",
                "os_version": "Unknown",
                "architecture": "Unknown",
                "locale": "en-US",
            },
        },
    ],
    ids="+".join,
)
def test_every_form_of_a_ping_is_a_row(document):
    row = live_row(PATH, document)
    assert (row["namespace"], row["document_type"], row["app_name"]) == (
        "an-application",
        "its-own-ping",
        "an-application",
    )
    assert row["client_id"] == document.get("client_info", {}).get("client_id")
    assert restore_document(row) == document


FORBIDDEN = [
    ("/metrics/text/a.b", "/metrics/text/a.b", "x" * 204_801),
    ("/metrics/string/a.b", "/metrics/string/a.b", None),
    ("/metrics/string/A.B", "/metrics/string", "a name in capitals"),
    ("/metrics/labeled_counter/a.b", "/metrics/labeled_counter/a.b", {"l" * 112: 1}),
    ("/metrics/enumeration/a.b", "/metrics", "a type that Glean does not have"),
    ("/metrics/uuid/a.b", "/metrics/uuid/a.b", "not a UUID"),
    ("/metrics/url/a.b", "/metrics/url/a.b", "data:text/plain,x"),
    ("/metrics/rate/a.b", "/metrics/rate/a.b/numerator", {"numerator": -1, "denominator": 1}),
    ("/metrics/timespan/a.b", "/metrics/timespan/a.b/time_unit", {"value": 1, "time_unit": "year"}),
    ("/metrics/timing_distribution/a.b", "/metrics/timing_distribution/a.b", {"sum": 1}),
    ("/metrics/timing_distribution/a.b", "/metrics/timing_distribution/a.b/values", {"values": {"1h": 1}}),
    ("/metrics/custom_distribution/a.b", "/metrics/custom_distribution/a.b", {"values": {"1": 1}}),
    (
        "/metrics/labeled_memory_distribution/a.b",
        "/metrics/labeled_memory_distribution/a.b/one/values/1",
        {"one": {"values": {"1": 0.5}}},
    ),
    ("/ping_info/reason", "/ping_info/reason", "r" * 31),
    ("/ping_info/start_time", "/ping_info/start_time", None),
    ("/client_info/client_id", "/client_info/client_id", "not a UUID"),
    ("/client_info/os", "/client_info/os", None),
    ("/client_info/more", "/client_info", 1),
    ("/more", "the document", 1),
    ("/events", "/events/0/timestamp", [{**EVENT, "timestamp": None}]),
    ("/events", "/events/0/timestamp", [{**EVENT, "timestamp": -1}]),
    ("/events", "/events/0", [without(EVENT, "name")]),
    ("/events", "/events/0/extra/page", [{**EVENT, "extra": {"page": 1}}]),
    (
        "/events",
        "/events/0/session/session_sample_rate",
        [{**EVENT, "session": SESSION | {"session_sample_rate": 2}}],
    ),
    ("/events", "/events/0/session", [{**EVENT, "session": SESSION | {"more": 1}}]),
]


@pytest.mark.parametrize("place, where, value", FORBIDDEN, ids=str)
def test_what_the_schema_of_glean_forbids_is_rejected(place, where, value):
    document = copy.deepcopy(glean_document())
    *parents, name = place[1:].split("/")
    holder = document
    for parent in parents:
        holder = holder.setdefault(parent, {})
    holder[name] = value
    row = rejected_row(PATH, document)
    assert (row["error_type"], row["error_message"].partition(": ")[0]) == ("schema_violation", where)
    assert row["schema_path"]


def test_a_text_of_the_greatest_length_is_a_row():
    assert live_row(PATH, {"metrics": {"text": {"a.b": "x" * 204_800}}})


@pytest.mark.parametrize("document", [{}, {"text": "hello"}, {"metrics": {}, "text": "hello"}], ids=str)
def test_what_has_no_sign_of_glean_is_not_taken_for_a_ping_of_it(document):
    assert rejected_row(PATH, document)["error_type"] == "unknown_document_type"


def test_another_version_than_glean_s_is_not_a_ping_of_it():
    row = rejected_row(generic_path("an-application", "its-own-ping", "2"), glean_document())
    assert row["error_type"] == "unknown_document_type"


def test_where_clients_may_not_invent_types_namespaces_of_glean_are_named(tmp_path):
    shutil.copytree(ConversionSettings().schemas_directory, tmp_path / "schemas")
    shutil.rmtree(tmp_path / "schemas" / "any")
    converter = Converter(
        settings(schemas_directory=tmp_path / "schemas", glean_namespaces={"an-application", "lake-demo"})
    )
    assert rejected_row(generic_path("other", "baseline"), glean_document(), converter)["error_type"] == (
        "unknown_document_type"
    )
    for document in (glean_document(), {}):
        for name in ("its-own-ping", "another"):
            assert live_row(generic_path("an-application", name), document, converter)
    assert rejected_row(PATH, {"text": "hello"}, converter)["schema_path"] == "/additionalProperties"
    # A type with a schema of its own keeps it.
    assert live_row(generic_path("lake-demo", "greeting"), {"text": "hello"}, converter)


def test_namespaces_of_glean_need_its_schema(tmp_path):
    (tmp_path / "include").mkdir()
    with pytest.raises(ConfigurationError, match=r"glean\.json cannot be read"):
        Converter(settings(schemas_directory=tmp_path, glean_namespaces={"a"}))


TIMING, MEMORY = (
    FUNCTIONAL_RANGES[kind] for kind in (HistogramType.TIMING_DISTRIBUTION, HistogramType.MEMORY_DISTRIBUTION)
)


@pytest.mark.parametrize("read", READERS)
def test_distributions_are_histograms_by_the_names_of_their_metrics(read):
    document = glean_document(metrics=glean_metrics(5))
    row = live_row(PATH, document, Converter(settings(), read_histograms=read))
    found = {(each["name"], each["key"]): each for each in row["histograms"]}
    assert len(found) == len(row["histograms"]) == 13
    timing = found["kinds.timing", None]
    assert [
        timing[name] for name in ("process", "histogram_type", "bucket_count", "range_low", "range_high")
    ] == [
        "parent",
        6,
        TIMING.bucket_count,
        TIMING.low,
        TIMING.high,
    ]
    assert (timing["buckets"], timing["counts"], timing["sum"]) == (
        "961548,19951584,827968132",
        "1,1,6",
        921_000_005,
    )
    assert {key: each["histogram_type"] for key, each in found.items()} == {
        ("kinds.timing", None): 6,
        ("kinds.empty", None): 6,
        ("kinds.labeled_timing", "one"): 6,
        ("kinds.labeled_timing", "two"): 6,
        ("kinds.dual_timing", "key|category"): 6,
        ("kinds.dual_timing", "key|other"): 6,
        ("kinds.dual_timing", "next|category"): 6,
        ("kinds.memory", None): 7,
        ("kinds.labeled_memory", ""): 7,
        ("kinds.dual_memory", "key|category"): 7,
        ("kinds.custom", None): 8,
        ("kinds.labeled_custom", "two"): 8,
        ("kinds.dual_custom", "key|category"): 8,
    }
    assert row["unknown_histograms"] == 1, "a label that cannot be told from two"
    assert restore_document(row) == document


@pytest.mark.parametrize(
    "sent, parameters",
    [
        ({"values": {"961548": 1}}, (TIMING.bucket_count, TIMING.low, TIMING.high)),
        ({"values": {"961549": 1}}, (0, 0, 0)),
        ({"values": {"13": 0, "1000005": 1}, "range": [1, 1000], "histogram_type": "linear"}, (0, 0, 0)),
        ({"values": {str(2**63 - 1): 2**63 - 1}, "sum": 2**70}, (0, 0, 0)),
        ({"values": {str(bound): 1.0 for bound in range(20, 20 + BUCKETS_MAX_COUNT)}}, (0, 0, 0)),
        ({"values": {str(bound): 1 for bound in range(BUCKETS_MAX_COUNT + 1)}}, None),
        ({"values": {str(2**63): 1}}, None),
        ({"values": {"1": 2**63}}, None),
        ({"values": {"01": 1}}, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_buckets_are_glean_s_or_those_that_were_sent(sent, parameters):
    document = {"metrics": {"timing_distribution": {"page.load": sent}}}
    row = live_row(PATH, document)
    found = [(one["bucket_count"], one["range_low"], one["range_high"]) for one in row["histograms"]]
    assert found == ([] if parameters is None else [parameters])
    assert row["unknown_histograms"] == (parameters is None)
    assert restore_document(row) == document


@pytest.mark.parametrize("count, stage", [(10_000, None), (10_001, "convert")])
def test_a_ping_has_as_many_distributions_as_histograms(count, stage):
    by_label: dict[str, object] = {str(number): {"values": {}} for number in range(count)}
    document = {"metrics": {"labeled_timing_distribution": {"page.load": by_label}}}
    if stage is None:
        assert len(live_row(PATH, document)["histograms"]) == count
    else:
        row = rejected_row(PATH, document)
        assert (row["error_type"], row["stage"]) == ("too_costly", stage)
