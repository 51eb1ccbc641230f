"""The map side: one unit of work after another, each in a process that knows nothing but its `MapTask`.

Each call of `map` costs what it has to: the rows of a batch become Python values column by column, and what
the script writes is gathered in a dict of lists. A dict that has grown to `PENDING_MAX_VALUES` is combined in
place if the script can combine, and sent away if that does not help, so that memory stays bounded. What is
sent is a row for a key and many of its values, never a row for each value.
"""

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from types import ModuleType
from typing import Any, Final

import pyarrow as pa

from telemetry_lake import columns
from telemetry_lake.mapreduce.documents import (
    DOCUMENT_COLUMNS,
    Documents,
    LazyJson,
    LazyText,
    lazy_loads,
    python_values,
)
from telemetry_lake.mapreduce.key_order import key_bytes
from telemetry_lake.mapreduce.records import NO_LAYOUT, Layout, OutputContext, OutputFormat, joined_layouts
from telemetry_lake.mapreduce.row_filter import RowFilter
from telemetry_lake.mapreduce.script import (
    Script,
    ScriptError,
    ScriptSource,
    described,
    place_of,
    unpack_script,
)
from telemetry_lake.mapreduce.units import Batch, FilePart, ReadColumns, read_unit
from telemetry_lake.mapreduce.value_use import DIMENSIONS, KEY, VALUE, Use, is_loads, use_of
from telemetry_lake.tables import TableDefinition

PENDING_MAX_VALUES: Final = 250_000
"""Values that wait to be combined or sent."""
PENDING_MAX_BYTES: Final = 64 * 1024 * 1024
"""Text, bytes and pickled objects among them."""
VALUES_PER_ROW: Final = 5_000
SENT_ROWS: Final = 20_000
SENT_BYTES: Final = 4 * 1024 * 1024
"""One Arrow batch on its way to Spark has at most so many rows, or a little more than so many bytes."""
FAILURES_SHOWN_MAX: Final = 5
"""So many failures of a unit are described; all are counted."""

_MAPPED_TYPES: Final[dict[str, pa.DataType]] = {
    "unit": pa.int32(),
    "number": pa.int32(),
    "key": pa.binary(),
    "content": pa.binary(),
    "summary": pa.binary(),
}
MAPPED: Final = pa.schema(_MAPPED_TYPES)
"""What the map side gives. A row has either a `summary`, one of each unit, or `content`: output of a script
without `reduce`, or with `key` (`key_bytes`) a pickled key and a list of its values."""

_PLAIN: Final = frozenset({int, str, float, bool, type(None), bytes})
"""Types whose objects nobody can change after they were written."""
_GIVES_UP: Final = (Exception, SystemExit)
"""What a script may raise without ending the process; `sys.exit()` is meant for the script."""


@dataclass(frozen=True, slots=True)
class MapTask:
    """Everything the map side has to know; picklable.

    `output_format` is given where there is no `reduce`. After more than `max_failures` failed calls of `map`
    a unit gives up.
    """

    source: ScriptSource
    units: tuple[tuple[FilePart, ...], ...]
    read: ReadColumns
    row_filter: RowFilter
    io_properties: dict[str, str]
    output_format: OutputFormat | None
    max_failures: int


@dataclass(slots=True)
class UnitSummary:
    """What became of a unit, or of the keys of a reducer."""

    records: int = 0
    filtered: int = 0
    """Rows read and left out by the filter."""
    bytes: int = 0
    """Of the unit's files."""
    sent_bytes: int = 0
    """Of what goes to the reduce side."""
    written: int = 0
    """Records of output."""
    failures: int = 0
    described: list[str] = field(default_factory=list)
    fatal: str | None = None
    """Why the run cannot go on."""
    layout: Layout = NO_LAYOUT

    def add(self, other: "UnitSummary") -> None:
        """Count what became of another unit, too."""
        self.records += other.records
        self.filtered += other.filtered
        self.bytes += other.bytes
        self.sent_bytes += other.sent_bytes
        self.written += other.written
        self.failures += other.failures
        self.described = (self.described + other.described)[:FAILURES_SHOWN_MAX]
        self.fatal = self.fatal or other.fatal
        self.layout = joined_layouts(self.layout, other.layout)


