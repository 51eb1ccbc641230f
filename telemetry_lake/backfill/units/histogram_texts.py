"""Write the canonical text of the histograms of many rows, compiled to machine code (numba).

Nine tenths of a document are histograms, and putting each together from its columns as Python objects, to
write it as text after that, is most of what verifying costs. Here the text is written out of the columns.
It is what `digest.canonical_text` makes of what `stored.restored_histogram` gives for a row that left nothing
behind in its document; a row for which that is not certain is said to be unusual.
"""

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from telemetry_lake.numba_options import Integer, compiled, compiled_in_place

Text: TypeAlias = NDArray[np.uint8]

SUMS_IN_ORDER: Final = ("log_sum", "log_sum_squares", "sum", "sum_squares_hi", "sum_squares_lo")
"""The sums in the order of canonical text."""
WHOLE_MAX: Final = 1e15
"""A larger sum may be written with an exponent, which canonical text does not have."""

_SUMS_BEFORE_RANGE: Final = 2
_FIXED_MAX_BYTES: Final = 256
"""Names of fields, brackets and four integers."""
_BUCKET_MAX_BYTES: Final = 36
_DIGITS_MAX: Final = 10
_POWERS_OF_TEN: Final = np.array([10**power for power in range(_DIGITS_MAX + 1)], np.int64)


class Parameter(IntEnum):
    """Columns of `Histograms.parameters`."""

    BUCKET_COUNT = 0
    TYPE = 1
    LOW = 2
    HIGH = 3


class Histograms(NamedTuple):
    """The histograms of many rows; nothing in them is null."""

    parameters: NDArray[np.int64]
    """(histograms, len(Parameter))"""
    offsets: NDArray[np.int32]
    """(histograms + 1,): where the buckets and counts of each begin."""
    buckets: NDArray[np.int64]
    """(samples,)"""
    counts: NDArray[np.int64]
    """(samples,)"""
    has_sum: NDArray[np.bool_]
    """(histograms, len(SUMS_IN_ORDER)): which sums each has."""
    sums: Text
    """(bytes,): these sums, one after another, as a JSON list."""


class Segments(NamedTuple):
    """Where the buckets with each number of digits begin and end; each of shape (_DIGITS_MAX + 1,)."""

    firsts: NDArray[np.int64]
    ends: NDArray[np.int64]


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


_COUNT_FIELD: Final = _bytes('{"bucket_count":')
_TYPE_FIELD: Final = _bytes(',"histogram_type":')
_RANGE_FIELD: Final = _bytes(',"range":[')
_VALUES_FIELD: Final = _bytes(',"values":{')
_SUM_FIELDS: Final = _bytes("".join(f',"{name}":' for name in SUMS_IN_ORDER))
_SUM_FIELD_ENDS: Final = np.cumsum([0, *(len(name) + 4 for name in SUMS_IN_ORDER)])

_0 = np.uint64(0)
_1 = np.uint64(1)
_2 = np.uint64(2)
_10 = np.uint64(10)
_DIGIT_ZERO = np.uint64(48)
_QUOTE = 34
_COMMA = 44
_MINUS = 45
_DOT = 46
_ZERO = 48
_COLON = 58
_CLOSE_LIST = 93
_CLOSE = 125


