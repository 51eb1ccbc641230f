"""The parts that a table is read in: planned from its metadata, read from its files, a batch at a time.

`plan_units` chooses the files and cuts them into units of work, in an order that only the snapshot decides.
`read_unit` reads the wanted rows of one unit in any process: of each file the row groups that begin in the
unit's part of it and can have wanted rows, and of these the columns of the run. The column of histograms,
nine tenths of the bytes, is read when a histogram is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from operator import itemgetter
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyiceberg.table import Table

from telemetry_lake import columns
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.tables.files import ReadOnlyFileIO, row_groups_between

UNIT_BYTES: Final = 16 * 1024 * 1024
"""The size of the part of the table's files that makes a unit of work."""
UNITS_MAX_COUNT: Final = 5_000
"""Larger tables have larger units."""
_EPOCH: Final = date(1970, 1, 1)
BATCH_ROWS: Final = 65_536
"""Rows read at a time when they are small."""
DOCUMENT_BATCH_ROWS: Final = 512
"""Rows read at a time when documents are wanted: 60 KB each with their histograms."""


_MANY_VALUES: Final = frozenset({columns.DOCUMENT_ID, columns.CLIENT_ID, columns.DOCUMENT})
"""Text that differs from row to row, for which dictionaries cost more than they save."""

_HISTOGRAM_TEXT: Final = frozenset(
    f"{columns.HISTOGRAMS}.list.element.{name}" for name in ("name", "process", "buckets")
)
"""A ping has 300 of each, few of them different: as text one by one they took a third of the reading."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """The row groups of a file that begin between two positions; `rows` is an estimate."""

    location: str
    start: int
    end: int
    rows: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read: units of work in their order, and their size according to the metadata."""

    units: tuple[tuple[FilePart, ...], ...]
    files: int
    bytes: int
    rows: int
    """All rows of the files, wanted or not."""


@dataclass(frozen=True, slots=True)
class ReadColumns:
    """The columns of a table that a run reads; `types` are those of the table.

    With `documents`, batches are small and histograms can be asked for.
    """

    types: pa.Schema
    documents: bool


class Batch:
    """Wanted rows of a row group, in order."""

    def __init__(
        self,
        rows: pa.RecordBatch,
        file: "_OpenFile",
        extent: tuple[int, int, int],
        kept: NDArray[np.int64] | None,
    ) -> None:
        self.rows = rows
        """The columns of the run."""
        self._file, self._kept = file, kept
        self._group, self._first, self._count = extent

    def histograms(self) -> "pa.ListArray[Any]":
        """Return the column of histograms of these rows."""
        return self._file.histograms(self._group, self._first, self._count, self._kept)

    def place(self, row: int) -> str:
        """Return where a row of this batch is, for a message."""
        number = self._first + (row if self._kept is None else int(self._kept[row]))
        return f"{self._file.location}, row {number} of row group {self._group}"

    def value(self, row: int, column: str) -> Any:
        """Return a value of any column; this reads the whole column of the row group."""
        number = self._first + (row if self._kept is None else int(self._kept[row]))
        return self._file.column(self._group, column)[number].as_py()


