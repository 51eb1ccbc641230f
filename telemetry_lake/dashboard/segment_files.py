"""Files of segments while they are made: written in order, and added up without being held whole.

All files are sorted by `KEY_COLUMNS`, so the rows of one channel, metric, process and key are a stretch in
each of them. `add_up_files` goes through several files stretch by stretch: what it holds depends on the
stretches and not on the files.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from telemetry_lake.dashboard.cube_rows import add_up
from telemetry_lake.dashboard.format import ROW_GROUP_MAX_ROWS, ROW_GROUP_MIN_ROWS, SEGMENT_SCHEMA

STRETCH_ROWS: Final = 50_000
"""So many rows are added up at once, or all of one metric, channel, process and key."""
READ_ROWS: Final = 4_096
WAITING_MIN_ROWS: Final = 4 * ROW_GROUP_MAX_ROWS
"""Rows are held back until there are so many, so that small parts are not gone through again and again."""
STRETCHES: Final = ("channel", "metric", "process", "key")
COMPRESSION: Final = "zstd"
NUMBERS: Final = ("counts.list.element", "weights.list.element")
"""Different nearly everywhere: a dictionary of them took a fifth more space, and a third more time."""
VERSION_PROPERTY: Final = b"telemetry-lake.cube-version"
"""The metadata of a file that names the version it was made for: no two versions make the same file."""


# The stubs know few of the functions.
pc: Final[Any] = pyarrow.compute


class SegmentWriter:
    """Writes one file from tables that come in the order of its rows."""

    def __init__(self, file: Path, version: str) -> None:
        # The stubs know this argument as a boolean only.
        dictionaries: Any = [name for name in _leaves() if name not in NUMBERS]
        schema = SEGMENT_SCHEMA.with_metadata({VERSION_PROPERTY: version.encode()})
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression=COMPRESSION,
            use_dictionary=dictionaries,
            column_encoding=dict.fromkeys(NUMBERS, "DELTA_BINARY_PACKED"),
            sorting_columns=pq.SortingColumn.from_ordering(
                schema, [(name, "ascending") for name in STRETCHES], null_placement="at_start"
            ),
        )
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write(is_end=True)
        self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Write rows that come after all that were written before."""
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self.rows += rows.num_rows
        if self._waiting_rows >= WAITING_MIN_ROWS:
            self._write(is_end=False)

    def _write(self, *, is_end: bool) -> None:
        if not self._waiting_rows:
            return
        waiting = pa.concat_tables(self._waiting).combine_chunks()
        sizes = row_group_sizes(_runs(waiting), is_end=is_end)
        done = 0
        for size in sizes:
            self._writer.write_table(waiting.slice(done, size), row_group_size=size)
            done += size
        self._waiting, self._waiting_rows = [waiting.slice(done)], self._waiting_rows - done


def row_group_sizes(runs: Sequence[int], *, is_end: bool) -> list[int]:
    """Return of how many rows each row group is, for metrics with so many rows one after another.

    Unless this `is_end`, more rows of the last metric may follow: what may share a row group with them stays.
    """
    sizes, size = [], 0
    for run in runs[:-1]:
        if size + run > ROW_GROUP_MAX_ROWS and size:
            sizes.append(size)
            size = 0
        size += run
        while size > ROW_GROUP_MAX_ROWS:
            sizes.append(ROW_GROUP_MAX_ROWS)
            size -= ROW_GROUP_MAX_ROWS
        if size >= ROW_GROUP_MIN_ROWS:
            sizes.append(size)
            size = 0
    last = sum(runs[-1:])
    if size and size + last > ROW_GROUP_MAX_ROWS:
        sizes.append(size)
        size = 0
    whole, rest = divmod(size + last, ROW_GROUP_MAX_ROWS)
    sizes.extend([ROW_GROUP_MAX_ROWS] * whole)
    return [*sizes, rest] if is_end and rest else sizes


def _runs(rows: pa.Table) -> list[int]:
    """Return the lengths of the stretches with one metric."""
    ends = np.asarray(pc.run_end_encode(rows.column("metric").chunk(0)).run_ends)
    return [int(length) for length in np.diff(ends, prepend=0)]


def _leaves() -> list[str]:
    """Return the names that Parquet gives the columns."""
    return [
        f"{name}.list.element" if pa.types.is_list(SEGMENT_SCHEMA.field(name).type) else name
        for name in SEGMENT_SCHEMA.names
    ]


def add_up_files(
    files: Sequence[Path], to: Path, version: str, before_each_part: Callable[[], None] = lambda: None
) -> int:
    """Write the rows of several files into one, added up; return how many rows it has.

    `before_each_part` may raise, to give up.
    """
    with SegmentWriter(to, version) as writer:
        streams = [_RowStream(file) for file in files]
        try:
            for sizes in _stretches(files):
                before_each_part()
                writer.write(add_up([streams[file].take(rows) for file, rows in sizes.items()]))
        finally:
            for stream in streams:
                stream.close()
        return writer.rows


def _stretches(files: Sequence[Path]) -> Iterator[dict[int, int]]:
    """Yield of which files how many rows are added up next."""
    counted = pl.concat(_counted(file).with_columns(file=number) for number, file in enumerate(files))
    parts = (
        counted.group_by(STRETCHES)
        .agg(pl.col("rows").sum())
        .sort(STRETCHES, nulls_last=False)
        .with_columns(part=(pl.col("rows").cum_sum() - pl.col("rows")) // STRETCH_ROWS)
        .drop("rows")
    )
    sizes = (
        counted.join(parts, on=STRETCHES, nulls_equal=True)
        .group_by("part", "file")
        .agg(pl.col("rows").sum())
        .group_by("part")
        .agg("file", "rows")
        .sort("part")
    )
    for _, numbers, rows in sizes.iter_rows():
        yield dict(zip(numbers, rows, strict=True))


def _counted(file: Path) -> pl.DataFrame:
    return (
        pl.scan_parquet(file)
        .group_by(STRETCHES)
        .agg(rows=pl.len().cast(pl.Int64))
        .collect(engine="streaming")
    )


class _RowStream:
    """The rows of a file, taken from its start to its end."""

    def __init__(self, file: Path) -> None:
        self._file = pq.ParquetFile(file, pre_buffer=False)
        self._batches = self._file.iter_batches(READ_ROWS, use_threads=False)
        self._rest = SEGMENT_SCHEMA.empty_table()

    def take(self, rows: int) -> pa.Table:
        """Return the next `rows` rows."""
        parts = [self._rest]
        held = self._rest.num_rows
        while held < rows:
            part = pa.Table.from_batches([next(self._batches)]).cast(SEGMENT_SCHEMA)
            parts.append(part)
            held += part.num_rows
        table = pa.concat_tables(parts)
        self._rest = table.slice(rows)
        return table.slice(0, rows)

    def close(self) -> None:
        self._file.close()
