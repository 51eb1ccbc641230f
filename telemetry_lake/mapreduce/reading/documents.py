"""What `map` gets as `value`: the document of a row, put together from its columns.

It is the whole converted document: everything that was moved into columns is put back, and the plain
histograms of the parent process are in the compact form of Mozilla's first server, lists of all bucket counts
followed by `histograms.stored.SUM_FIELDS`. Everything else is as it was sent.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from telemetry_lake import columns
from telemetry_lake.documents.restore import HALVES_SPELLED, INTEGER, stored_document
from telemetry_lake.documents.text import document_text
from telemetry_lake.histograms.stored import CONTAINERS
from telemetry_lake.mapreduce.reading.histogram_rows import Container, HistogramRows

LIFTED_REMEMBERED: Final = 4_096
LIFTED_COLUMNS: Final = (
    columns.DOCUMENT_ID,
    columns.DOCUMENT_TYPE,
    columns.DOCUMENT_VERSION,
    columns.REASON,
    columns.APP_NAME,
    columns.APP_UPDATE_CHANNEL,
    columns.APP_VERSION,
    columns.APP_BUILD_ID,
    columns.OS,
    columns.OS_VERSION,
    columns.ARCHITECTURE,
    columns.CLIENT_ID,
)
"""The columns that a field of a document can have been moved into."""
DOCUMENT_COLUMNS: Final = (columns.DOCUMENT, columns.LIFTED, *LIFTED_COLUMNS)
"""The columns that are read for documents, without their histograms."""

Json = dict[str, Any]


class _PutBack(NamedTuple):
    """Where a field of a document goes, and the column it was moved into."""

    parents: tuple[str, ...]
    field: str
    column: str
    is_integer: bool
    is_histograms: bool


class _Source(NamedTuple):
    """A `_PutBack` in a batch, with the values of its column; None for histograms."""

    parents: tuple[str, ...]
    field: str
    column: str
    values: Sequence[Any] | None
    is_integer: bool


class Documents:
    """The documents of a batch of rows.

    `batch` has the `DOCUMENT_COLUMNS`; `histograms` returns the column of that name of the same rows, and is
    called once, when the first histogram is needed.
    """

    def __init__(self, batch: pa.RecordBatch, histograms: Callable[[], Any]) -> None:
        self._texts = batch.column(columns.DOCUMENT)
        self._lifted: Sequence[str] = python_values(batch.column(columns.LIFTED))
        self._batch = batch
        self._columns: dict[str, Sequence[Any]] = {}
        self._sources: dict[str, list[_Source]] = {}
        self._read_histograms = histograms
        self._histograms: HistogramRows | None = None

    def text(self, row: int) -> str:
        """Return the document of a row as JSON text without spaces."""
        return document_text(self.parsed(row))

    def parsed(self, row: int, histograms: Callable[[Container], Json] = Container.all) -> Json:
        """Return what `json.loads` makes of the text of a row, order of members included.

        `histograms` makes the object that stands for a container of histograms.
        """
        lifted = self._lifted[row]
        document: Json = stored_document(self._texts[row].as_buffer().to_pybytes(), lifted)
        sources = self._sources.get(lifted)
        if sources is None:
            sources = self._sources[lifted] = [self._source(step) for step in _steps(lifted)]
        for parents, field, column, values, is_integer in sources:
            holder = document
            for part in parents:
                holder = holder[part]
            if values is None:
                holder[field] = histograms(Container(self._histogram_rows, row, column, holder[field]))
            else:
                holder[field] = int(values[row]) if is_integer else values[row]
        return document

    def _source(self, step: _PutBack) -> _Source:
        values = None if step.is_histograms else self._column(step.column)
        return _Source(step.parents, step.field, step.column, values, step.is_integer)

    def _histogram_rows(self) -> HistogramRows:
        if self._histograms is None:
            self._histograms = HistogramRows(self._read_histograms())
        return self._histograms

    def _column(self, name: str) -> Sequence[Any]:
        values = self._columns.get(name)
        if values is None:
            values = self._columns[name] = python_values(self._batch.column(name))
        return values


def python_values(array: Any) -> list[Any]:
    """Return the values of an Arrow array; text with few distinct values costs next to nothing."""
    if pa.types.is_dictionary(array.type):
        values = array.dictionary.to_pylist()
        if array.null_count:
            return [None if code is None else values[code] for code in array.indices.to_pylist()]
        return list(map(values.__getitem__, array.indices.to_numpy().tolist()))
    if pa.types.is_map(array.type):
        return [None if pairs is None else dict(pairs) for pairs in array.to_pylist()]
    if pa.types.is_string(array.type) and not array.null_count:
        return _texts(array)
    return [*array.to_pylist()]


def _texts(array: Any) -> list[str]:
    """Return texts cut out of one string, which is three times as fast as one text after the other."""
    _, offsets_buffer, data = array.buffers()
    if offsets_buffer is None or data is None:
        return [*array.to_pylist()]
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    first = int(offsets[0]) if len(offsets) else 0
    whole = data[first : int(offsets[-1])].to_pybytes() if len(offsets) else b""
    if not whole.isascii():
        return [*array.to_pylist()]
    text = whole.decode("ascii")
    ends = (offsets - first).tolist()
    return [text[start:end] for start, end in pairwise(ends)]


@lru_cache(maxsize=LIFTED_REMEMBERED)
def _steps(lifted: str) -> tuple[_PutBack, ...]:
    """Return what the column `lifted` says has to be put back; it is the same in most pings of a type."""
    steps = []
    places: Mapping[str, str] = json.loads(lifted)
    for pointer, source in places.items():
        if (pointer, source) == HALVES_SPELLED:
            continue
        *parents, field = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
        column, _, _ = source.partition(":")
        is_histograms = column in CONTAINERS
        is_integer = not is_histograms and source.endswith(INTEGER)
        steps.append(
            _PutBack(tuple(parents), field, source if is_histograms else column, is_integer, is_histograms)
        )
    return tuple(steps)
