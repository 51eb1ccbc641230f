"""What the ledger decides stays decided, and looking at it changes nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from lake_testing.lossy_proxy import lossy_proxy
from lake_testing.shipping import assert_each_once, ship
from telemetry_lake.drain.batch import Manifest, Member, new_manifest
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.ledger import AuditOutcome, Ledger
from telemetry_lake.drain.steps import Drain, drain_once
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import claim_key
from telemetry_lake.storage.object_store import ObjectStore

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MOMENT = datetime(2026, 11, 23, 9, tzinfo=UTC)


class TimeLimit(BaseException):
    """What Airflow raises at a task's time limit is not an Exception, as this is not."""


def member(number: int, *, after_batch: str | None = None) -> Member:
    message = IndexMessage(
        bucket="raw",
        key=f"raw/v1/2026-11-23/09/node-1/segment-{number}.arrows",
        bytes=1,
        ping_count=1,
        sha256="0" * 64,
        first_submission_timestamp=MOMENT,
        last_submission_timestamp=MOMENT,
    )
    return Member(message=message, after_batch=after_batch)


def manifest_of(*members: Member) -> Manifest:
    return new_manifest(members, NOW)


@pytest.fixture
def ledger(lake_settings: Settings) -> Ledger:
    return LakeConnections(lake_settings).ledger


def test_members_are_what_was_claimed_and_no_other_batch_had_before(ledger):
    first = manifest_of(member(1), member(2))
    second = manifest_of(member(2), member(3))
    assert set(ledger.claim_members(first)) == {member(1).key, member(2).key}
    assert set(ledger.claim_members(second)) == {member(3).key}
    assert ledger.members(first) == ledger.claim_members(first)
    assert ledger.members(second) == ledger.claim_members(second)
    assert ledger.ownership(member(2).key).batch == first.batch_id


def test_a_raw_object_that_was_given_back_is_a_member_of_its_next_batch(ledger):
    first = manifest_of(member(1))
    ledger.claim_members(first)
    ledger.release(member(1).key, first.batch_id)
    second = manifest_of(member(1, after_batch=first.batch_id))
    assert set(ledger.claim_members(second)) == set(ledger.members(second)) == {member(1).key}
    assert ledger.ownership(member(1).key).batch == second.batch_id
    assert set(ledger.members(first)) == {member(1).key}


def test_looking_at_members_and_owners_writes_nothing(lake_settings):
    manifest = manifest_of(member(1), member(2))
    LakeConnections(lake_settings).ledger.claim_members(manifest)
    requests: list[str] = []

    def note(request: str) -> bool:
        requests.append(request.partition(" ")[0])
        return True

    assert lake_settings.s3.endpoint_url is not None
    with lossy_proxy(lake_settings.s3.endpoint_url, note) as url:
        s3 = lake_settings.s3.model_copy(update={"endpoint_url": url})
        watched = Ledger(ObjectStore(s3), s3.lake_bucket)
        assert len(watched.members(manifest)) == 2
        assert len(watched.ownerships(found.key for found in manifest.members)) == 2
    assert set(requests) == {"GET"}


def test_members_of_a_batch_whose_claims_are_missing_are_an_error_and_not_claimed(ledger):
    manifest = ledger.begin(manifest_of(member(1), member(2)))
    ledger.claim(member(1), manifest.batch_id)
    for _ in range(2):
        with pytest.raises(FatalError, match=member(2).key):
            ledger.members(manifest)
    assert ledger.owner(member(2).key, None) is None


@pytest.mark.parametrize("claimed", [0, 1, 2])
def test_a_batch_whose_claim_was_broken_off_is_drained_once_and_whole(settings, claimed):
    shipped = ship(settings, objects=3)
    ledger = LakeConnections(settings).ledger
    # Killed between the manifest and the last of its claims; all three messages come again.
    manifest = ledger.begin(new_manifest([Member(message=message) for message in shipped.messages], NOW))
    for begun in manifest.members[:claimed]:
        ledger.claim(begun, manifest.batch_id)
    report = drain_once(settings)
    assert report.failures == []
    assert manifest.batch_id in report.committed
    assert_each_once(settings, shipped)


