"""Spaces, strings, values and numbers in the text of a document, compiled to machine code (numba).

Every loop stops at a zero byte, and `PADDING_BYTES` of them are behind every document, so nothing is read
beyond them. Positions are unsigned, so that no code is made for negative indexes.
"""

# Written for a compiler: `in` and `all` would build tuples and generators.
# ruff: noqa: PLR1714, SIM109, SIM110

from typing import Final

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.convert.fast_histograms.layout import Text, Total
from telemetry_lake.convert.fast_histograms.swar import (
    digit_count,
    digits_at,
    leading_zeros,
    number_of,
    past_plain,
)
from telemetry_lake.numba_options import compiled

SPACE: Final = 32
QUOTE: Final = 34
COMMA: Final = 44
MINUS: Final = 45
DOT: Final = 46
ZERO: Final = 48
COLON: Final = 58
UPPER_E: Final = 69
OPEN_LIST: Final = 91
BACKSLASH: Final = 92
CLOSE_LIST: Final = 93
LOWER_E: Final = 101
OPEN: Final = 123
CLOSE: Final = 125
_TAB = 9
_LINE_FEED = 10
_CARRIAGE_RETURN = 13
_LAST_PRINTABLE = 126

SKIPPED_MAX_DEPTH: Final = 128
"""A value that is nested deeper is unusual: with what is around it, it may be too deep for a document."""
FRACTION_MAX_DIGITS: Final = 18
POWERS_OF_TEN: Final = np.array([10**power for power in range(FRACTION_MAX_DIGITS + 1)], np.uint64)

_0 = np.uint64(0)
_1 = np.uint64(1)
_2 = np.uint64(2)
_9 = np.uint64(9)
_WORD_DIGITS = np.uint64(8)
_TEN_DIGITS = np.uint64(10)
_NINETEEN_DIGITS = np.uint64(19)
_SPARE_BITS = np.uint64(64 - 54)
_EXACT_INTEGERS = np.uint64(2**53)
_54_BITS = np.uint64(2**54)
_FRACTION_MAX_DIGITS = np.uint64(FRACTION_MAX_DIGITS)
_DIGIT_ZERO = np.uint64(ZERO)


@compiled
def past_space(text: Text, at: np.uint64) -> np.uint64:
    """Return where the first byte from `at` on is that is not white space."""
    while text[at] == SPACE or text[at] == _LINE_FEED or text[at] == _CARRIAGE_RETURN or text[at] == _TAB:
        at += _1
    return at


@compiled
def past_colon(text: Text, at: np.uint64) -> np.uint64:
    """Return where the value begins behind the colon that comes next; 0 when something else comes."""
    at = past_space(text, at)
    return past_space(text, at + _1) if text[at] == COLON else _0


@compiled
def says(text: Text, at: np.uint64, word: Text) -> bool:
    """Return whether `word` begins at byte `at` of `text`."""
    for index in range(np.uint64(word.size)):
        if text[at + index] != word[index]:
            return False
    return True


@compiled
def is_plain(byte: np.uint8) -> bool:
    """Return whether a byte of a name stands for itself: printable ASCII and not a backslash."""
    return bool(byte >= SPACE and byte <= _LAST_PRINTABLE and byte != BACKSLASH)


@compiled
def past_string(text: Text, at: np.uint64) -> np.uint64:
    """Return what is behind the string whose opening quote is at `at`; 0 when the text ends inside."""
    at = past_plain(text, at + _1)
    while text[at] == BACKSLASH:
        if text[at + _1] == 0:
            return _0
        at = past_plain(text, at + _2)
    return at + _1 if text[at] == QUOTE else _0


@compiled
def past_value(text: Text, at: np.uint64, totals: NDArray[np.int64]) -> np.uint64:
    """Return what is behind any value, in text that need not be JSON.

    It is 0 when the text ends inside the value, or when the value is nested deeper than `SKIPPED_MAX_DEPTH`.
    Numbers of many digits are counted in `totals`.
    """
    depth = 0
    while True:
        byte = text[at]
        if byte == 0:
            return _0
        if byte == QUOTE:
            at = past_string(text, at)
            if at == _0 or depth == 0:
                return at
            continue
        if np.uint64(byte) - _DIGIT_ZERO <= _9:
            start = at
            count = _WORD_DIGITS
            while count == _WORD_DIGITS:
                count = digit_count(digits_at(text, at))
                at += count
            if at - start >= _NINETEEN_DIGITS:
                totals[Total.LONG_NUMBERS] += 1
            continue
        if byte == OPEN or byte == OPEN_LIST:
            depth += 1
            if depth > SKIPPED_MAX_DEPTH:
                return _0
        elif byte == CLOSE or byte == CLOSE_LIST:
            if depth == 0:
                return at
            depth -= 1
            if depth == 0:
                return at + _1
        elif depth == 0 and (byte == COMMA or byte <= SPACE):
            return at
        at += _1


@compiled
def more_digits(text: Text, at: np.uint64, number: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return `number` with the digits that follow behind it, and their end; more than 19 make it overflow."""
    while True:
        digits = digits_at(text, at)
        count = digit_count(digits)
        if count == _0:
            return number, at
        number = number * POWERS_OF_TEN[count] + number_of(digits, count)
        at += count
        if count < _WORD_DIGITS:
            return number, at


@compiled
def whole_number(text: Text, at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return a number of up to ten digits without sign, fraction and leading zeros, and its end.

    The end is 0 when there is not such a number at `at`.
    """
    start = at
    digits = digits_at(text, at)
    count = digit_count(digits)
    if count == _0 or (text[at] == ZERO and count > _1):
        return _0, _0
    value = number_of(digits, count)
    at += count
    if count == _WORD_DIGITS:
        value, at = more_digits(text, at, value)
        if at - start > _TEN_DIGITS:
            return _0, _0
    return value, at


@compiled
def divided(mantissa: np.uint64, fraction: np.uint64) -> tuple[float, bool]:
    """Return `mantissa` divided by 10 to the power of `fraction`, and whether that could be done here.

    It is rounded to the nearest double, ties to even.
    """
    if mantissa <= _EXACT_INTEGERS and fraction <= _FRACTION_MAX_DIGITS:
        # Both are doubles without loss, so the division is rounded once (Clinger, How to Read Floating
        # Point Numbers Accurately, 1990).
        return np.float64(mantissa) / np.float64(POWERS_OF_TEN[fraction]), True
    if fraction == _0 or fraction > _FRACTION_MAX_DIGITS:
        return 0.0, False
    # Long division until there are the 53 bits of a double and one to round by, each time as many bits as
    # there is room for above the remainder.
    divisor = POWERS_OF_TEN[fraction]
    quotient = mantissa // divisor
    remainder = mantissa % divisor
    if quotient >= _54_BITS:
        return 0.0, False
    scale = 2.0
    room = leading_zeros(divisor)
    while quotient < _EXACT_INTEGERS:
        bits = min(room, leading_zeros(quotient) - _SPARE_BITS)
        remainder <<= bits
        quotient = quotient << bits | remainder // divisor
        remainder %= divisor
        scale /= np.float64(_1 << bits)
    half = quotient & _1
    quotient >>= _1
    if half and (remainder or quotient & _1):
        quotient += _1
    return np.float64(quotient) * scale, True
