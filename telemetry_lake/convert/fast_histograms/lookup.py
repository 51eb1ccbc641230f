"""The two tables that the parser looks names and ranges up in, compiled to machine code (numba)."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.convert.fast_histograms.layout import Labels, RangeField, Text
from telemetry_lake.convert.fast_histograms.swar import PADDING_BYTES
from telemetry_lake.numba_options import Integer, compiled

TABLE_FULL: Final = -1
"""What `intern` returns when it has no room for a label."""
HASH_BASIS: Final = np.uint64(14695981039346656037)
HASH_PRIME: Final = np.uint64(1099511628211)

_0 = np.uint64(0)
_1 = np.uint64(1)
_PADDING = np.uint64(PADDING_BYTES)
_HASH_FOLD = np.uint64(29)
_RANGE_FOLD = np.uint64(40)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@compiled
def find_range(
    kind: Integer,
    low: Integer,
    high: Integer,
    bucket_count: Integer,
    slots: NDArray[np.int64],
    table: NDArray[np.int64],
) -> tuple[Integer, np.uint64]:
    """Return the number of a range in the table of ranges, and its place in the slots.

    The number is -1 when the range is not there; `slots` and `table` are those of `Ranges`.
    """
    code = (np.uint64(kind) * HASH_PRIME) ^ np.uint64(low)
    code = (code * HASH_PRIME) ^ np.uint64(high)
    code = ((code * HASH_PRIME) ^ np.uint64(bucket_count)) * _GOLDEN
    mask = np.uint64(slots.size) - _1
    slot = (code >> _RANGE_FOLD) & mask
    while True:
        number = slots[slot]
        if number < 0 or (
            table[number, RangeField.TYPE] == kind
            and table[number, RangeField.LOW] == low
            and table[number, RangeField.HIGH] == high
            and table[number, RangeField.BUCKET_COUNT] == bucket_count
        ):
            return number, slot
        slot = (slot + _1) & mask


@compiled
def intern(text: Text, start: np.uint64, length: np.uint64, labels: Labels) -> Integer:
    """Return the number of a label in the table of labels, where it is put if it is new.

    The number is TABLE_FULL when the table has no room for it.
    """
    code = HASH_BASIS
    for place in range(length):
        code = (code ^ np.uint64(text[start + place])) * HASH_PRIME
    mask = np.uint64(labels.slots.size) - _1
    slot = (code ^ (code >> _HASH_FOLD)) & mask
    while True:
        number: Integer = labels.slots[slot]
        if number < 0:
            break
        begin = np.uint64(labels.ends[number])
        if np.uint64(labels.ends[number + 1]) - begin == length:
            index = _0
            while index < length and labels.text[begin + index] == text[start + index]:
                index += _1
            if index == length:
                return number
        slot = (slot + _1) & mask
    number = labels.total[0]
    begin = np.uint64(labels.ends[number])
    if (
        number + 1 >= labels.ends.size
        or 2 * number >= labels.slots.size
        or begin + length + _PADDING > np.uint64(labels.text.size)
    ):
        return np.int64(TABLE_FULL)
    for place in range(length):
        labels.text[begin + place] = text[start + place]
    labels.ends[number + 1] = begin + length
    labels.total[0] = number + 1
    labels.slots[slot] = number
    return number
