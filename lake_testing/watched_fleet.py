"""A fleet that is watched as the lake watches one: a look at the volumes every five minutes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from lake_testing.rhythm import Fleet, by_hour, with_levels
from telemetry_lake.monitoring.anomalies.days import findings_of_days, judge_days
from telemetry_lake.monitoring.anomalies.findings import (
    Anomaly,
    Change,
    ChangeKind,
    Finding,
    Kind,
    changes_by,
)
from telemetry_lake.monitoring.anomalies.rhythm import Rhythm, Span, rhythm_at
from telemetry_lake.monitoring.anomalies.series import ALL, MINUTE, Series, Table, floor_hour
from telemetry_lake.monitoring.anomalies.volumes import (
    KINDS,
    WINDOWS,
    Direction,
    Window,
    directions_of,
    findings_of,
    judge,
)

LOOK_EVERY: Final = timedelta(minutes=5)
LAG: Final = timedelta(minutes=2)
"""How old pings are when they are in the tables for sure."""
DAYS_EVERY_HOURS: Final = 6
"""How often the last day is judged; the lake does it with every look, and an hour changes little of a day."""
_KINDS: Final = (*KINDS.values(), Kind.DAY_FALL, Kind.DAY_RISE)


@dataclass
class Watch:
    """What is known of a fleet at one moment: open anomalies, and those of before."""

    windows: Sequence[Window] = WINDOWS
    is_open: tuple[Anomaly, ...] = ()
    changes: list[Change] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    rhythm: Rhythm | None = None
    _hour: datetime | None = None
    _days: list[Finding] = field(default_factory=list)

    def look(self, minutes: Table, hours: Table, now: datetime) -> tuple[Change, ...]:
        """Look at the pings that are in the tables at `now`; return what changes."""
        end = (now - LAG).replace(second=0, microsecond=0)
        if self.rhythm is None or self._hour != floor_hour(end):
            self._hour = floor_hour(end)
            running = [
                Span(Series.parse(each.series), each.since, end)
                for each in self.is_open
                if each.kind in KINDS.values()
            ]
            left_out = [*self.spans, *running]
            self.rhythm = rhythm_at(hours, end, left_out)
            if self._hour.hour % DAYS_EVERY_HOURS == 0:
                self._days = findings_of_days(judge_days(hours, end, left_out), end)
        unusual = judge(minutes, self.rhythm, end, self.windows, is_open=directions_of(self.is_open))
        findings = [*findings_of(unusual, end), *self._days]
        self.is_open, changes = changes_by(self.is_open, findings, _KINDS, now)
        for each in changes:
            is_volume = each.anomaly.kind in KINDS.values()
            if is_volume and each.change is ChangeKind.CLOSED and each.why == "it is usual again":
                self.spans.append(Span(Series.parse(each.anomaly.series), each.anomaly.since, now))
        self.changes += changes
        return changes


def opened_in(fleet: Fleet, minutes: Table, first: int, end: int, watch: Watch) -> Iterator[Change]:
    """Look at a fleet every five minutes, from the minute `first` until `end`; yield what is opened."""
    hours = by_hour(minutes)
    step = LOOK_EVERY // MINUTE
    for minute in range(first, end, step):
        for change in watch.look(minutes, hours, fleet.at(minute)):
            if change.change is ChangeKind.OPENED:
                yield change


def minutes_until_found(
    fleet: Fleet,
    minutes: Table,
    changed: Sequence[Series],
    start: int,
    factor: float,
    *,
    within: int,
    hours: Table | None = None,
) -> float | None:
    """Multiply the pings of some series by `factor` from the minute `start` on, and watch.

    Returns after how many minutes an anomaly is opened of a series that contains only changed ones, or of all
    pings; None when that takes more than `within`. `hours` are those of `minutes`, which takes time to sum.
    """
    watch, step = Watch(), LOOK_EVERY // MINUTE
    end = start + within + LAG // MINUTE
    changed_minutes = with_factor(fleet, minutes, changed, start, end, factor)
    hours = hours or by_hour(minutes)
    kind = KINDS[Direction.FALL if factor < 1 else Direction.RISE]
    # Looks are at whole fives of minutes, wherever between them the change begins.
    for minute in range(-(-start // step) * step, start + within + 1, step):
        for change in watch.look(changed_minutes, hours, fleet.at(minute)):
            series = Series.parse(change.anomaly.series)
            inside = [each for each in fleet.series if each == series or each.is_within(series)]
            if (
                change.change is ChangeKind.OPENED
                and change.anomaly.kind is kind
                and (series == ALL or set(inside) <= set(changed))
            ):
                return float(minute - start)
    return None


def with_factor(
    fleet: Fleet, minutes: Table, changed: Sequence[Series], start: int, end: int, factor: float
) -> Table:
    """Return the minutes around a change: some hours before it, and all until `end`."""
    first = start - 4 * 60
    rows = np.array([minutes.series.index(each) for each in fleet.series])
    counts = minutes.counts[rows, first:end].copy()
    chosen = np.array([each in changed for each in fleet.series])
    generator = np.random.default_rng((fleet.seed, start))
    before = counts[chosen, start - first :]
    if factor < 1:
        after = generator.binomial(before.astype(np.int64), factor).astype(np.float64)
    else:
        after = before + generator.poisson(before * (factor - 1))
    counts[chosen, start - first :] = after
    return with_levels(fleet.series, counts, fleet.at(first), MINUTE)
