"""Days: which of them are finished for good, and what is known of those that are not.

A UTC day is *complete* when every raw object of it is in the tables or was set aside. That is written
down once, so that nobody has to list the day again. A raw object that arrives later, or one that a batch
gives back, makes it an open day once more. These records are a chain that only grows: those with even
numbers say that the day is complete, those with odd numbers that it is open again, and the last one
counts.

Of an open day it is known which hours need no look, because everything in them was finished when they held
exactly these raw objects and releases.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, Field

from telemetry_lake.storage.object_keys import (
    COMPLETENESS_KEY,
    DAY_PREFIX,
    RECONCILED_KEY,
    day_key,
    digest_of_keys,
    settled_key,
    split_day_key,
)
from telemetry_lake.storage.records import Record, RecordStore

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore


class Hour(Record):
    """What an hour of a day holds: `digest` is of the keys of its raw objects and releases."""

    digest: str
    raw_objects: int
    set_aside: int = 0
    last_claim_at: AwareDatetime | None = None


class SettledHours(Record):
    """The hours of a day in which everything was finished, by their names `00` to `23`."""

    hours: dict[str, Hour]


class DayRecord(Record):
    """How far a day had come at the time `at`; `digest` is that of its hours."""

    complete: bool
    at: AwareDatetime
    digest: str
    raw_objects: int
    set_aside: int


class Group(Record):
    """Raw objects with something in common: how many, and the keys of the first ones."""

    count: int = 0
    keys: tuple[str, ...] = ()


class Completeness(Record):
    """What the last look at all days found."""

    at: AwareDatetime
    complete_days: int
    open_days: int
    raw_objects: int
    """How many the open days hold."""
    open: dict[str, int]
    """How many of them are not finished, by their state."""
    set_aside: int
    """How many of them are in no table, because they were damaged or could not be converted."""
    oldest: str | None
    """The raw object that is unfinished for the longest time, with its state."""
    oldest_since: AwareDatetime | None
    """When it was shipped."""
    overdue: dict[str, Group]
    """Those that are unfinished for too long, by their state."""
    foreign: Group
    """Keys in the raw bucket that are not those of raw objects."""
    reopened: tuple[date, ...] = ()
    """Days that had been complete, and are not what they were then."""
    queues: tuple[str, ...] = ()
    """What is wrong with the queues, in words."""
    not_looked_at: int = 0
    """How many open days were left to the next look, because the limit of time was reached."""

    @property
    def unfinished(self) -> int:
        """How many raw objects of open days are not finished."""
        return sum(self.open.values())

    @property
    def needs_a_person(self) -> bool:
        """Whether something does not come to its end by itself."""
        return bool(self.overdue or self.queues)

    def lines(self, now: datetime) -> list[str]:
        """Return what was found, in words."""
        lines = [self.line(now)]
        if self.oldest is not None:
            lines.append(f"oldest: {self.oldest}")
        lines += [f"{count:,} {state}" for state, count in self.open.items()]
        if self.set_aside:
            lines.append(f"{self.set_aside:,} set aside: `dead-letters` says why, `replay` brings them back")
        if self.reopened:
            lines.append(f"open again, as they hold something else now: {', '.join(map(str, self.reopened))}")
        if self.not_looked_at:
            lines.append(f"{self.not_looked_at:,} open days are left to the next look")
        if self.foreign.count:
            keys = ", ".join(self.foreign.keys)
            lines.append(f"{self.foreign.count:,} keys are not those of raw objects, and skipped: {keys}")
        return lines

    def line(self, now: datetime) -> str:
        """Return the figures in one line."""
        text = f"{self.open_days} days open, {self.complete_days} complete"
        if self.oldest_since is None:
            return f"{text}, nothing unfinished"
        hours = (now - self.oldest_since).total_seconds() / 3_600
        text += f", {self.unfinished:,} raw objects unfinished, the oldest for {hours:.1f} h"
        overdue = sum(group.count for group in self.overdue.values())
        return f"{text}, {overdue:,} OVERDUE" if overdue else text


class ReconcilerNote(Record):
    """Where the reconciler goes on, if it was stopped, and the last claim of the drain that it has seen."""

    next_day: date | None = None
    last_claim_at: AwareDatetime | None = None
    finished: dict[date, str] = Field(default_factory=dict)
    """The open days that were over and had nothing unfinished, each with the digest of what it held."""


class DayLedger:
    """The records about days in `bucket`; safe to share between threads."""

    def __init__(self, store: "ObjectStore", bucket: str) -> None:
        self._records = RecordStore(store, bucket)

    def numbers(self) -> dict[date, int]:
        """Return the number of the last record of each day that has any."""
        return dict(sorted(map(split_day_key, self._records.keys(DAY_PREFIX))))

    def complete(self) -> frozenset[date]:
        """Return the days that are marked complete."""
        return frozenset(day for day, number in self.numbers().items() if is_complete(number))

    def record(self, day: date, number: int) -> DayRecord:
        """Return the record of this number; raises ObjectNotFound."""
        return self._records.require(day_key(day, number), DayRecord)

    def add(self, day: date, number: int, record: DayRecord) -> None:
        """Add a record to a day's chain, unless another process was faster: it found the same."""
        if record.complete != is_complete(number):
            raise ValueError(f"record {number} of a day cannot have complete={record.complete}")
        self._records.put_if_absent(day_key(day, number), record)

    def settled(self, day: date) -> Mapping[str, Hour]:
        """Return the hours of a day that need no look as long as they hold the same."""
        found = self._records.read(settled_key(day), SettledHours)
        return {} if found is None else found.hours

    def settle(self, day: date, hours: Mapping[str, Hour]) -> None:
        """Keep which hours of a day need no look."""
        self._records.put(settled_key(day), SettledHours(hours=dict(hours)))

    def put_completeness(self, found: Completeness) -> None:
        """Keep what a look at all days found, in place of the last one."""
        self._records.put(COMPLETENESS_KEY, found)

    def completeness(self) -> Completeness | None:
        """Return what the last look at all days found, None before the first one."""
        return self._records.read(COMPLETENESS_KEY, Completeness)

    def put_note(self, note: ReconcilerNote) -> None:
        """Keep where the reconciler goes on."""
        self._records.put(RECONCILED_KEY, note)

    def note(self) -> ReconcilerNote:
        """Return where the reconciler goes on."""
        return self._records.read(RECONCILED_KEY, ReconcilerNote) or ReconcilerNote()


def is_complete(number: int) -> bool:
    """Return whether a day is complete whose last record has this number."""
    return number % 2 == 0


def digest_of_hours(digests: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a day from the names and the digests of its hours."""
    return digest_of_keys(f"{hour} {digest}" for hour, digest in digests)
