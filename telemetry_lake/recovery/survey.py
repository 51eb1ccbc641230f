"""Survey: what has become of every raw object of a day.

The raw bucket says what arrived, the ledger what was done with it. A raw object is *finished* when its
batch is committed: with it, so that its pings are in the tables, or without it, because it was damaged
and set aside.

Days that are complete are not listed. Of an open day the listing of its raw objects is compared with what was
there when an hour was found finished; only the other hours are looked at, so that a claim is read a few times
until its hour is finished and never again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Final

from telemetry_lake.drain.acknowledge import stopped_by
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.days import DayRecord, Hour, digest_of_hours, is_complete
from telemetry_lake.drain.ledger import Ownership
from telemetry_lake.recovery.keys import Keys
from telemetry_lake.storage.object_keys import (
    RAW_PREFIX,
    claim_key,
    claim_prefix,
    digest_of_keys,
    raw_object_prefix,
    release_prefix,
    split_raw_object_key,
    split_release_key,
)
from telemetry_lake.storage.object_store import StoredObject
from telemetry_lake.storage.records import all_at_once

DAYS_UNTIL_COMPLETE: Final = timedelta(days=2)
"""A day is not complete before this long after its beginning: until then nodes ship its last segments."""
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)
NO_RECORD: Final = -1
"""Stands for the number of a day's last record when it has none."""


class State(StrEnum):
    """Why a raw object is not finished."""

    WAITING = "waiting"
    """No batch claims it."""
    CLAIMED_LATELY = "claimed lately, not looked at yet"
    """A run works on it, or has just finished it: its batch is not asked so soon."""
    CLAIMED = "claimed, not committed"
    """The batch that claims it is not committed."""
    HELD_BACK = "held back by gates"
    """The gates stopped its batch: a person has to decide."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A raw object that is not finished; `since` is when it came into its state.

    `batch` is the one that claims it, where that was looked up.
    """

    key: str
    state: State
    shipped_at: datetime
    since: datetime
    batch: str | None = None


@dataclass(slots=True)
class DaySurvey:
    """What has become of the raw objects of a day."""

    day: date
    number: int = NO_RECORD
    """The number of the day's last record."""
    hours: dict[str, Hour] = field(default_factory=dict)
    unfinished: list[Unfinished] = field(default_factory=list)
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    """The raw objects that were set aside, with their batches: only of hours that were looked at."""
    foreign: Keys = field(default_factory=Keys)

    @property
    def raw_objects(self) -> int:
        """How many raw objects the day holds."""
        return sum(hour.raw_objects for hour in self.hours.values())

    @property
    def set_aside_count(self) -> int:
        """How many of them were set aside."""
        return sum(hour.set_aside for hour in self.hours.values())

    @property
    def digest(self) -> str:
        """The digest of what the day holds."""
        return digest_of_hours((name, hour.digest) for name, hour in self.hours.items())

    @property
    def last_claim_at(self) -> datetime | None:
        """When the drain last claimed a raw object of the day."""
        return max((at for hour in self.hours.values() if (at := hour.last_claim_at)), default=None)

    def record(self, *, complete: bool, at: datetime) -> DayRecord:
        """Return the record of what was found."""
        return DayRecord(
            complete=complete,
            at=at,
            digest=self.digest,
            raw_objects=self.raw_objects,
            set_aside=self.set_aside_count,
        )


def days_in_bucket(lake: LakeConnections, foreign: Keys) -> list[date]:
    """Return the days that have raw objects, oldest first; folders of other names are added to `foreign`."""
    days = []
    for name in lake.store.list_folders(lake.settings.s3.raw_bucket, RAW_PREFIX):
        try:
            days.append(date.fromisoformat(name))
        except ValueError:
            foreign.add(f"{RAW_PREFIX}{name}/")
    return sorted(days)


def open_days(lake: LakeConnections, foreign: Keys) -> list[tuple[date, int]]:
    """Return the days that are not complete, oldest first, each with the number of its last record."""
    numbers = lake.days.numbers()
    days = ((day, numbers.get(day, NO_RECORD)) for day in days_in_bucket(lake, foreign))
    return [(day, number) for day, number in days if number == NO_RECORD or not is_complete(number)]


def survey_day(
    lake: LakeConnections, day: date, number: int = NO_RECORD, *, now: datetime, afresh: bool = False
) -> DaySurvey:
    """Return what has become of the raw objects of a day at the time `now`, and note its finished hours.

    With `afresh`, each hour is looked at, and also the batches of the latest claims. Raises RetriableError
    when S3 is unavailable.
    """
    found = DaySurvey(day, number)
    known = {} if afresh else lake.days.settled(day)
    releases = _releases(lake, day, found.foreign)
    grace = timedelta(seconds=lake.settings.drain.reconcile_grace_seconds)
    claimed_before = _END_OF_TIME if afresh else now - grace
    for name, raws in _hours(lake, day, found.foreign):
        digest = _digest(raws, releases.get(name, ()))
        hour = known.get(name)
        if hour is None or hour.digest != digest:
            look = _HourLook(lake, found, {raw.key: raw.modified_at for raw in raws}, claimed_before)
            hour = look.hour(f"{claim_prefix(day)}{name}/", releases.get(name, ()), digest)
        found.hours[name] = hour
    unfinished = {_hour_of(one.key) for one in found.unfinished}
    settled = {name: hour for name, hour in found.hours.items() if name not in unfinished}
    if settled != known:
        lake.days.settle(day, settled)
    return found


