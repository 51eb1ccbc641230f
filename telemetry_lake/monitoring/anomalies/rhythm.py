"""What volumes usually are: the same weekday and hour of the last eight weeks, at the level of the last day.

All of it is in logarithms, so that a fall to a half and a rise to the double are equally far. With y(h) for
log(pings of the hour h + 1/2):

- The *level* L(h) is the median of the medians of y of the seven days before the day of h: growth is in it,
  and the rhythm of day and week is not.
- The *shape* S(h) is the median of y - L at the same weekday and hour of the eight weeks before.
- The *drift* D(h) is the median of y - L - S over the last `DRIFT_HOURS` usual hours, which ended
  `DRIFT_GAP_HOURS` before h: the level shift of the whole day, as on a holiday or after a release.
- The hour is expected to have exp(L + S + D) pings.

The *spread* of a series is measured on the same eight weeks, each predicted from the seven others: the median
of the absolute errors of the hours that are at most `SPREAD_HOURS` off in the time of day, times 1.4826,
which makes it the standard deviation where errors are normal (Rousseeuw and Croux 1993, Journal of the
American Statistical Association 88:1273). Medians stand a week with an outage: half of the weeks may be wrong
before the expectation is.

Hours in which a series was unusual are left out (`Span`): otherwise the end of a fall would look like a rise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.monitoring.anomalies.series import HOUR, MINUTE, Counts, Series, Table, floor_hour

WEEKS: Final = 8
WEEKS_MIN: Final = 3
"""With fewer weeks that are known, nothing is expected of an hour."""
DAY_HOURS: Final = 24
WEEK_HOURS: Final = 7 * DAY_HOURS
AHEAD_HOURS: Final = 2
"""The expected hours end so long after the beginning of the running hour."""
DRIFT_HOURS: Final = 24
DRIFT_GAP_HOURS: Final = 2
DRIFT_REACH_HOURS: Final = 8 * DAY_HOURS
"""How far the last usual hours may lie back."""
SPREAD_HOURS: Final = 2
SPREAD_MIN: Final = 0.03
"""No series is steadier than this: 3 %."""
NORMAL: Final = 1.4826
HISTORY_HOURS: Final = (WEEKS + 2) * WEEK_HOURS + DAY_HOURS
"""How many hours of history are looked at."""
EXPECTED_HOURS: Final = DAY_HOURS
"""For so many hours the rhythm says what is expected."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a series and all within it were unusual."""

    series: Series
    first: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Rhythm:
    """What is expected of some series around one hour."""

    series: tuple[Series, ...]
    first: datetime
    """The beginning of the first expected hour."""
    expected: Counts
    """Pings by series and hour; NaN where too little is known."""
    spread: NDArray[np.float64]
    """The standard deviation of the logarithm of an hour's pings, by series."""

    def pings(self, first: datetime, end: datetime) -> Counts:
        """Return how many pings of each series are expected between two moments that are whole minutes.

        Between the middles of hours the rate is a straight line.
        """
        minutes = np.arange((first - self.first) // MINUTE, (end - self.first) // MINUTE)
        hours = self.expected.shape[1]
        place = np.clip((minutes + 0.5 - 30.0) / 60.0, 0.0, hours - 1.0)
        before = np.minimum(place.astype(np.int64), hours - 2)
        share = np.zeros(hours)
        np.add.at(share, before, (1.0 - (place - before)) / 60.0)
        np.add.at(share, before + 1, (place - before) / 60.0)
        used = share > 0
        pings: Counts = self.expected[:, used] @ share[used]
        return pings


def rhythm_at(history: Table, at: datetime, unusual: Iterable[Span] = ()) -> Rhythm:
    """Return what is expected around the moment `at`, from the hours of `history` that had ended by then."""
    running = floor_hour(at)
    end = running + AHEAD_HOURS * HOUR
    first = end - HISTORY_HOURS * HOUR
    counts = history.between(first, end, history.series)
    counts[:, -AHEAD_HOURS:] = np.nan
    leave_out(counts, history.series, first, unusual)
    logs = np.log(counts + 0.5)
    levels = _levels(logs)
    deviation = logs - levels
    weeks = deviation[:, -(WEEKS + 1) * WEEK_HOURS :].reshape(len(logs), WEEKS + 1, WEEK_HOURS)
    shape = _median(weeks[:, :WEEKS])
    drift = _last_median(weeks[:, WEEKS] - shape, deviation, shape)
    expected = levels[:, -EXPECTED_HOURS:] + shape[:, -EXPECTED_HOURS:] + drift[:, None]
    return Rhythm(
        history.series,
        end - EXPECTED_HOURS * HOUR,
        np.maximum(np.exp(expected) - 0.5, 0.0),
        _spread(weeks[:, :WEEKS]),
    )


def leave_out(counts: Counts, series: Sequence[Series], first: datetime, unusual: Iterable[Span]) -> None:
    """Make the hours NaN in which series were unusual; the first one begins at `first`."""
    for span in unusual:
        start = max(0, (floor_hour(span.first) - first) // HOUR)
        end = max(0, -((first - span.end) // HOUR))
        for number, each in enumerate(series):
            if each == span.series or each.is_within(span.series):
                counts[number, start:end] = np.nan


def _levels(logs: Counts) -> Counts:
    """Return the level of each hour; hours of one day, counted from the end, have the same."""
    days = logs.shape[1] // DAY_HOURS
    newest = logs[:, -days * DAY_HOURS :].reshape(len(logs) * days, DAY_HOURS)
    medians = _median(newest).reshape(len(logs), days)
    weeks = np.lib.stride_tricks.sliding_window_view(medians, 7, axis=1)[:, :-1]
    of_days = _median(weeks.reshape(-1, 7)).reshape(len(logs), days - 7)
    levels = np.full_like(logs, np.nan)
    levels[:, -(days - 7) * DAY_HOURS :] = np.repeat(of_days, DAY_HOURS, axis=1)
    return levels


def _last_median(newest: Counts, deviation: Counts, shape: Counts) -> NDArray[np.float64]:
    """Return the median of the last `DRIFT_HOURS` known errors, 0 for a series that has none."""
    before = deviation[:, -WEEK_HOURS - DAY_HOURS : -WEEK_HOURS] - shape[:, -DAY_HOURS:]
    errors = np.concatenate([before, newest], axis=1)[:, : -AHEAD_HOURS - DRIFT_GAP_HOURS]
    errors = errors[:, -DRIFT_REACH_HOURS:]
    rank = np.cumsum(~np.isnan(errors[:, ::-1]), axis=1)[:, ::-1]
    return np.nan_to_num(_median(np.where(rank <= DRIFT_HOURS, errors, np.nan)))


def _spread(weeks: Counts) -> NDArray[np.float64]:
    """Return the spread by series at the time of day of the running hour."""
    errors = weeks - medians_of_others(weeks)
    in_order = errors.reshape(len(weeks), WEEKS * WEEK_HOURS)
    reach = DRIFT_HOURS + DRIFT_GAP_HOURS
    windows = np.lib.stride_tricks.sliding_window_view(np.nan_to_num(in_order), DRIFT_HOURS, axis=1)
    hours = np.arange(reach, WEEKS * WEEK_HOURS)
    apart = (hours + AHEAD_HOURS) % DAY_HOURS
    near = hours[np.minimum(apart, DAY_HOURS - apart) <= SPREAD_HOURS]
    left = np.abs(in_order[:, near] - np.median(windows[:, near - reach], axis=2))
    return np.maximum(NORMAL * _median(left), SPREAD_MIN)


def medians_of_others(values: Counts) -> Counts:
    """Return for each value the median over axis 1 of the others that are not NaN, if they are enough."""
    order = np.argsort(values, axis=1)  # NaN comes last
    ordered = np.take_along_axis(values, order, axis=1)
    rank = np.argsort(order, axis=1)
    others = np.sum(~np.isnan(values), axis=1, keepdims=True) - 1
    lower, upper = np.maximum(others - 1, 0) // 2, others // 2
    # What comes after the value itself moves one place down.
    lower, upper = lower + (lower >= rank), upper + (upper >= rank)
    last = values.shape[1] - 1
    middle = np.take_along_axis(ordered, np.minimum(lower, last), axis=1)
    middle = (middle + np.take_along_axis(ordered, np.minimum(upper, last), axis=1)) / 2
    found: Counts = np.where((others >= WEEKS_MIN) & ~np.isnan(values), middle, np.nan)
    return found


def _median(values: Counts) -> NDArray[np.float64]:
    """Return the medians over axis 1 of what is not NaN; NaN for fewer than `WEEKS_MIN` values."""
    ordered = np.sort(values, axis=1)  # NaN comes last
    known = np.sum(~np.isnan(values), axis=1, keepdims=True)
    lower = np.take_along_axis(ordered, np.maximum(known - 1, 0) // 2, axis=1)
    upper = np.take_along_axis(ordered, np.maximum(known, 1) // 2 * (known > 1), axis=1)
    middle: NDArray[np.float64] = np.where(known >= WEEKS_MIN, (lower + upper) / 2, np.nan)[:, 0]
    return middle


def unusual_until(at: datetime, spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans that still matter at `at`: the others ended before all that is looked at."""
    return tuple(span for span in spans if span.end > at - timedelta(hours=HISTORY_HOURS))
