"""Convert raw objects into Parquet files that wait to be committed to their tables.

The rows of a table and a partition make one file, sorted by the table's sort order. What has been
converted is held back until it has `BUFFER_MAX_BYTES`; then the largest partitions are sorted and
written as a row group each, so memory stays bounded: a file of several row groups is sorted within each.
Files have names of their own each time. One that is never committed is invisible and harmless.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from functools import cache
from typing import Final, Protocol, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from telemetry_lake import columns
from telemetry_lake.convert.arrays import of_integers, of_numbers
from telemetry_lake.convert.converter import Conversions, Received
from telemetry_lake.convert.derivation.derived import RUN_COLUMNS, sorted_runs
from telemetry_lake.failures import DamagedRawObject
from telemetry_lake.histograms.stored import SUM_FIELDS
from telemetry_lake.tables.definitions import (
    LIVE_PINGS,
    LIVE_REJECTED_PINGS,
    TableDefinition,
    table_definition,
)
from telemetry_lake.tables.staged import RawObjectRows, Staged, StagedFile
from telemetry_lake.units import MIB

BUFFER_MAX_BYTES: Final = 32 * MIB
"""Size of the rows of a table that are held back, in Arrow's form."""
ROW_GROUP_SHARE: Final = 8
"""A full buffer writes its largest partition, and those that have at least an eighth of its rows."""
COMPRESSION_LEVEL: Final = 1
PAGE_BYTES: Final = 4 * MIB
"""Four times Parquet's default makes files 3 % smaller; no reader reads less than a column of a row group."""
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


def stage_raw_objects(
    converter: Conversions, raws: Iterable[Received], folders: Mapping[str, StagingFolder]
) -> Staged:
    """Convert `raws` and write their rows into `folders`, which has one for each of the two live tables.

    Raises DamagedRawObject when a raw object does not hold what it promises; files may have been written.
    """
    totals: list[RawObjectRows] = []
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
            totals.append(RawObjectRows(key=raw.key, pings=pings, rejected=dict(sorted(rejected.items()))))
        files = [file for table in tables.values() for file in table.finish()]
    return Staged(files=tuple(files), raw_objects=tuple(totals))


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

    def finish(self) -> list[StagedFile]:
        if self._held_back:
            for partition, rows in self._partitions():
                self._file(partition).write(rows)
                self._files[partition].close()
        for file in self._files.values():
            file.close()
        return [
            StagedFile(
                uri=f"{self._folder.uri}/{file.name}",
                table=self._definition.name,
                date=cast(date, partition[self._partitioned_by.index(columns.SUBMISSION_DATE)]),
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
        """Yield the rows that are held back, sorted, by partition."""
        keys = [pl.DataFrame(rows.select(self._order)) for rows in self._held_back]
        for partition, runs in sorted_runs(keys).group_by(self._partitioned_by, maintain_order=True):
            yield partition, pa.concat_tables([self._run(*run) for run in runs[RUN_COLUMNS].iter_rows()])

    def _run(self, table: int, rows: Sequence[int]) -> pa.Table:
        """Return some rows of a table that is held back: a slice where that is possible, else a copy."""
        first, held_back = rows[0], self._held_back[table]
        if rows[-1] - first == len(rows) - 1:
            return held_back.slice(first, len(rows))
        return held_back.take(of_integers(rows, pa.int64()))

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
    """Return a writer of rows of a live table into `sink`, in the form that staged files have."""
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
    """Return the path of every leaf column, as Parquet names it."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([], schema), sink)
    parquet = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [parquet.column(number).path for number in range(len(parquet))]


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """Return the leaf columns of rows that are worth a dictionary."""
    return [leaf for leaf in _leaves(schema) if not (_DISTINCT | _TEXTS).intersection(leaf.split("."))]


def _whole_columns(schema: pa.Schema) -> list[str]:
    """Return the columns with statistics: no query skips rows by what is inside lists, maps and structs.

    The tables' properties say the same to those who read statistics.
    """
    return [leaf for leaf in _leaves(schema) if "." not in leaf]