def finish_day(lake: LakeConnections, found: DaySurvey, *, now: datetime) -> bool:
    """Record that a day is complete if it is; returns whether it is."""
    begun = datetime(found.day.year, found.day.month, found.day.day, tzinfo=now.tzinfo)
    if found.unfinished or now - begun < DAYS_UNTIL_COMPLETE:
        return False
    lake.days.add(found.day, found.number + 1, found.record(complete=True, at=now))
    return True


def is_finished(found: DaySurvey, *, now: datetime, grace: timedelta) -> bool:
    """Return whether a day is over, for as long as `grace`, and everything that arrived of it is finished.

    Unlike a complete day, a finished one may still get segments of nodes that are late.
    """
    ended = datetime(found.day.year, found.day.month, found.day.day, tzinfo=now.tzinfo) + timedelta(days=1)
    return not found.unfinished and now - ended >= grace


def has_changed(lake: LakeConnections, day: date, number: int) -> bool:
    """Return whether a complete day holds something else than it did when that was recorded.

    Costs the listing of its raw objects, and holds an hour of it in memory.
    """
    foreign = Keys()
    releases = _releases(lake, day, foreign)
    digests = [(name, _digest(raws, releases.get(name, ()))) for name, raws in _hours(lake, day, foreign)]
    if not digests:  # its raw objects were deleted, as by a rule of the bucket for old ones
        return False
    return digest_of_hours(digests) != lake.days.record(day, number).digest


@dataclass(slots=True)
class _HourLook:
    """A look at the raw objects of an hour, which `shipped` names with the times of their arrival."""

    lake: LakeConnections
    found: DaySurvey
    shipped: Mapping[str, datetime]
    claimed_before: datetime

    def hour(self, claims_below: str, releases: Collection[StoredObject], digest: str) -> Hour:
        """Add what is not finished, or set aside, to the survey; returns what the hour holds."""
        bucket = self.lake.settings.s3.lake_bucket
        claims = {item.key: item.modified_at for item in self.lake.store.list_objects(bucket, claims_below)}
        released: dict[str, datetime] = {}
        for item in releases:
            key, _ = split_release_key(item.key)
            released[key] = max(item.modified_at, released.get(key, item.modified_at))
        to_read: list[str] = []
        for key, shipped_at in self.shipped.items():
            claimed_at = claims.get(claim_key(key))
            if key in released or (claimed_at is not None and claimed_at < self.claimed_before):
                to_read.append(key)
            elif claimed_at is not None:
                self._unfinished(key, State.CLAIMED_LATELY, claimed_at)
            else:
                self._unfinished(key, State.WAITING, shipped_at)
        owners = dict(
            zip(to_read, all_at_once(lambda key: self._owner(key, key in released), to_read), strict=True)
        )
        set_aside = self._judge(owners, claims, released)
        return Hour(
            digest=digest,
            raw_objects=len(self.shipped),
            set_aside=set_aside,
            last_claim_at=max(claims.values(), default=None),
        )

    def _owner(self, key: str, was_released: bool) -> Ownership:
        ledger = self.lake.ledger
        return ledger.ownership(key) if was_released else Ownership(ledger.owner(key, None), None)

    def _judge(
        self,
        owners: Mapping[str, Ownership],
        claims: Mapping[str, datetime],
        released: Mapping[str, datetime],
    ) -> int:
        """Add to the survey what the batches of these raw objects have not finished.

        Returns how many raw objects were set aside.
        """
        ledger = self.lake.ledger
        batches = {owner.batch for owner in owners.values() if owner.batch is not None}
        commitments = ledger.commitments(batches)
        stopped = {
            batch
            for batch in batches - commitments.keys()
            if ledger.waiver(batch) is None and stopped_by(ledger, batch) is not None
        }
        set_aside = 0
        for key, owner in owners.items():
            if owner.batch is None:
                self._unfinished(key, State.WAITING, released.get(key, self.shipped[key]))
            elif owner.batch not in commitments:
                state = State.HELD_BACK if owner.batch in stopped else State.CLAIMED
                claimed_at = claims.get(claim_key(key, after=owner.after_batch), self.shipped[key])
                self._unfinished(key, state, claimed_at, owner.batch)
            elif key in commitments[owner.batch].quarantined:
                self.found.set_aside.append((key, owner.batch))
                set_aside += 1
        return set_aside

    def _unfinished(self, key: str, state: State, since: datetime, batch: str | None = None) -> None:
        self.found.unfinished.append(Unfinished(key, state, self.shipped[key], since, batch))


def _hours(lake: LakeConnections, day: date, foreign: Keys) -> Iterator[tuple[str, Sequence[StoredObject]]]:
    """Yield the raw objects of a day by hour, in the order of their keys."""

    def raw_objects() -> Iterator[StoredObject]:
        for item in lake.store.list_objects(lake.settings.s3.raw_bucket, raw_object_prefix(day)):
            try:
                split_raw_object_key(item.key)
            except ValueError:
                foreign.add(item.key)
            else:
                yield item

    for name, items in groupby(raw_objects(), key=lambda item: _hour_of(item.key)):
        yield name, list(items)


def _releases(lake: LakeConnections, day: date, foreign: Keys) -> dict[str, list[StoredObject]]:
    """Return the releases of a day's raw objects, by hour."""
    found: dict[str, list[StoredObject]] = {}
    for item in lake.store.list_objects(lake.settings.s3.lake_bucket, release_prefix(day)):
        try:
            key, _ = split_release_key(item.key)
        except ValueError:
            foreign.add(item.key)
        else:
            found.setdefault(_hour_of(key), []).append(item)
    return found


def _digest(raws: Iterable[StoredObject], releases: Iterable[StoredObject]) -> str:
    return digest_of_keys(item.key for items in (raws, releases) for item in items)


def _hour_of(raw_key: str) -> str:
    return f"{split_raw_object_key(raw_key).hour:02d}"
