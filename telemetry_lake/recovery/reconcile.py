"""Reconcile: bring back what the drain seems to have lost.

The queue does not remember: a message can be lost by an operator, an expiry or an outage. What counts is
the raw bucket and the ledger. The reconciler looks at every day that is not complete, oldest first,
however old, and repairs three things, each only when it is older than a grace period, so that nothing is
repaired that is merely on its way:

- a raw object that no batch claims, also one that was given back for replay and not claimed since;
- a raw object that a batch claimed and did not commit, unless gates stopped that batch;
- a replay of rejected pings that stopped after their rows had left the table.

`survey` says what is not finished, `announce` which of it is sent again, and how often. A message too many is
harmless: the ledger knows what is done. A run that is stopped by its limit of time goes on the next time.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.days import ReconcilerNote
from telemetry_lake.failures import DamagedRawObject, RetriableError
from telemetry_lake.recovery.announce import Announcer
from telemetry_lake.recovery.completeness import Totals, complete_days, totals_at
from telemetry_lake.recovery.keys import Keys
from telemetry_lake.recovery.replay_rejected import finish_replays
from telemetry_lake.recovery.survey import State, finish_day, is_finished, open_days, survey_day
from telemetry_lake.tables.commits import UNAVAILABLE

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reconciled:
    """What was sent again; `damaged` could not be, because its message cannot be made of it."""

    never_claimed: Keys = field(default_factory=Keys)
    never_committed: Keys = field(default_factory=Keys)
    replays_finished: list[str] = field(default_factory=list)
    damaged: Keys = field(default_factory=Keys)
    foreign: Keys = field(default_factory=Keys)
    """Keys in the raw bucket that are not those of raw objects; they are skipped."""
    days_completed: list[date] = field(default_factory=list)
    days_finished: list[date] = field(default_factory=list)
    """Days that are over and have nothing unfinished, and were not so, or held less, at the last look."""
    stopped_before: date | None = None
    """The day at which the next run goes on, when this one reached its limit of time."""
    left_undone: str | None = None
    """Why unfinished replays were not looked for."""

    def lines(self) -> list[str]:
        """Return what was done, in words."""
        lines = [
            (
                f"sent again: {self.never_claimed.count} never claimed, {self.never_committed.count} claimed "
                f"and never committed; {len(self.replays_finished)} replays finished, "
                f"{len(self.days_completed)} days complete"
            )
        ]
        if self.days_finished:
            lines.append(f"finished: {', '.join(map(str, self.days_finished))}")
        if self.foreign.count:
            lines.append(
                f"{self.foreign.count} keys in the bucket are not those of raw objects and were skipped:\n"
                + self.foreign.lines()
            )
        if self.stopped_before is not None:
            lines.append(f"stopped at the limit of time; the next run goes on with {self.stopped_before}")
        if self.left_undone is not None:
            lines.append(self.left_undone)
        return lines


def reconcile(
    lake: LakeConnections, *, now: datetime, is_over: Callable[[], bool] = lambda: False
) -> Reconciled:
    """Send again what is missed at the time `now`, until `is_over`.

    Does what can be done without the catalog when that is unavailable. Raises RetriableError when S3 or SQS
    is unavailable.
    """
    result = Reconciled()
    note = lake.days.note()
    announcer = Announcer(lake, now=now, last_claim_at=note.last_claim_at)
    totals = totals_at(lake, now)
    days = open_days(lake, totals.foreign)
    finished = {day: note.finished[day] for day, _ in days if day in note.finished}
    for day, number in days:
        if note.next_day is not None and day < note.next_day:
            continue
        found = survey_day(lake, day, number, now=now)
        announcer.saw_claim(found.last_claim_at)
        for sent in announcer.announce(day, found.unfinished, is_over=is_over):
            if sent.error is not None:
                result.damaged.add(sent.error)
            elif sent.state is State.WAITING:
                result.never_claimed.add(sent.key)
            else:
                result.never_committed.add(sent.key)
        if is_over():
            result.stopped_before = day
            break
        known = finished.pop(day, None)
        if is_finished(found, now=now, grace=timedelta(seconds=lake.settings.drain.reconcile_grace_seconds)):
            finished[day] = found.digest
            if found.digest != known:
                result.days_finished.append(day)
        if finish_day(lake, found, now=now):
            finished.pop(day, None)
            result.days_completed.append(day)
            totals.foreign.extend(found.foreign)
        else:
            totals.add(found)
    result.foreign = totals.foreign
    lake.days.put_note(
        ReconcilerNote(
            next_day=result.stopped_before, last_claim_at=announcer.last_claim_at, finished=finished
        )
    )
    if note.next_day is None and result.stopped_before is None:
        _keep_figures(lake, totals, now)
    try:
        result.replays_finished = finish_replays(lake)
    except (RetriableError, *UNAVAILABLE) as error:
        result.left_undone = f"the catalog is unavailable, unfinished replays were not looked for: {error}"
        _log.warning("%s", result.left_undone)
    return result


def _keep_figures(lake: LakeConnections, totals: Totals, now: datetime) -> None:
    """Keep what was found of all days; what only the daily look finds stays as it was."""
    last = lake.days.completeness()
    reopened, queues = ([], []) if last is None else (list(last.reopened), list(last.queues))
    lake.days.put_completeness(
        totals.completeness(now, complete_days(lake), reopened=reopened, queues=queues)
    )


def raise_if_damaged(result: Reconciled) -> None:
    """Raise DamagedRawObject when there are raw objects of which no message can be made."""
    if result.damaged.count:
        raise DamagedRawObject(
            f"{result.damaged.count} objects in the raw bucket are not raw objects, and no batch owns them. "
            f"See 'Not a raw object' in docs/drain.md.\n{result.damaged.lines()}"
        )
