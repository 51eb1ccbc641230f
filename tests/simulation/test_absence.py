"""What was away for an hour, five days or a month is worked off by itself when it is back, without storms."""

from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from itertools import count

import pytest

from lake_testing.simulation.deterministic import deterministic
from lake_testing.simulation.lake import GOOD, SETTINGS, SimulatedLake
from lake_testing.simulation.world import Outage, Service, World
from telemetry_lake.drain.days import is_complete
from telemetry_lake.drain.steps import Drain
from telemetry_lake.recovery.announce import LATER_WAITS
from telemetry_lake.recovery.completeness import RETENTION, Incomplete, raise_if_incomplete
from telemetry_lake.recovery.reconcile import reconcile
from telemetry_lake.recovery.survey import State

HOUR, FIVE_DAYS, THIRTY_DAYS = timedelta(hours=1), timedelta(days=5), timedelta(days=30)
QUARTER = timedelta(minutes=15)
QUIET_DAYS = 4
"""After this long at the latest everything is worked off, and each day complete that is over."""


class Away(StrEnum):
    """What may be away."""

    DRAIN = "drain"
    AIRFLOW = "Airflow"
    S3 = "S3"
    SQS = "SQS"
    CATALOG = "catalog"
    NODE = "node"


SERVICES = {Away.S3: Service.S3, Away.SQS: Service.SQS, Away.CATALOG: Service.CATALOG}


