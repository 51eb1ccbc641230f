"""Bucket bounds as Firefox computes them, and the arithmetic of definitions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.convert.bucket_ranges import (
    ARITHMETIC_MAX_CHARACTERS,
    BUCKETS_MAX_COUNT,
    RANGE_MAX,
    BucketRange,
    HistogramType,
    NoBuckets,
    bucket_bounds,
    evaluate_parameter,
)
from telemetry_lake.convert.compiled_bounds import exponential_bounds, linear_bounds
from telemetry_lake.convert.histogram_definitions import parse_definitions
from tests.convert.ping_builders import DEFINITIONS

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
    for kind, bounds in ((EXPONENTIAL, exponential_bounds), (LINEAR, linear_bounds)):
        expected = bounds.py_func(low, high, bucket_count).tolist()
        assert bucket_bounds(BucketRange(kind, low, high, bucket_count)) == tuple(expected)
