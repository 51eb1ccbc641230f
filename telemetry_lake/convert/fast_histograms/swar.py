"""Read text by words of eight bytes, for compiled parsers (numba).

A word is the next eight bytes of a text as one number, the first byte in its lowest bits. A loop over bytes
has a branch for each byte, and the processor cannot guess the last one; a word takes a handful of
operations without branches. Texts have `PADDING_BYTES` behind their end, because words are read across it.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from telemetry_lake.numba_options import CHECKED, compiled, compiled_in_place

Text: TypeAlias = NDArray[np.uint8]
"""Bytes, in one dimension."""

PADDING_BYTES: Final = 16

_0 = np.uint64(0)
_3 = np.uint64(3)
_8 = np.uint64(8)
_16 = np.uint64(16)
_32 = np.uint64(32)
_64 = np.uint64(64)
_DIGIT_ZEROS = np.uint64(0x3030303030303030)
_SIXES = np.uint64(0x0606060606060606)
_HIGH_HALVES = np.uint64(0xF0F0F0F0F0F0F0F0)
_DIGITS = np.uint64(0x0F0F0F0F0F0F0F0F)
_PAIRS = np.uint64(0x00FF00FF00FF00FF)
_FOURS = np.uint64(0x0000FFFF0000FFFF)
_ONES = np.uint64(0x0101010101010101)
_HIGHEST_BITS = np.uint64(0x8080808080808080)
_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
_TEN_AND_ONE = np.uint64(10 * 2**8 + 1)
_HUNDRED_AND_ONE = np.uint64(100 * 2**16 + 1)
_TEN_THOUSAND_AND_ONE = np.uint64(10_000 * 2**32 + 1)


# The three functions that numba calls while it compiles have no types: it passes objects of its own.
def _load_word(_typing: Any, text: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.load(_pointer_to_word(context, builder, signature, arguments))
        word.align = 1
        return word

    return types.uint64(text, at), generate


def _store_word(_typing: Any, text: Any, at: Any, _word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer_to_word(context, builder, signature, arguments)).align = 1
        return context.get_dummy_value()

    return types.void(text, at, types.uint64), generate


def _pointer_to_word(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array_type = make_array(signature.args[0])  # type: ignore[no-untyped-call]
    array = array_type(context, builder, arguments[0])
    first = builder.gep(array.data, [arguments[1]])
    return builder.bitcast(first, context.get_value_type(types.uint64).as_pointer())


def _trailing_zeros(_typing: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.uint64(number), generate


def _leading_zeros(_typing: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], context.get_constant(types.boolean, False))

    return types.uint64(number), generate


# numba has no way to say these four but the instructions themselves.
_load: Final[Callable[[Text, np.uint64], np.uint64]] = cast(Any, intrinsic(_load_word))
_store: Final[Callable[[Text, np.uint64, np.uint64], None]] = cast(Any, intrinsic(_store_word))
trailing_zeros: Final[Callable[[np.uint64], np.uint64]] = cast(Any, intrinsic(_trailing_zeros))
"""Return how many of the lowest bits of a 64-bit integer are zero; 64 when all are."""
leading_zeros: Final[Callable[[np.uint64], np.uint64]] = cast(Any, intrinsic(_leading_zeros))
"""Return how many of the highest bits of a 64-bit integer are zero; 64 when all are."""


@compiled_in_place
def word_at(text: Text, at: np.uint64) -> np.uint64:
    """Return the word of `text` that begins at byte `at`.

    Only the checked variant raises IndexError when the word is not inside of `text`.
    """
    if CHECKED and not _holds_word(text, at):
        raise IndexError("a word is read outside of its array")
    return _load(text, at)


@compiled_in_place
def put_word(text: Text, at: np.uint64, word: np.uint64) -> None:
    """Write `word` into `text`, from byte `at` on.

    Only the checked variant raises IndexError when the word is not inside of `text`.
    """
    if CHECKED and not _holds_word(text, at):
        raise IndexError("a word is written outside of its array")
    _store(text, at, word)


@compiled_in_place
def _holds_word(text: Text, at: np.uint64) -> bool:
    size = np.uint64(text.size)
    return bool(size >= _8 and at <= size - _8)


@compiled
def same_text(text: Text, at: np.uint64, other: Text, begin: np.uint64, length: np.uint64) -> bool:
    """Return whether `length` bytes of `text` from `at` on are those of `other` from `begin` on."""
    while length >= _8:
        if word_at(text, at) != word_at(other, begin):
            return False
        at += _8
        begin += _8
        length -= _8
    if length == _0:
        return True
    return bool((word_at(text, at) ^ word_at(other, begin)) << (_64 - _8 * length) == _0)


@compiled
def digit_count(digits: np.uint64) -> np.uint64:
    """Return with how many digits, up to eight, a word of `digits_at` begins."""
    # The lowest byte that is not a digit is found as one; no carry can come from the digits below it.
    return trailing_zeros((digits | (digits + _SIXES)) & _HIGH_HALVES) >> _3


@compiled
def digits_at(text: Text, at: np.uint64) -> np.uint64:
    """Return the word at byte `at`, with the value of each digit instead of its character."""
    return word_at(text, at) ^ _DIGIT_ZEROS


@compiled
def number_of(digits: np.uint64, count: np.uint64) -> np.uint64:
    """Return the number that the first `count` digits make, 1 to 8 of them."""
    # Neighbours become pairs, these fours, these eight digits (Langdale and Lemire, Parsing Gigabytes of
    # JSON per Second, 2019).
    digits <<= _64 - _8 * count
    pairs = (digits & _DIGITS) * _TEN_AND_ONE >> _8
    fours = (pairs & _PAIRS) * _HUNDRED_AND_ONE >> _16
    return (fours & _FOURS) * _TEN_THOUSAND_AND_ONE >> _32


@compiled
def past_plain(text: Text, at: np.uint64) -> np.uint64:
    """Return where the first quote, backslash or zero byte from `at` on is."""
    while True:
        word = word_at(text, at)
        quotes = word ^ _QUOTES
        backslashes = word ^ _BACKSLASHES
        # The highest bit of each byte that is zero, and perhaps of bytes behind the first such.
        found = (
            (word - _ONES) & ~word | (quotes - _ONES) & ~quotes | (backslashes - _ONES) & ~backslashes
        ) & _HIGHEST_BITS
        if found != _0:
            return at + (trailing_zeros(found) >> _3)
        at += _8
