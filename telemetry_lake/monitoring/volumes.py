"""The summary of `derived.ping_volumes`, for pages that may not read tables: pings by hour and by day.

The job that counts the pings of an hour writes it, so it says what the table says.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from pydantic import AwareDatetime

from telemetry_lake.storage.object_keys import VOLUMES_KEY
from telemetry_lake.storage.records import Record, RecordStore

HOURS: Final = 7 * 24
DAYS: Final = 365
HOUR_SECONDS: Final = 3_600
DAY_SECONDS: Final = 86_400
SERIES_MAX_COUNT: Final = 24
"""The most channels, and the most error types, of a span; those with the fewest pings are added up."""
OTHERS: Final = "others"
"""What stands for these."""
NO_CHANNEL: Final = "none"


class VolumeRow(NamedTuple):
    """Rows of the table of one hour, or of one day, added up."""

    start: datetime
    """When the hour or the day begins, UTC."""
    channel: str | None
    error_type: str | None
    pings: int
    bytes: int


class VolumeSeries(Record):
    """Pings of one channel, or those rejected for one reason, by hour or by day from the first one on."""

    name: str
    pings: tuple[int, ...]
    bytes: tuple[int, ...]

    @property
    def total(self) -> int:
        """All of its pings."""
        return sum(self.pings)


class VolumeSpan(Record):
    """A time in equal steps; the last one has not ended."""

    first: AwareDatetime
    step_seconds: int
    channels: tuple[VolumeSeries, ...]
    """Converted pings, the channel with the most of them first."""
    errors: tuple[VolumeSeries, ...]
    """Rejected pings, the reason with the most of them first."""


class Volumes(Record):
    """What the table says of the last week by hour, and of the last year by day."""

    counted_at: AwareDatetime
    """No ping that became a row later is counted."""
    week: VolumeSpan
    year: VolumeSpan

    def today(self, now: datetime) -> tuple[int, int] | None:
        """Return how many pings of the UTC date of `now` were converted, and how many rejected.

        None when that date has not been counted yet.
        """
        if self.counted_at.astimezone(UTC).date() != now.astimezone(UTC).date():
            return None
        converted, rejected = (
            sum(each.pings[-1] for each in series) for series in (self.year.channels, self.year.errors)
        )
        return converted, rejected


def first_day(now: datetime) -> date:
    """Return the first date that a summary at this moment is about."""
    return now.astimezone(UTC).date() - timedelta(days=DAYS - 1)


def first_hour(now: datetime) -> datetime:
    """Return the first hour of which a summary at this moment has figures of its own."""
    return now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)


def volumes_of(hours: Iterable[VolumeRow], days: Iterable[VolumeRow], now: datetime) -> Volumes:
    """Return the summary at the aware moment `now` of rows by hour and by day, in any order.

    Rows before the first hour or day are left out, and so are those after `now`.
    """
    day = datetime.combine(first_day(now), datetime.min.time(), UTC)
    return Volumes(
        counted_at=now,
        week=_span(hours, first_hour(now), HOUR_SECONDS, HOURS),
        year=_span(days, day, DAY_SECONDS, DAYS),
    )


def _span(rows: Iterable[VolumeRow], first: datetime, step_seconds: int, steps: int) -> VolumeSpan:
    in_span: list[tuple[int, VolumeRow]] = []
    for row in rows:
        step = int((row.start - first).total_seconds() // step_seconds)
        if 0 <= step < steps:
            in_span.append((step, row))
    return VolumeSpan(
        first=first,
        step_seconds=step_seconds,
        channels=_series((each for each in in_span if each[1].error_type is None), _channel, steps),
        errors=_series((each for each in in_span if each[1].error_type), _error, steps),
    )


def _channel(row: VolumeRow) -> str:
    return row.channel or NO_CHANNEL


def _error(row: VolumeRow) -> str:
    return row.error_type or ""


def _series(
    rows: Iterable[tuple[int, VolumeRow]], name_of: Callable[[VolumeRow], str], steps: int
) -> tuple[VolumeSeries, ...]:
    sums: dict[str, list[list[int]]] = {}
    for step, row in rows:
        pings, sizes = sums.setdefault(name_of(row), [[0] * steps, [0] * steps])
        pings[step] += row.pings
        sizes[step] += row.bytes
    ordered = sorted(sums, key=lambda name: (-sum(sums[name][0]), name))
    kept = ordered if len(ordered) <= SERIES_MAX_COUNT else ordered[: SERIES_MAX_COUNT - 1]
    series = [_made(name, sums, [name]) for name in kept]
    if rest := ordered[len(kept) :]:
        series.append(_made(OTHERS, sums, rest))
    return tuple(series)


def _made(title: str, sums: Mapping[str, list[list[int]]], names: list[str]) -> VolumeSeries:
    pings, sizes = (
        tuple(sum(column) for column in zip(*(sums[name][kind] for name in names), strict=True))
        for kind in (0, 1)
    )
    return VolumeSeries(name=title, pings=pings, bytes=sizes)


def keep_volumes(records: RecordStore, volumes: Volumes) -> None:
    """Write the summary over the one before."""
    records.put(VOLUMES_KEY, volumes)


def kept_volumes(records: RecordStore) -> Volumes | None:
    """Return the summary; None before the first one."""
    return records.read(VOLUMES_KEY, Volumes)
