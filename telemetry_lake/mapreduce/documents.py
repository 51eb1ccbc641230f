"""What `map` gets as `value`: the document of a row, as text or as what `json.loads` makes of the text.

The text is the JSON of the whole converted document: everything that was moved into columns is put back,
and the plain histograms of the parent process are in the compact form of Mozilla's first server, lists of all
bucket counts followed by `telemetry_lake.convert.histograms.SUM_FIELDS`. Everything else is as it was sent.
`Documents.parsed` equals `json.loads(Documents.text)`, order of members included, and makes only what is
looked at (`lazy_dict`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from itertools import pairwise
from types import ModuleType
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from telemetry_lake import columns
from telemetry_lake.convert.document_text import document_text, parse_json
from telemetry_lake.convert.histograms import KEYED, PLAIN
from telemetry_lake.convert.lift import INTEGER
from telemetry_lake.mapreduce.histogram_rows import Container, HistogramRows
from telemetry_lake.mapreduce.lazy_dict import LazyDict

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
"""What has to be read for documents without their histograms."""
JSON_MODULES: Final = frozenset({"json", "simplejson", "ujson", "orjson"})
"""Modules whose `loads` makes the same of a document's text."""

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

    `batch` has the `DOCUMENT_COLUMNS`; `histograms` gives the column of that name of the same rows, and is
    called once, when the first histogram is looked at.
    """

    def __init__(self, batch: pa.RecordBatch, histograms: Callable[[], Any]) -> None:
        self._texts = batch.column(columns.DOCUMENT)
        self._lifted: Sequence[str] = python_values(batch.column(columns.LIFTED))
        self._batch = batch
        self._columns: dict[str, Sequence[Any]] = {}
        self._sources: dict[str, list[_Source]] = {}
        self._read_histograms = histograms
        self._histograms: HistogramRows | None = None

    def parsed(self, row: int) -> Json:
        """The document of a row, in which objects of histograms are lazy."""
        return self._restored(row, LazyDict)

    def text(self, row: int) -> str:
        """The document of a row as JSON text without spaces."""
        return document_text(self._restored(row, Container.all))

    def _restored(self, row: int, of_container: Callable[[Container], Json]) -> Json:
        document: Json = parse_json(self._texts[row].as_buffer().to_pybytes())  # type: ignore[assignment]
        lifted = self._lifted[row]
        sources = self._sources.get(lifted)
        if sources is None:
            sources = self._sources[lifted] = [self._source(step) for step in _steps(lifted)]
        for parents, field, column, values, is_integer in sources:
            holder = document
            for part in parents:
                holder = holder[part]
            if values is None:
                holder[field] = of_container(Container(self._histogram_rows, row, column, holder[field]))
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


class LazyText:
    """A `value` whose text nobody has asked for yet.

    `map` gets it only where its source shows that it goes nowhere but to `json.loads`
    (`telemetry_lake.mapreduce.value_use`). Should it go elsewhere all the same, it does what the text does.
    """

    __slots__ = ("_documents", "_row")

    def __init__(self, documents: Documents, row: int) -> None:
        self._documents, self._row = documents, row

    def __str__(self) -> str:
        return self._documents.text(self._row)

    def __getattr__(self, name: str) -> Any:
        return getattr(str(self), name)

    def parsed(self) -> Json:
        """What `json.loads` would make of the text."""
        return self._documents.parsed(self._row)


def _of_text(name: str) -> Callable[..., Any]:
    of_str: Callable[..., Any] = getattr(str, name)

    def method(self: LazyText, *arguments: Any) -> Any:
        return of_str(str(self), *(str(one) if type(one) is LazyText else one for one in arguments))

    return method


for _name in (
    *("__add__", "__contains__", "__eq__", "__format__", "__ge__", "__getitem__", "__gt__", "__hash__"),
    *("__iter__", "__le__", "__len__", "__lt__", "__mod__", "__mul__", "__ne__", "__repr__", "__rmul__"),
):
    setattr(LazyText, _name, _of_text(_name))


def lazy_loads(loads: Callable[..., Any]) -> Callable[..., Any]:
    """A function like `loads`, that of `json` or its like, which knows `LazyText`."""

    @wraps(loads)
    def loads_lazily(text: Any, *arguments: Any, **named: Any) -> Any:
        if type(text) is LazyText and not arguments and not named:
            return text.parsed()
        return loads(text, *arguments, **named)

    return loads_lazily


class LazyJson(ModuleType):
    """A module like `module`, that is `json` or its like, whose `loads` knows `LazyText`."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        self._module = module
        self.loads = lazy_loads(module.loads)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def python_values(array: Any) -> list[Any]:
    """The values of an Arrow array; text with few different values costs next to nothing."""
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
    """Text cut out of one string, which is three times as quick as text by text."""
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
    """What the column `lifted` says has to be put back; most pings of a type say the same."""
    steps = []
    places: Mapping[str, str] = json.loads(lifted)
    for pointer, source in places.items():
        *parents, field = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
        column, _, _ = source.partition(":")
        is_histograms = column in (PLAIN, KEYED)
        is_integer = not is_histograms and source.endswith(INTEGER)
        steps.append(
            _PutBack(tuple(parents), field, source if is_histograms else column, is_integer, is_histograms)
        )
    return tuple(steps)
