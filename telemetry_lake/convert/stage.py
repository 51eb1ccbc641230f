"""Convert raw objects into Parquet files that wait to be committed to their tables.

The rows of a table and a partition make one file, sorted by the table's sort order. What has been
converted is held back until `BUFFER_MAX_BYTES` are there; then the largest partitions are sorted and
written as a row group each, so memory stays bounded: a file of several row groups is sorted within each.
Files have names of their own each time. One that is never committed is invisible and harmless.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from itertools import groupby
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from telemetry_lake import columns
from telemetry_lake.convert.arrays import of_integers, of_numbers
from telemetry_lake.convert.converter import Converter, Received
from telemetry_lake.convert.histograms import SUM_FIELDS
from telemetry_lake.failures import DamagedRawObject
from telemetry_lake.settings import MIB
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS, TableDefinition, table_definition

BUFFER_MAX_BYTES: Final = 32 * MIB
"""So much of a table is held back in Arrow's form."""
ROW_GROUP_SHARE: Final = 8
"""A full buffer writes its largest partition, and those that have at least an eighth of its rows."""
COMPRESSION_LEVEL: Final = 1
PAGE_BYTES: Final = 4 * MIB
"""Four times Parquet's default makes files 3 % smaller; nobody reads less than a column of a row group."""
_DISTINCT: Final = frozenset({"counts", *SUM_FIELDS}) - {"sum_squares_hi"}
"""Fields of a histogram that are written faster, and no larger, without a dictionary."""
_TEXTS: Final = frozenset({columns.DOCUMENT, columns.DOCUMENT_ID, columns.BODY, columns.RAW_OBJECT_POSITION})
"""Columns that differ in every row."""


