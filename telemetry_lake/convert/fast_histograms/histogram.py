"""Read one histogram out of the text of a document, compiled to machine code (numba).

Guesses make it fast: pings of one build have the same histograms with the same ranges, and with fields in the
same order. So all the text up to the values is compared with what it was for the range that this label had
last time; only where it differs is it read field by field.
"""

# Written for a compiler: `in` would build tuples.
# ruff: noqa: PLR1714, SIM109

from typing import Final

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.convert.fast_histograms.layout import (
    RANGE_TEXT_BYTES,
    SUMS,
    Field,
    InexactField,
    Limit,
    RangeField,
    Ranges,
    Rows,
    Scratch,
    Status,
    Text,
    Total,
)
from telemetry_lake.convert.fast_histograms.scanner import (
    CLOSE,
    CLOSE_LIST,
    COLON,
    COMMA,
    DOT,
    LOWER_E,
    MINUS,
    OPEN,
    OPEN_LIST,
    QUOTE,
    SPACE,
    UPPER_E,
    ZERO,
    divided,
    more_digits,
    past_colon,
    past_space,
    whole_number,
)
from telemetry_lake.convert.fast_histograms.swar import PADDING_BYTES, put_word, same_text, word_at
from telemetry_lake.numba_options import Integer, compiled, compiled_in_place

_NAMES: Final = (
    b"values",
    b"range",
    b"bucket_count",
    b"histogram_type",
    b"sum",
    b"log_sum",
    b"log_sum_squares",
    b"sum_squares_lo",
    b"sum_squares_hi",
)
NAME_COUNT: Final = len(_NAMES)
_VALUES, _RANGE, _BUCKET_COUNT, _TYPE, _FIRST_SUM = range(5)
_BEFORE_FIRST = NAME_COUNT
_UNKNOWN = -1
# The members that every histogram has, as bits, and these and the sum.
_WITHOUT_SUMS = 1 << _VALUES | 1 << _RANGE | 1 << _BUCKET_COUNT | 1 << _TYPE
_WITH_SUM = _WITHOUT_SUMS | 1 << _FIRST_SUM
_NAME_LENGTHS: Final = np.array([len(name) + 1 for name in _NAMES], np.uint64)
_NAME_WORDS: Final = np.array(
    [
        np.frombuffer(
            (name + b'"').ljust(16, b"\0") + (b"\xff" * (len(name) + 1)).ljust(16, b"\0"), np.uint64
        )
        for name in _NAMES
    ]
)
"""(names, 4): each name's two words, its closing quote included, and which of their bits count."""

_0 = np.uint64(0)
_1 = np.uint64(1)
_WORD_DIGITS = np.uint64(8)
_NINETEEN_DIGITS = np.uint64(19)
_NARROW_MAX = np.uint64(2**31 - 1)
_PADDING = np.uint64(PADDING_BYTES)
_RANGE_TEXT_BYTES = np.uint64(RANGE_TEXT_BYTES)


@compiled_in_place
def read_histogram(
    text: Text, at: np.uint64, likely_range: Integer, rows: Rows, ranges: Ranges, scratch: Scratch
) -> tuple[np.uint64, Status]:
    """Read the histogram whose brace is at `at` into the next row, and count that row.

    Returns what is behind it, and whether all is FINE. `likely_range` is the number of a range.
    """
    totals = scratch.totals
    row = totals[Total.HISTOGRAMS]
    if row >= rows.histograms.shape[0]:
        return _0, Status.FULL_ROWS
    for index in range(SUMS):
        rows.sums[row, index] = -1.0
    seen: Integer = 0
    before: Integer = np.int64(_BEFORE_FIRST)
    sum_start = _0
    sum_end = _0
    totals[Total.VALUES_START] = 0
    values_start = _past_remembered(text, at, likely_range, row, rows, ranges)
    while True:
        if values_start != _0:
            at = past_space(text, values_start)
            values_start = _0
            name: Integer = np.int64(_VALUES)
            seen = _WITH_SUM if ranges.table[likely_range, RangeField.TAIL_LENGTH] else _WITHOUT_SUMS
        else:
            name, at = _read_name(text, past_space(text, at + _1), before, scratch.following_fields)
            if at == _0 or seen & (1 << name):
                return _0, Status.UNUSUAL
            seen |= 1 << name
            if name == _VALUES and (seen == _WITHOUT_SUMS or seen == _WITH_SUM):
                if seen == _WITHOUT_SUMS:
                    sum_start = at
                    sum_end = at
                totals[Total.HEAD_END] = sum_start
                totals[Total.TAIL_START] = sum_end
                totals[Total.VALUES_START] = at
        before = name
        if name == _VALUES:
            at = _read_values(text, at, row, rows, scratch)
        elif name == _RANGE:
            at = _read_range(text, at, row, rows.limits)
        elif name < _FIRST_SUM:
            at = _read_parameter(text, at, row, name, rows.histograms)
        else:
            start = at
            at = _read_sum(text, at, row, name - _FIRST_SUM, rows.sums, scratch)
            if name == _FIRST_SUM:
                sum_start = start
                sum_end = at
        if at == _0:
            return _0, Status.UNUSUAL
        at = past_space(text, at)
        if text[at] == CLOSE:
            break
        # Also ends numbers that go on in an unusual way.
        if text[at] != COMMA:
            return _0, Status.UNUSUAL
    if seen & _WITHOUT_SUMS != _WITHOUT_SUMS:
        return _0, Status.UNUSUAL
    totals[Total.HISTOGRAMS] = row + 1
    return at + _1, Status.FINE


