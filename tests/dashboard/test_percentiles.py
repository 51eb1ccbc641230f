"""Percentiles of binned samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.dashboard.percentiles import percentiles

PERCENTS = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9, 100.0)


@st.composite
def histograms(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    bounds = sorted(draw(st.sets(st.integers(0, 2**31 - 1), min_size=3, max_size=30)))
    counts = st.lists(st.integers(0, 2**45), min_size=len(bounds), max_size=len(bounds))
    return bounds, draw(st.lists(counts, min_size=1, max_size=4))


@given(histograms())
def test_a_higher_percentile_is_never_lower_and_each_is_inside_of_its_bucket(
    drawn: tuple[list[int], list[list[int]]],
) -> None:
    bounds, rows = drawn
    answer = percentiles(bounds, np.array(rows, np.int64), PERCENTS)
    for counts, values in zip(rows, answer, strict=True):
        if not sum(counts):
            assert np.isnan(values).all()
            continue
        assert (np.diff(values) >= 0).all()
        for percent, value in zip(PERCENTS, values, strict=True):
            sums = np.cumsum(np.array(counts, np.int64))
            bucket = min(int((sums < sums[-1] * (percent / 100)).sum()), len(bounds) - 1)
            assert counts[bucket] > 0
            assert bounds[bucket] <= value <= bounds[min(bucket + 1, len(bounds) - 1)]


def test_samples_are_spread_evenly_over_their_bucket() -> None:
    [values] = percentiles([0, 10, 30, 100], np.array([[0, 4, 4, 0]]), (25.0, 50.0, 75.0, 100.0))
    assert values.tolist() == [20, 30, 65, 100]


def test_the_last_bucket_has_no_upper_limit_and_gives_its_lower_one() -> None:
    [values] = percentiles([0, 10, 30], np.array([[1, 0, 9]]), (5.0, 50.0, 99.9))
    assert values.tolist() == [pytest.approx(5), 30, 30]
