"""Values, times and sizes as people read them."""

from datetime import UTC, datetime
from typing import Final

from telemetry_lake.monitoring.metric import Unit

UNKNOWN: Final = "\N{EN DASH}"
_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_BINARY_STEP: Final = 1_024
_EXACT_BELOW: Final = 1_000
_LARGE: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


def seconds_since(moment: datetime | None, now: datetime) -> float | None:
    """Return how long ago a moment was, never less than nothing; None without one."""
    return None if moment is None else max(0.0, (now - moment).total_seconds())


def text_of(value: float | None, unit: Unit) -> str:
    """Return a value for people, in its unit."""
    if value is None:
        return UNKNOWN
    if unit is Unit.SECONDS:
        return duration(value)
    if unit is Unit.BYTES:
        return size(value)
    if unit is Unit.DOLLARS:
        return f"${value:,.2f}"
    if unit is Unit.YES_OR_NO:
        return "yes" if value else "no"
    return number(value)


def number(value: float) -> str:
    """Return a number, a large one with three or more digits and a letter for its millions."""
    for step, letter in _LARGE:
        if abs(value) >= step:
            return f"{value / step:,.2f} {letter}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= _EXACT_BELOW else f"{value:,.1f}"


def size(value: float) -> str:
    """Return a size in bytes."""
    unit = "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < _BINARY_STEP or unit == "TiB":
            break
        value /= _BINARY_STEP
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Return how long something took, or takes already."""
    whole = int(max(0, seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} days {whole % _DAY // _HOUR} h"


def clock(moment: datetime | None) -> str:
    """Return a moment as people write it."""
    return UNKNOWN if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
