"""The buckets of a histogram: the lower bound of each, computed as Firefox computes them.

Formulas: `exponential_buckets` and `linear_buckets` of Firefox's
`toolkit/components/telemetry/build_scripts/mozparsers/parse_histograms.py`, which repeat
`base::Histogram::InitializeBucketRange` and `LinearHistogram::InitializeBucketRange`. The first bucket
starts at 0 and takes what is below the range, the last one what is above it. A lower end below 1 is
taken as 1, as `Telemetry::HistogramGet` does before it makes a histogram.

Glean's distributions say no parameters. Those of time and memory have *functional* buckets, n for each power
of two, without end: `Functional` in `glean-core/src/histogram/functional.rs` of
https://github.com/mozilla/glean. Here they end at a bound, `FUNCTIONAL_RANGES`. The bounds of a custom
distribution are known to its application alone. It has those that were sent, and so has a distribution with a
bucket that is not one of the functional ones: `sent_buckets`.
"""

import math
import re
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

BUCKETS_MAX_COUNT: Final = 1_100
"""No histogram of Firefox has more than 1,002 buckets; a larger one would only cost time and memory."""
BUCKETS_MIN_COUNT: Final = 3
RANGE_MAX: Final = 2**31 - 1
CATEGORICAL_MIN_VALUES: Final = 50
"""Firefox gives a histogram of labels this many values at least, so that labels can be added."""
RANGES_REMEMBERED: Final = 2_048

ARITHMETIC_MAX_CHARACTERS: Final = 100
_TOKEN: Final = re.compile(r"\s*(?:([0-9]+)|([-+*/()]))")


class HistogramType(IntEnum):
    """The kinds of histograms: Firefox's by their numbers in pings (nsITelemetry.idl), Glean's, and measures.

    Measures are values that were put into buckets here (`measures`): no ping has a histogram of such a kind.
    """

    EXPONENTIAL = 0
    LINEAR = 1
    BOOLEAN = 2
    FLAG = 3
    COUNT = 4
    CATEGORICAL = 5
    TIMING_DISTRIBUTION = 6
    """Of nanoseconds."""
    MEMORY_DISTRIBUTION = 7
    """Of bytes."""
    CUSTOM_DISTRIBUTION = 8
    SCALAR = 16
    SIMPLE_MEASUREMENT = 17
    COUNTER = 18
    QUANTITY = 19
    TIMESPAN = 20
    RATE = 21
    TRUTH = 22


class BucketRange(NamedTuple):
    """The parameters that decide the bounds of all buckets."""

    histogram_type: HistogramType
    low: int
    high: int
    bucket_count: int


class NoBuckets(ValueError):
    """No buckets can be computed from these parameters."""


_DISTRIBUTIONS: Final = frozenset(
    {
        HistogramType.TIMING_DISTRIBUTION,
        HistogramType.MEMORY_DISTRIBUTION,
        HistogramType.CUSTOM_DISTRIBUTION,
    }
)
_FUNCTIONAL_MAGNITUDES: Final = {HistogramType.TIMING_DISTRIBUTION: 8, HistogramType.MEMORY_DISTRIBUTION: 16}
"""Buckets for each power of two."""
_FUNCTIONAL_ENDS: Final = {HistogramType.TIMING_DISTRIBUTION: 2**53, HistogramType.MEMORY_DISTRIBUTION: 2**40}
"""Glean takes a sample of more than 2^40 bytes as that. 2^53 ns are 104 days, and numbers in JavaScript are
exact up to there; what a client takes at most depends on the metric, 10 minutes or more."""
_SMALL_SAMPLES: Final = 1_024
"""Above, every step of the exponent makes a bucket; below, some hold no whole number."""


def _functional_bounds(magnitude: int, end: int) -> tuple[int, ...]:
    """Return the lower bounds of the buckets for samples up to `end`, with the rounding errors of Glean."""
    base = 2.0 ** (1.0 / magnitude)

    def index_of(sample: int) -> int:
        return int(math.log(float(sample + 1)) / math.log(base))

    bounds = {0, *(int(base ** index_of(sample)) for sample in range(1, _SMALL_SAMPLES))}
    bounds.update(int(base**index) for index in range(index_of(_SMALL_SAMPLES), index_of(end) + 1))
    return tuple(sorted(bounds))


_FUNCTIONAL_BOUNDS: Final = {
    kind: _functional_bounds(magnitude, _FUNCTIONAL_ENDS[kind])
    for kind, magnitude in _FUNCTIONAL_MAGNITUDES.items()
}
FUNCTIONAL_RANGES: Final[Mapping[HistogramType, BucketRange]] = {
    kind: BucketRange(kind, bounds[1], bounds[-1], len(bounds)) for kind, bounds in _FUNCTIONAL_BOUNDS.items()
}
"""All of Glean's functional buckets that are known here, in the parameters of a histogram of Firefox."""


def sent_buckets(kind: HistogramType) -> BucketRange:
    """Return the range that stands for the lower bounds that were sent, whichever they are."""
    return BucketRange(kind, 0, 0, 0)


def has_sent_buckets(bucket_range: BucketRange) -> bool:
    """Return whether the lower bounds that were sent are the buckets."""
    return bucket_range == sent_buckets(bucket_range.histogram_type) and is_distribution(
        bucket_range.histogram_type
    )


def is_distribution(kind: int) -> bool:
    """Return whether histograms of this type are distributions of Glean."""
    return kind in _DISTRIBUTIONS


