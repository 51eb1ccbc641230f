"""What is derived from what was sent: every expression over a column."""

from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telemetry_lake.convert.derivation.derived import (
    decisions,
    dimension,
    normalized_channel,
    normalized_os,
    sample_id,
    sorted_runs,
    submission_date,
)
from telemetry_lake.convert.derivation.dimensions import (
    OTHER,
    UNKNOWN,
    AllowedRange,
    DimensionRule,
    load_dimensions,
)
from telemetry_lake.settings import ConversionSettings


def derived_value(expression, **sent):
    """What `expression` makes of one row."""
    types = {name: pl.String for name, value in sent.items() if value is None}
    return (
        pl.DataFrame({name: [value] for name, value in sent.items()}, schema_overrides=types)
        .select(expression)
        .item()
    )


@pytest.mark.parametrize(
    "channel,normalized",
    [
        ("release", "release"),
        ("ESR", "esr"),
        ("beta-cck-partner", "beta"),
        ("nightly", "nightly"),
        ("aurora", "aurora"),
        ("default", "Other"),
        ("nightly-try", "Other"),
        ("", "Other"),
        (None, "Other"),
    ],
)
def test_normalized_channel(channel, normalized):
    assert derived_value(normalized_channel(), app_update_channel=channel) == normalized


@pytest.mark.parametrize(
    "name,normalized",
    [
        ("WINNT", "Windows"),
        ("Windows_NT", "Windows"),
        ("Darwin", "Mac"),
        ("macOS", "Mac"),
        ("Linux", "Linux"),
        ("GNU/Linux", "Linux"),
        ("Android", "Android"),
        ("iOS", "iOS"),
        ("FreeBSD", "Other"),
        (None, "Other"),
    ],
)
def test_normalized_os(name, normalized):
    assert derived_value(normalized_os(), os=name) == normalized


def test_sample_id_is_the_crc_of_the_lower_case_id():
    # crc32 of "123456789" is 0xCBF43926, the check value of the algorithm.
    assert derived_value(sample_id(), client_id="123456789") == 0xCBF43926 % 100
    assert derived_value(sample_id(), client_id="C0FFEE") == derived_value(sample_id(), client_id="c0ffee")
    assert derived_value(sample_id(), client_id=None) is None
    ids = pl.DataFrame({"client_id": ["a", None, "A", "b"]})
    assert ids.select(sample_id()).to_series().to_list() == [7, None, 7, 81]


def test_submission_date_is_that_of_utc():
    time = datetime(2026, 11, 23, 23, 59, 59, 999_999, tzinfo=UTC)
    assert derived_value(submission_date(), submission_timestamp=time) == date(2026, 11, 23)


NUMBERS = st.text("0123456789_.eE+-:@~ infatyINFATY", min_size=1, max_size=8)


@given(
    st.lists(NUMBERS | st.floats().map(str) | st.text(max_size=4), min_size=1, max_size=30),
    st.tuples(st.none() | st.integers(-5, 2_000), st.none() | st.floats(-5, 1e6)).filter(any)
    | st.tuples(st.none() | st.text(max_size=3), st.none() | st.text(max_size=3)).filter(
        lambda ends: ends != (None, None)
    ),
)
@example(["12 ", "1_000", "1_0_0", "nan", "inf", "1e3", "0x1", "7"], (0, None))
def test_a_range_means_the_same_for_a_column_and_for_one_value(values, ends):
    allowed = AllowedRange(min=ends[0], max=ends[1])
    anything = dimension(DimensionRule(field_name="reason", allowed_values="*"))
    inside = dimension(DimensionRule(field_name="reason", allowed_values=allowed))
    sent = pl.DataFrame({"reason": values}, schema={"reason": pl.String})
    for value, safe, stored in zip(
        values, *(sent.select(one).to_series() for one in (anything, inside)), strict=True
    ):
        assert stored == (value if safe == value and allowed.allows(value) else OTHER)


@given(st.lists(st.none() | st.text(max_size=6) | st.sampled_from(["release", "a/b"]), min_size=1))
def test_one_value_is_decided_as_its_column_is(values):
    rules = load_dimensions(ConversionSettings().dimensions_file)
    rule = rules.rule("app_update_channel")
    column = pl.DataFrame({rule.field_name: values}, schema={rule.field_name: pl.String}).select(
        dimension(rule)
    )
    decide = decisions(rules)[rule.field_name]
    for value, stored in zip(values, column.to_series(), strict=True):
        assert stored == decide(UNKNOWN if value is None else value)


def test_rows_of_several_tables_are_sorted_stably_and_nulls_come_first():
    first = pl.DataFrame({"day": [2, 1, 2, 2], "name": ["b", "a", None, "b"]})
    second = pl.DataFrame({"day": [1, 2], "name": ["a", "b"]})
    assert sorted_runs([first, second]).rows() == [
        (1, "a", 0, [1]),
        (1, "a", 1, [0]),
        (2, None, 0, [2]),
        (2, "b", 0, [0, 3]),
        (2, "b", 1, [1]),
    ]