class Pickled:
    """A value that could be changed after it was written, as it was then."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return Pickled, (self.content,)


def columns_read(script: Script, table: TableDefinition, row_filter: RowFilter) -> ReadColumns:
    """The columns that a run of `script` reads.

    Raises ScriptError when its `fields` are not columns of the table.
    """
    names: list[str] = []
    if script.fields is not None:
        known = [column.name for column in table.columns]
        if unknown := [name for name in script.fields if name not in known]:
            raise ScriptError(
                f"{script.source.file}: `fields` names {', '.join(map(repr, unknown))}; "
                f"the columns of {table.name} are {', '.join(known)}"
            )
        names += script.fields
    if use_of(script, KEY) is not Use.UNUSED:
        names.append(columns.DOCUMENT_ID)
    if use_of(script, DIMENSIONS) is not Use.UNUSED:
        names += columns.DIMENSIONS
    documents = script.fields is None and use_of(script, VALUE) is not Use.UNUSED
    if documents:
        names += DOCUMENT_COLUMNS
    names += row_filter.columns
    return ReadColumns(
        table.arrow_schema(list(dict.fromkeys(names))) if names else pa.schema([]),
        documents or columns.HISTOGRAMS in names,
    )


def map_unit(
    task: MapTask, number: int, seen: Callable[[int, int], object] | None = None
) -> Iterator[pa.RecordBatch]:
    """Map the rows of a unit; batches with the schema `MAPPED`, the summary last.

    `seen` is told of rows and of bytes of files as they are read. Raises only what reading the files raises;
    what goes wrong in the script is in the summary.
    """
    unit = task.units[number]
    summary = UnitSummary(bytes=sum(part.end - part.start for part in unit))
    mapping: _Mapping | None = None
    try:
        script = unpack_script(task.source)
        mapping = _Mapping(script, task, summary)
    except ScriptError as error:
        summary.fatal = str(error)
    sent = 0
    if mapping is not None:
        for batch, filtered in read_unit(unit, task.read, task.row_filter, task.io_properties):
            summary.filtered += filtered
            summary.records += batch.rows.num_rows
            try:
                mapping.map_batch(batch)
                ready = mapping.take(finish=False)
            except ScriptError as error:
                summary.fatal = str(error)
                break
            if seen is not None:
                seen(batch.rows.num_rows + filtered, 0)
            for content in ready:
                yield _sent(number, sent, content)
                sent += content.num_rows
                summary.sent_bytes += content.nbytes
            if summary.failures > task.max_failures:
                break
        else:
            try:
                for content in mapping.take(finish=True):
                    yield _sent(number, sent, content)
                    sent += content.num_rows
                    summary.sent_bytes += content.nbytes
            except ScriptError as error:
                summary.fatal = str(error)
    if seen is not None:
        seen(0, summary.bytes)
    yield pa.RecordBatch.from_pylist(
        [{"unit": number, "number": sent, "summary": pickle.dumps(summary)}], schema=MAPPED
    )


def _sent(unit: int, first: int, content: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of `key` and `content` with what tells their order."""
    rows = content.num_rows
    return pa.RecordBatch.from_arrays(
        [
            pa.array([unit] * rows, pa.int32()),
            pa.array(range(first, first + rows), pa.int32()),
            content.column("key"),
            content.column("content"),
            pa.nulls(rows, pa.binary()),
        ],
        schema=MAPPED,
    )