class Life:
    """A lake as time goes by: a node that ships, and the DAGs that run by their schedules."""

    def __init__(self, *, retention: timedelta = RETENTION) -> None:
        self.lake = SimulatedLake(World(1, {}))
        self.lake.sqs.retention = retention
        self.away: frozenset[Away] = frozenset()
        self._spool: list[datetime] = []
        self._steps = count()

    def live(self, for_: timedelta, *, step: timedelta, accepting: bool = True) -> None:
        """Let time pass; in each step a segment is accepted, and each DAG runs that is not away."""
        ends = self.lake.world.now + for_
        while self.lake.world.now < ends:
            self.lake.world.wait(step.total_seconds())
            if accepting and Away.NODE not in self.away:
                self._spool.append(self.lake.world.now)
            self._ship()
            if Away.AIRFLOW in self.away:
                continue
            self.lake.world.run([self.lake.reconcile])
            if Away.DRAIN not in self.away:
                for _ in range(1 + (self.away == frozenset())):
                    self.lake.world.run([self.lake.drain])
            if next(self._steps) % max(1, timedelta(days=1) // step) == 0:
                self.lake.world.run([self.lake.check_completeness])

    def be_without(self, away: frozenset[Away], for_: timedelta) -> None:
        """Let time pass without these."""
        self.away = away
        now = self.lake.world.now
        self.lake.world.outages += [
            Outage(SERVICES[one], now, now + for_) for one in sorted(away) if one in SERVICES
        ]
        # A node that goes down has accepted something that it ships when it is back.
        self._spool.append(now)
        self.live(for_, step=max(QUARTER, for_ / 15))
        self.away = frozenset()
        self.lake.world.outages.clear()

    def _ship(self) -> None:
        if self.away & {Away.S3, Away.NODE}:
            return
        for accepted_at in self._spool:
            self.lake.ship(
                [GOOD], announced=Away.SQS not in self.away, after=self.lake.world.now - accepted_at
            )
        self._spool.clear()

    def completeness(self):
        found = self.lake.connections().days.completeness()
        assert found is not None
        return found

    def messages(self) -> int:
        """How many messages were sent to the index queue for a raw object, at the most."""
        return max(self.lake.sqs.sent.values())


@pytest.fixture(autouse=True)
def _deterministic():
    with deterministic():
        yield


@pytest.mark.parametrize("for_", [HOUR, FIVE_DAYS, THIRTY_DAYS], ids=["an hour", "five days", "thirty days"])
@pytest.mark.parametrize(
    "away",
    [
        *({one} for one in Away),
        {Away.DRAIN, Away.NODE},
        {Away.DRAIN, Away.CATALOG},
        {Away.AIRFLOW, Away.S3},
        {Away.AIRFLOW, Away.SQS},
        {Away.S3, Away.SQS, Away.CATALOG},
    ],
    ids=lambda away: " and ".join(sorted(away)),
)
def test_what_was_away_is_worked_off_by_itself(away, for_):
    life = Life()
    life.live(3 * HOUR, step=HOUR)
    life.be_without(frozenset(away), for_)
    life.live(timedelta(hours=2), step=QUARTER)
    life.live(timedelta(days=QUIET_DAYS), step=timedelta(hours=12), accepting=False)
    assert life.lake.unaccounted() == []
    assert life.lake.is_quiet()
    found = life.completeness()
    assert (found.unfinished, found.open_days) == (0, 0)
    raise_if_incomplete(found)
    # One for each time that a message can have expired, one for one that was lost, and the first.
    assert life.messages() <= 2 + for_ // RETENTION
    assert life.lake.sqs.most_receives <= 2


def test_a_drain_that_was_killed_after_its_claims_is_resumed_after_its_messages_have_expired():
    """With the four days that SQS keeps a message by default."""
    life = Life(retention=timedelta(days=4))
    life.lake.ship([GOOD])
    (batch,) = Drain(life.lake.connections(), clock=lambda: life.lake.world.now).claim().batches
    assert batch.held
    life.be_without(frozenset({Away.AIRFLOW}), FIVE_DAYS)
    life.live(timedelta(days=1), step=timedelta(hours=1), accepting=False)
    assert life.lake.unaccounted() == []


def test_a_stopped_drain_is_sent_nothing_while_its_messages_wait():
    life = Life()
    life.away = frozenset({Away.DRAIN})
    life.live(timedelta(days=2), step=timedelta(hours=1))
    assert life.messages() == 1
    assert life.completeness().open == {State.WAITING: 48}
    with pytest.raises(Incomplete, match="look at the runs of the Drain DAG"):
        raise_if_incomplete(life.completeness())


def test_a_stopped_drain_whose_queue_was_emptied_is_sent_one_message_in_each_wait():
    lake = SimulatedLake(World(1, {}))
    queue = SETTINGS.sqs.index_queue_name
    for _ in range(3):
        lake.ship([GOOD], announced=False)
    for _ in range(int(timedelta(days=2) / QUARTER)):
        lake.world.wait(QUARTER.total_seconds())
        lake.world.run([lake.reconcile, lake.reconcile])
        lake.sqs._queues[queue].messages.clear()  # an operator's purge, each time
    # After a quarter of an hour, an hour, six, and a day.
    assert set(lake.sqs.sent.values()) == {1 + len(LATER_WAITS)}


def test_a_message_that_has_expired_is_sent_again_while_newer_ones_wait():
    life = Life()
    life.away = frozenset({Away.DRAIN})
    life.live(RETENTION + timedelta(days=2), step=timedelta(hours=12))
    assert not life.lake.is_quiet()
    times = list(life.lake.sqs.sent.values())
    assert (times[0], times[-1]) == (2, 1)


def test_a_lost_message_is_sent_again_while_the_drain_works_on_others():
    life = Life()
    life.lake.ship([GOOD], announced=False)
    life.away = frozenset()
    life.live(timedelta(hours=1), step=timedelta(minutes=5))
    assert life.lake.unaccounted() == []
    assert life.messages() == 1


def test_the_oldest_day_is_sent_first_and_a_run_that_is_stopped_goes_on():
    lake = SimulatedLake(World(1, {}))
    for days in (1, 9, 5):
        lake.ship([GOOD], announced=False, after=timedelta(days=days))
    lake.world.wait(1_000)
    order = []
    for _ in range(6):
        is_over = partial(next, iter([False, True]), True)
        result = reconcile(lake.connections(), now=lake.world.now, is_over=is_over)
        order += result.never_claimed.first
        lake.sqs._queues[SETTINGS.sqs.index_queue_name].messages.clear()
    assert order == sorted(lake.acknowledged.raw_objects)


def test_a_catalog_that_is_away_uses_up_no_receives():
    life = Life()
    life.lake.ship([GOOD])
    life.lake.ship([GOOD], announced=False, after=HOUR)
    life.be_without(frozenset({Away.CATALOG}), FIVE_DAYS)
    life.live(timedelta(hours=12), step=HOUR, accepting=False)
    assert life.lake.unaccounted() == []
    assert life.lake.sqs.most_receives == 1


def test_a_segment_that_is_shipped_weeks_late_opens_its_day_again():
    life = Life()
    life.live(timedelta(days=1), step=timedelta(hours=6))
    life.live(timedelta(days=20), step=timedelta(days=1), accepting=False)
    days = life.lake.connections().days
    assert all(map(is_complete, days.numbers().values()))
    life.lake.ship([GOOD], announced=False, after=timedelta(days=20))
    life.live(timedelta(days=1), step=timedelta(days=1), accepting=False)
    assert [number for number in days.numbers().values() if number != 0] != []
    life.live(timedelta(days=3), step=timedelta(hours=6), accepting=False)
    assert life.lake.unaccounted() == []
    assert all(map(is_complete, days.numbers().values()))


def test_a_day_that_is_complete_costs_the_reconciler_nothing():
    life = Life()
    costs = []
    for _ in range(3):
        life.live(timedelta(days=1), step=timedelta(hours=2))
        life.live(timedelta(days=4), step=timedelta(days=1), accepting=False)
        before = life.lake.world.calls
        life.lake.reconcile()
        costs.append(life.lake.world.calls - before)
    assert len(life.lake.connections().days.numbers()) >= 3
    assert costs == [9, 9, 9]


def test_an_hour_that_is_finished_is_not_looked_at_again():
    life = Life()
    for _ in range(10):
        life.lake.ship([GOOD])
    life.live(HOUR, step=QUARTER, accepting=False)
    assert life.lake.is_quiet()
    life.lake.world.wait(HOUR.total_seconds())
    life.lake.ship([GOOD], announced=False)  # the day goes on, in another hour
    costs = []
    for _ in range(2):
        before = life.lake.world.calls
        life.lake.reconcile()
        costs.append(life.lake.world.calls - before)
    assert costs[0] == costs[1]
    assert costs[0] < 9 + 10


def test_a_queue_that_forgets_messages_early_is_told():
    life = Life(retention=timedelta(days=4))
    life.live(timedelta(days=1), step=timedelta(hours=6))
    with pytest.raises(Incomplete, match=r"raw-index keeps a message for 4\.0 days, and should for 14"):
        raise_if_incomplete(life.completeness())
