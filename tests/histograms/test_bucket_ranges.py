"""Bucket bounds as Firefox computes them, and the arithmetic of definitions."""

import json
import math
from bisect import bisect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake_testing.ping_builders import DEFINITIONS
from telemetry_lake.histograms.bounds_kernels import exponential_bounds, linear_bounds
from telemetry_lake.histograms.bucket_ranges import (
    ARITHMETIC_MAX_CHARACTERS,
    BUCKETS_MAX_COUNT,
    FUNCTIONAL_RANGES,
    RANGE_MAX,
    BucketRange,
    HistogramType,
    NoBuckets,
    bucket_bounds,
    evaluate_parameter,
    has_sent_buckets,
    sent_buckets,
)
from telemetry_lake.histograms.definitions import parse_definitions

EXPONENTIAL, LINEAR = HistogramType.EXPONENTIAL, HistogramType.LINEAR


@pytest.mark.parametrize(
    "of,bounds",
    [
        (BucketRange(HistogramType.BOOLEAN, 1, 2, 3), (0, 1, 2)),
        (BucketRange(HistogramType.FLAG, 5, 9, 7), (0, 1, 2)),
        (BucketRange(HistogramType.COUNT, 1, 2, 3), (0, 1, 2)),
        (BucketRange(LINEAR, 1, 5, 6), (0, 1, 2, 3, 4, 5)),
        (BucketRange(LINEAR, 1, 100, 10), (0, 1, 13, 26, 38, 51, 63, 75, 88, 100)),
        (BucketRange(LINEAR, 0, 10, 5), (0, 1, 4, 7, 10)),
        (BucketRange(HistogramType.CATEGORICAL, 1, 3, 4), (0, 1, 2, 3)),
        # From Firefox's own tests of telemetry in 2013.
        (BucketRange(EXPONENTIAL, 1, 3000, 10), (0, 1, 3, 8, 21, 57, 154, 414, 1114, 3000)),
        (BucketRange(EXPONENTIAL, 1, 5, 5), (0, 1, 2, 3, 5)),
        (BucketRange(EXPONENTIAL, 1, 3, 6), (0, 1, 2, 3, 4, 5)),
    ],
)
def test_bounds(of, bounds):
    assert bucket_bounds(of) == bounds


TIMING, MEMORY = HistogramType.TIMING_DISTRIBUTION, HistogramType.MEMORY_DISTRIBUTION


@pytest.mark.parametrize(
    "kind, bounds",
    [
        # Of samples 1, 2, 3 and 10 minutes (ns), and 1, 2 and 3 s, in the tests of the Glean SDK.
        (TIMING, {0, 1, 2, 3, 599512966122, 984625593, 1969251187, 2784941737}),
        # Of 1, 20 and 830 ms in a ping of Glean.js, and whole powers of two.
        (TIMING, {961548, 19951584, 827968132, 536870912, 1073741824, 17179869184, 4683695047}),
        # Of 1, 2 and 3 KiB, and of 1 TB, which is the most, in the tests of the SDK.
        (MEMORY, {0, 1, 1023, 2047, 3024, 2**40 - 1}),
        (MEMORY, {65535, 101070, 2097151}),
    ],
)
def test_bounds_of_glean_are_those_that_clients_send(kind, bounds):
    assert bounds <= set(bucket_bounds(FUNCTIONAL_RANGES[kind]))


@pytest.mark.parametrize("kind, magnitude, last", [(TIMING, 8, 8259638134547689), (MEMORY, 16, 2**40 - 1)])
def test_bounds_of_glean_ascend_and_are_so_many_for_each_power_of_two(kind, magnitude, last):
    found = FUNCTIONAL_RANGES[kind]
    bounds = bucket_bounds(found)
    assert (bounds[0], found.low, found.high, found.bucket_count) == (0, bounds[1], last, len(bounds))
    assert bounds[-1] == last
    assert list(bounds) == sorted(set(bounds))
    for power in range(10, 40):
        assert sum(2**power <= bound + 1 < 2 ** (power + 1) for bound in bounds) == magnitude
    with pytest.raises(NoBuckets, match="Glean"):
        bucket_bounds(found._replace(bucket_count=found.bucket_count - 1))


@given(st.integers(1, 2**53 - 2**50))
def test_a_sample_is_in_the_bucket_of_glean_that_holds_it(sample):
    bounds = bucket_bounds(FUNCTIONAL_RANGES[TIMING])
    base = 2 ** (1 / 8)
    bucket = int(base ** int(math.log(sample + 1) / math.log(base)))
    # One off where the logarithm of a bound is rounded.
    assert bucket in bounds
    assert bucket in (bounds[bisect(bounds, sample + 1) - 1], bounds[bisect(bounds, sample) - 1])


@pytest.mark.parametrize("kind", HistogramType)
def test_buckets_that_were_sent_are_not_computed(kind):
    is_distribution = kind in (TIMING, MEMORY, HistogramType.CUSTOM_DISTRIBUTION)
    assert has_sent_buckets(sent_buckets(kind)) == is_distribution
    if is_distribution:
        with pytest.raises(NoBuckets):
            bucket_bounds(sent_buckets(kind))


