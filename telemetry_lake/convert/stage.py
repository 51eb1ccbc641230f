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
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from telemetry_lake import columns
from telemetry_lake.convert.converter import Converter
from telemetry_lake.failures import DamagedRawObject
from telemetry_lake.raw_object import RawObject
from telemetry_lake.settings import MIB
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS, TableDefinition, table_definition

BUFFER_MAX_BYTES: Final = 48 * MIB
"""So much of a table is held back in Arrow's form."""
ROW_GROUP_SHARE: Final = 8
"""A full buffer writes its largest partition, and those that have at least an eighth of its rows."""
COMPRESSION_LEVEL: Final = 3


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
    converter: Converter, raws: Iterable[RawObject], folders: Mapping[str, StagingFolder]
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


class _TableStage:
    """The files of one table while they are written."""

    def __init__(self, definition: TableDefinition, folder: StagingFolder, open_files: ExitStack) -> None:
        self._definition = definition
        self._folder = folder
        self._open_files = open_files
        self._schema = definition.arrow_schema()
        self._partitioned_by = [part.column for part in definition.metadata.partitioned_by]
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
                copy = rows.take(np.arange(rows.num_rows))
                self._held_back.append(copy)
                self._held_back_bytes += copy.get_total_buffer_size()

    def _partitions(self) -> Iterator[tuple[tuple[object, ...], pa.Table]]:
        """What is held back, sorted, by partition."""
        order = [*self._partitioned_by, *self._definition.metadata.sorted_by, columns.RAW_OBJECT_POSITION]
        rows = pa.concat_tables(self._held_back).combine_chunks()
        keys = rows.select(order)
        rows = rows.take(pc.sort_indices(keys, sort_keys=[(column, "ascending") for column in order]))
        values = rows.select(self._partitioned_by)
        starts = [0, *_changes(values), rows.num_rows]
        for start, end in pairwise(starts):
            first = values.slice(start, 1).to_pylist()[0]
            yield tuple(first[column] for column in self._partitioned_by), rows.slice(start, end - start)

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
        self._writer = open_files.enter_context(
            pq.ParquetWriter(self._sink, schema, compression="zstd", compression_level=COMPRESSION_LEVEL)
        )

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows, row_group_size=rows.num_rows)
        self.rows += rows.num_rows

    def close(self) -> None:
        if self._writer.is_open:
            self._writer.close()
            self.bytes = self._sink.tell()
            self._sink.close()


def _changes(values: pa.Table) -> list[int]:
    """The rows, after the first, in which any column differs from the row before."""
    differs = np.zeros(values.num_rows - 1, dtype=bool)
    for column in values.columns:
        differs |= pc.not_equal(column.slice(1), column.slice(0, values.num_rows - 1)).to_numpy()
    return [int(row) + 1 for row in np.flatnonzero(differs)]