class StagingFolder(Protocol):
    """A folder for staged files. `filesystem` knows it as `path`, Iceberg as `uri`."""

    @property
    def filesystem(self) -> pa_fs.FileSystem:
        """Where files are written."""

    @property
    def path(self) -> str:
        """The folder in `filesystem`, without a slash at the end."""

    @property
    def uri(self) -> str:
        """The folder's address in the table's metadata, such as `s3://warehouse/…`."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StagedParquetFile(_Record):
    """One file: its address, its table such as `live.pings`, its partition (dates as ISO 8601), its size."""

    uri: str
    table: str
    partition: dict[str, str]
    rows: int
    bytes: int


class RawObjectTotals(_Record):
    """What the pings of one raw object became; `rejected` counts by error type."""

    key: str
    pings: int
    rejected: dict[str, int]


class StagedFiles(_Record):
    """Everything that one call staged."""

    files: tuple[StagedParquetFile, ...]
    raw_objects: tuple[RawObjectTotals, ...]


def stage_raw_objects(
    converter: Converter, raws: Iterable[Received], folders: Mapping[str, StagingFolder]
) -> StagedFiles:
    """Convert `raws` and write their rows into `folders`, which has one for each of the two live tables.

    Raises DamagedRawObject when a raw object does not hold what it promises; files may have been written.
    """
    totals: list[RawObjectTotals] = []
    with ExitStack() as open_files:
        tables = {
            name: _TableStage(table_definition(name), folders[name], open_files)
            for name in (LIVE_PINGS, LIVE_REJECTED_PINGS)
        }
        for raw in raws:
            pings, rejected = 0, Counter[str]()
            for conversion in converter.convert(raw):
                tables[LIVE_PINGS].add(conversion.pings)
                tables[LIVE_REJECTED_PINGS].add(conversion.rejected)
                pings += conversion.pings.num_rows
                rejected.update(map(str, conversion.rejected.column(columns.ERROR_TYPE).to_pylist()))
            if (found := pings + rejected.total()) != raw.promise.ping_count:
                raise DamagedRawObject(f"{raw.key}: {found} rows of {raw.promise.ping_count} pings")
            totals.append(RawObjectTotals(key=raw.key, pings=pings, rejected=dict(sorted(rejected.items()))))
        files = [file for table in tables.values() for file in table.finish()]
    return StagedFiles(files=tuple(files), raw_objects=tuple(totals))


class _Run(NamedTuple):
    """Rows with one value of the sort order; nulls come first."""

    key: tuple[tuple[bool, object], ...]
    rows: pa.Table


def _key_of_run(run: _Run) -> tuple[tuple[bool, Any], ...]:
    return run.key


class _TableStage:
    """The files of one table while they are written."""

    def __init__(self, definition: TableDefinition, folder: StagingFolder, open_files: ExitStack) -> None:
        self._definition = definition
        self._folder = folder
        self._open_files = open_files
        self._schema = definition.arrow_schema()
        self._partitioned_by = [part.column for part in definition.metadata.partitioned_by]
        self._order = [*self._partitioned_by, *definition.metadata.sorted_by]
        self._held_back: list[pa.Table] = []
        self._held_back_bytes = 0
        self._files: dict[tuple[object, ...], _PartitionFile] = {}

    def add(self, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        self._held_back.append(rows)
        self._held_back_bytes += rows.get_total_buffer_size()
        if self._held_back_bytes >= BUFFER_MAX_BYTES:
            self._write_largest()

    def finish(self) -> list[StagedParquetFile]:
        if self._held_back:
            for partition, rows in self._partitions():
                self._file(partition).write(rows)
                self._files[partition].close()
        for file in self._files.values():
            file.close()
        return [
            StagedParquetFile(
                uri=f"{self._folder.uri}/{file.name}",
                table=self._definition.name,
                partition=dict(zip(self._partitioned_by, map(str, partition), strict=True)),
                rows=file.rows,
                bytes=file.bytes,
            )
            for partition, file in self._files.items()
        ]

    def _write_largest(self) -> None:
        partitions = sorted(self._partitions(), key=lambda entry: entry[1].num_rows, reverse=True)
        enough = sum(rows.num_rows for _, rows in partitions) / ROW_GROUP_SHARE
        self._held_back, self._held_back_bytes = [], 0
        for number, (partition, rows) in enumerate(partitions):
            if number == 0 or rows.num_rows >= enough:
                self._file(partition).write(rows)
            else:
                # A copy, because a slice would keep all rows of the buffer in memory.
                copy = rows.take(of_numbers(np.arange(rows.num_rows), pa.int64()))
                self._held_back.append(copy)
                self._held_back_bytes += copy.get_total_buffer_size()

    def _partitions(self) -> Iterator[tuple[tuple[object, ...], pa.Table]]:
        """What is held back, sorted, by partition."""
        runs = sorted((run for rows in self._held_back for run in self._runs(rows)), key=_key_of_run)
        for partition, members in groupby(runs, lambda run: run.key[: len(self._partitioned_by)]):
            yield (
                tuple(value for _, value in partition),
                pa.concat_tables([run.rows for run in members]),
            )

    def _runs(self, rows: pa.Table) -> Iterator["_Run"]:
        """`rows`, sorted, in slices with the same partition and the same values of the sort order.

        Slices are what makes sorting cheap: only their order has to be found, and rows are copied only
        between the first and the last that a chunk does not have in its place.
        """
        values = [rows.column(column).to_pylist() for column in self._order]
        keys = [tuple((value is not None, value) for value in row) for row in zip(*values, strict=True)]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        if displaced := [place for place, number in enumerate(order) if number != place]:
            first, end = displaced[0], displaced[-1] + 1
            sorted_rows = rows.take(of_integers(order[first:end], pa.int64()))
            rows = pa.concat_tables([rows.slice(0, first), sorted_rows, rows.slice(end)])
            keys = [keys[number] for number in order]
        start = 0
        for key, members in groupby(keys):
            length = len(list(members))
            yield _Run(key, rows.slice(start, length))
            start += length

    def _file(self, partition: tuple[object, ...]) -> "_PartitionFile":
        if partition not in self._files:
            self._files[partition] = _PartitionFile(self._folder, self._schema, self._open_files)
        return self._files[partition]


class _PartitionFile:
    """One Parquet file."""

    def __init__(self, folder: StagingFolder, schema: pa.Schema, open_files: ExitStack) -> None:
        self.name = f"{uuid.uuid4()}.parquet"
        self.rows = 0
        self.bytes = 0
        self._sink = open_files.enter_context(
            folder.filesystem.open_output_stream(f"{folder.path}/{self.name}")
        )
        self._writer = open_files.enter_context(parquet_writer(self._sink, schema))

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows, row_group_size=rows.num_rows)
        self.rows += rows.num_rows

    def close(self) -> None:
        if self._writer.is_open:
            self._writer.close()
            self.bytes = self._sink.tell()
            self._sink.close()


def parquet_writer(sink: pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    """Writes rows of a live table into `sink`, in the form that staged files have."""
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=_dictionary_columns(schema),  # type: ignore[arg-type]  # the stub knows bool only
        data_page_size=PAGE_BYTES,
        write_statistics=_whole_columns(schema),
        store_schema=False,
    )


@cache
def _leaves(schema: pa.Schema) -> list[str]:
    """The path of every leaf column, as Parquet names it."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([], schema), sink)
    parquet = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [parquet.column(number).path for number in range(len(parquet))]


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """The leaf columns of rows that are worth a dictionary."""
    return [leaf for leaf in _leaves(schema) if not (_DISTINCT | _TEXTS).intersection(leaf.split("."))]


def _whole_columns(schema: pa.Schema) -> list[str]:
    """The columns with statistics: nobody skips rows by what is inside lists, maps and structs.

    The tables' properties say the same to those who read statistics.
    """
    return [leaf for leaf in _leaves(schema) if "." not in leaf]