def test_a_member_that_another_batch_took_first_is_converted_there_only(settings):
    """Two claims that overlap: each of them finds its own members, whatever is left of its manifest."""
    shipped = ship(settings, objects=2)
    ledger = LakeConnections(settings).ledger
    ledger.begin(broken_off := new_manifest([Member(message=message) for message in shipped.messages], NOW))
    other = ledger.begin(new_manifest([Member(message=shipped.messages[0])], NOW))
    ledger.claim(other.members[0], other.batch_id)
    ledger.claim(Member(message=shipped.messages[1]), broken_off.batch_id)
    report = drain_once(settings)
    assert sorted(report.committed) == sorted([other.batch_id, broken_off.batch_id])
    assert_each_once(settings, shipped)


def test_a_claim_that_is_deleted_stops_the_batch_before_it_is_decided(settings):
    shipped = ship(settings)
    lake = LakeConnections(settings)
    drain = Drain(lake)
    claimed = drain.claim()
    (batch,) = claimed.batches
    for part in batch.parts:
        drain.convert(part)
    key = claim_key(shipped.keys[0])
    lake.store._s3.delete_object(Bucket=settings.s3.lake_bucket, Key=key)
    with pytest.raises(FatalError, match="claims of 1 raw objects are not there"):
        drain.validate(claimed)
    assert lake.ledger.publication(batch.batch_id) is None
    assert lake.store.get_or_none(settings.s3.lake_bucket, key) is None


def test_an_attempt_counts_as_failed_with_an_error_or_without_an_end(ledger):
    batch = manifest_of(member(1)).batch_id
    with ledger.attempt(batch, "part") as first:
        assert first.earlier_failures == []
    with ledger.attempt(batch, "part") as second:
        assert second.earlier_failures == []
        second.failed("a mistake")
    with pytest.raises(TimeLimit), ledger.attempt(batch, "part"):
        raise TimeLimit
    with ledger.attempt(batch, "part") as fourth:
        assert [(found.ended, found.error) for found in fourth.earlier_failures] == [
            (True, "a mistake"),
            (False, None),
        ]
    assert ledger.last_error(batch) == "a mistake"


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, SystemExit])
def test_a_person_who_stops_a_conversion_is_not_its_failure(ledger, stopped):
    batch = manifest_of(member(1)).batch_id
    with pytest.raises(stopped), ledger.attempt(batch, "part"):
        raise stopped
    assert ledger.failed_attempts(batch, "part") == []


def test_a_conversion_that_succeeds_clears_the_failures_before_it(ledger):
    batch = manifest_of(member(1)).batch_id
    for _ in range(2):
        with pytest.raises(TimeLimit), ledger.attempt(batch, "raw object"):
            raise TimeLimit
    assert len(ledger.failed_attempts(batch, "raw object")) == 2
    with ledger.attempt(batch, "raw object") as attempt:
        attempt.converted()
    assert ledger.failed_attempts(batch, "raw object") == []


def test_an_attempt_whose_beginning_was_not_answered_is_recognised(lake_settings):
    batch = manifest_of(member(1)).batch_id
    lost: list[str] = []

    def lose_the_first_put(request: str) -> bool:
        if request.startswith("PUT") and "/attempts/" in request and not lost:
            lost.append(request)
            return False
        return True

    assert lake_settings.s3.endpoint_url is not None
    with lossy_proxy(lake_settings.s3.endpoint_url, lose_the_first_put) as url:
        s3 = lake_settings.s3.model_copy(update={"endpoint_url": url})
        watched = Ledger(ObjectStore(s3), s3.lake_bucket)
        with watched.attempt(batch, "raw object"):
            pass
    assert lost
    assert LakeConnections(lake_settings).ledger.failed_attempts(batch, "raw object") == []


def test_an_outage_does_not_use_up_the_attempts_of_a_raw_object(ledger):
    batch = manifest_of(member(1)).batch_id
    for _ in range(3):
        with pytest.raises(RetriableError), ledger.attempt(batch, "raw object"):
            raise RetriableError("S3 does not answer")
    with ledger.attempt(batch, "raw object") as attempt:
        assert attempt.earlier_failures == []


def test_no_more_audits_of_a_day_are_listed_than_asked_for_and_the_newest_first(ledger):
    batch = manifest_of(member(1))
    outcome = AuditOutcome(may_be_published=True, waived=False, failed=0, warned=0, rows={})
    times = [NOW + timedelta(minutes=minute) for minute in range(3)]
    for time in times:
        ledger.put_audit(batch.batch_id, batch, outcome, time)
    entries = ledger.audits_of(NOW.date(), at_most=2)
    assert entries == [(time, batch.batch_id, outcome) for time in (times[2], times[1])]
