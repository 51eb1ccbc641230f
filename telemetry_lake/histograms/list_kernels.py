"""Read lists of numbers as text (`list_text`) by compiled code (numba): all of a column at once."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.failures import FatalError
from telemetry_lake.numba_options import Integer, compiled

_0 = np.uint64(0)
_1 = np.uint64(1)
_9 = np.uint64(9)
_TEN = np.uint64(10)
_DIGIT_ZERO = np.uint64(48)
_HIGHEST = np.uint64(2**63 - 1)
_HIGHEST_TENTH = np.uint64((2**63 - 1) // 10)
_COMMA: Final = 44
_MINUS: Final = 45


def read_lists(texts: Any) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the lists of an Arrow array of texts: where in all the numbers each begins, and the numbers.

    The former has the shape (texts + 1,): its last one is where the last list ends. Raises FatalError when a
    text is not a list of 64-bit integers.
    """
    if not len(texts):  # which may have no offsets at all
        return np.zeros(1, np.int32), np.zeros(0, np.int64)
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    text = np.frombuffer(data or b"", np.uint8)
    starts = np.zeros(len(texts) + 1, np.int32)
    commas = np.count_nonzero(text[ends[0] : ends[-1]] == _COMMA)
    numbers = np.zeros(commas + len(texts), np.int64)
    count = _read(text, ends, starts, numbers)
    if count < 0:
        raise FatalError(f"{texts[-1 - count].as_py()!r} is not a list of numbers: the conversion is wrong")
    return starts, numbers[:count]


@compiled
def _read(
    text: NDArray[np.uint8], ends: NDArray[np.int32], starts: NDArray[np.int32], numbers: NDArray[np.int64]
) -> Integer:
    """Read all lists, and return how many numbers they have.

    `ends`, (texts + 1,), says where each text ends, behind where the first one begins. `starts`, of the same
    shape, and `numbers` are filled in. Returns -1 minus the place of the first text that is not a list.
    """
    count = _0
    for each in range(np.uint64(starts.size - 1)):
        at = np.uint64(ends[each])
        end = np.uint64(ends[each + _1])
        while at < end:
            negative = text[at] == _MINUS
            if negative:
                at += _1
            first = at
            number = _0
            while at < end and text[at] != _COMMA:
                digit = np.uint64(text[at]) - _DIGIT_ZERO
                if digit > _9 or number > _HIGHEST_TENTH:
                    return -1 - np.int64(each)
                number = number * _TEN + digit
                at += _1
            at += _1
            # No digit, too large a number, or a comma with nothing behind it.
            if at == first + _1 or number > _HIGHEST + np.uint64(negative) or at == end:
                return -1 - np.int64(each)
            numbers[count] = -np.int64(number) if negative else np.int64(number)
            count += _1
        starts[each + _1] = count
    return np.int64(count)
