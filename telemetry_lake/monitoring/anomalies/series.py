"""Which series of pings are watched: all pings, each channel of a namespace, and each document type of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

EVERY: Final = "*"
"""Stands for all values of a part of a series."""
HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)

Counts = NDArray[np.float64]


class Series(NamedTuple):
    """Pings of one document type in one channel; `*` in place of a part means all of its values."""

    namespace: str
    document_type: str
    channel: str

    def __str__(self) -> str:
        return "/".join(self)

    @classmethod
    def parse(cls, text: str) -> "Series":
        """Read `namespace/type/channel`; raises ValueError."""
        namespace, document_type, channel = text.split("/")
        return cls(namespace, document_type, channel)

    def is_within(self, other: "Series") -> bool:
        """Return whether all pings of this series are pings of `other`, which is another one."""
        return self != other and all(theirs in (EVERY, own) for own, theirs in zip(self, other, strict=True))


ALL: Final = Series(EVERY, EVERY, EVERY)


def levels_of(series: Series) -> tuple[Series, Series, Series]:
    """Return the three series in which a ping of this type and channel is counted, the widest first."""
    return ALL, Series(series.namespace, EVERY, series.channel), series


@dataclass(frozen=True, slots=True)
class Table:
    """Pings by series and step of time; NaN where nothing is known of a step."""

    series: tuple[Series, ...]
    first: datetime
    """When the first step begins."""
    step: timedelta
    counts: Counts
    """A row for each series, a column for each step."""

    @property
    def end(self) -> datetime:
        """When the last step ends."""
        return self.first + self.step * int(self.counts.shape[1])

    def column(self, at: datetime) -> int:
        """Return the number of the step that begins at or before `at`; it may lie outside of the table."""
        return (at - self.first) // self.step

    def between(self, first: datetime, end: datetime, series: Sequence[Series]) -> Counts:
        """Return the steps of `series` from `first` until `end`: NaN outside of the table, 0 for a series
        that it does not have."""
        width = (end - first) // self.step
        found = np.full((len(series), width), np.nan)
        start = self.column(first)
        into, of = max(0, -start), max(0, start)
        length = min(width - into, self.counts.shape[1] - of)
        if length <= 0:
            return found
        if series is self.series:
            found[:, into : into + length] = self.counts[:, of : of + length]
            return found
        known = ~np.isnan(self.counts[:, of : of + length]).all(axis=0)
        rows = {each: number for number, each in enumerate(self.series)}
        for number, each in enumerate(series):
            values = self.counts[rows[each], of : of + length] if each in rows else np.zeros(length)
            found[number, into : into + length] = np.where(known, np.nan_to_num(values), np.nan)
        return found


def table_of(
    pings: Mapping[tuple[Series, datetime], int],
    first: datetime,
    end: datetime,
    step: timedelta,
    *,
    unknown: Iterable[datetime] = (),
) -> Table:
    """Return the table of all levels of pings that are counted by type, channel and beginning of a step.

    Steps of which no ping is counted hold 0, and NaN where they are in `unknown`.
    """
    width = (end - first) // step
    rows: dict[Series, Counts] = {ALL: np.zeros(width)}
    for (series, at), number in pings.items():
        column = (at - first) // step
        if 0 <= column < width:
            for level in levels_of(series):
                rows.setdefault(level, np.zeros(width))[column] += number
    order = tuple(sorted(rows, key=lambda each: (sum(part != EVERY for part in each), each)))
    counts = np.stack([rows[each] for each in order])
    for at in unknown:
        counts[:, (at - first) // step] = np.nan
    return Table(order, first, step, counts)


def floor_hour(at: datetime) -> datetime:
    """Return the beginning of the UTC hour of `at`."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
