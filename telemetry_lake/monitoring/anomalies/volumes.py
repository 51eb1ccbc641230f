"""Whether the pings of the last minutes and hours are as many as they usually are, in both directions.

With n pings where m are expected (`rhythm`), r = log((n + 1/2) / (m + 1/2)) is compared with its standard
deviation, sqrt(spread² + DISPERSION / m): errors of a rhythm, and chance, of which a volume of m pings has
1 / m in logarithms if they are independent, and more as they are not. A window is *unusual* when |r| is at
least `deviations` times that, and at least as far as `fall` and `rise` say: what is certain and tiny is
nobody's concern.

A fall of one channel is not a fall of every series. Before a series is judged, what the series around it have
in common is taken away: the median r of the other channels, as on a holiday, and the r of a wider series that
is unusual itself. It has to be unusual with and without that.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Final
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.monitoring.anomalies.findings import Anomaly, Finding, Kind, Severity
from telemetry_lake.monitoring.anomalies.rhythm import Rhythm
from telemetry_lake.monitoring.anomalies.series import ALL, EVERY, Series, Table

MINIMUM_PINGS: Final = 30
"""A window in which fewer pings are expected is not judged; a rise has to bring as many, too."""
DISPERSION: Final = 1.5
"""How much more than chance the volumes of independent pings scatter: real ones come in bursts."""
OTHERS_MIN: Final = 4
"""Of fewer other channels no median is taken."""
NARROW: Final = 1.35
"""A single document type of a channel has to be so many times as many deviations off: there are many of them,
and of many something is always rare."""
USUAL_AGAIN: Final = 0.5
"""An open anomaly ends when r is nearer than this share of what opened it."""


class Direction(StrEnum):
    """Which way a volume is off."""

    FALL = "fall"
    RISE = "rise"


KINDS: Final = {Direction.FALL: Kind.VOLUME_FALL, Direction.RISE: Kind.VOLUME_RISE}
CRITICAL_FALL: Final = 0.5
"""A series that has lost half of its pings is looked at now."""


@dataclass(frozen=True, slots=True)
class Window:
    """How much of the near past is judged together, and how far off it has to be."""

    length: timedelta
    fall: float
    """The share of the expected pings that has to be missing at least."""
    rise: float
    """The share of the expected pings that has to be there beside them at least."""
    deviations: float

    @property
    def least(self) -> float:
        """How far from 0 r has to be in any case."""
        return min(-math.log1p(-self.fall), math.log1p(self.rise))

    def limit(self, direction: Direction, deviation: float) -> float:
        """Return how far from 0 r has to be."""
        least = -math.log1p(-self.fall) if direction is Direction.FALL else math.log1p(self.rise)
        return max(least, self.deviations * deviation)


WINDOWS: Final = (
    Window(timedelta(minutes=15), fall=0.45, rise=0.80, deviations=6.5),
    Window(timedelta(minutes=60), fall=0.24, rise=0.35, deviations=3.8),
    Window(timedelta(minutes=120), fall=0.20, rise=0.30, deviations=3.8),
)
CLOSING: Final = WINDOWS[1]
"""The window that says that a volume is usual again."""


@dataclass(frozen=True, slots=True)
class Unusual:
    """A series whose volume is off, by the window that says so most clearly."""

    series: Series
    direction: Direction
    window: Window
    pings: float
    expected: float
    is_still: bool = False
    """Whether it is too near to open an anomaly, and not near enough to end one."""


@dataclass(frozen=True, slots=True)
class _Judged:
    window: Window
    pings: NDArray[np.float64]
    expected: NDArray[np.float64]
    ratio: NDArray[np.float64]
    deviation: NDArray[np.float64]


def judge(
    recent: Table,
    rhythm: Rhythm,
    end: datetime,
    windows: Sequence[Window] = WINDOWS,
    *,
    is_open: Mapping[Series, Direction] | None = None,
) -> list[Unusual]:
    """Return the series that are unusual in the time that ends at `end`, a whole minute.

    `recent` has steps of minutes. A series of `is_open` is also returned when it is not usual again.
    """
    found: dict[Series, Unusual] = {}
    for judged in [_judged(recent, rhythm, end, window) for window in windows]:
        for unusual in _of_window(judged, rhythm.series, is_open or {}):
            known = found.get(unusual.series)
            if known is None or (known.is_still and not unusual.is_still):
                found[unusual.series] = unusual
    return list(found.values())


def _judged(recent: Table, rhythm: Rhythm, end: datetime, window: Window) -> _Judged:
    first = end - window.length
    pings = recent.between(first, end, rhythm.series).sum(axis=1)
    expected = rhythm.pings(first, end)
    ratio = np.log((pings + 0.5) / (expected + 0.5))
    deviation = np.sqrt(rhythm.spread**2 + DISPERSION / np.maximum(expected, 1.0))
    ratio[~(expected >= MINIMUM_PINGS) | np.isnan(deviation)] = np.nan
    return _Judged(window, pings, expected, ratio, deviation)


def _of_window(
    judged: _Judged, series: Sequence[Series], is_open: Mapping[Series, Direction]
) -> Iterable[Unusual]:
    """Yield what is unusual; the series are in order, the widest first."""
    if not is_open and not (np.abs(judged.ratio) >= judged.window.least).any():
        return  # what is in common only takes away
    in_common = _in_common(judged.ratio, series)
    unusual: list[int] = []
    for number, each in enumerate(series):
        ratio = judged.ratio[number]
        if math.isnan(ratio):
            continue
        direction = Direction.FALL if ratio < 0 else Direction.RISE
        sign = -1.0 if direction is Direction.FALL else 1.0
        wider = [judged.ratio[other] for other in unusual if each.is_within(series[other])]
        # What is in common may explain some of r, and never adds to it.
        explained = max([0.0, sign * in_common[number], *(sign * other for other in wider)])
        distance = sign * ratio - explained
        deviation = float(judged.deviation[number]) * (1.0 if each.document_type == EVERY else NARROW)
        limit = judged.window.limit(direction, deviation)
        is_still = is_open.get(each) is direction and judged.window.length == CLOSING.length
        if distance >= limit:
            unusual.append(number)
        elif not (is_still and distance >= USUAL_AGAIN * limit):
            continue
        yield Unusual(
            each,
            direction,
            judged.window,
            float(judged.pings[number]),
            float(judged.expected[number]),
            is_still=distance < limit,
        )


def _in_common(ratio: NDArray[np.float64], series: Sequence[Series]) -> list[float]:
    """Return for each series the median r of the other channels, 0 where there are too few."""
    of_channel = {
        (each.namespace, each.channel): value
        for each, value in zip(series, ratio.tolist(), strict=True)
        if each.document_type == EVERY and each.channel != EVERY and not math.isnan(value)
    }
    medians = {}
    for channel in {(each.namespace, each.channel) for each in series}:
        others = [value for other, value in of_channel.items() if other != channel]
        medians[channel] = median(others) if len(others) >= OTHERS_MIN else 0.0
    return [0.0 if each == ALL else medians[each.namespace, each.channel] for each in series]


def findings_of(unusual: Iterable[Unusual], end: datetime) -> list[Finding]:
    """Return what is found by this at `end`."""
    return [
        Finding(
            kind=KINDS[each.direction],
            series=str(each.series),
            since=end - each.window.length,
            value=each.pings,
            expected=round(each.expected, 1),
            severity=_severity(each),
            link=link_of(each.series),
            is_still=each.is_still,
        )
        for each in unusual
    ]


def link_of(series: Series) -> str:
    """Return the path of the page that shows the volumes of a series."""
    given = {
        name: value
        for name, value in zip(("namespace", "type", "channel"), series, strict=True)
        if value != EVERY
    }
    return f"/operations?{urlencode(given)}" if given else "/operations"


def directions_of(is_open: Iterable[Anomaly]) -> dict[Series, Direction]:
    """Return which series have an open anomaly of their volume, and in which direction."""
    by_kind = {kind: direction for direction, kind in KINDS.items()}
    return {
        Series.parse(anomaly.series): by_kind[anomaly.kind] for anomaly in is_open if anomaly.kind in by_kind
    }


def _severity(unusual: Unusual) -> Severity:
    lost = unusual.direction is Direction.FALL and unusual.pings <= (1 - CRITICAL_FALL) * unusual.expected
    return Severity.CRITICAL if lost or unusual.series == ALL else Severity.WARNING
