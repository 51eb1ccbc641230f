"""Values of documents as histograms with one sample: which count, as what, and what clients cannot do."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake_testing.plain_measures import MILLISECONDS, plain_measures
from telemetry_lake.histograms import measures
from telemetry_lake.histograms.bucket_ranges import MEASURE_RANGES, HistogramType, bucket_bounds, sent_type
from telemetry_lake.histograms.measures import (
    KEY_MAX_CHARACTERS,
    KEYS_MAX_COUNT,
    NAME_MAX_CHARACTERS,
    VALUE_MAX,
    VALUES_MAX_COUNT,
    read_measures,
)

Row = dict[str, Any]

numbers: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 300),
    st.integers(-5, 2**64),
    st.floats(-2, 1e18, allow_nan=False),
    st.booleans(),
    st.sampled_from([None, "text", [], 2**44, 2**44 + 1, 10**25]),
)
names = st.sampled_from(["a.b", "A.B", "firstPaint", "js", "js_x", "ü", "", "x y", "n" * 120, "n" * 121])
values = st.dictionaries(names, st.one_of(numbers, st.dictionaries(names, numbers, max_size=3)), max_size=6)
processes = st.dictionaries(
    st.sampled_from(["parent", "content", "Gpu", "not a process"]),
    st.one_of(numbers, st.fixed_dictionaries({}, optional={"scalars": values, "keyedScalars": values})),
    max_size=3,
)
timespans = st.fixed_dictionaries(
    {}, optional={"value": numbers, "time_unit": st.sampled_from([*MILLISECONDS, "fortnight", 3])}
)
rates = st.fixed_dictionaries({}, optional={"numerator": numbers, "denominator": numbers})
dual = st.dictionaries(names, st.one_of(numbers, st.dictionaries(names, values, max_size=2)), max_size=2)
kinds = ("counter", "quantity", "boolean")
metrics = st.fixed_dictionaries(
    {},
    optional={
        **{f"{prefix}{kind}": values for kind in kinds for prefix in ("", "labeled_")},
        "dual_labeled_counter": dual,
        "timespan": st.dictionaries(names, st.one_of(numbers, timespans), max_size=3),
        "rate": st.dictionaries(names, st.one_of(numbers, rates), max_size=3),
        "string": values,
    },
)
payloads = st.fixed_dictionaries(
    {}, optional={"processes": st.one_of(processes, numbers), "simpleMeasurements": values}
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "payload": st.one_of(payloads, numbers),
        "simpleMeasurements": st.one_of(values, numbers),
        "metrics": st.one_of(metrics, numbers),
        "environment": values,
    },
)


def measures_of(*texts: str) -> list[list[Row]]:
    rows: list[list[Row]] = read_measures(text.encode() for text in texts).to_pylist()
    return rows


def by_measure(rows: list[Row]) -> list[Row]:
    names = ("process", "name", "key", "histogram_type")
    return sorted(rows, key=lambda row: json.dumps([row[name] for name in names]))


def counters(sent: Any) -> str:
    return json.dumps({"metrics": {"counter": sent}})


def named(rows: list[Row]) -> dict[str, float]:
    return {row["name"]: row["sum"] for row in rows}


@settings(max_examples=200, deadline=None)
@given(st.lists(documents, max_size=5))
def test_skimming_finds_what_the_plain_way_finds(sent: list[Any]):
    texts = [json.dumps(document) for document in sent]
    # Twice, because what is known already is taken in bulk.
    found = measures_of(*texts, *texts)
    expected = [by_measure(plain_measures(text)) for text in texts]
    assert [by_measure(rows) for rows in found] == expected * 2


def test_each_family_has_its_names_buckets_and_units():
    document = {
        "payload": {
            "processes": {
                "parent": {"scalars": {"browser.tabs": 10_001, "a11y.on": True, "theme": "dark"}},
                "gpu": {"keyedScalars": {"telemetry.events": {"ü#1": 20}}},
            },
            "simpleMeasurements": {"firstPaint": 30_000, "js": {"setProto": 0}, "addons": [1]},
        },
        "metrics": {
            "counter": {"tabs.opened": 3},
            "labeled_counter": {"http.version": {"h2": 7}},
            "dual_labeled_counter": {"tls.used": {"1.3": {"ech": 2}}},
            "labeled_boolean": {"sites.seen": {"shop": False}},
            "quantity": {"gfx.ram": 2**44},
            "timespan": {
                "start.time": {"value": 2_999_999, "time_unit": "nanosecond"},
                "start.days": {"value": 2, "time_unit": "day"},
            },
            "rate": {
                "cache.hits": {"numerator": 5, "denominator": 3},
                "never": {"numerator": 1, "denominator": 0},
            },
        },
    }
    (rows,) = measures_of(json.dumps(document))
    shown = ("process", "name", "key", "histogram_type", "buckets", "sum")
    assert sorted((tuple(row[name] for name in shown) for row in rows), key=str) == sorted(
        [
            ("parent", "SCALARS_BROWSER.TABS", None, 16, "10000", 10_001),
            ("parent", "SCALARS_A11Y.ON", None, 22, "1", 1),
            ("gpu", "SCALARS_TELEMETRY.EVENTS", "ü#1", 16, "19", 20),
            ("parent", "SIMPLE_MEASURES_FIRSTPAINT", None, 17, "30000", 30_000),
            ("parent", "SIMPLE_MEASURES_JS_SETPROTO", None, 17, "0", 0),
            ("parent", "tabs.opened", None, 18, "3", 3),
            ("parent", "http.version", "h2", 18, "7", 7),
            ("parent", "tls.used", "1.3|ech", 18, "2", 2),
            ("parent", "sites.seen", "shop", 22, "0", 0),
            ("parent", "gfx.ram", None, 19, "1000000000", 2**44),
            ("parent", "start.time", None, 20, "2", 2),
            ("parent", "start.days", None, 20, "156306154", 172_800_000),
            ("parent", "cache.hits", None, 21, "100", 166),
        ],
        key=str,
    )


def test_values_that_no_measure_has_leave_no_trace():
    sent = {"zero": 0, "most": VALUE_MAX, "half": 0.5, "negative": -1, "more": VALUE_MAX + 1, "huge": 10**400}
    (rows,) = measures_of(counters(sent))
    assert named(rows) == {"zero": 0, "most": VALUE_MAX, "half": 0}
    # Nor when their names are known already, and all are taken in bulk.
    later = [{"a": VALUE_MAX + 1, "b": 3}, {"a": -1, "b": 4}, {"a": VALUE_MAX, "b": 5}, {"a": True, "b": 6}]
    found = measures_of(*map(counters, [{"a": 1, "b": 2}, *later]))
    assert [named(each) for each in found[1:]] == [
        {"b": 3},
        {"b": 4},
        {"a": VALUE_MAX, "b": 5},
        {"a": 1, "b": 6},
    ]
    # With a number of thousands of digits, none of its kind can be read; the other kinds can.
    text = json.dumps({"metrics": {"counter": {"a": 1, "b": "DIGITS"}, "quantity": {"c": 2}}})
    (rows,) = measures_of(text.replace('"DIGITS"', "9" * 5_000))
    assert named(rows) == {"c": 2}


def test_names_and_keys_have_a_longest():
    longest, too_long = "n" * NAME_MAX_CHARACTERS, "n" * (NAME_MAX_CHARACTERS + 1)
    (rows,) = measures_of(counters({longest: 1, too_long: 2, "": 3, "a b": 4, "ü": 5}))
    assert named(rows) == {longest: 1}
    keys = {"k" * KEY_MAX_CHARACTERS: 1, "k" * (KEY_MAX_CHARACTERS + 1): 2, "": 3}
    (rows,) = measures_of(json.dumps({"metrics": {"labeled_counter": {"a": keys}}}))
    assert {row["key"]: row["sum"] for row in rows} == {"k" * KEY_MAX_CHARACTERS: 1, "": 3}
    part = {"scalars": {"a": 1}}
    processes = {"p" * 20: part, "p" * 21: part, "": part}
    (rows,) = measures_of(json.dumps({"payload": {"processes": processes}}))
    assert [row["process"] for row in rows] == ["p" * 20]


def test_of_a_ping_the_first_values_and_keys_count():
    at_limit = {f"n{number}": number for number in range(VALUES_MAX_COUNT)}
    beyond = {**at_limit, "one.more": 1}
    found = measures_of(*map(counters, [{"one.more": 1}, at_limit, beyond, beyond]))
    assert [named(rows) for rows in found[1:]] == [at_limit] * 3
    keys = {f"k{number}": 1 for number in range(KEYS_MAX_COUNT + 1)}
    metrics = {"labeled_counter": {"a": keys}, "labeled_quantity": {"a": {"k": 1}}}
    (rows,) = measures_of(json.dumps({"metrics": metrics}))
    assert [row["key"] for row in rows] == [*list(keys)[:KEYS_MAX_COUNT], "k"]


def test_of_measures_that_clients_make_up_those_stay_that_most_pings_have(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measures, "DEFINITIONS_MAX_COUNT", 3)
    real = {"a": 1, "b": 2}
    texts = [counters({**real, **{f"x{ping}.{number}": 1 for number in range(5)}}) for ping in range(20)]
    found = measures_of(*texts, counters({"c": 3, **real}))
    for rows in found:
        assert {name: value for name, value in named(rows).items() if name in real} == real
    assert len({row["name"] for rows in found for row in rows}) == 3


def test_names_that_differ_in_case_alone_are_one_measure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measures, "_SENT_NAMES_MAX_COUNT", 4)
    cases = ("ab", "Ab", "aB", "AB")
    texts = []
    for first in range(4):
        scalars = {name: 1 + number for number, name in enumerate(cases[first:] + cases[:first])}
        texts.append(json.dumps({"payload": {"processes": {"parent": {"scalars": scalars}}}}))
    assert [named(rows) for rows in measures_of(*texts)] == [{"SCALARS_AB": 1}] * 4
    # Nor is what they were sent as kept without a limit.
    reader = measures._Reader()
    for text in texts:
        reader.read(text.encode())
        assert not reader._number_of


@pytest.mark.parametrize(
    "document, expected",
    [
        (r'{"metrics":{"counter":{"a":1}},"x":"\ud800","y":"\ud83d\ude00 \\ud800"}', {"a": 1}),
        (r'{"metrics":{"counter":{"a":1},"labeled_counter":{"b":{"\udc00":2}}}}', {"a": 1, "b": 2}),
        ('{"metrics":{"counter":{"a":1}},"x":' + "[" * 300 + "]" * 300 + "}", {"a": 1}),
        ('{"metrics":{"counter":{"a":1}},"x":' + "[" * 100_000 + "]" * 100_000 + "}", {}),
        ('{"metrics":{"counter":{"a":1},"counter":{"b":2}}}', {"b": 2}),
        (r'{"m\u0065trics":{"counter":{"a":1}}}', {"a": 1}),
        ('{"metrics":{"counter":[1]},"payload":[]}', {}),
        ("{}", {}),
    ],
)
def test_documents_that_are_hard_to_read(document: str, expected: dict[str, int]):
    (rows,) = measures_of(document)
    assert named(rows) == expected


def test_no_client_sends_a_histogram_of_the_kind_of_a_measure():
    assert [sent_type(number) for number in range(6)] == list(HistogramType)[:6]
    for kind in MEASURE_RANGES:
        assert len(bucket_bounds(MEASURE_RANGES[kind])) == MEASURE_RANGES[kind].bucket_count
        with pytest.raises(ValueError, match="no ping has"):
            sent_type(int(kind))
