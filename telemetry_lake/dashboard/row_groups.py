"""The parts of the files of a view that can have the rows that are meant, found without opening files again.

The files are sorted by channel and metric, and Parquet keeps for each of its row groups the smallest and the
largest value. They are read once, when a version is opened. DuckDB reads and decodes them for every query
anew: of 2014's size that is 35 ms, several times what the rows themselves take.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry_lake.dashboard.format import SEGMENT_SCHEMA

_PRUNED_BY: Final = ("metric", "channel", "key", "is_rest")


@dataclass(frozen=True, slots=True)
class _RowGroup:
    number: int
    rows: int
    limits: Mapping[str, tuple[Any, Any] | None]
    """The smallest and the largest value by column; None where the file does not say."""

    def may_have(self, column: str, values: Collection[Any]) -> bool:
        """Return whether one of the values can be in a column."""
        limits = self.limits[column]
        return limits is None or any(limits[0] <= value <= limits[1] for value in values)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    metadata: pq.FileMetaData
    groups: tuple[_RowGroup, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Row groups that may have the rows that are meant."""

    groups: Sequence[tuple[_File, Sequence[int]]]
    """Files and the numbers of their row groups."""
    rows: int
    """How many rows they have, also others."""

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return all their rows with these columns, in the types of today's segments.

        Raises OSError and ArrowException when a file is damaged.
        """
        schema = pa.schema([SEGMENT_SCHEMA.field(name) for name in columns])
        parts = [
            _open(file.path, file.metadata)
            .read_row_groups(list(numbers), columns=list(columns), use_threads=False)
            .select(list(columns))
            .cast(schema)
            for file, numbers in self.groups
        ]
        return pa.concat_tables(parts) if parts else schema.empty_table()


class RowGroups:
    """The row groups of all files of a view. Safe for several threads."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read what the files say of their parts. Raises OSError and ArrowException when one is damaged."""
        self._files = tuple(_described(path) for path in files)

    def find(
        self, metric: str, channels: Collection[str], keys: Collection[str], *, with_rest: bool
    ) -> Found:
        """Return where rows of a metric may be, of all channels and keys where none are named."""
        groups: list[tuple[_File, Sequence[int]]] = []
        rows = 0
        for file in self._files:
            fitting = [
                group
                for group in file.groups
                if group.may_have("metric", (metric,))
                and (not channels or group.may_have("channel", channels))
                and (
                    not (keys or with_rest)
                    or group.may_have("key", keys)
                    or (with_rest and group.may_have("is_rest", (True,)))
                )
            ]
            if fitting:
                groups.append((file, [group.number for group in fitting]))
                rows += sum(group.rows for group in fitting)
        return Found(groups, rows)


def _described(path: Path) -> _File:
    metadata = _open(path).metadata
    columns = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
    groups = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        limits = {name: _limits(group.column(columns[name])) for name in _PRUNED_BY}
        groups.append(_RowGroup(number, group.num_rows, MappingProxyType(limits)))
    return _File(path, metadata, tuple(groups))


def _limits(column: "pq.ColumnChunkMetaData") -> tuple[Any, Any] | None:
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        return None
    return statistics.min, statistics.max


def _open(path: Path, metadata: "pq.FileMetaData | None" = None) -> pq.ParquetFile:
    return pq.ParquetFile(path, metadata=metadata, pre_buffer=False)
