"""What a reader asks for: every wrong parameter gets a sentence that says what is possible."""

from datetime import date

import pytest

from telemetry_lake.dashboard.format import View
from telemetry_lake.dashboard.selection import (
    VALUE_MAX_CHARACTERS,
    VALUES_MAX_COUNT,
    BadSelection,
    Weight,
    parse_selection,
)

TODAY = date(2026, 11, 22)


def test_everything_that_can_be_asked_for() -> None:
    selection = parse_selection(
        [
            ("metric", "GC_MS"),
            *(("channel", channel) for channel in ("nightly", "beta", "nightly", "")),
            ("versions", "118..121"),
            ("key", ""),
            ("rest", "1"),
            ("by", "submission"),
            ("dates", "yesterday..today"),
            ("compare", "os"),
            ("weight", "client"),
            ("definition", "exponential.1.1000.50"),
            ("percentiles", "99.9, 50"),
            ("trim", "1"),
            ("cumulative", "1"),
        ],
        today=TODAY,
    )
    assert selection.filters["channel"] == ("nightly", "beta")
    assert selection.keys == ("",)
    assert (str(selection.versions), str(selection.dates)) == ("118..121", "2026-11-21..2026-11-22")
    assert (selection.view, selection.weight, selection.compare) == (View.SUBMISSION, Weight.CLIENT, "os")
    assert str(selection.definition) == "exponential.1.1000.50"
    assert selection.percents == (50.0, 99.9)
    assert selection.trim
    assert selection.with_rest


@pytest.mark.parametrize(
    "pairs,sentence",
    [
        ([], "the parameter metric is missing"),
        ([("metric", "A"), ("metric", "B")], "metric is given 2 times; at most 1"),
        ([("chanel", "nightly")], "no parameter “chanel”: did you mean channel"),
        ([("versions", "../")], "versions is “../”: expected a version such as 120.0"),
        ([("versions", "121..118")], "118 is before 121: the lowest comes first"),
        ([("dates", "2026-02-30")], "'2026-02-30' is not a date"),
        ([("dates", "2026-02-02..2026-01-01")], "2026-01-01 is before 2026-02-02"),
        ([("by", "builds")], "by is “builds”, and possible are build, submission"),
        ([("compare", "key")], "compare is “key”, and possible are channel, application"),
        ([("weight", "x")], "possible are samples, client"),
        ([("definition", "1-2")], "expected kind.low.high.buckets"),
        ([("definition", "exponential.a.2.3")], "expected kind.low.high.buckets"),
        ([("percentiles", "5,50th")], "“50th”, and possible are 0.1, 1, 5"),
        ([("trim", "yes")], "possible are 0, 1"),
        ([("os", "x" * (VALUE_MAX_CHARACTERS + 1))], "os has 201 characters; at most 200"),
        ([("os", str(n)) for n in range(VALUES_MAX_COUNT + 1)], "os is given 21 times; at most 20"),
    ],
)
def test_what_cannot_be_understood_gets_a_sentence(pairs: list[tuple[str, str]], sentence: str) -> None:
    metric = [] if not pairs or pairs[0][0] == "metric" else [("metric", "GC_MS")]
    with pytest.raises(BadSelection) as error:
        parse_selection([*metric, *pairs], today=TODAY)
    assert sentence in str(error.value)
    assert len(str(error.value)) < 300


def test_the_longest_value_and_the_most_values_are_possible() -> None:
    values = [str(number) * 2 for number in range(10, 10 + VALUES_MAX_COUNT - 1)]
    selection = parse_selection(
        [("metric", "GC_MS"), *(("os", value) for value in values), ("os", "x" * VALUE_MAX_CHARACTERS)],
        today=TODAY,
    )
    assert len(selection.filters["os"]) == VALUES_MAX_COUNT
