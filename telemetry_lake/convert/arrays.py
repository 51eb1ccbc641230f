"""Arrow arrays of Python values, of numpy arrays and of Polars series, without pandas.

`pyarrow.array` imports pandas when it is installed, whatever it is given: 50 MB and a second for a process
that has no other use for it. These functions hand buffers to Arrow instead.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

Array: TypeAlias = "pa.Array[Any]"
"""An array of any type: the stub of Arrow says a type for the scalars of each one."""

_PLAIN_LAYOUT: Final = pl.CompatLevel.oldest()
"""Strings as offsets and text, as the tables have them, and not as Arrow's views."""
_ASCII_HIGHEST: Final = 0x7F
_Number = TypeVar("_Number", bound=np.generic)


def of_numbers(values: NDArray[np.generic], of: pa.DataType) -> Array:
    """Copy `values`, one-dimensional, into an array of the fixed-width type `of` without nulls."""
    array = np.array(values, of.to_pandas_dtype())
    return pa.Array.from_buffers(of, len(array), [None, _buffer(array)])


def of_integers(values: Sequence[int | None], of: pa.DataType) -> Array:
    """Return integers of the type `of`, some of them perhaps null."""
    filled = np.array([value or 0 for value in values], of.to_pandas_dtype())
    return pa.Array.from_buffers(of, len(values), [_validity(values), _buffer(filled)])


def of_texts(values: Sequence[str | None]) -> Array:
    """Return strings, some of them perhaps null."""
    validity = _validity(values)
    texts = [value or "" for value in values]
    joined = "".join(texts)
    data = joined.encode()
    is_ascii = len(data) == len(joined)
    offsets = _offsets(map(len, texts) if is_ascii else (len(text.encode()) for text in texts), len(texts))
    return pa.Array.from_buffers(pa.string(), len(texts), [validity, offsets, pa.py_buffer(data)])


def of_latin_1(values: Array) -> Array:
    """Return the bytes of `values`, a binary array without nulls, as strings: each byte is a character."""
    _, offsets, data = values.buffers()
    if offsets is not None and data is not None:
        ends = _numbers(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
        if (_numbers(data, np.uint8)[ends[0] : ends[-1]] > _ASCII_HIGHEST).any():
            return of_texts([str(value or b"", "latin-1") for value in values.to_pylist()])
    return pa.Array.from_buffers(pa.string(), len(values), values.buffers(), offset=values.offset)


def of_filled_texts(ends: NDArray[np.int32], data: NDArray[np.uint8]) -> Array:
    """Return strings that follow each other in a copy of `data`; an empty one becomes null.

    `ends`, one-dimensional, says for each string where it ends in `data`, which is one-dimensional, too.
    """
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends
    filled = offsets[1:] > offsets[:-1]
    validity = None if filled.all() else _buffer(np.packbits(filled, bitorder="little"))
    text = data[: offsets[-1]].tobytes()
    return pa.Array.from_buffers(pa.string(), len(ends), [validity, _buffer(offsets), pa.py_buffer(text)])


def of_bytes(values: Sequence[bytes]) -> Array:
    """Return byte strings, none of them null."""
    offsets = _offsets(map(len, values), len(values))
    return pa.Array.from_buffers(pa.binary(), len(values), [None, offsets, pa.py_buffer(b"".join(values))])


def of_lists(ends: NDArray[np.int32], elements: Array, of: pa.DataType) -> Array:
    """Return lists of the type `of`, a list or a map.

    `ends`, one-dimensional, says for each list the number of the first element that it does not have.
    """
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends
    return pa.Array.from_buffers(of, len(ends), [None, _buffer(offsets)], children=[elements])


def of_series(series: pl.Series, of: pa.DataType) -> Array:
    """Return a column of Polars as an array of the type `of`: strings, integers or dates."""
    array: Array = series.to_arrow(compat_level=_PLAIN_LAYOUT)
    if array.offset or not pa.types.is_large_string(array.type):
        return array if array.type == of else array.cast(of)
    # Polars has 64-bit offsets. Arrow's own cast takes three times as long.
    validity, offsets, data = array.buffers()
    if offsets is None:
        return array.cast(of)
    ends = _numbers(offsets, np.int64)[: len(array) + 1].astype(np.int32)
    return pa.Array.from_buffers(
        of, len(array), [validity if array.null_count else None, _buffer(ends), data]
    )


def _buffer(array: NDArray[np.generic]) -> pa.Buffer:
    return pa.py_buffer(array)  # type: ignore[arg-type]  # the stub does not know that numpy's arrays are buffers


def _numbers(buffer: pa.Buffer, of: type[_Number]) -> NDArray[_Number]:
    return np.frombuffer(buffer, of)  # type: ignore[call-overload, no-any-return]  # as above


def _validity(values: Sequence[object]) -> pa.Buffer | None:
    if None not in values:
        return None
    return _buffer(np.packbits([value is not None for value in values], bitorder="little"))


def _offsets(lengths: Iterable[int], count: int) -> pa.Buffer:
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(np.fromiter(lengths, np.int32, count), out=offsets[1:])
    return _buffer(offsets)
