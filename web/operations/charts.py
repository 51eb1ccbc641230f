"""Charts of volumes and of what figures were before, as geometry that templates write as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from telemetry_lake.monitoring.volumes import OTHERS, Volumes, VolumeSeries, VolumeSpan
from web.operations.formats import number
from web.operations.prometheus import Point

WIDTH: Final = 720
HEIGHT: Final = 220
LEFT: Final = 62
BOTTOM: Final = 24
TOP: Final = 8
SERIES_SHOWN: Final = 8
"""How many channels or reasons have a colour of their own; the others are one."""
MARKS: Final = 4
HOURS_OF_A_DAY: Final = 24
SPARK_WIDTH: Final = 240
SPARK_HEIGHT: Final = 44


class Span(StrEnum):
    """How much of the past is shown."""

    DAY = "day"
    WEEK = "week"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    is_last: bool
    """Whether its step has not ended."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A text at an axis, and where."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One series in the legend and in the table."""

    name: str
    colour: int
    total: int
    last_step: int
    share: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of stacked bars with its axes, legend and the same numbers as a table."""

    title: str
    bars: tuple[Bar, ...]
    horizontal: tuple[Mark, ...]
    vertical: tuple[Mark, ...]
    lines: tuple[Line, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    """For each step its time and the values of the lines, newest first."""
    total: int
    summary: str


@dataclass(frozen=True, slots=True)
class Spark:
    """A small line of the last day."""

    path: str
    least: float
    greatest: float
    first: datetime
    last: datetime


def volume_charts(volumes: Volumes, span: Span) -> tuple[Chart, Chart]:
    """Return the chart of converted pings by channel and that of rejected pings by reason."""
    source = volumes.year if span is Span.YEAR else volumes.week
    steps = HOURS_OF_A_DAY if span is Span.DAY else len_of(source)
    return (
        _chart("Pings by channel", source, source.channels, steps),
        _chart("Rejected pings by reason", source, source.errors, steps),
    )


def len_of(span: VolumeSpan) -> int:
    """Return how many steps a span has; 0 without any series."""
    return next((len(series.pings) for series in (*span.channels, *span.errors)), 0)


def _chart(title: str, span: VolumeSpan, all_series: Sequence[VolumeSeries], steps: int) -> Chart:
    count = len_of(span)
    series = _coloured([(each.name, each.pings[-steps:]) for each in all_series])
    sums = [sum(values) for values in zip(*(pings for _, pings in series), strict=True)] or [0]
    top = _round_up(max(sums))
    step_width = (WIDTH - LEFT) / max(1, len(sums))
    scale = (HEIGHT - BOTTOM - TOP) / top
    bars = []
    heights = [0.0] * len(sums)
    for colour, (_, pings) in enumerate(series):
        for place, value in enumerate(pings):
            if value:
                heights[place] += value * scale
                bars.append(
                    Bar(
                        round(LEFT + place * step_width, 2),
                        round(HEIGHT - BOTTOM - heights[place], 2),
                        round(max(0.6, step_width * 0.86), 2),
                        round(max(0.4, value * scale), 2),
                        colour % 12 + 1,
                        place == len(sums) - 1,
                    )
                )
    step = timedelta(seconds=span.step_seconds)
    first = span.first.astimezone(UTC) + step * (count - len(sums))
    moments = [first + step * place for place in range(len(sums))]
    total = sum(sums)
    return Chart(
        title,
        tuple(bars),
        tuple(
            Mark(round(HEIGHT - BOTTOM - top * share / MARKS * scale, 2), number(top * share / MARKS))
            for share in range(MARKS + 1)
        ),
        _times(moments, step_width, step),
        tuple(
            Line(name, place % 12 + 1, sum(pings), pings[-1], sum(pings) / total if total else 0.0)
            for place, (name, pings) in enumerate(series)
        ),
        tuple(
            (_time(moment, step), tuple(pings[place] for _, pings in series))
            for place, moment in reversed(list(enumerate(moments)))
        ),
        total,
        f"{title}: {number(total)} from {moments[0]:%Y-%m-%d %H:%M} UTC on, at most {number(max(sums))} "
        f"{'an hour' if step < timedelta(days=1) else 'a day'}",
    )


def _coloured(series: list[tuple[str, tuple[int, ...]]]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the series that there are pings of in this time; those without a colour are added up."""
    some = sorted((each for each in series if any(each[1])), key=lambda each: -sum(each[1]))
    if len(some) <= SERIES_SHOWN:
        return some
    rest = tuple(map(sum, zip(*(pings for _, pings in some[SERIES_SHOWN - 1 :]), strict=True)))
    return [*some[: SERIES_SHOWN - 1], (OTHERS, rest)]


def _round_up(value: float) -> float:
    """Return the next number that axes like to end at."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    return next((power * factor for factor in (1, 2, 4, 5, 8) if power * factor >= value), power * 10)


def _time(moment: datetime, step: timedelta) -> str:
    return f"{moment:%Y-%m-%d}" if step >= timedelta(days=1) else f"{moment:%Y-%m-%d %H:00}"


def _times(moments: Sequence[datetime], step_width: float, step: timedelta) -> tuple[Mark, ...]:
    """Return marks at beginnings of months, days, or every sixth hour, whichever fits."""
    if step >= timedelta(days=1):
        chosen = [(place, f"{at:%b}") for place, at in enumerate(moments) if at.day == 1]
    elif len(moments) > HOURS_OF_A_DAY:
        chosen = [(place, f"{at:%a %d}") for place, at in enumerate(moments) if at.hour == 0]
    else:
        chosen = [(place, f"{at:%H}:00") for place, at in enumerate(moments) if at.hour % 6 == 0]
    return tuple(Mark(round(LEFT + (place + 0.5) * step_width, 2), text) for place, text in chosen)


def spark(points: Sequence[Point]) -> Spark | None:
    """Return the line through points; None for fewer than two."""
    if len(points) < 2:
        return None
    first, last = points[0].at, points[-1].at
    values = [point.value for point in points]
    least, greatest = min(values), max(values)
    seconds, height = (last - first).total_seconds(), greatest - least
    parts = []
    for point in points:
        x = (point.at - first).total_seconds() / seconds * SPARK_WIDTH
        y = SPARK_HEIGHT - 2 - ((point.value - least) / height if height else 0.5) * (SPARK_HEIGHT - 4)
        parts.append(f"{x:.1f} {y:.1f}")
    return Spark("M" + "L".join(parts), least, greatest, first, last)