def plan_units(table: Table, row_filter: RowFilter) -> Plan:
    """Return the units that hold every row of the table's current snapshot that the filter lets through.

    Files are in the order of their partitions, then of their names. Raises FatalError when rows are deleted
    by other files.
    """
    names = {field.field_id: field.name for field in table.schema().fields}
    found = []
    for task in table.scan(row_filter=row_filter.condition()).plan_files():
        if task.delete_files:
            raise FatalError(
                f"rows of {'.'.join(table.name())} are deleted by separate files, which only Spark applies: "
                "run the maintenance of the table first"
            )
        file = task.file
        partition = {
            names[field.source_id]: file.partition[number]
            for number, field in enumerate(table.specs()[file.spec_id].fields)
            if str(field.transform) == "identity"
        }
        if columns.SUBMISSION_DATE in partition:
            partition[columns.SUBMISSION_DATE] = _day(partition[columns.SUBMISSION_DATE])
        if row_filter.may_allow(
            {name: (value, value) for name, value in partition.items() if value is not None}
        ):
            order = (*(str(value) for value in partition.values()), file.file_path)
            found.append((order, file))
    files = [file for _, file in sorted(found, key=itemgetter(0))]
    total = sum(file.file_size_in_bytes for file in files)
    unit_bytes = max(UNIT_BYTES, -(-total // UNITS_MAX_COUNT))
    return Plan(tuple(_units(files, unit_bytes)), len(files), total, sum(file.record_count for file in files))


def _units(files: Sequence[Any], unit_bytes: int) -> Iterator[tuple[FilePart, ...]]:
    unit: list[FilePart] = []
    room = unit_bytes
    for file in files:
        size = file.file_size_in_bytes
        pieces = max(1, round(size / unit_bytes))
        for piece in range(pieces):
            start, end = size * piece // pieces, size * (piece + 1) // pieces
            if unit and end - start > room:
                yield tuple(unit)
                unit, room = [], unit_bytes
            unit.append(FilePart(file.file_path, start, end, file.record_count / pieces))
            room -= end - start
    if unit:
        yield tuple(unit)


def read_unit(
    unit: Sequence[FilePart], wanted: ReadColumns, row_filter: RowFilter, io_properties: dict[str, str]
) -> Iterator[tuple[Batch, int]]:
    """Yield the wanted rows of a unit in batches, each with the number of rows left out before it and in it.

    Batches can be empty, so that what was left out is counted.
    """
    io = ReadOnlyFileIO(io_properties)
    for part in unit:
        with _OpenFile(io, part, wanted, row_filter) as file:
            yield from file.batches()


class _OpenFile:
    """One file while it is read."""

    def __init__(
        self, io: ReadOnlyFileIO, part: FilePart, wanted: ReadColumns, row_filter: RowFilter
    ) -> None:
        self.location = part.location
        self._part, self._wanted, self._filter = part, wanted, row_filter
        self._source = cast("pa.NativeFile", io.new_input(part.location).open())
        metadata = pq.ParquetFile(self._source).metadata
        text = {
            field.name
            for field in wanted.types
            if pa.types.is_string(field.type) and field.name not in _MANY_VALUES
        }
        if wanted.documents:
            text |= _HISTOGRAM_TEXT
        # A column that is newer than the file may not be named.
        paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
        self._file = pq.ParquetFile(
            self._source,
            metadata=metadata,
            read_dictionary=[path for path in paths if path in text],
            pre_buffer=True,
        )
        self._columns = set(self._file.schema_arrow.names)
        self._batch_rows = DOCUMENT_BATCH_ROWS if wanted.documents else BATCH_ROWS
        self._histograms: _Following | None = None

    def __enter__(self) -> "_OpenFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._source.close()

    def batches(self) -> Iterator[tuple[Batch, int]]:
        read = [name for name in self._wanted.types.names if name in self._columns]
        for group in row_groups_between(self._file.metadata, self._part.start, self._part.end):
            metadata = self._file.metadata.row_group(group)
            if not self._filter.may_allow(_statistics(metadata, self._filter.columns)):
                yield Batch(self._rows_of_nothing(), self, (group, 0, 0), None), metadata.num_rows
                continue
            first = 0
            for batch in self._batches_of(group, metadata.num_rows, read):
                mask = self._filter.mask(batch)
                kept = None if mask is None else np.flatnonzero(mask)
                rows = batch if kept is None else batch.take(kept)
                extent = (group, first, batch.num_rows)
                yield Batch(rows, self, extent, kept), batch.num_rows - rows.num_rows
                first += batch.num_rows

    def _batches_of(self, group: int, rows: int, read: list[str]) -> Iterator[pa.RecordBatch]:
        if not read:
            sizes = [min(self._batch_rows, rows - done) for done in range(0, rows, self._batch_rows)]
            batches: Iterator[pa.RecordBatch] = (_of_size(size) for size in sizes)
        else:
            batches = self._file.iter_batches(self._batch_rows, [group], read, use_threads=False)
        for batch in batches:
            yield self._completed(batch)

    def _completed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with columns that are newer than the file as nulls."""
        arrays: list[Any] = [
            batch.column(field.name) if field.name in self._columns else pa.nulls(batch.num_rows, field.type)
            for field in self._wanted.types
        ]
        if not arrays:
            return batch
        return pa.RecordBatch.from_arrays(arrays, names=self._wanted.types.names)

    def _rows_of_nothing(self) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist([], schema=self._wanted.types)

    def histograms(
        self, group: int, first: int, rows: int, kept: NDArray[np.int64] | None
    ) -> "pa.ListArray[Any]":
        """Return the histograms of `rows` rows from `first` on, or of those of them that are kept."""
        if self._histograms is None or not self._histograms.reaches(group, first):
            batches = self._file.iter_batches(
                self._batch_rows, [group], [columns.HISTOGRAMS], use_threads=False
            )
            self._histograms = _Following(group, batches)
        column = self._histograms.rows(first, rows)
        return column if kept is None else column.take(kept)

    def column(self, group: int, name: str) -> Any:
        """Return one column of a row group."""
        return self._file.read_row_group(group, [name]).column(0)


class _Following:
    """A column of a row group that is read behind the others, and only as far as it is needed."""

    def __init__(self, group: int, batches: Iterator[pa.RecordBatch]) -> None:
        self._group, self._batches = group, batches
        self._first = self._end = 0
        self._read: list[Any] = []

    def reaches(self, group: int, first: int) -> bool:
        """Return whether these rows still lie ahead."""
        return group == self._group and first >= self._first

    def rows(self, first: int, count: int) -> "pa.ListArray[Any]":
        """Return `count` rows from `first` on, and forget those before them."""
        while self._end < first + count:
            if self._end <= first:
                self._read, self._first = [], self._end
            column = next(self._batches).column(0)
            self._read.append(column)
            self._end += len(column)
        together = self._read[0] if len(self._read) == 1 else pa.concat_arrays(self._read)
        self._read = [together]
        return cast("pa.ListArray[Any]", together.slice(first - self._first, count))


def _of_size(rows: int) -> pa.RecordBatch:
    """Return this many rows without columns."""
    structs = cast("pa.StructArray", pa.array([{}] * rows, pa.struct([])))
    return pa.RecordBatch.from_struct_array(structs)


def _statistics(group: Any, names: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Return the least and the greatest value of each of `names` for which the file has statistics."""
    found = {}
    for number in range(group.num_columns):
        column = group.column(number)
        statistics = column.statistics if column.path_in_schema in names else None
        if statistics is not None and statistics.has_min_max:
            found[column.path_in_schema] = (statistics.min, statistics.max)
    return found


def _day(days: Any) -> Any:
    """Return the date of a partition value, which is in days since 1970."""
    return _EPOCH + timedelta(days=days) if isinstance(days, int) else days