def test_real_ping_has_only_buckets_of_its_definitions():
    definitions = parse_definitions(next(DEFINITIONS.rglob("Histograms.json")).read_bytes())
    assert len(definitions) == 524
    assert definitions.range_of("MEMORY_VSIZE") == BucketRange(EXPONENTIAL, 32 * 1024, 16 * 1024**2, 100)
    assert definitions.range_of("A11Y_CONSUMERS") == BucketRange(LINEAR, 1, 11, 12)
    assert definitions.range_of("STARTUP_A11Y_CONSUMERS") == BucketRange(LINEAR, 1, 11, 12)
    # Its number of values is a constant of the source code.
    assert definitions.range_of("GC_REASON_2") is None
    assert "STARTUP_NOBODY" not in definitions
    with pytest.raises(KeyError):
        definitions.range_of("NOBODY")


@given(st.integers(1, 1_000), st.integers(1, 2**31 - 1_001), st.integers(3, BUCKETS_MAX_COUNT))
def test_bounds_ascend_from_nothing(low, more, bucket_count):
    for kind in (EXPONENTIAL, LINEAR):
        bounds = bucket_bounds(BucketRange(kind, low, low + more, bucket_count))
        assert bounds[:2] == (0, low)
        assert len(bounds) == bucket_count
        assert list(bounds) == sorted(bounds)
        if more >= bucket_count:
            assert bounds[-1] == low + more


@pytest.mark.parametrize("kind", [EXPONENTIAL, LINEAR])
def test_ranges_at_their_limits_and_one_past_them(kind):
    assert len(bucket_bounds(BucketRange(kind, 1, RANGE_MAX, BUCKETS_MAX_COUNT))) == BUCKETS_MAX_COUNT
    assert len(bucket_bounds(BucketRange(kind, 1, 2, 3))) == 3
    for wrong in (
        BucketRange(kind, 1, RANGE_MAX, BUCKETS_MAX_COUNT + 1),
        BucketRange(kind, 1, RANGE_MAX + 1, 10),
        BucketRange(kind, 1, 2, 2),
        BucketRange(kind, 2, 2, 3),
    ):
        with pytest.raises(NoBuckets):
            bucket_bounds(wrong)


@pytest.mark.parametrize(
    "parameter,value",
    [
        (12, 12),
        ("12", 12),
        (" 16 * 1024 ", 16_384),
        ("16*1024*1024", 16_777_216),
        ("80 + 1", 81),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("10 - 2 - 3", 5),
        ("-3 + 5", 2),
        ("100 / 5 / 2", 10),
        ("(((7)))", 7),
    ],
)
def test_parameters(parameter, value):
    assert evaluate_parameter(parameter) == value


@pytest.mark.parametrize(
    "parameter",
    [
        *(None, True, 1.5, [], "", " ", "x", "1 +", "* 2", "(1", "1)", "1 2", "7 / 2", "1 / 0", "2 ** 3"),
        *(
            "__import__('os')",
            "JS::gcreason::NUM_TELEMETRY_REASONS",
            "1_000",
            "0x10",
            "1e3",
            "\uff11",
            "2(3)",
        ),
        "1" + "+1" * (ARITHMETIC_MAX_CHARACTERS // 2),
    ],
)
def test_parameters_that_are_no_whole_number(parameter):
    with pytest.raises(NoBuckets):
        evaluate_parameter(parameter)


def test_longest_arithmetic():
    assert evaluate_parameter("1" * 2 + "+1" * (ARITHMETIC_MAX_CHARACTERS // 2 - 1)) == 60


def test_categorical_histograms_have_room_for_more_labels():
    definitions = parse_definitions(
        json.dumps(
            {
                "FEW": {"kind": "categorical", "labels": ["a", "b"]},
                "MORE": {"kind": "categorical", "labels": ["a"], "n_values": "30 + 40"},
                "LOW": {"kind": "linear", "low": 0, "high": 10, "n_buckets": 5},
                "STRANGE": {"kind": "strange"},
                "NO_OBJECT": 3,
            }
        ).encode()
    )
    assert definitions.range_of("FEW") == BucketRange(HistogramType.CATEGORICAL, 1, 50, 51)
    assert definitions.range_of("MORE") == BucketRange(HistogramType.CATEGORICAL, 1, 70, 71)
    assert definitions.range_of("LOW") == BucketRange(LINEAR, 1, 10, 5)
    assert definitions.range_of("STRANGE") is None
    assert "NO_OBJECT" not in definitions


@given(st.integers(1, RANGE_MAX - 1), st.integers(2, RANGE_MAX), st.integers(3, BUCKETS_MAX_COUNT))
def test_compiled_bounds_are_those_of_python(low, high, bucket_count):
    low, high = sorted((low, high))
    if low == high:
        low -= 1
    kernels: Any = {EXPONENTIAL: exponential_bounds, LINEAR: linear_bounds}
    for kind, bounds in kernels.items():
        expected = bounds.py_func(low, high, bucket_count).tolist()
        assert bucket_bounds(BucketRange(kind, low, high, bucket_count)) == tuple(expected)
