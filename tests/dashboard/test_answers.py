"""Answers against SQL over the aggregates that the cubes are made of, for all that can be asked for."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake_testing.aggregate_rows import (
    FIRST,
    KEYS,
    LAST,
    aggregate_rows,
    aggregate_tables,
    definitions_of,
    queried,
)
from lake_testing.cube_sets import make_cubes
from lake_testing.stack import Lake
from telemetry_lake.dashboard.answers import SERIES_MAX_COUNT, Thresholds, distribution, evolution
from telemetry_lake.dashboard.cubes import CubeLimits, Cubes
from telemetry_lake.dashboard.format import View
from telemetry_lake.dashboard.local_copy import LocalCopy
from telemetry_lake.dashboard.old_service import OldAggregates, aggregates, json_bytes
from telemetry_lake.dashboard.resolve import Resolved, UnknownMetric, resolve
from telemetry_lake.dashboard.search import MetricIndex
from telemetry_lake.dashboard.selection import PERCENTS, parse_selection
from telemetry_lake.dashboard.shown_sql import distribution_sql, evolution_sql
from telemetry_lake.query.statements import single_query
from telemetry_lake.storage.object_store import ObjectStore

TODAY = date(2026, 10, 10)
NO_THRESHOLDS = Thresholds({}, 0)
LIMITS = CubeLimits(2, 10, 30, 256 * 2**20)
MANY_KEYS = 230
GLEAN = ["page.load", "page.images"]
"""With functional buckets, and with those that clients sent."""
MEASURES = ["SCALARS_BROWSER.TABS", "tabs.restored"]
"""Numbers and truth values that were put into buckets."""


@pytest.fixture(scope="module")
def rows() -> dict[date, list[dict[str, Any]]]:
    return aggregate_rows(many_keys=MANY_KEYS)


@pytest.fixture(scope="module")
def table(rows: dict[date, list[dict[str, Any]]]) -> Iterator[duckdb.DuckDBPyConnection]:
    with queried(rows) as connection:
        yield connection


@pytest.fixture(scope="module")
def cubes(
    new_lake: Any, rows: dict[date, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cubes]:
    lake: Lake = new_lake()
    make_cubes(lake.settings, aggregate_tables(rows), definitions=definitions_of)
    folder: Path = tmp_path_factory.mktemp("copy")
    copy = LocalCopy(ObjectStore(lake.settings.s3), lake.settings.s3.lake_bucket, folder, LIMITS)
    assert copy.refresh()
    with copy.opened() as opened:
        yield opened
    copy.close()


def resolved(cubes: Cubes, **parameters: Any) -> Resolved:
    pairs = [
        (name, str(each))
        for name, value in parameters.items()
        for each in (value if isinstance(value, list | tuple) else [value])
    ]
    index = MetricIndex(cubes.metrics.values())
    return resolve(cubes, index, parse_selection(pairs, today=TODAY))


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, max_size=2, unique=True)


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """Parameters of any metric with any filters."""
    question: dict[str, Any] = {
        "metric": draw(
            st.sampled_from(
                [
                    "GC_MS",
                    "CYCLE_COLLECTOR",
                    "GC_REASON",
                    "E10S_STATUS",
                    "SEARCH_LATENCY_MS",
                    *GLEAN,
                    *MEASURES,
                ]
            )
        ),
        "channel": draw(maybe(st.sampled_from(["nightly", "beta", "release"]))),
        "os": draw(maybe(st.sampled_from(["Windows", "Mac", "Linux"]))),
        "architecture": draw(maybe(st.sampled_from(["x86-64", "unknown"]))),
        "process": draw(maybe(st.sampled_from(["parent", "content"]))),
        "by": draw(st.sampled_from(["build", "submission"])),
        "weight": draw(st.sampled_from(["samples", "client"])),
        "compare": draw(st.sampled_from(["", "channel", "version", "os", "architecture", "process"])),
        "versions": draw(st.sampled_from(["", "120", "119..121", "120.0b2..121.0a1"])),
        "percentiles": ",".join(f"{percent:g}" for percent in PERCENTS),
    }
    if question["metric"] == "SEARCH_LATENCY_MS":
        question["key"] = draw(maybe(st.sampled_from([*KEYS, "rare-0003"])))
        question["rest"] = draw(st.sampled_from(["0", "1"]))
    if draw(st.booleans()):
        first = FIRST + timedelta(days=draw(st.integers(0, 8)))
        question["dates"] = f"{first}..{min(LAST, first + timedelta(days=draw(st.integers(0, 8))))}"
    return question


def found(table: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    result = table.execute(single_query(table, sql))
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions())
def test_a_distribution_has_the_numbers_of_its_sql(
    cubes: Cubes, table: duckdb.DuckDBPyConnection, question: dict[str, Any]
) -> None:
    asked = resolved(cubes, **question)
    answer = distribution(cubes, asked, NO_THRESHOLDS)
    lines = (
        [] if asked.reason else found(table, distribution_sql(cubes, asked, answer.definition, NO_THRESHOLDS))
    )
    if answer.reason is not None:
        assert not lines
        assert answer.reason.sentence.endswith(".")
        return
    by_series: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in lines:
        names = list(answer.series[0].group)
        by_series.setdefault(tuple(line[name] for name in names), []).append(line)
    if not answer.series_left_out:
        with_samples = [series for series in answer.series if series.totals.samples]
        assert set(by_series) == {tuple(series.group.values()) for series in with_samples}
    for series in answer.series[:SERIES_MAX_COUNT]:
        expected = by_series.get(tuple(series.group.values()), [])
        filled = [
            (bucket.start, bucket.end, count, weight, share)
            for bucket, count, weight, share in zip(
                answer.buckets, series.counts, series.weights, series.shares, strict=True
            )
            if count
        ]
        assert [(start, end, count) for start, end, count, _, _ in filled] == [
            (line["start"], line["end"], line["samples"]) for line in expected
        ]
        weight = "weight" if question["weight"] == "client" else "samples"
        for (_, _, _, weighed, share), line in zip(filled, expected, strict=True):
            assert weighed == pytest.approx(float(line[weight]))
            assert share == pytest.approx(float(line["share"]))
            assert (series.totals.pings, series.totals.clients) == (line["pings"], line["client_days"])
            if series.totals.mean is not None:
                assert series.totals.mean == pytest.approx(float(line["mean"]))
        values = list(series.percentiles.values())
        assert all(lower <= higher for lower, higher in pairwise(values))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions())
def test_an_evolution_has_the_numbers_of_its_sql(
    cubes: Cubes, table: duckdb.DuckDBPyConnection, question: dict[str, Any]
) -> None:
    asked = resolved(cubes, **question)
    answer = evolution(cubes, asked, NO_THRESHOLDS)
    lines = (
        [] if asked.reason else found(table, evolution_sql(cubes, asked, answer.definition, NO_THRESHOLDS))
    )
    if answer.reason is not None:
        assert not lines
        return
    names = list(answer.series[0].group)
    expected = {(*(line[name] for name in names), line["date"]): line for line in lines}
    shown = {
        (*series.group.values(), day): (series, place)
        for series in answer.series
        for place, day in enumerate(answer.dates)
        if series.pings[place] is not None
    }
    if answer.series_left_out:
        expected = {key: line for key, line in expected.items() if key in shown}
    assert set(shown) == set(expected)
    for key, (series, place) in shown.items():
        line = expected[key]
        assert (series.pings[place], series.clients[place], series.samples[place]) == (
            line["pings"],
            line["client_days"],
            line["samples"],
        )
        mean = series.means[place]
        if mean is not None:
            assert mean == pytest.approx(float(line["mean"]))
        for name, values in series.percentiles.items():
            if values[place] is not None:
                assert values[place] == pytest.approx(float(line[f"p{name.replace('.', '_')}"]))


def test_definitions_are_never_mixed_and_the_newest_is_shown(cubes: Cubes) -> None:
    asked = resolved(cubes, metric="CYCLE_COLLECTOR")
    newest = distribution(cubes, asked, NO_THRESHOLDS)
    assert [str(used.definition) for used in newest.definitions] == [
        "exponential.1.5000.15",
        "exponential.1.10000.20",
    ]
    assert str(newest.definition) == "exponential.1.5000.15"
    older = distribution(
        cubes,
        resolved(cubes, metric="CYCLE_COLLECTOR", definition="exponential.1.10000.20"),
        NO_THRESHOLDS,
    )
    assert older.series[0].last_date is not None
    assert newest.series[0].first_date is not None
    pings = [used.pings for used in newest.definitions]
    assert [newest.series[0].totals.pings, older.series[0].totals.pings] == pings


def test_names_have_shares_and_neither_percentiles_nor_means(cubes: Cubes) -> None:
    answer = distribution(cubes, resolved(cubes, metric="GC_REASON"), NO_THRESHOLDS)
    assert not answer.has_percentiles
    assert [bucket.label for bucket in answer.buckets] == ["API", "EAGER", "LAST_DITCH"]
    assert answer.series[0].totals.mean is None
    assert sum(answer.series[0].shares) == pytest.approx(1)
    over_time = evolution(cubes, resolved(cubes, metric="GC_REASON"), NO_THRESHOLDS)
    assert set(over_time.series[0].shares) == {"API", "EAGER", "LAST_DITCH"}


def test_truth_values_of_measures_are_called_no_and_yes(cubes: Cubes) -> None:
    answer = distribution(cubes, resolved(cubes, metric="tabs.restored"), NO_THRESHOLDS)
    assert [bucket.label for bucket in answer.buckets][:2] == ["no", "yes"]
    metric = cubes.metrics["tabs.restored"]
    assert (metric.family, metric.kind) == ("boolean", "boolean")


def test_the_most_common_keys_are_shown_when_none_is_chosen(cubes: Cubes) -> None:
    asked = resolved(cubes, metric="SEARCH_LATENCY_MS")
    assert asked.chosen_here == ("ping", "channel", "key")
    answer = distribution(cubes, asked, NO_THRESHOLDS)
    assert [series.group["key"] for series in answer.series] == list(asked.selection.keys)
    rest = distribution(cubes, resolved(cubes, metric="SEARCH_LATENCY_MS", rest=1), NO_THRESHOLDS)
    assert [series.name for series in rest.series] == ["other keys"]


def test_trimmed_buckets_are_counted(cubes: Cubes) -> None:
    whole = distribution(cubes, resolved(cubes, metric="GC_MS"), NO_THRESHOLDS)
    trimmed = distribution(cubes, resolved(cubes, metric="GC_MS", trim=1), NO_THRESHOLDS)
    assert len(trimmed.buckets) + trimmed.trimmed.buckets == len(whole.buckets)
    assert sum(trimmed.series[0].counts) + trimmed.trimmed.samples == whole.series[0].totals.samples
    assert trimmed.series[0].percentiles == whole.series[0].percentiles


def test_what_is_from_too_few_clients_is_hidden_and_said(
    cubes: Cubes, table: duckdb.DuckDBPyConnection
) -> None:
    everything = distribution(cubes, resolved(cubes, metric="GC_MS", compare="channel"), NO_THRESHOLDS)
    clients = {series.name: series.totals.clients for series in everything.series}
    thresholds = Thresholds({"beta": clients["beta"], "nightly": clients["nightly"] + 1}, 0)
    asked = resolved(cubes, metric="GC_MS", compare="channel")
    answer = distribution(cubes, asked, thresholds)
    assert {series.name for series in answer.series} == {"beta", "release"}, "the limit itself is enough"
    assert [(hidden.name, hidden.minimum_clients) for hidden in answer.hidden] == [
        ("nightly", clients["nightly"] + 1)
    ]
    lines = found(table, distribution_sql(cubes, asked, answer.definition, thresholds))
    assert {line["channel"] for line in lines} == {"beta", "release"}
    none = distribution(cubes, resolved(cubes, metric="GC_MS"), Thresholds({}, 10**6))
    assert none.reason is not None
    assert none.reason.code == "below_threshold"
    assert "fewer than 1,000,000 are not shown" in none.reason.sentence
    dates = evolution(cubes, resolved(cubes, metric="GC_MS"), Thresholds({}, 20))
    points = evolution(cubes, resolved(cubes, metric="GC_MS"), NO_THRESHOLDS).series[0].clients
    few = [count for count in points if count is not None and count < 20]
    assert few
    assert [(hidden.dates, hidden.clients) for hidden in dates.hidden] == [(len(few), sum(few))]


@pytest.mark.parametrize(
    "parameters,code,sentence",
    [
        ({"channel": "aurora"}, "no_such_value", "no samples with channel aurora; it has"),
        ({"os": "Haiku"}, "no_such_value", "no samples with os Haiku; it has"),
        (
            {"versions": "7"},
            "no_such_value",
            "no samples of version 7; its versions go from 119.0 to 122.0a1",
        ),
        (
            {"channel": "nightly", "versions": "119"},
            "no_such_combination",
            "with the others as they are, channel can be release",
        ),
        ({"dates": "2020-01-01"}, "no_such_dates", "last seen on 2026-10-09"),
        ({"definition": "linear.1.2.3"}, "no_such_definition", "it has exponential.1.10000.20"),
        ({"ping": "telemetry/crash"}, "no_such_value", "no samples with ping telemetry/crash"),
    ],
)
def test_a_metric_without_data_says_why(
    cubes: Cubes, parameters: dict[str, str], code: str, sentence: str
) -> None:
    answer = distribution(
        cubes, resolved(cubes, metric="GC_MS", by="submission", **parameters), NO_THRESHOLDS
    )
    assert answer.reason is not None
    assert answer.reason.code == code
    assert sentence in answer.reason.sentence
    assert not answer.series


def test_an_unknown_metric_gets_names_that_are_like_it(cubes: Cubes) -> None:
    with pytest.raises(UnknownMetric, match=r"There is no metric “GC_SM”. Did you mean GC_MS\?") as error:
        resolved(cubes, metric="GC_SM")
    assert error.value.suggestions[0] == "GC_MS"


def test_versions_begin_where_they_are_more_than_a_few_pings(cubes: Cubes) -> None:
    answer = evolution(cubes, resolved(cubes, metric="GC_MS", by="submission"), NO_THRESHOLDS)
    assert [(mark.date, mark.version) for mark in answer.marks] == [(FIRST + timedelta(days=7), "122")]


def test_mozillas_service_answers_the_most_common_labels_that_there_is_room_for(cubes: Cubes) -> None:
    index = MetricIndex(cubes.metrics.values())
    dates = ",".join(f"{FIRST + timedelta(days=number):%Y%m%d}" for number in range(12))
    arguments = [("metric", "SEARCH_LATENCY_MS"), ("version", "122"), ("dates", dates)]

    def asked(max_bytes: int) -> tuple[OldAggregates, int]:
        found = aggregates(cubes, index, View.SUBMISSION, "nightly", arguments, NO_THRESHOLDS, max_bytes)
        return found, json_bytes(asdict(found.answer))

    everything, size = asked(10_000_000)
    pings: Counter[str] = Counter()
    for entry in everything.answer.data:
        pings[entry.label] += entry.count
    common = [label for label, _ in sorted(pings.items(), key=lambda item: (-item[1], item[0] or "(empty)"))]
    assert everything.labels_left_out == 0
    assert list(dict.fromkeys(entry.label for entry in everything.answer.data)) == common
    assert asked(size)[0] == everything
    less, smaller = asked(size - 1)
    assert less.labels_left_out == 1
    assert smaller < size
    half, half_size = asked(size // 2)
    shown = list(dict.fromkeys(entry.label for entry in half.answer.data))
    assert shown == common[: len(shown)]
    assert len(shown) + half.labels_left_out == len(common)
    assert half_size <= size // 2
    [label] = {entry.label for entry in asked(1)[0].answer.data}
    assert label == common[0], "one label is always there"
