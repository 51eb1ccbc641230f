"""How many pings a filter lets through, and which values there are, while the filter is written.

The pings are counted by a process that may read the table (`dimensions`), once for a table and dates; the
counts are kept for some minutes. What a filter lets through is added up from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from telemetry_lake.analysis_jobs.documents import JobRequest
from telemetry_lake.analysis_jobs.filter_fields import FILTER_COLUMNS
from telemetry_lake.analysis_jobs.sandbox.kept_files import KeptFiles
from telemetry_lake.analysis_jobs.sandbox.try_it import FILTER_NAME, asked_dates
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.form import SAMPLE_PERCENT_MAX, refuse_live_pings
from telemetry_lake.mapreduce.reading.filter_rules import FilterRule, read_filter, rows_let_through
from telemetry_lake.tables.definitions import table_definition

PINGS: Final = "pings"
TOTAL: Final = b"telemetry-lake.rows"
"""The metadata of the file of counts: all rows of the dates, and how many of them were counted."""
READ: Final = b"telemetry-lake.counted-rows"
VALUES_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class ValueCount:
    """A value of a column, and about how many pings have it and fit the other rules."""

    value: str
    pings: int


@dataclass(frozen=True, slots=True)
class Matching:
    """What a filter lets through."""

    pings: int
    """Of all of the table's dates; estimated where not all were counted."""
    total: int
    counted: int
    """How many of `total` were looked at."""
    values: Mapping[str, Sequence[ValueCount]]
    """The most common values by column."""

    @property
    def is_estimate(self) -> bool:
        """Whether not every ping was looked at."""
        return self.counted < self.total


class Counting:
    """Counts pings of a table. Safe to share between threads."""

    def __init__(self) -> None:
        self._counts = KeptFiles("telemetry_lake.analysis_jobs.sandbox.dimensions")

    def close(self) -> None:
        """Forget the counts."""
        self._counts.close()

    def matching(self, request: JobRequest, *, now: datetime | None = None) -> Matching:
        """Return how many pings a request is about, before it is saved.

        Raises FatalError when its dates or its filter cannot be used, and RetriableError when the tables are
        unavailable.
        """
        refuse_live_pings(request.table)
        asked = asked_dates(request, now or datetime.now(UTC))
        rules = _rules(request, has_dates=asked["first"] is not None)
        table = pq.read_table(self._counts.get(asked)).combine_chunks()
        said = table.schema.metadata or {}
        total, counted = int(said[TOTAL]), int(said[READ])
        pings: NDArray[np.int64] = table.column(PINGS).to_numpy()
        masks = {column: _mask(table, column, rules) for column in FILTER_COLUMNS}
        scale = total / counted if counted else 0.0
        share = scale * request.sample / SAMPLE_PERCENT_MAX
        values = {
            column: _most_common(
                table.column(column),
                np.where(np.logical_and.reduce([masks[each] for each in masks if each != column]), pings, 0),
                scale,
            )
            for column in FILTER_COLUMNS
        }
        let_through = np.logical_and.reduce(list(masks.values()))
        return Matching(round(int(pings[let_through].sum()) * share), total, counted, values)


def _rules(request: JobRequest, *, has_dates: bool) -> tuple[FilterRule, ...]:
    """Return the rules of a filter; raises FatalError when one is about a column that is not counted."""
    if not request.filter:
        return ()
    table = table_definition(request.table.table_name)
    rules = read_filter(request.filter.encode(), table, has_dates=has_dates, name=FILTER_NAME)
    others = sorted({rule.column for rule in rules if not rule.lets_everything_through} - {*FILTER_COLUMNS})
    if others:
        raise FatalError(
            f"pings are not counted by {', '.join(others)} while a filter is written: try the script instead"
        )
    return rules


def _mask(table: pa.Table, column: str, rules: Sequence[FilterRule]) -> NDArray[np.bool_]:
    """Return which rows the rules about a column let through; the table is in one piece."""
    own = [rule for rule in rules if rule.column == column]
    masks = [rows_let_through(own, batch) for batch in table.to_batches()]
    return np.ones(table.num_rows, np.bool_) if not masks or masks[0] is None else masks[0]


def _most_common(column: Any, pings: NDArray[np.int64], scale: float) -> list[ValueCount]:
    codes = column.combine_chunks().dictionary_encode()
    names = [value for value in codes.dictionary.to_pylist() if value is not None]
    indices = codes.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    sums = np.bincount(indices, weights=pings, minlength=len(names) + 1)[: len(names)]
    order = sorted(range(len(names)), key=lambda number: (-sums[number], names[number]))
    return [
        ValueCount(names[number], round(float(sums[number]) * scale))
        for number in order[:VALUES_SHOWN]
        if sums[number]
    ]