@compiled_in_place
def _read_name(
    text: Text, at: np.uint64, before: Integer, following_fields: NDArray[np.int64]
) -> tuple[Integer, np.uint64]:
    """Return which member of a histogram comes next, and where its value begins; 0 when none is known."""
    if text[at] != QUOTE:
        return np.int64(_UNKNOWN), _0
    start = at + _1
    first_word = word_at(text, start)
    second_word = word_at(text, start + _WORD_DIGITS)
    # The name that came behind the one before, last time; then every name.
    name: Integer = following_fields[before]
    tried = -1
    while (
        (first_word ^ _NAME_WORDS[name, 0]) & _NAME_WORDS[name, 2]
        | (second_word ^ _NAME_WORDS[name, 1]) & _NAME_WORDS[name, 3]
    ) != _0:
        tried += 1
        if tried == NAME_COUNT:
            return np.int64(_UNKNOWN), _0
        name = np.int64(tried)
    following_fields[before] = name
    return name, past_colon(text, start + _NAME_LENGTHS[name])


@compiled_in_place
def _read_values(text: Text, at: np.uint64, row: Integer, rows: Rows, scratch: Scratch) -> np.uint64:
    """Read an object of buckets and counts; return what is behind it, or 0."""
    bucket = _0
    bucket_end = np.uint64(scratch.totals[Total.BUCKET_BYTES])
    count_end = np.uint64(scratch.totals[Total.COUNT_BYTES])
    if text[at] != OPEN:
        return _0
    at = past_space(text, at + _1)
    below = np.int64(-1)
    if text[at] != CLOSE:
        while True:
            if text[at] != QUOTE:
                return _0
            start = at + _1
            value, at = whole_number(text, start)
            if at == _0 or text[at] != QUOTE or np.int64(value) <= below or value > _NARROW_MAX:
                return _0
            below = np.int64(value)
            scratch.buckets[bucket] = below
            bucket += _1
            bucket_end = _with_number(rows.bucket_text, bucket_end, text, start, at - start)
            at += _1
            if text[at] != COLON:
                at = past_space(text, at)
                if text[at] != COLON:
                    return _0
            at += _1
            if text[at] <= SPACE:
                at = past_space(text, at)
            start = at
            value, at = whole_number(text, start)
            if at == _0:
                return _0
            count_end = _with_number(rows.count_text, count_end, text, start, at - start)
            if text[at] <= SPACE:
                at = past_space(text, at)
            if text[at] == COMMA:
                at += _1
                if text[at] <= SPACE:
                    at = past_space(text, at)
            elif text[at] == CLOSE:
                break
            else:
                return _0
        # No comma behind the last ones.
        bucket_end -= _1
        count_end -= _1
    rows.histograms[row, Field.BUCKETS_END] = np.int64(bucket_end)
    rows.histograms[row, Field.COUNTS_END] = np.int64(count_end)
    scratch.totals[Total.BUCKETS] = np.int64(bucket)
    scratch.totals[Total.BUCKET_BYTES] = np.int64(bucket_end)
    scratch.totals[Total.COUNT_BYTES] = np.int64(count_end)
    return at + _1


@compiled
def _with_number(target: Text, end: np.uint64, text: Text, start: np.uint64, length: np.uint64) -> np.uint64:
    """Put the number of up to ten digits at `start` behind `target`, and a comma; return the new end.

    What is behind the end, up to 16 bytes, is overwritten.
    """
    put_word(target, end, word_at(text, start))
    if length > _WORD_DIGITS:
        put_word(target, end + _WORD_DIGITS, word_at(text, start + _WORD_DIGITS))
    end += length
    target[end] = COMMA
    return end + _1


