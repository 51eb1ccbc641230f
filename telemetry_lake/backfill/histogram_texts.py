"""The canonical text of the histograms of many rows, compiled to machine code (numba).

Nine tenths of a document are histograms, and putting each together from its columns as Python objects, to
write it as text after that, is most of what verifying costs. Here the text is written out of the columns.
It is what `digest.canonical_text` makes of what `convert.histograms.restored_histogram` gives for a row
that left nothing behind in its document; a row for which that is not certain is said to be unusual.
"""

from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from telemetry_lake.compiled import Array, Integer, Position, Text, compiled

SUMS_IN_ORDER: Final = ("log_sum", "log_sum_squares", "sum", "sum_squares_hi", "sum_squares_lo")
"""The sums in the order of canonical text."""
WHOLE_MAX: Final = 1e15
"""A larger sum may be written with an exponent, which canonical text has not."""

_BUCKET_COUNT, _TYPE, _LOW, _HIGH = range(4)
_SUMS_BEFORE_RANGE: Final = 2
_FIXED_MAX_BYTES: Final = 256
"""Names of fields, brackets and four integers."""
_BUCKET_MAX_BYTES: Final = 36
_DIGITS_MAX: Final = 10
_POWERS_OF_TEN: Final = np.array([10**power for power in range(_DIGITS_MAX + 1)], np.int64)


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
_10 = np.uint64(10)
_DIGIT_ZERO = np.uint64(48)


def histogram_texts(
    parameters: NDArray[np.int64],
    offsets: NDArray[np.int32],
    buckets: NDArray[np.int64],
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> tuple[bytes, list[int], NDArray[np.bool_]]:
    """The text of each histogram behind each other, where each ends, and which are as usual.

    `parameters` has the columns bucket count, type, low and high, `sums` those of SUMS_IN_ORDER; `offsets`
    says where the buckets and counts of each histogram begin and end. Nothing is null.
    """
    rows = len(parameters)
    present = sums != -1.0
    numbers = orjson.dumps(sums[present], option=orjson.OPT_SERIALIZE_NUMPY)
    usual: NDArray[np.bool_] = np.all(np.abs(sums) < WHOLE_MAX, axis=1)
    out = np.empty(
        rows * _FIXED_MAX_BYTES + int(offsets[-1] - offsets[0]) * _BUCKET_MAX_BYTES + len(numbers), np.uint8
    )
    ends = np.empty(rows, np.int64)
    segments = np.empty((2, _DIGITS_MAX + 1), np.int64)
    _write(
        parameters,
        offsets,
        buckets,
        counts,
        present,
        np.frombuffer(numbers, np.uint8),
        segments,
        out,
        ends,
        usual,
    )
    return out[: ends[-1] if rows else 0].tobytes(), ends.tolist(), usual


@compiled
def _put(out: Text, at: Position, text: Text, start: Integer, end: Integer) -> Position:
    for index in range(start, end):
        out[at] = text[index]
        at += _1
    return at


@compiled
def _put_integer(out: Text, at: Position, value: Integer) -> Position:
    rest = np.uint64(value)
    if value < 0:
        out[at] = 45
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
def _put_number(out: Text, at: Position, numbers: Text, place: Position) -> tuple[Position, Position]:
    """One of the numbers, without a fraction of zero; where the next one begins."""
    start = at
    while numbers[place] != 44 and numbers[place] != 93:  # a comma, or the closing bracket
        out[at] = numbers[place]
        at += _1
        place += _1
    if at - start > 2 and out[at - _1] == 48 and out[at - np.uint64(2)] == 46:
        at -= np.uint64(2)
        if at - start == 2 and out[start] == 45 and out[start + _1] == 48:
            out[start] = 48
            at -= _1
    return at, place + _1


@compiled
def _put_buckets(
    out: Text, at: Position, buckets: Array, counts: Array, start: Integer, end: Integer, segments: Array
) -> tuple[Position, bool]:
    """The buckets in the order of their text, and whether they could be brought into it.

    They ascend, so those with the same number of digits are in order; these segments are merged.
    """
    firsts, ends = segments[0], segments[1]
    digits = 1
    firsts[1] = start
    below = np.int64(-1)
    for index in range(start, end):
        bucket = np.int64(buckets[index])
        if bucket <= below:
            return at, False
        below = bucket
        while digits < _DIGITS_MAX and bucket >= _POWERS_OF_TEN[digits]:
            ends[digits] = index
            digits += 1
            firsts[digits] = index
    ends[digits] = end
    for number in range(end - start):
        least = np.int64(0)
        of = 0
        for segment in range(1, digits + 1):
            if firsts[segment] < ends[segment]:
                bucket = np.int64(buckets[firsts[segment]])
                # Both begin with the same digits when one is the other with zeros behind it.
                aligned = (bucket * _POWERS_OF_TEN[_DIGITS_MAX - segment]) * 16 + segment
                if of == 0 or aligned < least:
                    least = aligned
                    of = segment
        index = firsts[of]
        firsts[of] = index + 1
        if number:
            out[at] = 44
            at += _1
        out[at] = 34
        at = _put_integer(out, at + _1, np.int64(buckets[index]))
        out[at] = 34
        out[at + _1] = 58
        at = _put_integer(out, at + np.uint64(2), counts[index])
    return at, True


@compiled
def _write(
    parameters: Array,
    offsets: Array,
    buckets: Array,
    counts: Array,
    present: Array,
    numbers: Text,
    segments: Array,
    out: Text,
    ends: Array,
    usual: Array,
) -> None:
    at = _0
    place = _1
    for row in range(parameters.shape[0]):
        at = _put(out, at, _COUNT_FIELD, 0, _COUNT_FIELD.size)
        at = _put_integer(out, at, parameters[row, _BUCKET_COUNT])
        at = _put(out, at, _TYPE_FIELD, 0, _TYPE_FIELD.size)
        at = _put_integer(out, at, parameters[row, _TYPE])
        for field in range(present.shape[1]):
            if field == _SUMS_BEFORE_RANGE:
                at = _put(out, at, _RANGE_FIELD, 0, _RANGE_FIELD.size)
                at = _put_integer(out, at, parameters[row, _LOW])
                out[at] = 44
                at = _put_integer(out, at + _1, parameters[row, _HIGH])
                out[at] = 93
                at += _1
            if present[row, field]:
                at = _put(out, at, _SUM_FIELDS, _SUM_FIELD_ENDS[field], _SUM_FIELD_ENDS[field + 1])
                at, place = _put_number(out, at, numbers, place)
        at = _put(out, at, _VALUES_FIELD, 0, _VALUES_FIELD.size)
        at, in_order = _put_buckets(
            out, at, buckets, counts, np.int64(offsets[row]), np.int64(offsets[row + 1]), segments
        )
        if not in_order:
            usual[row] = False
        out[at] = 125
        out[at + _1] = 125
        at += np.uint64(2)
        ends[row] = np.int64(at)
