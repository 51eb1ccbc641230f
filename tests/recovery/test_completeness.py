"""Every raw object is in the tables, set aside, or named; days that are complete cost nothing more."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from lake_testing.lossy_proxy import lossy_proxy
from lake_testing.shipping import (
    MORNING,
    assert_each_once,
    ship,
    ship_bytes,
)
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.steps import Drain, drain_once, utc_now
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.recovery.completeness import Incomplete, check_completeness, raise_if_incomplete
from telemetry_lake.recovery.reconcile import reconcile
from telemetry_lake.recovery.replay import dead_letters, replay_dead_letters, replay_raw_objects
from telemetry_lake.recovery.survey import DaySurvey, State, finish_day
from telemetry_lake.settings import Settings
from telemetry_lake.tables.staged import Staged

DAY = MORNING.date()
LATER = timedelta(days=4)
"""Beyond the grace period, the limit for what is overdue, and the time until a day may be complete."""


def check(settings: Settings, *, days_later: int = 4):
    return check_completeness(LakeConnections(settings), now=utc_now() + timedelta(days=days_later))


@contextmanager
def requests_to_s3(settings: Settings) -> Iterator[tuple[Settings, list[str]]]:
    """The same lake, and the requests that are made to its S3."""
    requests: list[str] = []
    assert settings.s3.endpoint_url is not None

    def note(request: str) -> bool:
        requests.append(request)
        return True

    with lossy_proxy(settings.s3.endpoint_url, note) as url:
        yield (
            settings.model_copy(update={"s3": settings.s3.model_copy(update={"endpoint_url": url})}),
            requests,
        )


def test_a_day_is_complete_when_all_of_it_is_in_the_tables_or_set_aside(settings):
    shipped = ship(settings, objects=2, bad=1)
    ship_bytes(settings, b"not Arrow")
    before = check(settings)
    assert (before.open, before.open_days, before.complete_days) == ({State.WAITING: 3}, 1, 0)
    drain_once(settings)
    found = check(settings)
    assert (found.open, found.open_days, found.complete_days) == ({}, 0, 1)
    raise_if_incomplete(found)
    assert_each_once(settings, shipped)


@pytest.mark.parametrize("hours, is_complete", [(47.9, False), (48, True)])
def test_a_day_is_not_complete_before_its_last_segments_can_have_come(lake_settings, hours, is_complete):
    lake = LakeConnections(lake_settings)
    now = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(hours=hours)
    assert finish_day(lake, DaySurvey(DAY), now=now) == is_complete
    assert lake.days.numbers() == ({DAY: 0} if is_complete else {})


def test_a_day_that_is_complete_is_counted_and_not_looked_at(settings):
    ship(settings, objects=2)
    drain_once(settings)
    check(settings)
    with requests_to_s3(settings) as (watched, requests):
        check(watched)
    assert not any("/ledger/claims/" in request or "/batches/" in request for request in requests)
    assert sum("prefix=raw%2Fv1%2F2026" in request for request in requests) == 1
    with requests_to_s3(settings) as (watched, requests):
        reconcile(LakeConnections(watched), now=utc_now() + LATER)
    assert not any("2026-11-23" in request for request in requests)


def test_what_arrives_for_a_complete_day_opens_it_again_and_is_drained(settings):
    shipped = ship(settings)
    drain_once(settings)
    check(settings)
    shipped += ship(settings, send=False)
    lake = LakeConnections(settings)
    assert reconcile(lake, now=utc_now() + LATER).never_claimed.count == 0
    found = check(settings)
    assert found.reopened == (DAY,)
    assert found.open == {State.WAITING: 1}
    assert reconcile(lake, now=utc_now() + LATER).never_claimed.count == 1
    drain_once(settings)
    again = check(settings)
    assert (again.open_days, again.complete_days, again.reopened) == (0, 1, ())
    assert_each_once(settings, shipped)


def test_what_a_batch_gives_back_opens_its_day_again(settings):
    damaged = ship_bytes(settings, b"not Arrow")
    drain_once(settings)
    assert check(settings).complete_days == 1
    assert replay_dead_letters(LakeConnections(settings)).sent.first == [damaged.key]
    found = check(settings)
    assert (found.reopened, found.open) == ((DAY,), {State.WAITING: 1})
    drain_once(settings)
    assert check(settings).complete_days == 1
    assert len(dead_letters(settings)) == 1


def test_a_batch_that_gates_stopped_waits_for_a_person_who_can_still_publish_it(settings):
    stopped = ship(settings)
    lake = LakeConnections(settings)

    def without_files(raws: Iterable[RawObject]) -> Staged:
        return Staged(raw_objects=Drain(lake).stager("0" * 32)(raws).raw_objects)

    drain_once(settings, stage=without_files)
    found = check(settings)
    assert found.open == {State.HELD_BACK: 1}
    with pytest.raises(Incomplete, match=f"held back by gates(.|\n)*--waive-gates(.|\n)*{stopped.keys[0]}"):
        raise_if_incomplete(found)
    assert reconcile(lake, now=utc_now() + LATER).never_committed.count == 0

    # Its dead letter has expired.
    letters = lake.queue.dead_letters()
    letters.delete(message.receipt for message in letters.receive(10, wait_seconds=0))
    assert replay_raw_objects(lake, DAY, DAY, waive_gates="a small loss").sent.first == stopped.keys
    assert len(drain_once(settings).committed) == 1
    assert check(settings).complete_days == 1


def test_what_is_overdue_is_named_with_what_to_do_and_what_is_young_is_not(settings):
    (key,) = ship(settings, send=False).keys
    raise_if_incomplete(check(settings, days_later=0))
    with pytest.raises(Incomplete, match=f"--first-day 2026-11-23\n{key}"):
        raise_if_incomplete(check(settings, days_later=2))


def test_foreign_keys_are_told_and_skipped(settings):
    lake = LakeConnections(settings)
    foreign = ["raw/v1/2026-11-23/09/notes.txt", "raw/v1/2026-11-23/readme", "raw/v1/somewhere/else"]
    for key in foreign:
        lake.store.put(settings.s3.raw_bucket, key, b"?")
    lake.store.put(settings.s3.lake_bucket, "batches/ff-not-a-batch/manifest.json", b"?")
    shipped = ship(settings, send=False)
    reconciled = reconcile(lake, now=utc_now() + LATER)
    assert reconciled.foreign.count == 3
    assert reconciled.never_claimed.first == shipped.keys
    replayed = replay_raw_objects(lake)
    assert (replayed.foreign.count, replayed.sent.first) == (3, shipped.keys)
    drain_once(settings)
    found = check(settings)
    assert (found.complete_days, found.foreign.count) == (1, 3)
    assert_each_once(settings, shipped)


def test_a_message_is_made_without_reading_its_object(settings):
    described, before = ship(settings, send=False), ship(settings)
    body = LakeConnections(settings).store.get(settings.s3.raw_bucket, before.keys[0])
    drain_once(settings)
    with requests_to_s3(settings) as (watched, requests):
        assert reconcile(LakeConnections(watched), now=utc_now() + LATER).never_claimed.count == 1
    assert [request.split()[0] for request in requests if described.keys[0] + " " in request] == ["HEAD"]
    drain_once(settings)
    ship_bytes(settings, body, described=False, send=False, count=3)
    assert reconcile(LakeConnections(settings), now=utc_now() + LATER).never_claimed.count == 1
    assert drain_once(settings).failures == []
    assert dead_letters(settings) == []


def test_the_reconciler_does_what_it_can_without_the_catalog(settings):
    shipped = ship(settings, send=False)
    properties = {**settings.catalog.properties, "uri": "http://127.0.0.1:9"}
    drain = settings.drain.model_copy(update={"commit_max_attempts": 2})
    without = settings.model_copy(
        update={
            "catalog": settings.catalog.model_copy(update={"properties": properties}),
            "drain": drain,
        }
    )
    result = reconcile(LakeConnections(without), now=utc_now() + LATER)
    assert result.never_claimed.first == shipped.keys
    assert result.left_undone is not None
    assert "the catalog is unavailable" in result.left_undone


def test_complete_days_are_left_out_of_a_rebuild_when_asked(settings):
    ship(settings)
    drain_once(settings)
    check(settings)
    lake = LakeConnections(settings)
    assert replay_raw_objects(lake).already_committed == 1
    assert replay_raw_objects(lake, skip_complete=True).already_committed == 0
