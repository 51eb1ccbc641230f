"""Rows of cubes: made of rows of the aggregates, and added up.

Everything is a whole number, so the order in which rows are added up changes nothing.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from telemetry_lake.columns import (
    APP_NAME,
    APP_UPDATE_CHANNEL,
    APP_VERSION,
    ARCHITECTURE,
    BUILD_DATE,
    DOCUMENT_TYPE,
    NAMESPACE,
    NORMALIZED_OS,
)
from telemetry_lake.dashboard.format import KEY_COLUMNS, SEGMENT_SCHEMA, WEIGHT_UNIT

COLUMN_OF: Final = {
    "channel": APP_UPDATE_CHANNEL,
    "metric": "name",
    "application": APP_NAME,
    "version": APP_VERSION,
    "os": NORMALIZED_OS,
    "architecture": ARCHITECTURE,
    "namespace": NAMESPACE,
    "document_type": DOCUMENT_TYPE,
}
"""The columns of the aggregates that are called otherwise in a cube."""
SAME: Final = (
    *("process", "key", "histogram_type", "bucket_count", "range_low", "range_high"),
    *("pings", "clients", "sum"),
)
READ: Final = (*COLUMN_OF.values(), BUILD_DATE, *SAME, "buckets", "counts", "normalized")
"""The columns of the aggregates that cubes are made of."""

_SUMS: Final = ("pings", "clients", "sum")

# The stubs know few of the functions.
pc: Final[Any] = pyarrow.compute
Whole = NDArray[np.int64]


def cube_rows(aggregates: pa.Table) -> pa.Table:
    """Return rows of the aggregates as rows of the cube by build date, one for each, with all keys."""
    aggregates = aggregates.combine_chunks()
    counts: Any = _chunk(aggregates.column("counts"))
    starts = np.asarray(counts.offsets).astype(np.int64)
    starts, stop = starts - starts[0], starts[-1] - starts[0]
    numbers = np.asarray(counts.flatten())
    weights = np.rint(np.asarray(_chunk(aggregates.column("normalized")).flatten()) * WEIGHT_UNIT)
    filled = (numbers != 0) | (weights != 0)
    before = np.concatenate(([0], np.cumsum(filled, dtype=np.int64)))
    assert len(before) == stop + 1, "as many counts as weights"
    buckets = np.asarray(_chunk(aggregates.column("buckets")).flatten())[filled]
    columns: dict[str, Any] = {
        **{name: aggregates.column(column) for name, column in COLUMN_OF.items()},
        **{name: aggregates.column(name) for name in SAME},
        "date": aggregates.column(BUILD_DATE),
        "is_rest": pa.array(np.zeros(aggregates.num_rows, np.bool_)),
        "rest_keys": pa.nulls(aggregates.num_rows, pa.int32()),
        "buckets": _lists(before[starts], buckets),
        "counts": _lists(before[starts], numbers[filled]),
        "weights": _lists(before[starts], weights[filled].astype(np.int64)),
    }
    return as_segment(columns)


def of_submission_date(rows: pa.Table, day: date) -> pa.Table:
    """Return the same rows for the cube by submission date."""
    index = rows.schema.get_field_index("date")
    return rows.set_column(
        index, rows.schema.field(index), pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows)
    )


def add_up(parts: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of several tables with those added up that have the same key columns, sorted."""
    rows = pa.concat_tables(parts).combine_chunks()
    grouped = (
        rows.select([*KEY_COLUMNS, *_SUMS, "rest_keys"])
        .append_column("row", pa.array(np.arange(rows.num_rows)))
        .group_by(list(KEY_COLUMNS), use_threads=False)
        .aggregate([("row", "list"), ("rest_keys", "max"), *((name, "sum") for name in _SUMS)])
    )
    if not grouped.num_rows:
        return rows
    order = pc.sort_indices(grouped, [(name, "ascending", "at_start") for name in KEY_COLUMNS])
    grouped = grouped.take(order).combine_chunks()
    members: Any = _chunk(grouped.column("row_list"))
    group_of = np.empty(rows.num_rows, np.int64)
    group_of[np.asarray(members.flatten())] = np.repeat(
        np.arange(grouped.num_rows), np.diff(np.asarray(members.offsets))
    )
    columns: dict[str, Any] = {
        **{name: grouped.column(name) for name in KEY_COLUMNS},
        **{name: grouped.column(f"{name}_sum") for name in _SUMS},
        "rest_keys": grouped.column("rest_keys_max"),
        **_added_up_lists(rows, group_of, grouped.num_rows),
    }
    return as_segment(columns)


def as_segment(columns: "dict[str, Any]") -> pa.Table:
    """Return these columns with the types and in the order of a segment."""
    return pa.table({field.name: columns[field.name] for field in SEGMENT_SCHEMA}).cast(SEGMENT_SCHEMA)


def _added_up_lists(rows: pa.Table, group_of: Whole, groups: int) -> dict[str, Any]:
    """Return the buckets of each group, ascending, with what its rows have in them."""
    lists: dict[str, Any] = {name: _chunk(rows.column(name)) for name in ("buckets", "counts", "weights")}
    sizes = np.diff(np.asarray(lists["buckets"].offsets))
    group, bucket = np.repeat(group_of, sizes), np.asarray(lists["buckets"].flatten())
    order = np.lexsort((bucket, group))
    group, bucket = group[order], bucket[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (group[1:] != group[:-1]) | (bucket[1:] != bucket[:-1])
    firsts = np.flatnonzero(is_new)
    starts = np.searchsorted(group[firsts], np.arange(groups + 1))
    added: dict[str, Any] = {"buckets": _lists(starts, bucket[firsts])}
    for name in ("counts", "weights"):
        numbers = np.asarray(lists[name].flatten())[order]
        added[name] = _lists(starts, np.add.reduceat(numbers, firsts) if len(firsts) else numbers)
    return added


def _chunk(column: Any) -> Any:
    """Return a column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _lists(starts: Whole, numbers: Any) -> Any:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(numbers))
