"""Records that nothing needs go by their age, and nothing else does."""

from datetime import UTC, datetime, timedelta

import pytest

from lake_testing.shipping import assert_each_once, ship
from telemetry_lake.audits.dates import DateAudit, DateAudits
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.ledger import AuditOutcome
from telemetry_lake.drain.steps import Drain, drain_once, utc_now
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.recovery.remove_old import Removed, remove_old
from telemetry_lake.recovery.replay_rejected import RejectedSelection, finish_replays, replay_rejected
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import REPLAY_PREFIX

DAY = timedelta(days=1)
NOW = datetime(2026, 11, 30, 0, 0, 1, tzinfo=UTC)
KEPT = 90


def keys(settings: Settings, prefix: str = "") -> set[str]:
    lake = LakeConnections(settings)
    return {item.key for item in lake.store.list_objects(settings.s3.lake_bucket, prefix)}


def after_90_days(settings: Settings) -> Removed:
    """What is removed when everything that is there now is as old as that."""
    return remove_old(LakeConnections(settings), now=utc_now() + KEPT * DAY)


def test_entries_about_audits_go_after_their_days_and_the_audits_of_batches_stay(settings):
    lake = LakeConnections(settings)
    dates = DateAudits(lake.store, settings.s3.lake_bucket)
    midnight = NOW.replace(second=0) - KEPT * DAY
    outcome = AuditOutcome(may_be_published=True, waived=False, failed=0, warned=0, rows={})
    for at in (midnight - timedelta(microseconds=1), midnight - 365 * DAY, midnight, NOW):
        lake.ledger.put_audit("0" * 32, outcome, outcome, at)
        dates.keep(DateAudit(table="stable.pings", day=at.date(), at=at, results=()))

    assert remove_old(lake, now=NOW) == Removed(audits=2, date_audits=2)

    for prefix in ("audits/", "date-audits/"):
        assert {key.split("/")[1] for key in keys(settings, prefix)} == {"2026-09-01", "2026-11-30"}
    assert lake.ledger.audit("0" * 32, AuditOutcome) == outcome
    assert remove_old(lake, now=NOW) == Removed()


def test_nothing_of_a_batch_goes_whether_it_is_decided_or_not(settings):
    shipped = ship(settings)
    drain_once(settings)
    shipped += ship(settings)
    drain = Drain(LakeConnections(settings))
    claimed = drain.claim()
    for part in claimed.batches[0].parts:
        drain.convert(part)
    before = keys(settings)
    removed = remove_old(LakeConnections(settings), now=utc_now() + 1_000 * DAY)
    assert removed == Removed(audits=1)
    assert {key for key in before - keys(settings) if not key.startswith("audits/")} == set()
    drain.validate(claimed)
    drain.publish(claimed)
    assert_each_once(settings, shipped)


def test_only_finished_replays_go_and_an_unfinished_one_is_finished_however_late(settings):
    shipped = ship(settings, bad=3)
    drain_once(settings)
    lake = LakeConnections(settings)
    away = settings.sqs.model_copy(update={"index_queue_name": "not-there"})
    # Killed before the raw object was in its place: the queue is away, and what was put last is taken back.
    with pytest.raises(TelemetryLakeError, match="not-there"):
        replay_rejected(LakeConnections(settings.model_copy(update={"sqs": away})), RejectedSelection())
    assert after_90_days(settings).replays == 0, "its raw object is there, and its message is missing"
    raw_objects = lake.store.list_objects(settings.s3.raw_bucket, "raw/v1/2026-11-23/09/replay/")
    lake.store.delete(settings.s3.raw_bucket, [item.key for item in raw_objects])
    assert after_90_days(settings).replays == 0
    assert len(keys(settings, REPLAY_PREFIX)) == 2
    assert len(finish_replays(lake)) == 1
    assert remove_old(lake, now=utc_now() + (KEPT - 1) * DAY).replays == 0
    assert after_90_days(settings).replays == 1
    assert keys(settings, REPLAY_PREFIX) == set()
    drain_once(settings)
    assert_each_once(settings, shipped)


def test_a_replay_that_was_prepared_and_took_no_row_out_stays(settings, monkeypatch):
    ship(settings, bad=3)
    drain_once(settings)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("telemetry_lake.recovery.replay_rejected._digest", killed)
    with pytest.raises(KeyboardInterrupt):
        replay_rejected(LakeConnections(settings), RejectedSelection())
    prepared = keys(settings, REPLAY_PREFIX)
    assert len(prepared) == 2
    assert after_90_days(settings).replays == 0
    assert keys(settings, REPLAY_PREFIX) == prepared


def test_a_removal_that_was_killed_between_pings_and_selection_is_completed(settings):
    ship(settings, bad=1)
    drain_once(settings)
    replay_rejected(LakeConnections(settings), RejectedSelection())
    lake = LakeConnections(settings)
    (pings,) = (key for key in keys(settings, REPLAY_PREFIX) if key.endswith("pings.arrows"))
    lake.store.delete(settings.s3.lake_bucket, [pings])
    assert after_90_days(settings).replays == 1
    assert keys(settings, REPLAY_PREFIX) == set()
