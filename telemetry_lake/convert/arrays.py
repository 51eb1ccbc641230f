"""Arrow arrays of Python values and of numpy arrays, without pandas.

`pyarrow.array` imports pandas when it is installed, whatever it is given: 50 MB and a second for a process
that has no other use for it. These functions hand buffers to Arrow instead.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Array: TypeAlias = "pa.Array[Any]"


def of_numbers(values: NDArray[Any], of: pa.DataType) -> Array:
    """A copy of numbers, of a type of fixed width, none of them null."""
    array = np.array(values, of.to_pandas_dtype())
    return pa.Array.from_buffers(of, len(array), [None, _buffer(array)])


def of_integers(values: Sequence[int | None], of: pa.DataType) -> Array:
    """Integers, some of them perhaps null."""
    filled = np.array([value or 0 for value in values], of.to_pandas_dtype())
    return pa.Array.from_buffers(of, len(values), [_validity(values), _buffer(filled)])


def of_texts(values: Sequence[str | None]) -> Array:
    """Strings, some of them perhaps null."""
    encoded = [value.encode() if value else b"" for value in values]
    return pa.Array.from_buffers(pa.string(), len(values), [_validity(values), *_offsets_and_data(encoded)])


def of_filled_texts(ends: NDArray[np.int32], data: NDArray[np.uint8]) -> Array:
    """Strings that follow each other in a copy of `data`, by where each ends; an empty one becomes null."""
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends
    filled = offsets[1:] > offsets[:-1]
    validity = None if filled.all() else _buffer(np.packbits(filled, bitorder="little"))
    text = data[: offsets[-1]].tobytes()
    return pa.Array.from_buffers(pa.string(), len(ends), [validity, _buffer(offsets), pa.py_buffer(text)])


def of_bytes(values: Sequence[bytes]) -> Array:
    """Byte strings, none of them null."""
    return pa.Array.from_buffers(pa.binary(), len(values), [None, *_offsets_and_data(values)])


def of_lists(ends: NDArray[np.int32], elements: Array, of: pa.DataType) -> Array:
    """Lists: the element number `ends[n]` is the first that the list number n does not have."""
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends
    return pa.Array.from_buffers(of, len(ends), [None, _buffer(offsets)], children=[elements])


def of_maps(values: Sequence[dict[str, str]], of: Any) -> Array:
    """Maps of strings to strings."""
    entries = pa.StructArray.from_arrays(
        [
            of_texts([name for entry in values for name in entry]),
            of_texts([text for entry in values for text in entry.values()]),
        ],
        fields=[of.key_field, of.item_field],
    )
    return of_lists(np.cumsum([len(entry) for entry in values], dtype=np.int32), entries, of)


def _buffer(array: NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(array)  # type: ignore[arg-type]  # the stub does not know that numpy's arrays are buffers


def _validity(values: Sequence[object]) -> pa.Buffer | None:
    if None not in values:
        return None
    return _buffer(np.packbits([value is not None for value in values], bitorder="little"))


def _offsets_and_data(values: Sequence[bytes]) -> list[pa.Buffer]:
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, values), np.int32, len(values)), out=offsets[1:])
    return [_buffer(offsets), pa.py_buffer(b"".join(values))]