MEASURE_RANGES: Final = {
    # The first two are those of mozilla/python_mozaggregator.
    HistogramType.SCALAR: BucketRange(HistogramType.SCALAR, 1, 10_000, 100),
    HistogramType.SIMPLE_MEASUREMENT: BucketRange(HistogramType.SIMPLE_MEASUREMENT, 1, 30_000, 50),
    # Glean's may be bytes or milliseconds of a week; each bucket is a sixth wider than the one before.
    HistogramType.COUNTER: BucketRange(HistogramType.COUNTER, 1, 10**9, 150),
    HistogramType.QUANTITY: BucketRange(HistogramType.QUANTITY, 1, 10**9, 150),
    HistogramType.TIMESPAN: BucketRange(HistogramType.TIMESPAN, 1, 10**9, 150),
    HistogramType.RATE: BucketRange(HistogramType.RATE, 1, 100, 101),
    HistogramType.TRUTH: BucketRange(HistogramType.TRUTH, 1, 2, 3),
}
"""The buckets of each kind of measure."""
_THREE_BUCKETS: Final = (
    HistogramType.BOOLEAN,
    HistogramType.FLAG,
    HistogramType.COUNT,
    HistogramType.TRUTH,
)
_LINEAR: Final = (HistogramType.LINEAR, HistogramType.CATEGORICAL, HistogramType.RATE)


def sent_type(number: int) -> HistogramType:
    """Return the kind of histogram with this number in a ping. Raises ValueError when there is none."""
    kind = HistogramType(number)
    if kind in MEASURE_RANGES:
        raise ValueError(f"no ping has a histogram of the kind {number}")
    return kind


@lru_cache(maxsize=RANGES_REMEMBERED)
def bucket_bounds(bucket_range: BucketRange) -> tuple[int, ...]:
    """Return the lower bound of every bucket, ascending from 0.

    Boolean, flag and count histograms and truth values have the buckets 0, 1 and 2 whatever their parameters.
    Raises NoBuckets when the parameters are out of range.
    """
    if bucket_range.histogram_type in _THREE_BUCKETS:
        return (0, 1, 2)
    if is_distribution(bucket_range.histogram_type):
        if bucket_range != FUNCTIONAL_RANGES.get(bucket_range.histogram_type):
            raise NoBuckets("these are not the parameters of Glean's functional buckets")
        return _FUNCTIONAL_BOUNDS[bucket_range.histogram_type]
    kind = bucket_range.histogram_type
    if kind in MEASURE_RANGES and bucket_range != MEASURE_RANGES[kind]:
        raise NoBuckets(f"{bucket_range} is not the range of the kind of measure {kind.name}")
    low = max(1, bucket_range.low)
    if not BUCKETS_MIN_COUNT <= bucket_range.bucket_count <= BUCKETS_MAX_COUNT:
        raise NoBuckets(
            f"{bucket_range.bucket_count} buckets, not {BUCKETS_MIN_COUNT} to {BUCKETS_MAX_COUNT}"
        )
    if not low < bucket_range.high <= RANGE_MAX:
        raise NoBuckets(f"the range {bucket_range.low} to {bucket_range.high} is not inside 1 to {RANGE_MAX}")
    from telemetry_lake.histograms.bounds_kernels import exponential_bounds, linear_bounds

    if bucket_range.histogram_type in _LINEAR:
        return tuple(linear_bounds(low, bucket_range.high, bucket_range.bucket_count).tolist())
    return tuple(exponential_bounds(low, bucket_range.high, bucket_range.bucket_count).tolist())


@lru_cache(maxsize=len(FUNCTIONAL_RANGES))
def bound_set(bucket_range: BucketRange) -> frozenset[int]:
    """Return the lower bounds of functional buckets, to ask whether one is among them."""
    return frozenset(bucket_bounds(bucket_range))


def evaluate_parameter(parameter: object) -> int:
    """Return the whole number that a parameter of a definition stands for.

    A number, a numeric string, or arithmetic with `+ - * /` and parentheses (`"16 * 1024"`); division
    must leave no remainder. Raises NoBuckets for anything else.
    """
    if isinstance(parameter, bool) or not isinstance(parameter, int | str):
        raise NoBuckets(f"{parameter!r} is neither a whole number nor arithmetic")
    if isinstance(parameter, int):
        return parameter
    return _Arithmetic(parameter).value()


class _Arithmetic:
    """A parser by recursive descent of `term (+|- term)*`, `factor (*|/ factor)*`, `-factor`, `(…)`."""

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > ARITHMETIC_MAX_CHARACTERS:
            raise NoBuckets(f"{text[:20]!r}… is longer than {ARITHMETIC_MAX_CHARACTERS} characters")
        self._tokens: list[str] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._malformed()
            self._tokens.append(match[1] or match[2])
            position = match.end()
        self._tokens.reverse()

    def value(self) -> int:
        value = self._sum()
        if self._tokens:
            raise self._malformed()
        return value

    def _sum(self) -> int:
        value = self._product()
        while self._tokens and self._tokens[-1] in "+-":
            value = value + self._product() if self._tokens.pop() == "+" else value - self._product()
        return value

    def _product(self) -> int:
        value = self._factor()
        while self._tokens and self._tokens[-1] in "*/":
            if self._tokens.pop() == "*":
                value *= self._factor()
                continue
            divisor = self._factor()
            if divisor == 0 or value % divisor:
                raise self._malformed()
            value //= divisor
        return value

    def _factor(self) -> int:
        symbol = self._tokens.pop() if self._tokens else ""
        if symbol == "-":
            return -self._factor()
        if symbol == "(":
            value = self._sum()
            if not self._tokens or self._tokens.pop() != ")":
                raise self._malformed()
            return value
        if not symbol.isdigit():
            raise self._malformed()
        return int(symbol)

    def _malformed(self) -> NoBuckets:
        return NoBuckets(f"{self._text!r} is not arithmetic with a whole result")
