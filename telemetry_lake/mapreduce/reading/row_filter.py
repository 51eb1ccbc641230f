"""Which rows a run reads: the rules of its filter document, a range of submission dates, a sample of clients.

A rule is applied three times, each time to less: to partitions and files by the table's metadata, to row
groups by the statistics in the file, and to the distinct values of a batch of rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyiceberg.expressions import BooleanExpression

from telemetry_lake import columns
from telemetry_lake.convert.derivation.dimensions import AllowedRange
from telemetry_lake.mapreduce.form import SAMPLE_PERCENT_MAX
from telemetry_lake.mapreduce.reading.filter_rules import FilterRule, as_text, rows_let_through
from telemetry_lake.tables.expressions import all_of, at_least, at_most, one_of


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Everything that decides whether a row is read; it can be pickled.

    `sample_percent` of all clients are taken, the same ones in every run: those whose `sample_id` is
    below it. Rows without a client are in no sample.
    """

    rules: tuple[FilterRule, ...] = ()
    first_date: date | None = None
    last_date: date | None = None
    sample_percent: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have to be read to decide."""
        names = [rule.column for rule in self._asked()]
        return (*names, columns.SAMPLE_ID) if self.sample_percent is not None else tuple(names)

    def condition(self) -> BooleanExpression:
        """What the table's metadata can be asked: lets through every file that has a wanted row."""
        conditions = [condition for rule in self.rules if (condition := condition_of(rule)) is not None]
        if self.first_date is not None:
            conditions.append(at_least(columns.SUBMISSION_DATE, self.first_date.isoformat()))
        if self.last_date is not None:
            conditions.append(at_most(columns.SUBMISSION_DATE, self.last_date.isoformat()))
        if self.sample_percent is not None:
            conditions.append(at_most(columns.SAMPLE_ID, self.sample_percent - 1))
        return all_of(conditions)

    def may_allow(self, ranges: Mapping[str, tuple[Any, Any]]) -> bool:
        """Whether rows could be wanted whose columns lie in these ranges, with their ends."""
        for rule in self._asked():
            ends = ranges.get(rule.column)
            if ends is not None and not rule.may_allow(as_text(ends[0]), as_text(ends[1])):
                return False
        lowest = ranges.get(columns.SAMPLE_ID)
        return self.sample_percent is None or lowest is None or bool(lowest[0] < self.sample_percent)

    def mask(self, batch: pa.RecordBatch) -> NDArray[np.bool_] | None:
        """Return which rows of a batch are wanted, as booleans; None when all are."""
        wanted = rows_let_through(self.rules, batch)
        if self.sample_percent is not None:
            numbers: Any = batch.column(columns.SAMPLE_ID)
            in_sample = numbers.fill_null(SAMPLE_PERCENT_MAX).to_numpy() < self.sample_percent
            wanted = in_sample if wanted is None else wanted & in_sample
        return None if wanted is None or bool(wanted.all()) else wanted

    def _asked(self) -> list[FilterRule]:
        return [rule for rule in self.rules if not rule.lets_everything_through]


def condition_of(rule: FilterRule) -> BooleanExpression | None:
    """Return the rule for the table's metadata; None when it rules nothing out there."""
    of_value: Callable[[str], str | None] = _iso_date if rule.column == columns.SUBMISSION_DATE else str
    allowed = rule.allowed_values
    if allowed == "*":
        return None
    if isinstance(allowed, AllowedRange):
        ends = [
            comparison(rule.column, value)
            for end, comparison in ((allowed.min, at_least), (allowed.max, at_most))
            if isinstance(end, str) and (value := of_value(end)) is not None
        ]
        return all_of(ends) if ends else None
    said_values = [of_value(value) for value in ((allowed,) if isinstance(allowed, str) else allowed)]
    return one_of(rule.column, [value for value in said_values if value is not None])


def _iso_date(text: str) -> str | None:
    """Return YYYYMMDD as an ISO date; None for other texts, such as the beginning of a date."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return None
