"""The reconciler tells once of each date that everything is in the tables, and again when more has come."""

import uuid
from datetime import UTC, date, datetime, timedelta

import pytest

from lake_testing.shipping import greeting, ship_bytes, ship_pings
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.days import ReconcilerNote
from telemetry_lake.drain.steps import drain_once, utc_now
from telemetry_lake.recovery.completeness import check_completeness
from telemetry_lake.recovery.reconcile import reconcile
from telemetry_lake.recovery.survey import DaySurvey, State, Unfinished, is_finished

YESTERDAY = utc_now().replace(hour=9) - timedelta(days=1)
"""Over, and not complete: only a date of two days ago is that."""
DAY = YESTERDAY.date()
DAY_ENDS = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(days=1)
GRACE = timedelta(minutes=15)
COMPLETE = timedelta(days=4)
"""How much later the day is complete."""


@pytest.fixture
def hasty(settings):
    """A lake whose reconciler looks at what was claimed a moment ago."""
    drain = settings.drain.model_copy(update={"reconcile_grace_seconds": 0.001})
    return settings.model_copy(update={"drain": drain})


def deliver(settings) -> None:
    ship_pings(settings, [greeting(str(uuid.uuid4()), at=YESTERDAY)], first=YESTERDAY)
    drain_once(settings)


def finished(settings) -> list[date]:
    return reconcile(LakeConnections(settings), now=utc_now() + timedelta(minutes=1)).days_finished


def test_a_date_is_finished_a_while_after_it_is_over_and_not_before():
    before, at = DAY_ENDS + GRACE - timedelta(seconds=1), DAY_ENDS + GRACE
    assert not is_finished(DaySurvey(DAY), now=before, grace=GRACE)
    assert is_finished(DaySurvey(DAY), now=at, grace=GRACE)


def test_a_date_with_anything_unfinished_is_not_finished():
    waiting = Unfinished("key", State.WAITING, DAY_ENDS, DAY_ENDS)
    assert not is_finished(DaySurvey(DAY, unfinished=[waiting]), now=DAY_ENDS + GRACE, grace=GRACE)


def test_a_finished_date_is_told_once_and_again_when_more_has_come(hasty):
    ship_pings(hasty, [greeting(str(uuid.uuid4()), at=YESTERDAY)], first=YESTERDAY)
    assert finished(hasty) == []
    drain_once(hasty)
    assert finished(hasty) == [DAY]
    assert finished(hasty) == []
    deliver(hasty)  # between two looks, so that neither sees it unfinished
    assert finished(hasty) == [DAY]
    assert finished(hasty) == []


def test_a_date_that_is_complete_is_told_if_it_was_not_before_and_is_forgotten(hasty):
    deliver(hasty)
    lake = LakeConnections(hasty)
    later = utc_now() + COMPLETE
    assert reconcile(lake, now=later).days_finished == [DAY]
    assert lake.days.complete() == {DAY}
    assert lake.days.note().finished == {}
    deliver(hasty)
    assert check_completeness(lake, now=later).reopened == (DAY,)
    assert reconcile(lake, now=later).days_finished == []  # complete again at once: left to the clock


def test_a_look_that_is_stopped_forgets_no_date_that_was_told(hasty):
    deliver(hasty)
    assert finished(hasty) == [DAY]
    lake = LakeConnections(hasty)
    reconcile(lake, now=utc_now() + timedelta(minutes=1), is_over=lambda: True)
    assert lake.days.note().next_day == DAY
    assert finished(hasty) == []


def test_a_note_of_before_there_were_finished_dates_can_be_read():
    assert ReconcilerNote.model_validate_json("{}").finished == {}
    note = ReconcilerNote(finished={DAY: "digest"})
    assert ReconcilerNote.model_validate_json(note.model_dump_json()) == note


def test_what_is_set_aside_does_not_keep_a_date_from_being_finished(hasty):
    ship_bytes(hasty, b"not Arrow", first=YESTERDAY)
    drain_once(hasty)
    assert finished(hasty) == [DAY]