class _Mapping:
    """Calls a script's `map` for batches of rows."""

    def __init__(self, script: Script, task: MapTask, summary: UnitSummary) -> None:
        self._script, self._task, self._summary = script, task, summary
        self._key_used = use_of(script, KEY) is not Use.UNUSED
        self._dimensions_used = use_of(script, DIMENSIONS) is not Use.UNUSED
        self._value_use = use_of(script, VALUE)
        if self._value_use is Use.PARSED and script.fields is None:
            _read_json_lazily(task.source)
        self._gathered: _Pairs | _Output
        if task.output_format is None:
            self._gathered = _Pairs(script)
        else:
            self._gathered = _Output(OutputContext(task.output_format), summary)

    def take(self, *, finish: bool) -> Iterable[pa.RecordBatch]:
        """What was written and need not wait; with `finish`, the rest as well."""
        return self._gathered.take(finish=finish)

    def map_batch(self, batch: Batch) -> None:
        """Call `map` for each row; what it raises is counted."""
        rows = batch.rows
        count = rows.num_rows
        if not count:
            return
        keys: Iterable[Any] = (
            python_values(rows.column(columns.DOCUMENT_ID)) if self._key_used else repeat(None)
        )
        dimensions = _dimensions(rows) if self._dimensions_used else repeat(None)
        call, context = self._script.map, self._gathered.context
        value_of = self._value_of(batch)
        following = zip(range(count), keys, dimensions, strict=False)
        row = 0
        while True:
            try:
                if value_of is None:
                    for row, key, dimension in following:  # noqa: B007 (where it was when it failed)
                        call(key, dimension, None, context)  # type: ignore[arg-type]
                else:
                    for row, key, dimension in following:
                        call(key, dimension, value_of(row), context)  # type: ignore[arg-type]
                return
            except ScriptError:
                raise  # of combine
            except _GIVES_UP as error:
                self._failed(error, batch, row)
                if self._summary.failures > self._task.max_failures:
                    return

    def _value_of(self, batch: Batch) -> Callable[[int], Any] | None:
        """What makes the `value` of a row; None when nobody looks at it."""
        if self._value_use is Use.UNUSED:
            return None
        fields = self._script.fields
        if fields is not None:
            lists = [python_values(batch.rows.column(name)) for name in fields]
            return lambda row: {name: values[row] for name, values in zip(fields, lists, strict=True)}
        documents = Documents(batch.rows, batch.histograms)
        if self._value_use is Use.PARSED:
            return lambda row: LazyText(documents, row)
        return documents.text

    def _failed(self, error: BaseException, batch: Batch, row: int) -> None:
        self._summary.failures += 1
        if len(self._summary.described) < FAILURES_SHOWN_MAX:
            document_id = batch.value(row, columns.DOCUMENT_ID)
            self._summary.described.append(
                f"{place_of(error, self._task.source)}: {described(error)}: document {document_id} "
                f"({batch.place(row)})"
            )


def _dimensions(rows: pa.RecordBatch) -> Iterable[list[Any]]:
    """The dimensions of each row in their order; the submission date as YYYYMMDD."""
    lists = []
    for name in columns.DIMENSIONS:
        column: Any = rows.column(name)
        if name == columns.SUBMISSION_DATE:
            encoded = column.dictionary_encode()
            days = [day.strftime("%Y%m%d") for day in encoded.dictionary.to_pylist()]
            lists.append([days[code] for code in encoded.indices.to_numpy().tolist()])
        else:
            lists.append(python_values(column))
    return map(list, zip(*lists, strict=True))


class _Opaque:
    """A key that is no plain object: its bytes, and the key as it was when it was written."""

    __slots__ = ("order", "pickled")

    def __init__(self, key: Any) -> None:
        self.order = key_bytes(key)
        self.pickled = pickle.dumps(key, pickle.HIGHEST_PROTOCOL)

    def __hash__(self) -> int:
        return hash(self.order)

    def __eq__(self, other: object) -> bool:
        return type(other) is _Opaque and other.order == self.order


class _Pairs:
    """What `map` wrote for `reduce`: the values of each key in the order written."""

    def __init__(self, script: Script) -> None:
        self._combine = script.combine
        self._source = script.source
        self._groups: dict[Any, list[Any]] = {}
        self._waiting: list[pa.RecordBatch] = []
        self._fatal: ScriptError | None = None
        self._room = PENDING_MAX_VALUES
        self._bytes = PENDING_MAX_BYTES
        self.context = PairContext(self.write)

    def write(self, key: Any, value: Any) -> None:
        """`context.write`, for every record of a table: each line counts."""
        if type(value) not in _PLAIN:
            value = self._kept(value)
        elif type(value) is str or type(value) is bytes:
            self._bytes -= len(value)
        if type(key) not in _PLAIN and not (type(key) is tuple and _PLAIN.issuperset(map(type, key))):
            key = _Opaque(key)
            self._bytes -= len(key.pickled)
        values = self._groups.get(key)
        if values is None:
            self._groups[key] = [value]
        else:
            values.append(value)
        self._room -= 1
        if self._room < 0 or self._bytes < 0:
            self._make_room()

    def take(self, *, finish: bool) -> list[pa.RecordBatch]:
        """What waits to be sent; with `finish`, everything, combined. Raises ScriptError of `combine`."""
        if self._fatal is not None:  # which the script may have caught around its `write`
            raise self._fatal
        if finish:
            self._combine_all()
            self._set_aside()
        waiting, self._waiting = self._waiting, []
        return waiting

    def _kept(self, value: Any) -> Any:
        if type(value) is tuple and _PLAIN.issuperset(map(type, value)):
            self._bytes -= sum(len(part) for part in value if type(part) is str or type(part) is bytes)
            return value
        content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._bytes -= len(content)
        return Pickled(content)

    def _make_room(self) -> None:
        self._combine_all()
        left = PENDING_MAX_VALUES - sum(map(len, self._groups.values()))
        if left < PENDING_MAX_VALUES // 2 or self._bytes < PENDING_MAX_BYTES // 2:
            self._set_aside()
        else:
            self._room = left

    def _set_aside(self) -> None:
        self._waiting += _rows_of(self._groups)
        self._groups, self._room, self._bytes = {}, PENDING_MAX_VALUES, PENDING_MAX_BYTES

    def _combine_all(self) -> None:
        """Replace the values of each key that has several by what `combine` writes of them."""
        combine = self._combine
        if combine is None:
            return
        groups, self._groups = self._groups, {}
        self._room, self._bytes = PENDING_MAX_VALUES, PENDING_MAX_BYTES
        to_itself = PairContext(self._write_combined)
        for key, values in groups.items():
            if len(values) == 1:
                self._groups.setdefault(key, []).append(values[0])
                continue
            original = pickle.loads(key.pickled) if type(key) is _Opaque else key  # noqa: S301 (our own)
            try:
                combine(original, unpickled(values), to_itself)
            except _GIVES_UP as error:
                place = place_of(error, self._source)
                self._fatal = ScriptError(
                    f"{place}: {described(error)}: combine of the key {shown(original)}"
                )
                raise self._fatal from error

    def _write_combined(self, key: Any, value: Any) -> None:
        if type(value) not in _PLAIN:
            value = self._kept(value)
        if type(key) not in _PLAIN and not (type(key) is tuple and _PLAIN.issuperset(map(type, key))):
            key = _Opaque(key)
        self._groups.setdefault(key, []).append(value)


