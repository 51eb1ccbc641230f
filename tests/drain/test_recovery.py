"""What was lost or set aside is found again: by the reconciler, by replay, and from what else is known."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from telemetry_lake.drain import Drain, drain_once, utc_now
from telemetry_lake.failures import DamagedRawObject, TelemetryLakeError
from telemetry_lake.index_queue import IndexQueue
from telemetry_lake.publish import history
from telemetry_lake.rebuild import rebuild_ledger
from telemetry_lake.reconcile import Reconciled, raise_if_damaged, reconcile
from telemetry_lake.replay import (
    ReplayRequest,
    dead_letters,
    replay,
    replay_dead_letters,
    replay_raw_objects,
)
from telemetry_lake.replay_rejected import RejectedSelection, finish_replays, replay_rejected
from telemetry_lake.settings import Settings
from telemetry_lake.tables import LIVE_REJECTED_PINGS
from tests.drain.shipping import (
    MORNING,
    Shipped,
    assert_each_once,
    greeting,
    live_document_ids,
    queue_is_empty,
    rejected_document_ids,
    ship,
    ship_bytes,
    ship_pings,
)

DAY = MORNING.date()


def an_hour_later(drain: Drain) -> Reconciled:
    """What the reconciler does when everything that is there now has become old."""
    return reconcile(drain, now=utc_now() + timedelta(hours=1))


def test_the_reconciler_sends_what_was_never_claimed_and_nothing_younger_than_the_grace_period(settings):
    drain, shipped = Drain(settings), ship(settings, objects=2, send=False)
    assert reconcile(drain, now=utc_now()).never_claimed == []
    assert sorted(an_hour_later(drain).never_claimed) == sorted(shipped.keys)
    drain_once(settings)
    assert_each_once(settings, shipped)
    again = an_hour_later(drain)
    assert again.never_claimed == again.never_committed == []
    assert queue_is_empty(settings)


def test_the_reconciler_sends_what_was_claimed_and_never_committed(settings):
    drain, shipped = Drain(settings), ship(settings)
    (batch,) = drain.claim().batches
    drain.queue.delete(message.receipt for message in batch.held)  # an operator's purge
    assert an_hour_later(drain).never_committed == shipped.keys
    assert drain_once(settings).committed == [batch.batch_id]
    assert_each_once(settings, shipped)


def test_the_reconciler_names_what_is_no_raw_object_and_sends_the_others(settings):
    drain = Drain(settings)
    damaged = ship_bytes(settings, b"not Arrow", send=False)
    shipped = ship(settings, send=False)
    result = an_hour_later(drain)
    assert result.never_claimed == shipped.keys
    with pytest.raises(DamagedRawObject, match=damaged.key):
        raise_if_damaged(result)


def test_a_quarantined_raw_object_is_replayed_after_it_was_mended(settings):
    drain = Drain(settings)
    whole = ship(settings, send=False)
    body = drain.store.get(settings.s3.raw_bucket, whole.keys[0])
    damaged = ship_bytes(settings, body[:-200], count=3)
    others = ship(settings)
    first = drain_once(settings)
    assert [letter.raw_object for letter in dead_letters(settings)] == [damaged.key]

    # Replayed as it is, it comes back; and it is never lost on the way.
    assert replay_dead_letters(drain).sent == [damaged.key]
    second = drain_once(settings)
    assert second.committed != first.committed
    assert [letter.raw_object for letter in dead_letters(settings)] == [damaged.key]

    # Somebody puts the right bytes there. Its message is made anew from what it says about itself.
    drain.store.put(settings.s3.raw_bucket, damaged.key, body)
    assert damaged.key in replay_raw_objects(drain, DAY).sent
    drain_once(settings)
    replay_dead_letters(drain)
    drain_once(settings)
    assert dead_letters(settings) == []
    # The segment that was cut is there twice, under two keys: `whole` was never announced before.
    assert_each_once(settings, Shipped(whole.good * 2 + others.good))


def test_replaying_what_is_committed_changes_nothing(settings):
    drain, shipped = Drain(settings), ship(settings, objects=2, bad=1)
    drain_once(settings)
    result = replay_raw_objects(drain, DAY, DAY + timedelta(days=1))
    assert (result.sent, sorted(result.already_committed)) == ([], sorted(shipped.keys))
    for message in shipped.messages:
        IndexQueue.of_dead_letters(settings.sqs).send(message)
    assert sorted(replay_dead_letters(drain).already_committed) == sorted(shipped.keys)
    assert dead_letters(settings) == []
    drain_once(settings)
    assert_each_once(settings, shipped)


def test_what_is_no_index_message_stays_in_the_dead_letters(settings):
    queue = IndexQueue(settings.sqs)
    queue._sqs.send_message(QueueUrl=queue._url(settings.sqs.index_queue_name), MessageBody="nonsense")
    drain_once(settings)
    assert len(replay_dead_letters(Drain(settings)).left_alone) == 1
    assert len(dead_letters(settings)) == 1


def test_raw_objects_of_other_days_are_not_replayed(settings):
    shipped = ship(settings, send=False)
    assert replay_raw_objects(Drain(settings), DAY + timedelta(days=1)).sent == []
    assert replay_raw_objects(Drain(settings), DAY - timedelta(days=1), DAY).sent == shipped.keys


def test_rejected_pings_move_into_the_live_table_once_the_cause_is_mended(settings, tmp_path):
    """A document type that nobody had a schema for; then somebody adds one."""
    names = [f"00000000-0000-4000-8000-{number:012d}" for number in range(5)]
    path = greeting("").path.replace(b"greeting", b"farewell")
    unknown = [replace(greeting(name), path=path + name.encode()) for name in names]
    ship_pings(settings, unknown)
    others = ship(settings, good=2, bad=2)
    drain_once(settings)
    assert rejected_document_ids(settings) == sorted([*names, *others.bad])

    schemas = tmp_path / "schemas"
    _copy_schemas(settings, schemas)
    conversion = settings.conversion.model_copy(update={"schemas_directory": schemas})
    mended = settings.model_copy(update={"conversion": conversion})
    request = ReplayRequest(
        what="rejected pings", error_type="unknown_document_type", document_type="farewell", first_day=DAY
    )
    assert replay(Drain(mended), request).rejected_pings == 5
    assert rejected_document_ids(settings) == sorted(others.bad)
    drain_once(mended)
    assert live_document_ids(settings) == sorted([*names, *others.good])
    assert rejected_document_ids(settings) == sorted(others.bad)

    # Nothing is left to replay, and what is live is not touched.
    assert replay(Drain(mended), request).rejected_pings == 0
    drain_once(mended)
    assert live_document_ids(settings) == sorted([*names, *others.good])


def test_pings_that_are_rejected_again_are_rejected_rows_again(settings):
    shipped = ship(settings, objects=2, good=1, bad=3)
    drain_once(settings)
    for _ in range(2):
        assert replay_rejected(Drain(settings), RejectedSelection(error_type="invalid_json")) == 6
        drain_once(settings)
        assert_each_once(settings, shipped)


def test_a_replay_that_died_after_its_rows_had_left_is_finished(settings):
    shipped = ship(settings, bad=3)
    drain_once(settings)

    before = len(list(history(Drain(settings).catalog.load_table(LIVE_REJECTED_PINGS))))
    # Killed before the raw object is in its place: the queue is away, and what was put last is taken back.
    sqs = settings.sqs.model_copy(update={"index_queue_name": "not-there"})
    with pytest.raises(TelemetryLakeError, match="not-there"):
        replay_rejected(Drain(settings.model_copy(update={"sqs": sqs})), RejectedSelection())
    _delete(settings, "raw/v1/2026-11-23/09/replay/", bucket=settings.s3.raw_bucket)
    assert rejected_document_ids(settings) == []
    assert len(list(history(Drain(settings).catalog.load_table(LIVE_REJECTED_PINGS)))) > before

    assert len(finish_replays(Drain(settings))) == 1
    assert finish_replays(Drain(settings)) == []
    drain_once(settings)
    assert_each_once(settings, shipped)


def test_the_ledger_is_rebuilt_from_manifests_publications_and_tables(settings):
    shipped = ship(settings, objects=2, good=2, bad=1)
    ship_bytes(settings, b"not Arrow")
    (first,) = drain_once(settings).committed
    replay_dead_letters(Drain(settings))
    (second,) = drain_once(settings).committed
    shipped += ship(settings)
    (third,) = drain_once(settings).committed
    more = ship(settings)
    (undecided,) = Drain(settings).claim().batches

    drain = Drain(settings)
    before = {batch: drain.ledger.commitment(batch) for batch in (first, second, third)}
    _delete(settings, "ledger/")
    for batch in before:
        _delete(settings, f"batches/{batch}/committed.json")
    result = rebuild_ledger(drain)
    assert {batch: drain.ledger.commitment(batch) for batch in before} == before
    assert sorted(result.commitments) == sorted(before)
    assert result.undecided == [undecided.batch_id]

    # Everything is announced again: what was committed is recognised, the rest is drained.
    assert sorted(replay_raw_objects(drain).already_committed) == sorted(shipped.keys)
    for message in [*shipped.messages, *more.messages]:
        drain.queue.send(message)
    drain_once(settings)
    assert_each_once(settings, shipped + more)


def test_the_queue_is_rebuilt_from_the_raw_bucket(settings):
    committed = ship(settings, objects=2)
    drain_once(settings)
    claimed = ship(settings, objects=2)
    drain = Drain(settings)
    (batch,) = drain.claim().batches
    waiting = ship(settings, objects=2)
    _delete_queue(settings)
    result = replay_raw_objects(drain)
    assert sorted(result.sent) == sorted(claimed.keys + waiting.keys)
    assert sorted(result.already_committed) == sorted(committed.keys)
    report = drain_once(settings)
    assert batch.batch_id in report.committed
    assert_each_once(settings, committed + claimed + waiting)


def _copy_schemas(settings: Settings, target: Path) -> None:
    """The schemas of the project, and one more: a farewell is what a greeting is."""
    shutil.copytree(settings.conversion.schemas_directory, target)
    farewell = target / "lake-demo" / "farewell" / "farewell.1.schema.json"
    farewell.parent.mkdir()
    shutil.copy(target / "lake-demo" / "greeting" / "greeting.1.schema.json", farewell)


def _delete(settings: Settings, prefix: str, *, bucket: str | None = None) -> None:
    store, bucket = Drain(settings).store, bucket or settings.s3.lake_bucket
    for item in list(store.list_objects(bucket, prefix)):
        store._s3.delete_object(Bucket=bucket, Key=item.key)


def _delete_queue(settings: Settings) -> None:
    queue = IndexQueue(settings.sqs)
    queue._sqs.delete_queue(QueueUrl=queue._url(settings.sqs.index_queue_name))
    queue._sqs.create_queue(QueueName=settings.sqs.index_queue_name)