def histogram_texts(
    parameters: NDArray[np.int64],
    offsets: NDArray[np.int32],
    buckets: NDArray[np.int64],
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> tuple[bytes, list[int], NDArray[np.bool_]]:
    """Return the texts of all histograms behind each other, where each ends, and which are as usual.

    `sums`, (histograms, len(SUMS_IN_ORDER)), has -1 where a sum is absent; the others are as in `Histograms`.
    """
    rows = len(parameters)
    present = sums != -1.0
    numbers = orjson.dumps(sums[present], option=orjson.OPT_SERIALIZE_NUMPY)
    usual: NDArray[np.bool_] = np.all(np.abs(sums) < WHOLE_MAX, axis=1)
    out = np.empty(
        rows * _FIXED_MAX_BYTES + int(offsets[-1] - offsets[0]) * _BUCKET_MAX_BYTES + len(numbers), np.uint8
    )
    ends = np.empty(rows, np.int64)
    histograms = Histograms(parameters, offsets, buckets, counts, present, np.frombuffer(numbers, np.uint8))
    segments = Segments(np.empty(_DIGITS_MAX + 1, np.int64), np.empty(_DIGITS_MAX + 1, np.int64))
    _write(histograms, segments, out, ends, usual)
    return out[: ends[-1] if rows else 0].tobytes(), ends.tolist(), usual


@compiled
def _put(out: Text, at: np.uint64, text: Text, start: Integer, end: Integer) -> np.uint64:
    """Write a stretch of `text`; return what is behind it."""
    for index in range(start, end):
        out[at] = text[index]
        at += _1
    return at


@compiled
def _put_integer(out: Text, at: np.uint64, value: Integer) -> np.uint64:
    """Write an integer; return what is behind it."""
    rest = np.uint64(value)
    if value < 0:
        out[at] = _MINUS
        at += _1
        rest = _0 - rest
    end = at + _1
    bound = rest
    while bound >= _10:
        bound //= _10
        end += _1
    place = end
    while place > at:
        place -= _1
        out[place] = rest % _10 + _DIGIT_ZERO
        rest //= _10
    return end


@compiled
def _put_number(out: Text, at: np.uint64, numbers: Text, place: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Write one of the numbers, without a fraction of zero; return its end, and where the next begins."""
    start = at
    while numbers[place] != _COMMA and numbers[place] != _CLOSE_LIST:
        out[at] = numbers[place]
        at += _1
        place += _1
    if at - start > 2 and out[at - _1] == _ZERO and out[at - _2] == _DOT:
        at -= _2
        if at - start == 2 and out[start] == _MINUS and out[start + _1] == _ZERO:
            out[start] = _ZERO
            at -= _1
    return at, place + _1


@compiled_in_place
def _find_segments(buckets: NDArray[np.int64], start: Integer, end: Integer, segments: Segments) -> Integer:
    """Find the segments of the buckets from `start` to `end`, and return the largest number of digits.

    Returns 0 when the buckets do not ascend.
    """
    digits = 1
    segments.firsts[1] = start
    below = np.int64(-1)
    for index in range(start, end):
        bucket = np.int64(buckets[index])
        if bucket <= below:
            return 0
        below = bucket
        while digits < _DIGITS_MAX and bucket >= _POWERS_OF_TEN[digits]:
            segments.ends[digits] = index
            digits += 1
            segments.firsts[digits] = index
    segments.ends[digits] = end
    return digits


@compiled_in_place
def _take_next(buckets: NDArray[np.int64], segments: Segments, digits: Integer) -> Integer:
    """Take the bucket whose text comes next out of its segment, and return its index."""
    least = np.int64(0)
    next_segment = 0
    for segment in range(1, digits + 1):
        if segments.firsts[segment] < segments.ends[segment]:
            bucket = np.int64(buckets[segments.firsts[segment]])
            # Both begin with the same digits when one is the other with zeros behind it.
            aligned = (bucket * _POWERS_OF_TEN[_DIGITS_MAX - segment]) * 16 + segment
            if next_segment == 0 or aligned < least:
                least = aligned
                next_segment = segment
    index = segments.firsts[next_segment]
    segments.firsts[next_segment] = index + 1
    return np.int64(index)


@compiled
def _put_buckets(
    out: Text,
    at: np.uint64,
    histograms: Histograms,
    start: Integer,
    end: Integer,
    segments: Segments,
) -> tuple[np.uint64, bool]:
    """Write the buckets in the order of their text; return what is behind them, and whether they ascend.

    They ascend, so those with the same number of digits are in order; these segments are merged.
    """
    digits = _find_segments(histograms.buckets, start, end, segments)
    if digits == 0:
        return at, False
    for number in range(end - start):
        index = _take_next(histograms.buckets, segments, digits)
        if number:
            out[at] = _COMMA
            at += _1
        out[at] = _QUOTE
        at = _put_integer(out, at + _1, np.int64(histograms.buckets[index]))
        out[at] = _QUOTE
        out[at + _1] = _COLON
        at = _put_integer(out, at + _2, histograms.counts[index])
    return at, True


@compiled
def _write(
    histograms: Histograms, segments: Segments, out: Text, ends: NDArray[np.int64], usual: NDArray[np.bool_]
) -> None:
    """Write all texts to `out`, and where each ends to `ends`; note in `usual` which have odd buckets."""
    at = _0
    place = _1
    parameters, offsets = histograms.parameters, histograms.offsets
    for row in range(parameters.shape[0]):
        at = _put(out, at, _COUNT_FIELD, 0, _COUNT_FIELD.size)
        at = _put_integer(out, at, parameters[row, Parameter.BUCKET_COUNT])
        at = _put(out, at, _TYPE_FIELD, 0, _TYPE_FIELD.size)
        at = _put_integer(out, at, parameters[row, Parameter.TYPE])
        for field in range(histograms.has_sum.shape[1]):
            if field == _SUMS_BEFORE_RANGE:
                at = _put(out, at, _RANGE_FIELD, 0, _RANGE_FIELD.size)
                at = _put_integer(out, at, parameters[row, Parameter.LOW])
                out[at] = _COMMA
                at = _put_integer(out, at + _1, parameters[row, Parameter.HIGH])
                out[at] = _CLOSE_LIST
                at += _1
            if histograms.has_sum[row, field]:
                at = _put(out, at, _SUM_FIELDS, _SUM_FIELD_ENDS[field], _SUM_FIELD_ENDS[field + 1])
                at, place = _put_number(out, at, histograms.sums, place)
        at = _put(out, at, _VALUES_FIELD, 0, _VALUES_FIELD.size)
        at, ascend = _put_buckets(
            out, at, histograms, np.int64(offsets[row]), np.int64(offsets[row + 1]), segments
        )
        if not ascend:
            usual[row] = False
        out[at] = _CLOSE
        out[at + _1] = _CLOSE
        at += _2
        ends[row] = np.int64(at)