@compiled_in_place
def _read_range(text: Text, at: np.uint64, row: Integer, limits: NDArray[np.int64]) -> np.uint64:
    """Read the list of the two ends of a range; return what is behind it, or 0."""
    if text[at] != OPEN_LIST:
        return _0
    low, at = whole_number(text, past_space(text, at + _1))
    if at == _0:
        return _0
    at = past_space(text, at)
    if text[at] != COMMA:
        return _0
    high, at = whole_number(text, past_space(text, at + _1))
    if at == _0:
        return _0
    at = past_space(text, at)
    if text[at] != CLOSE_LIST:
        return _0
    limits[row, Limit.LOW] = low
    limits[row, Limit.HIGH] = high
    return at + _1


@compiled_in_place
def _read_parameter(
    text: Text, at: np.uint64, row: Integer, name: Integer, histograms: NDArray[np.int32]
) -> np.uint64:
    """Read the type or the number of buckets; return what is behind it, or 0."""
    value, at = whole_number(text, at)
    if at == _0 or value > _NARROW_MAX:
        return _0
    if name == _BUCKET_COUNT:
        histograms[row, Field.BUCKET_COUNT] = value
    else:
        histograms[row, Field.TYPE] = value
    return at


@compiled_in_place
def _read_sum(
    text: Text, at: np.uint64, row: Integer, column: Integer, sums: NDArray[np.float64], scratch: Scratch
) -> np.uint64:
    """Read a sum, or list it as inexact; return what is behind it, or 0."""
    start = at
    negative = text[at] == MINUS
    if negative:
        at += _1
    first = at
    mantissa, at = more_digits(text, at, _0)
    digits = at - first
    if digits == _0 or (text[first] == ZERO and digits > _1):
        return _0
    fraction = _0
    if text[at] == DOT:
        first = at + _1
        mantissa, at = more_digits(text, first, mantissa)
        fraction = at - first
        digits += fraction
        if fraction == _0:
            return _0
    if text[at] == LOWER_E or text[at] == UPPER_E:
        return _0
    number, exact = divided(mantissa, fraction)
    if digits > _NINETEEN_DIGITS or not exact:
        # An integer that a double may not hold stays in the document.
        place = scratch.totals[Total.INEXACT]
        if fraction == _0 or place >= scratch.inexact.shape[0]:
            return _0
        scratch.inexact[place, InexactField.ROW] = row
        scratch.inexact[place, InexactField.FIELD] = column
        scratch.inexact[place, InexactField.START] = start
        scratch.inexact[place, InexactField.END] = at
        scratch.totals[Total.INEXACT] = place + 1
    elif negative:
        # -1 stands for absent, and a negative zero would not survive.
        if number == 1.0 or number == 0.0:
            return _0
        sums[row, column] = -number
    else:
        sums[row, column] = number
    return at


@compiled
def remember(
    text: Text, start: np.uint64, number: Integer, ranges: Ranges, totals: NDArray[np.int64]
) -> None:
    """Remember how the histogram at `start` says that its range has this number, unless that is too long."""
    head = np.uint64(totals[Total.HEAD_END]) - start
    tail_start = np.uint64(totals[Total.TAIL_START])
    tail = np.uint64(totals[Total.VALUES_START]) - tail_start
    if head + tail > _RANGE_TEXT_BYTES:
        return
    place = np.uint64(number) * _RANGE_TEXT_BYTES
    for index in range(head):
        ranges.texts[place + index] = text[start + index]
    for index in range(tail):
        ranges.texts[place + head + index] = text[tail_start + index]
    ranges.table[number, RangeField.HEAD_LENGTH] = head
    ranges.table[number, RangeField.TAIL_LENGTH] = tail


@compiled
def _past_remembered(
    text: Text, at: np.uint64, number: Integer, row: Integer, rows: Rows, ranges: Ranges
) -> np.uint64:
    """Return where the values of the histogram at `at` are, if it begins as one of this range did; else 0.

    What is said before the values is noted in its row then.
    """
    size = np.uint64(text.size)
    place = np.uint64(number) * _RANGE_TEXT_BYTES
    head = np.uint64(ranges.table[number, RangeField.HEAD_LENGTH])
    if head == _0 or at + head + _PADDING > size or not same_text(text, at, ranges.texts, place, head):
        return _0
    at += head
    tail = np.uint64(ranges.table[number, RangeField.TAIL_LENGTH])
    if tail != _0:
        value, at = whole_number(text, at)
        if (
            at == _0
            or at + tail + _PADDING > size
            or not same_text(text, at, ranges.texts, place + head, tail)
        ):
            return _0
        at += tail
        rows.sums[row, 0] = np.float64(value)
    rows.histograms[row, Field.TYPE] = ranges.table[number, RangeField.TYPE]
    rows.limits[row, Limit.LOW] = ranges.table[number, RangeField.LOW]
    rows.limits[row, Limit.HIGH] = ranges.table[number, RangeField.HIGH]
    rows.histograms[row, Field.BUCKET_COUNT] = ranges.table[number, RangeField.BUCKET_COUNT]
    return at
