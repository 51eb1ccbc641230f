"""What has to be done to bring the cubes up to date, a calendar month at a time, the newest first.

A segment is a day, until its month has been over for `QUIET` and no date of it was made within that time.
Then the days become one segment. When a date of such a month is made again, all its dates become days
again, and one segment when it has been quiet as long.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from telemetry_lake.dashboard.format import Manifest, Segment, View
from telemetry_lake.dashboard.making.source import SourceDate, end_of

QUIET: Final = timedelta(days=7)
"""Late pings come within so many days: as long as *Stable tables* looks for them by itself."""


@dataclass(frozen=True, slots=True)
class MonthPlan:
    """What has to be done in one month."""

    month: date
    """Its first day."""
    made: tuple[date, ...]
    """The dates whose rows have to be read."""
    kept: tuple[Segment, ...]
    """The segments of the month that stay right."""
    others: tuple[Segment, ...]
    """The segments of all other months."""
    is_merged: bool
    """Whether the month becomes one segment a view."""


def plan_month(base: Manifest | None, wanted: Mapping[date, SourceDate], now: datetime) -> MonthPlan | None:
    """Return what has to be done in the newest month in which something has to; None when nothing has."""
    segments = base.segments if base else ()
    changed = changed_dates(base, wanted)
    loose = {month for month in map(_of_month, segments) if _is_loose(segments, month)}
    ripe = {month for month in loose if _is_quiet(month, wanted, now)}
    month = max({month_of(day) for day in changed} | ripe, default=None)
    if month is None:
        return None
    mine = [segment for segment in segments if _of_month(segment) == month]
    stale = [segment for segment in mine if any(_covers(segment, day) for day in changed)]
    days = sorted(day for day in wanted if month_of(day) == month)
    return MonthPlan(
        month=month,
        made=tuple(day for day in days if day in changed or any(_covers(segment, day) for segment in stale)),
        kept=tuple(segment for segment in mine if segment not in stale),
        others=tuple(segment for segment in segments if _of_month(segment) != month),
        is_merged=_is_quiet(month, wanted, now),
    )


def changed_dates(base: Manifest | None, wanted: Mapping[date, SourceDate]) -> set[date]:
    """Return the dates that the version does not have as they are now, or has and should not."""
    have = base.dates if base else {}
    return {
        day
        for day in have.keys() | wanted.keys()
        if day not in have or day not in wanted or have[day] != wanted[day].identity
    }


def _is_loose(segments: tuple[Segment, ...], month: date) -> bool:
    """Return whether a view has several segments of a month."""
    return any(
        sum(segment.view is view and _of_month(segment) == month for segment in segments) > 1 for view in View
    )


def _is_quiet(month: date, wanted: Mapping[date, SourceDate], now: datetime) -> bool:
    last = (month + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    made = (source.made_at for day, source in wanted.items() if month_of(day) == month)
    return all(moment + QUIET <= now for moment in (end_of(last), *made))


def _covers(segment: Segment, day: date) -> bool:
    return segment.first_date <= day <= segment.last_date


def month_of(day: date) -> date:
    """Return the first day of a date's month."""
    return day.replace(day=1)


def _of_month(segment: Segment) -> date:
    return month_of(segment.first_date)
