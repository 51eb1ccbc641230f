"""Completeness: prove that every raw object of every day has come to its end.

A day that is not marked complete is looked at whenever this runs, however old it is: its raw objects are
in the tables, or set aside, or named here. A day that is marked is not trusted for ever, as a node may
ship a segment weeks late, under the date of its first ping: the raw objects of marked days are listed
again and compared with what they were, those of the last `RECOUNTED_DAILY` each time and older ones in
turn. So whatever arrives for a day that was complete opens it again, and the cost does not grow with the
history but by a listing a month for each day.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.days import Completeness, Group, is_complete
from telemetry_lake.failures import FatalError
from telemetry_lake.recovery.keys import Keys
from telemetry_lake.recovery.survey import (
    DaySurvey,
    State,
    Unfinished,
    finish_day,
    has_changed,
    open_days,
    survey_day,
)
from telemetry_lake.storage.object_keys import split_raw_object_key

RECOUNTED_DAILY: Final = timedelta(days=45)
"""Longer than a node may be without S3 and keep what it has accepted."""
RECOUNT_TURN_DAYS: Final = 30
"""An older day is counted again this often."""
RETENTION: Final = timedelta(days=14)
"""How long both queues have to keep a message: the longest that SQS does."""

_REMEDIES: Final = {
    State.WAITING: "The drain does not get to them: look at the runs of the Drain DAG. To send their "
    "messages now: python -m telemetry_lake replay raw-objects --first-day {day}",
    State.CLAIMED_LATELY: "A run of the drain works on them: look again in a quarter of an hour",
    State.CLAIMED: "Their batches do not come to an end: look at the failed runs of the Drain DAG and at "
    "`python -m telemetry_lake dead-letters`. To send their messages now: "
    "python -m telemetry_lake replay raw-objects --first-day {day}",
    State.HELD_BACK: "They wait for a person. Read why on the page Audits; then mend the cause and run "
    "`python -m telemetry_lake replay raw-objects --first-day {day}`, with `--waive-gates REASON` to publish "
    "them as they are.",
}


class Incomplete(FatalError):
    """Raw objects do not come to their end by themselves, or queues forget messages too early."""


@dataclass(slots=True)
class Totals:
    """What surveys of open days found together; what was shipped before `overdue_before` is overdue."""

    overdue_before: datetime
    open_days: int = 0
    raw_objects: int = 0
    set_aside: int = 0
    states: dict[State, int] = field(default_factory=dict)
    overdue: dict[State, Keys] = field(default_factory=dict)
    oldest: Unfinished | None = None
    foreign: Keys = field(default_factory=Keys)
    not_looked_at: int = 0

    def add(self, found: DaySurvey) -> None:
        """Add the survey of a day, which counts as open if something of it is not finished."""
        self.open_days += 1
        self.raw_objects += found.raw_objects
        self.set_aside += found.set_aside_count
        self.foreign.extend(found.foreign)
        for one in found.unfinished:
            self.states[one.state] = self.states.get(one.state, 0) + 1
            if one.shipped_at < self.overdue_before:
                self.overdue.setdefault(one.state, Keys()).add(one.key)
            if self.oldest is None or one.shipped_at < self.oldest.shipped_at:
                self.oldest = one

    def completeness(
        self, at: datetime, complete_days: int, *, reopened: list[date], queues: list[str]
    ) -> Completeness:
        """Return the record of what was found at the time `at`."""
        return Completeness(
            at=at,
            complete_days=complete_days,
            open_days=self.open_days,
            raw_objects=self.raw_objects,
            open={state.value: count for state, count in self.states.items()},
            set_aside=self.set_aside,
            oldest=f"{self.oldest.key}: {self.oldest.state}" if self.oldest else None,
            oldest_since=self.oldest.shipped_at if self.oldest else None,
            overdue={state.value: _group(keys) for state, keys in self.overdue.items()},
            foreign=_group(self.foreign),
            reopened=tuple(reopened),
            queues=tuple(queues),
            not_looked_at=self.not_looked_at,
        )


def totals_at(lake: LakeConnections, now: datetime) -> Totals:
    """Return totals to which nothing has been added."""
    return Totals(overdue_before=now - timedelta(hours=lake.settings.drain.complete_within_hours))


def check_completeness(
    lake: LakeConnections, *, now: datetime, is_over: Callable[[], bool] = lambda: False
) -> Completeness:
    """Look at every day at the time `now`, mark those that are complete, and keep what was found.

    A look that `is_over` stops covers the oldest open days; what it has marked need not be looked at again.
    Raises RetriableError when S3 or SQS is unavailable.
    """
    due = _to_be_recounted(lake, now.date())
    reopened = [day for day, number in due if _reopen(lake, day, number, now)]
    totals = totals_at(lake, now)
    for day, number in open_days(lake, totals.foreign):
        if is_over():
            totals.not_looked_at += 1
            continue
        found = survey_day(lake, day, number, now=now)
        if finish_day(lake, found, now=now):
            totals.foreign.extend(found.foreign)
        else:
            totals.add(found)
    found_now = totals.completeness(now, complete_days(lake), reopened=reopened, queues=_queue_problems(lake))
    lake.days.put_completeness(found_now)
    return found_now


def complete_days(lake: LakeConnections) -> int:
    """Return how many days are marked complete."""
    return len(lake.days.complete())


def raise_if_incomplete(found: Completeness) -> None:
    """Raise Incomplete, with the raw objects that are unfinished for too long and what to do about them."""
    lines = [*found.queues]
    for state, group in found.overdue.items():
        keys = Keys(group.count, list(group.keys))
        day = split_raw_object_key(min(group.keys)).date
        lines.append(
            f"{group.count:,} raw objects are overdue, {state}. {_REMEDIES[State(state)].format(day=day)}\n"
            + keys.lines()
        )
    if lines:
        raise Incomplete("\n".join([*lines, "See 'Completeness' in docs/drain.md."]))


def _to_be_recounted(lake: LakeConnections, today: date) -> Iterator[tuple[date, int]]:
    """Yield the complete days whose turn it is, with the numbers of their records."""
    for day, number in lake.days.numbers().items():
        is_in_turn = (today - day).days % RECOUNT_TURN_DAYS == 0
        if is_complete(number) and (today - day <= RECOUNTED_DAILY or is_in_turn):
            yield day, number


def _reopen(lake: LakeConnections, day: date, number: int, now: datetime) -> bool:
    """Open a complete day again if it has changed; returns whether it has."""
    if not has_changed(lake, day, number):
        return False
    before = lake.days.record(day, number)
    lake.days.add(day, number + 1, before.model_copy(update={"complete": False, "at": now}))
    return True


def _queue_problems(lake: LakeConnections) -> list[str]:
    """Return a sentence for each queue that forgets messages earlier than it has to."""
    settings = lake.settings.sqs
    queues = {
        settings.index_queue_name: lake.queue,
        settings.dead_letter_queue_name: lake.queue.dead_letters(),
    }
    return [
        f"the queue {name} keeps a message for {retention.total_seconds() / 86_400:.1f} days, and should for "
        f"{RETENTION.days}: set its MessageRetentionPeriod to {RETENTION.total_seconds():.0f}"
        for name, queue in queues.items()
        if (retention := queue.state().retention) is not None and retention < RETENTION
    ]


def _group(keys: Keys) -> Group:
    return Group(count=keys.count, keys=tuple(keys.first))
