"""Whether the last day was like the days before: the test that the first Telemetry server used, both ways.

The server of 2013 took the requests of a channel by the hour and compared the last day with the nine days
before (telemetry-server, `monitoring/anomaly_detection/detect.py`): the channel was "falling" when Mann and
Whitney's U said so of more than two of these days, each with a higher mean. The same is done here, also for
rises, and with the days of the week kept apart where there are enough of them, because a Sunday is no Friday:
the last day is compared with the same weekday of the last `DAYS` weeks, and with the days before it only as
long as there are fewer than `WEEKDAYS_MIN` of these.

U counts in how many pairs of an hour of one day and an hour of the other the first is larger; its p-value is
that of the normal approximation with ties, two-sided (Mann and Whitney 1947, Annals of Mathematical
Statistics 18:50). Two days of 24 hours that do not overlap at all have 3e-9. The hours of the night overlap
on all days of a rhythm, so this test finds what is large or lasts all day.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from scipy.stats import mannwhitneyu

from telemetry_lake.monitoring.anomalies.findings import Finding, Kind, Severity
from telemetry_lake.monitoring.anomalies.rhythm import Span, leave_out
from telemetry_lake.monitoring.anomalies.series import HOUR, Counts, Series, Table, floor_hour
from telemetry_lake.monitoring.anomalies.volumes import Direction, link_of

DAYS: Final = 9
"""With how many earlier days the last one is compared."""
P_MAX: Final = 1e-6
OFF_MIN: Final = 0.1
"""A day whose pings differ by less than a tenth is nobody's concern, however sure it is that they do."""
DAYS_OFF_MIN: Final = 3
"""More than two days have to say so."""
DAY: Final = timedelta(days=1)
WEEKDAYS_MIN: Final = 4
DAY_PINGS_MIN: Final = 240
"""Days with fewer pings, in both, are not compared."""
HOURS_MIN: Final = 20
"""Of a day so many hours have to be known."""


@dataclass(frozen=True, slots=True)
class UnusualDay:
    """A series whose last day was off."""

    series: Series
    direction: Direction
    pings: float
    expected: float
    """The median of the days that it was compared with."""


def judge_day(last: Counts, earlier: Sequence[Counts]) -> Direction | None:
    """Return in which direction the hours of a day are off those of the days before; None if they are not."""
    last = last[~np.isnan(last)]
    off = dict.fromkeys(Direction, 0)
    for hours in earlier:
        before = hours[~np.isnan(hours)]
        if len(last) < HOURS_MIN or len(before) < HOURS_MIN or max(last.sum(), before.sum()) < DAY_PINGS_MIN:
            continue
        means = float(last.mean()) + 0.5, float(before.mean()) + 0.5
        if max(means) < (1 + OFF_MIN) * min(means):
            continue
        direction = Direction.FALL if means[0] < means[1] else Direction.RISE
        # Asymptotic, as the original: exact p-values do not know ties, which quiet hours are.
        test = mannwhitneyu(last, before, alternative="two-sided", method="asymptotic")
        off[direction] += bool(test.pvalue < P_MAX)
    return next((direction for direction, days in off.items() if days >= DAYS_OFF_MIN), None)


def judge_days(history: Table, at: datetime, unusual: Iterable[Span] = ()) -> list[UnusualDay]:
    """Return the series whose last 24 whole hours before `at` are off, and of which no wider one is.

    Hours in which a series was `unusual` are left out: what the volumes of hours say is said once.
    """
    end = floor_hour(at)
    counts = history.counts.copy()
    leave_out(counts, history.series, history.first, unusual)
    history = Table(history.series, history.first, history.step, counts)
    found: list[UnusualDay] = []
    last = history.between(end - DAY, end, history.series)
    weekdays = _earlier(history, [end - number * 7 * DAY for number in range(1, DAYS + 1)])
    days = _earlier(history, [end - number * DAY for number in range(1, DAYS + 1)])
    for row, series in enumerate(history.series):
        same = [hours[row] for hours in weekdays if _is_known(hours[row])]
        earlier = same if len(same) >= WEEKDAYS_MIN else [hours[row] for hours in days]
        if not _may_be_off(last[row], earlier):
            continue
        direction = judge_day(last[row], earlier)
        is_told = any(series.is_within(each.series) and each.direction is direction for each in found)
        if direction is not None and not is_told:
            sums = [float(np.nansum(hours)) for hours in earlier if _is_known(hours)]
            found.append(UnusualDay(series, direction, float(np.nansum(last[row])), float(np.median(sums))))
    return found


def findings_of_days(unusual: Sequence[UnusualDay], at: datetime) -> list[Finding]:
    """Return what is found by this at `at`."""
    kinds = {Direction.FALL: Kind.DAY_FALL, Direction.RISE: Kind.DAY_RISE}
    return [
        Finding(
            kind=kinds[each.direction],
            series=str(each.series),
            since=floor_hour(at) - 24 * HOUR,
            value=each.pings,
            expected=each.expected,
            severity=Severity.WARNING,
            link=link_of(each.series),
        )
        for each in unusual
    ]


def _earlier(history: Table, ends: Sequence[datetime]) -> list[Counts]:
    return [history.between(end - DAY, end, history.series) for end in ends]


def _may_be_off(last: Counts, earlier: Sequence[Counts]) -> bool:
    """Return whether enough days are far enough off to be tested, which takes a hundred times as long."""
    hours = np.stack([last, *earlier])
    pings = np.nansum(hours, axis=1) / np.maximum(np.sum(~np.isnan(hours), axis=1), 1) + 0.5
    off = np.abs(np.log(pings[1:] / pings[0])) >= np.log1p(OFF_MIN) * 0.999
    return int(off.sum()) >= DAYS_OFF_MIN


def _is_known(hours: Counts) -> bool:
    return int(np.sum(~np.isnan(hours))) >= HOURS_MIN
