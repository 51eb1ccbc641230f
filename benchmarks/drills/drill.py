"""One drill: what it breaks, which alarms have to fire and to resolve, and how long that took."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

from benchmarks.drills.stage import Part, Stage
from lake_testing.local_lake import NotInTime, wait_for
from telemetry_lake.monitoring.alarms import BY_NAME

FIRES_WITHIN_SECONDS: Final = 300.0
RESOLVES_WITHIN_SECONDS: Final = 420.0
QUIET_WITHIN_SECONDS: Final = 420.0

Break = Callable[[Stage], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Drill:
    """A part of the lake to be broken, and the alarms that have to say so, the first one at once.

    `breaks` breaks it when its block begins, and mends it at the block's end by what the runbook says.
    Further alarms may follow when the first is mended: those that it mutes meanwhile.
    """

    alarms: tuple[str, ...]
    broken: str
    breaks: Break
    part: Part
    node: int | None = None
    """The place of the node among all of which the first alarm has to tell, where it is about one."""
    by_outer_watcher: bool = False
    """Whether the outer watcher has to complain, since nothing else would."""
    fires_within_seconds: float = FIRES_WITHIN_SECONDS


@dataclass(slots=True)
class Row:
    """What became of one alarm in a drill."""

    alarm: str
    broken: str
    severity: str
    runbook: str
    fired_seconds: float
    """From the break to the call of the web hook."""
    resolved_seconds: float
    """From the mending."""
    labels: dict[str, str]
    summary: str
    others: set[str] = field(default_factory=set)
    """Other alarms that were told meanwhile."""


class DrillFailed(AssertionError):
    """An alarm did not fire, did not resolve, or had the wrong labels."""


def run_drill(stage: Stage, drill: Drill, say: Callable[[str], None]) -> list[Row]:
    """Break, wait for the alarms, mend, wait for their ends. Returns what happened, a row for each alarm.

    Raises DrillFailed, which says what did not happen and what fired instead.
    """
    if drill.by_outer_watcher:
        return [_run_outer_drill(stage, drill, say)]
    _wait_until_can_fire(stage, drill.alarms)
    first, *later = drill.alarms
    instance = None if drill.node is None else stage.ingest_targets[drill.node]
    began = time.monotonic()
    with drill.breaks(stage):
        _wait(
            stage,
            lambda: stage.sink.first_firing(first, began, instance) is not None,
            deadline_seconds=drill.fires_within_seconds,
            what=f"{first} fires",
        )
        say(f"{first} fires after {time.monotonic() - began:.1f} s; mending")
    mended = time.monotonic()
    rows = []
    for alarm in (first, *later):
        _wait(
            stage,
            lambda: stage.sink.first_firing(alarm, began, instance) is not None,  # noqa: B023
            deadline_seconds=drill.fires_within_seconds,
            what=f"{alarm} fires",
        )
        _wait(
            stage,
            lambda: not stage.sink.fires(alarm),  # noqa: B023
            deadline_seconds=RESOLVES_WITHIN_SECONDS,
            what=f"{alarm} is resolved",
        )
        told = stage.sink.first_firing(alarm, began, instance)
        assert told is not None
        definition = BY_NAME[alarm]
        expected = (definition.severity.value, definition.runbook)
        if (told.labels["severity"], told.runbook) != expected or not told.summary:
            raise DrillFailed(f"{alarm} was told as {told}, not with severity and runbook {expected}")
        rows.append(
            Row(
                alarm,
                drill.broken,
                told.labels["severity"],
                told.runbook,
                told.at_seconds - began,
                max(0.0, time.monotonic() - mended),
                {name: value for name, value in told.labels.items() if name not in {"alertname", "job"}},
                told.summary,
            )
        )
        say(f"{alarm} is resolved {rows[-1].resolved_seconds:.1f} s after mending")
    others = stage.sink.fired_since(began) - set(drill.alarms)
    for row in rows:
        row.others = others
    return rows


def _run_outer_drill(stage: Stage, drill: Drill, say: Callable[[str], None]) -> Row:
    alarm = BY_NAME[drill.alarms[0]]
    began = time.monotonic()
    with drill.breaks(stage):
        _wait(
            stage,
            lambda: stage.watchers.complaint() is not None,
            deadline_seconds=drill.fires_within_seconds,
            what="the outer watcher complains",
        )
        complaint = stage.watchers.complaint() or ""
        fired_seconds = time.monotonic() - began
        say(f"the outer watcher complains after {fired_seconds:.1f} s; mending")
    mended = time.monotonic()
    _wait(
        stage,
        lambda: stage.watchers.complaint() is None,
        deadline_seconds=RESOLVES_WITHIN_SECONDS,
        what="the outer watcher is content",
    )
    resolved_seconds = time.monotonic() - mended
    return Row(
        alarm.name,
        drill.broken,
        alarm.severity.value,
        alarm.runbook,
        fired_seconds,
        resolved_seconds,
        {},
        complaint,
    )


def wait_until_quiet(stage: Stage) -> None:
    """Wait until nothing fires. Raises DrillFailed, which says what still does."""
    _wait(stage, lambda: not stage.sink.firing(), deadline_seconds=QUIET_WITHIN_SECONDS, what="nothing fires")


def _wait_until_can_fire(stage: Stage, alarms: Iterable[str]) -> None:
    """Wait until none of `alarms` fires, nor any that mutes one of them."""
    wanted = set(alarms)
    muting = {alarm.name for alarm in BY_NAME.values() if wanted & set(alarm.mutes)} - wanted
    every = "|".join(sorted(wanted | muting))
    _wait(
        stage,
        # Not by what was told: a muted alarm is told as soon as nothing mutes it any more.
        lambda: stage.watchers.value(f'ALERTS{{alertname=~"{every}"}}') is None,
        deadline_seconds=QUIET_WITHIN_SECONDS,
        what=f"none of {', '.join(sorted(wanted | muting))} fires any more",
    )


def _wait(stage: Stage, condition: Callable[[], bool], *, deadline_seconds: float, what: str) -> None:
    try:
        wait_for(condition, deadline_seconds=deadline_seconds, what=what)
    except NotInTime as error:
        firing = "; ".join(f"{told.alarm}: {told.summary}" for told in stage.sink.firing()) or "nothing"
        raise DrillFailed(f"{error}. Firing: {firing}") from error
