"""Finding metrics in spite of typing errors."""

import pytest

from telemetry_lake.dashboard.cubes import Metric
from telemetry_lake.dashboard.search import QUERY_MAX_CHARACTERS, MetricIndex

NAMES = {
    "GC_MS": "Time spent running JavaScript garbage collection (ms)",
    "GC_REASON_2": "Reason for which a garbage collection was started",
    "FX_TAB_SWITCH_TOTAL_E10S_MS": "Time from the switch of tabs until the new tab is painted",
    "MEMORY_RESIDENT_FAST": "Resident memory (KB)",
    "HTTP_RESPONSE_VERSION": "Protocol version of the response",
    "CYCLE_COLLECTOR": "Time spent on one cycle collection (ms)",
}


@pytest.fixture(scope="module")
def index() -> MetricIndex:
    return MetricIndex(
        Metric(name, "histogram", "linear", False, text, (), (), (), None, None, pings, 1, None)
        for pings, (name, text) in enumerate(NAMES.items())
    )


@pytest.mark.parametrize(
    "query,name",
    [
        ("GC_MS", "GC_MS"),
        ("gc ms", "GC_MS"),
        ("gcsm", "GC_MS"),
        ("tabswich", "FX_TAB_SWITCH_TOTAL_E10S_MS"),
        ("memory rezident", "MEMORY_RESIDENT_FAST"),
        ("htp response", "HTTP_RESPONSE_VERSION"),
        ("cycle colector", "CYCLE_COLLECTOR"),
        ("painted", "FX_TAB_SWITCH_TOTAL_E10S_MS"),
    ],
)
def test_the_metric_that_is_meant_comes_first(index: MetricIndex, query: str, name: str) -> None:
    assert next(metric.name for metric in index.search(query, limit=5)) == name


def test_words_of_descriptions_may_be_misspelt(index: MetricIndex) -> None:
    assert {metric.name for metric in index.search("garbge colection", limit=2)} == {"GC_MS", "GC_REASON_2"}


def test_what_is_like_nothing_finds_nothing(index: MetricIndex) -> None:
    assert index.search("zzqqxxyy", limit=5) == []
    assert index.similar("zzqqxxyy", limit=5) == []


def test_without_a_query_those_with_most_pings_come(index: MetricIndex) -> None:
    assert [metric.name for metric in index.search(" ", limit=2)] == [
        "CYCLE_COLLECTOR",
        "HTTP_RESPONSE_VERSION",
    ]


def test_a_wrong_name_gets_similar_ones_and_a_long_one_is_cut(index: MetricIndex) -> None:
    assert index.similar("GC_SM", limit=3)[0] == "GC_MS"
    assert index.search("q" * 10 * QUERY_MAX_CHARACTERS, limit=5) == []
