"""Pings by the minute as a fleet sends them: rhythm of day and week, noise, growth, releases; from a seed.

A series has a rate of its own, which is multiplied by what real volumes have:

- a curve of the day, one on working days and one on weekends, and fewer pings on weekends;
- growth by the week, and a level that wanders from day to day;
- a release of its channel every four weeks: more pings, which come within a day and go within days;
- a bad day that is shared by all, as a holiday is, in some weeks;
- noise that is shared by all, noise of its channel and noise of its own, each with a memory of hours (AR(1));
- bursts: the pings of a minute are drawn from a negative binomial distribution, which scatters more than a
  Poisson distribution of the same mean.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from telemetry_lake.monitoring.anomalies.series import ALL, HOUR, MINUTE, Counts, Series, Table, levels_of

FIRST: Final = datetime(2026, 1, 5, tzinfo=UTC)
"""A Monday."""
DAY_MINUTES: Final = 24 * 60
WEEK_MINUTES: Final = 7 * DAY_MINUTES
CHANNELS: Final[dict[tuple[str, str], float]] = {
    ("telemetry", "release"): 16_000.0,
    ("telemetry", "beta"): 2_500.0,
    ("telemetry", "nightly"): 900.0,
    ("telemetry", "esr"): 400.0,
    ("telemetry", "OTHER"): 60.0,
    ("org-mozilla-fenix", "release"): 5_000.0,
    ("org-mozilla-fenix", "beta"): 300.0,
    ("org-mozilla-fenix", "nightly"): 80.0,
}
"""Mean pings a minute; all together about 420 a second, whose peak hour is that of 2014: 732."""
TYPES: Final[dict[str, dict[str, float]]] = {
    "telemetry": {"main": 0.7, "event": 0.2, "modules": 0.08, "crash": 0.02},
    "org-mozilla-fenix": {"baseline": 0.6, "metrics": 0.3, "crash": 0.1},
}


@dataclass(frozen=True, slots=True)
class Noise:
    """How far from their rhythm volumes are; standard deviations of logarithms."""

    shared: float = 0.02
    channel: float = 0.03
    own: float = 0.03
    memory_hours: float = 4.0
    """After so many hours an error is down to 1/e."""
    daily_walk: float = 0.02
    burst: float = 0.03
    """What a minute of a large series scatters by."""
    release: float = 0.2
    bad_day: float = 0.15


@dataclass(frozen=True, slots=True)
class Fleet:
    """The rates of some series, minute by minute, and pings drawn from them."""

    series: tuple[Series, ...]
    rates: Counts
    noise: Noise
    seed: int
    first: datetime = FIRST

    def at(self, minute: int) -> datetime:
        """Return when a minute begins."""
        return self.first + minute * MINUTE

    def pings(self, first: int, end: int, factors: NDArray[np.float64] | None = None) -> Counts:
        """Return the pings of each series in the minutes from `first` until `end`.

        `factors` multiplies the rates, by series and minute. The draw follows from the seed and `first`.
        """
        rates = self.rates[:, first:end] * (1.0 if factors is None else factors)
        generator = np.random.default_rng((self.seed, first))
        # A gamma of mean 1 and variance burst², and a Poisson draw of what it multiplies.
        shape = 1.0 / self.noise.burst**2
        return generator.poisson(rates * generator.gamma(shape, 1.0 / shape, rates.shape)).astype(np.float64)


def make_fleet(
    weeks: int,
    seed: int,
    *,
    noise: Noise = Noise(),
    channels: Iterable[tuple[str, str]] = tuple(CHANNELS),
) -> Fleet:
    """Return a fleet of some channels, with the rates of this many weeks."""
    generator = np.random.default_rng(seed)
    minutes = np.arange(weeks * WEEK_MINUTES)
    shared = _memory(generator, len(minutes), noise.shared, noise.memory_hours) + _bad_days(
        generator, weeks, noise.bad_day
    )
    series, rates = [], []
    for namespace, channel in channels:
        of_channel = (
            shared
            + _memory(generator, len(minutes), noise.channel, noise.memory_hours)
            + _rhythm(generator, minutes)
            + _growth(generator, weeks, noise)
            + _releases(generator, minutes, noise.release)
        )
        for document_type, share in TYPES[namespace].items():
            own = _memory(generator, len(minutes), noise.own, noise.memory_hours)
            series.append(Series(namespace, document_type, channel))
            rates.append(CHANNELS[namespace, channel] * share * np.exp(of_channel + own))
    return Fleet(tuple(series), np.stack(rates), noise, seed)


def with_levels(series: Sequence[Series], counts: Counts, first: datetime, step: timedelta) -> Table:
    """Return the table of these series and all that contain them."""
    rows: dict[Series, Counts] = {ALL: np.zeros(counts.shape[1])}
    for each, values in zip(series, counts, strict=True):
        for level in levels_of(each):
            rows[level] = rows.get(level, 0.0) + values
    order = sorted(rows, key=lambda each: (sum(part != "*" for part in each), each))
    return Table(tuple(order), first, step, np.stack([rows[each] for each in order]))


def by_hour(minutes: Table) -> Table:
    """Return the sums of whole hours; the table begins with one."""
    whole = minutes.counts.shape[1] // 60
    counts = minutes.counts[:, : whole * 60].reshape(len(minutes.series), whole, 60).sum(axis=2)
    return Table(minutes.series, minutes.first, HOUR, counts)


def _rhythm(generator: np.random.Generator, minutes: NDArray[np.int64]) -> NDArray[np.float64]:
    day = (minutes // DAY_MINUTES) % 7
    of_day = 2 * np.pi * (minutes % DAY_MINUTES) / DAY_MINUTES
    depth, late = generator.uniform(0.35, 0.6), generator.uniform(2.2, 2.8) * np.pi / 2
    working = -depth * np.cos(of_day - late + np.pi) + 0.12 * np.cos(2 * of_day - generator.uniform(0, 6))
    resting = -0.8 * depth * np.cos(of_day - late - 0.3 + np.pi) - generator.uniform(0.15, 0.35)
    # A weekend begins at different hours around the world.
    weekend = np.clip(
        np.interp(minutes % WEEK_MINUTES / DAY_MINUTES, [4.7, 5.3, 6.7, 7.0], [0, 1, 1, 0.5]), 0, 1
    )
    weekend = np.where(
        day == 0, np.interp(minutes % DAY_MINUTES / DAY_MINUTES, [0.0, 0.3], [0.5, 0]), weekend
    )
    return working * (1 - weekend) + resting * weekend


def _growth(generator: np.random.Generator, weeks: int, noise: Noise) -> NDArray[np.float64]:
    days = weeks * 7 + 1
    steps = generator.normal(0, noise.daily_walk, days)
    walk = lfilter([1.0], [1.0, -0.9], steps)  # it comes back to the trend
    trend = np.arange(days) / 7 * generator.uniform(-0.01, 0.02)
    minutes = np.arange(weeks * WEEK_MINUTES)
    return np.interp(minutes / DAY_MINUTES, np.arange(days), walk + trend)


def _releases(generator: np.random.Generator, minutes: NDArray[np.int64], size: float) -> NDArray[np.float64]:
    found = np.zeros(len(minutes))
    begun = generator.integers(0, 28) * DAY_MINUTES + 14 * 60
    for start in range(int(begun) - 28 * DAY_MINUTES, len(minutes), 28 * DAY_MINUTES):
        hours = (minutes - start) / 60.0
        rise = np.clip(hours / 18.0, 0, 1) * np.exp(-np.clip(hours - 18.0, 0, None) / 60.0)
        found += np.where(hours >= 0, size * generator.uniform(0.5, 1.2) * rise, 0.0)
    return found


def _bad_days(generator: np.random.Generator, weeks: int, size: float) -> NDArray[np.float64]:
    """Return what some days have less, with a beginning and an end of hours."""
    minutes = np.arange(weeks * WEEK_MINUTES)
    found = np.zeros(len(minutes))
    for week in range(0, weeks, 4):
        start = (week * 7 + int(generator.integers(0, 28))) * DAY_MINUTES
        hours = (minutes - start) / 60.0
        found -= size * np.interp(hours, [0.0, 8.0, 22.0, 30.0], [0.0, 1.0, 1.0, 0.0])
    return found


def _memory(
    generator: np.random.Generator, minutes: int, deviation: float, hours: float
) -> NDArray[np.float64]:
    """Return noise of this standard deviation that forgets over some hours."""
    keep = np.exp(-1.0 / (hours * 60.0))
    drawn = generator.normal(0, deviation * np.sqrt(1 - keep**2), minutes)
    start = generator.normal(0, deviation)
    return np.asarray(lfilter([1.0], [1.0, -keep], drawn, zi=[keep * start])[0])
