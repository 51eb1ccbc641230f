"""JSON text to Python values and back without changing what it says.

orjson reads an integer of more than 64 bits as a float, and no text with a half of a surrogate pair. Where a
text has digits enough for the former, and where a number may begin, or where orjson refuses it for the
latter, `exact_json` reads it instead, which keeps both.
"""

import re
from typing import Final

import numpy as np
import orjson

from telemetry_lake.documents.exact_json import read_exactly, texts_in, write_exactly
from telemetry_lake.documents.nesting import DOCUMENT_MAX_DEPTH, is_nested_too_deep
from telemetry_lake.failures import ErrorType, PingRejected, Stage
from telemetry_lake.histograms.stored import Json

_NO_MEMORY: Final = "Not enough memory"
"""What orjson says of a text when it gets no memory, as if the text were wrong; it never quotes the text."""
_MANY_DIGITS: Final = b"0" * 19
_ALL_DIGITS_ZERO: Final = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
"""Looking for one text in another is ten times as fast as a regular expression for it."""
_STEPS_TO_MANY: Final = (1, 2, 4, 8, 3)
"""Where a row of n digits begins and another one n places further, 2n begin: from 1 to 2, 4, 8, 16 and 19."""
_DIGIT_ZERO: Final = np.uint8(48)
_TEN: Final = np.uint8(10)
_LONG_TEXT_BYTES: Final = 4_096
_BEFORE_A_NUMBER: Final = frozenset({b"", b"[", b",", b":", b"-", b" ", b"\t", b"\n", b"\r"})
"""Or before the digits of one."""
_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF: Final = re.compile("[\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"


def parse_document(
    text: bytes, max_values: int, *, has_long_numbers: bool = True, is_shallow: bool = False
) -> Json:
    """Return the object in `text`.

    A text with more than `max_values` commas and opening brackets is not parsed: `{},` is three bytes of
    text, a hundredth of a byte of a body, and 72 bytes of memory. `has_long_numbers` is False when it is
    known that no number has 19 digits, `is_shallow` is True when it is known that the text, if it is JSON, is
    not nested too deep. Raises PingRejected with `too_costly`, `invalid_json` or `not_an_object`.
    """
    if len(text) > max_values and _value_count(text) > max_values:
        raise PingRejected(
            ErrorType.TOO_COSTLY,
            f"the document has more than {max_values} values, by its commas and opening brackets",
            stage=Stage.DECODE,
        )
    if not is_shallow and is_nested_too_deep(text):
        raise _too_deep()
    try:
        document = parse_json(text, has_long_numbers=has_long_numbers)
    except ValueError as error:
        if is_nested_too_deep(text):
            raise _too_deep() from error
        raise PingRejected(
            ErrorType.INVALID_JSON, f"the document is not JSON: {error}", stage=Stage.DECODE
        ) from error
    if not isinstance(document, dict):
        raise PingRejected(
            ErrorType.NOT_AN_OBJECT,
            f"the top level of the document is {_NAMES.get(type(document), 'null')}, not an object",
            stage=Stage.DECODE,
        )
    return document


def parse_json(text: bytes, *, has_long_numbers: bool = True) -> object:
    """Return any JSON value; raises ValueError. `has_long_numbers` is as in `parse_document`."""
    try:
        value = orjson.loads(text)
    except ValueError as error:
        if _NO_MEMORY in str(error):
            raise MemoryError(str(error)) from error
        if _SURROGATE_ESCAPE.search(text) is None:
            raise
        return read_exactly(text)
    if not (has_long_numbers and _may_have_large_integer(text)):
        return value
    # Not both at the same time in memory.
    del value
    return read_exactly(text)


def has_halves(document: Json, text: bytes) -> bool:
    """Return whether a text in `document`, which is `text` parsed, has a half of a surrogate pair.

    UTF-8, and so every column, cannot hold it.
    """
    # Looking for one byte costs nothing, for an escape a hundredth of the conversion.
    if b"\\" not in text or _SURROGATE_ESCAPE.search(text) is None:
        return False
    return any(map(has_half, texts_in(document)))


def has_half(text: str) -> bool:
    """Return whether `text` has a half of a surrogate pair."""
    return not text.isascii() and _HALF.search(text) is not None


def without_halves(text: str) -> str:
    """Return `text` with U+FFFD in the place of each half of a surrogate pair."""
    return _HALF.sub(_REPLACEMENT, text)


def _too_deep() -> PingRejected:
    return PingRejected(
        ErrorType.TOO_COSTLY,
        f"the document is nested more than {DOCUMENT_MAX_DEPTH} levels deep",
        stage=Stage.DECODE,
    )


def _value_count(text: bytes) -> int:
    """Return how many commas and opening brackets `text` has, those in strings included."""
    characters = np.frombuffer(text, np.uint8)
    return sum(int(np.count_nonzero(characters == character)) for character in b",[{")


def _may_have_large_integer(text: bytes) -> bool:
    """Return whether enough digits for a large integer follow a place where a number may begin.

    Most rows of that many digits are fractions of small numbers, or in revisions and other names.
    """
    if len(text) >= _LONG_TEXT_BYTES and not _has_many_digits(text):
        return False
    digits = text.translate(_ALL_DIGITS_ZERO)
    start = digits.find(_MANY_DIGITS)
    while start >= 0:
        if text[max(start - 1, 0) : start] in _BEFORE_A_NUMBER:
            return True
        start = digits.find(_MANY_DIGITS, digits.find(b" ", start))
    return False


def _has_many_digits(text: bytes) -> bool:
    """Return whether 19 digits stand in a row anywhere. In long texts arrays find them four times as fast."""
    runs = np.frombuffer(text, np.uint8) - _DIGIT_ZERO < _TEN
    for step in _STEPS_TO_MANY:
        runs = runs[:-step] & runs[step:]
    return bool(runs.any())


_NAMES: Final = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "true or false"}


def document_text(document: Json) -> str:
    """Return the text of `document`, without spaces."""
    try:
        return orjson.dumps(document).decode()
    except TypeError:
        return write_exactly(document)