class PairContext:
    """The context of `map` and `combine`: where there is a `reduce`, they write pairs and nothing else."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any, Any], None]) -> None:
        self.write = write


class _Output:
    """What `map` wrote where there is no `reduce`."""

    def __init__(self, context: OutputContext, summary: UnitSummary) -> None:
        self.context = context
        self._summary = summary

    def take(self, *, finish: bool) -> Iterator[pa.RecordBatch]:
        for payload in self.context.take_payloads(finish=finish):
            yield _batch([None], [payload])
        self._summary.written, self._summary.layout = self.context.records, self.context.layout


def unpickled(values: Sequence[Any]) -> list[Any]:
    """Values as the script wrote them."""
    return [pickle.loads(value.content) if type(value) is Pickled else value for value in values]  # noqa: S301


def shown(key: Any) -> str:
    """A key for a message."""
    text = repr(key)
    return text if len(text) <= _SHOWN_MAX_CHARACTERS else f"{text[:_SHOWN_MAX_CHARACTERS]}…"


_SHOWN_MAX_CHARACTERS: Final = 200


def _rows_of(groups: dict[Any, list[Any]]) -> Iterator[pa.RecordBatch]:
    keys: list[bytes | None] = []
    contents: list[bytes] = []
    size = 0
    for key, values in groups.items():
        order, pickled = (
            (key.order, key.pickled)
            if type(key) is _Opaque
            else (key_bytes(key), pickle.dumps(key, pickle.HIGHEST_PROTOCOL))
        )
        for first in range(0, len(values), VALUES_PER_ROW):
            content = pickle.dumps((pickled, values[first : first + VALUES_PER_ROW]), pickle.HIGHEST_PROTOCOL)
            keys.append(order)
            contents.append(content)
            size += len(order) + len(content)
            if len(keys) >= SENT_ROWS or size >= SENT_BYTES:
                yield _batch(keys, contents)
                keys, contents, size = [], [], 0
    if keys:
        yield _batch(keys, contents)


def _batch(keys: list[bytes | None] | list[None], contents: list[bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(keys, pa.binary()), pa.array(contents, pa.binary())], names=["key", "content"]
    )


def _read_json_lazily(source: ScriptSource) -> None:
    """Let the modules of a script find `loads` that knows `LazyText`, wherever they imported one."""
    for name in source.modules:
        names = vars(sys.modules[name]) if name in sys.modules else {}
        for global_name, meaning in list(names.items()):
            if isinstance(meaning, ModuleType) and is_loads(getattr(meaning, "loads", None)):
                if not isinstance(meaning, LazyJson):
                    names[global_name] = LazyJson(meaning)
            elif is_loads(meaning) and not hasattr(meaning, "__wrapped__"):
                names[global_name] = lazy_loads(meaning)
