"""The map side: one unit of work after another, each in a process that knows nothing but its `MapTask`.

Each call of `map` costs what it has to: the rows of a batch become Python values column by column, and what
the script writes is gathered by key (`pairs`) or rendered (`records`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import pyarrow as pa

from telemetry_lake import columns
from telemetry_lake.mapreduce.lazy.lazy_json import LazyText, read_json_lazily
from telemetry_lake.mapreduce.lazy.value_use import Use, uses_of
from telemetry_lake.mapreduce.pairs import Pairs, pair_rows
from telemetry_lake.mapreduce.pickles import pickled
from telemetry_lake.mapreduce.reading.documents import DOCUMENT_COLUMNS, Documents, python_values
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.reading.units import Batch, FilePart, ReadColumns, read_unit
from telemetry_lake.mapreduce.records import OutputContext, OutputFormat
from telemetry_lake.mapreduce.script.script import (
    SCRIPT_FAILURES,
    Script,
    ScriptError,
    ScriptSource,
    described,
    place_of,
    unpack_script,
)
from telemetry_lake.mapreduce.summaries import UnitSummary
from telemetry_lake.tables.definitions import TableDefinition

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


@dataclass(frozen=True, slots=True)
class MapTask:
    """Everything the map side has to know; it can be pickled.

    `output_format` is given where there is no `reduce`. After more than `max_failures` failed calls of `map`
    a unit gives up. `lazy` is the switch of `mapreduce.lazy`.
    """

    source: ScriptSource
    units: tuple[tuple[FilePart, ...], ...]
    read: ReadColumns
    row_filter: RowFilter
    io_properties: dict[str, str]
    output_format: OutputFormat | None
    max_failures: int
    lazy: bool = True


def columns_read(
    script: Script, table: TableDefinition, row_filter: RowFilter, *, lazy: bool = True
) -> ReadColumns:
    """Return the columns that a run of `script` reads; `lazy` is that of its `MapTask`.

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
    uses = uses_of(script, lazy=lazy)
    if uses.key is not Use.UNUSED:
        names.append(columns.DOCUMENT_ID)
    if uses.dimensions is not Use.UNUSED:
        names += columns.DIMENSIONS
    documents = script.fields is None and uses.value is not Use.UNUSED
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
    """Map the rows of a unit, and yield batches with the schema `MAPPED`, the summary last.

    `seen` is called with the numbers of rows and of bytes of files that were read since its last call. Raises
    only what reading the files raises: what goes wrong in the script is in the summary.
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
        [{"unit": number, "number": sent, "summary": pickled(summary)}], schema=MAPPED
    )


def _sent(unit: int, first: int, content: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows of `key` and `content` with the columns that keep their order."""
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
        self._uses = uses_of(script, lazy=task.lazy)
        if self._uses.value is Use.PARSED and script.fields is None:
            read_json_lazily(task.source)
        self._gathered: Pairs | _Output
        if task.output_format is None:
            self._gathered = Pairs(script)
        else:
            self._gathered = _Output(OutputContext(task.output_format), summary)

    def take(self, *, finish: bool) -> Iterable[pa.RecordBatch]:
        """Return what was written and need not wait; with `finish`, the rest as well."""
        return self._gathered.take(finish=finish)

    def map_batch(self, batch: Batch) -> None:
        """Call `map` for each row, and count the calls that fail."""
        rows = batch.rows
        count = rows.num_rows
        if not count:
            return
        has_keys = self._uses.key is not Use.UNUSED
        has_dimensions = self._uses.dimensions is not Use.UNUSED
        keys: Iterable[Any] = python_values(rows.column(columns.DOCUMENT_ID)) if has_keys else repeat(None)
        dimensions = _dimensions(rows) if has_dimensions else repeat(None)
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
            except SCRIPT_FAILURES as error:
                self._failed(error, batch, row)
                if self._summary.failures > self._task.max_failures:
                    return

    def _value_of(self, batch: Batch) -> Callable[[int], Any] | None:
        """Return what makes the `value` of a row; None when `map` does not use it."""
        if self._uses.value is Use.UNUSED:
            return None
        fields = self._script.fields
        if fields is not None:
            lists = [python_values(batch.rows.column(name)) for name in fields]
            return lambda row: {name: values[row] for name, values in zip(fields, lists, strict=True)}
        documents = Documents(batch.rows, batch.histograms)
        if self._uses.value is Use.PARSED:
            return lambda row: LazyText(documents, row)
        return documents.text

    def _failed(self, error: BaseException, batch: Batch, row: int) -> None:
        def describe() -> str:
            document_id = batch.value(row, columns.DOCUMENT_ID)
            place = place_of(error, self._task.source)
            return f"{place}: {described(error)}: document {document_id} ({batch.place(row)})"

        self._summary.add_failure(describe)


def _dimensions(rows: pa.RecordBatch) -> Iterable[list[Any]]:
    """Return the dimensions of each row in their order, the submission date as YYYYMMDD."""
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


class _Output:
    """What `map` wrote where there is no `reduce`."""

    def __init__(self, context: OutputContext, summary: UnitSummary) -> None:
        self.context = context
        self._summary = summary

    def take(self, *, finish: bool) -> Iterator[pa.RecordBatch]:
        for payload in self.context.take_payloads(finish=finish):
            yield pair_rows([None], [payload])
        self._summary.written, self._summary.layout = self.context.records, self.context.layout
