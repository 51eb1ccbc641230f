"""The buckets of a histogram: the lower bound of each, computed as Firefox computes them.

Formulas: `exponential_buckets` and `linear_buckets` of Firefox's
`toolkit/components/telemetry/build_scripts/mozparsers/parse_histograms.py`, which repeat
`base::Histogram::InitializeBucketRange` and `LinearHistogram::InitializeBucketRange`. The first bucket
starts at 0 and takes what is below the range, the last one what is above it. A lower end below 1 is
taken as 1, as `Telemetry::HistogramGet` does before it makes a histogram.
"""

import re
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
    """The numbers by which a ping tells what kind a histogram is (nsITelemetry.idl)."""

    EXPONENTIAL = 0
    LINEAR = 1
    BOOLEAN = 2
    FLAG = 3
    COUNT = 4
    CATEGORICAL = 5


class BucketRange(NamedTuple):
    """What the bounds of all buckets follow from."""

    histogram_type: HistogramType
    low: int
    high: int
    bucket_count: int


class NoBuckets(ValueError):
    """No buckets can be computed from these parameters."""


@lru_cache(maxsize=RANGES_REMEMBERED)
def bucket_bounds(of: BucketRange) -> tuple[int, ...]:
    """The lower bound of every bucket, ascending from 0.

    Boolean, flag and count histograms have the buckets 0, 1 and 2 whatever else is said of them.
    Raises NoBuckets when the parameters are out of all reason.
    """
    if of.histogram_type in (HistogramType.BOOLEAN, HistogramType.FLAG, HistogramType.COUNT):
        return (0, 1, 2)
    low = max(1, of.low)
    if not BUCKETS_MIN_COUNT <= of.bucket_count <= BUCKETS_MAX_COUNT:
        raise NoBuckets(f"{of.bucket_count} buckets, not {BUCKETS_MIN_COUNT} to {BUCKETS_MAX_COUNT}")
    if not low < of.high <= RANGE_MAX:
        raise NoBuckets(f"the range {of.low} to {of.high} is not inside 1 to {RANGE_MAX}")
    from telemetry_lake.convert.compiled_bounds import exponential_bounds, linear_bounds

    if of.histogram_type is HistogramType.EXPONENTIAL:
        return tuple(exponential_bounds(low, of.high, of.bucket_count).tolist())
    return tuple(linear_bounds(low, of.high, of.bucket_count).tolist())


def evaluate_parameter(parameter: object) -> int:
    """The whole number that a parameter of a definition stands for.

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
