"""What was lost or set aside is found again: by the reconciler, by replay, and from what else is known."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from lake_testing.lossy_proxy import lossy_proxy
from lake_testing.shipping import (
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
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.steps import Drain, drain_once, utc_now
from telemetry_lake.failures import DamagedRawObject, TelemetryLakeError
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.recovery.rebuild import rebuild_ledger
from telemetry_lake.recovery.reconcile import Reconciled, raise_if_damaged, reconcile
from telemetry_lake.recovery.replay import (
    ReplayRequest,
    dead_letters,
    replay,
    replay_dead_letters,
    replay_raw_objects,
)
from telemetry_lake.recovery.replay_rejected import RejectedSelection, finish_replays, replay_rejected
from telemetry_lake.settings import Settings
from telemetry_lake.tables.commits import history
from telemetry_lake.tables.definitions import LIVE_REJECTED_PINGS

DAY = MORNING.date()


def an_hour_later(lake: LakeConnections) -> Reconciled:
    """What the reconciler does when everything that is there now has become old."""
    return reconcile(lake, now=utc_now() + timedelta(hours=1))


def test_the_reconciler_sends_what_was_never_claimed_and_nothing_younger_than_the_grace_period(settings):
    lake, shipped = LakeConnections(settings), ship(settings, objects=2, send=False)
    assert reconcile(lake, now=utc_now()).never_claimed.count == 0
    assert sorted(an_hour_later(lake).never_claimed.first) == sorted(shipped.keys)
    drain_once(settings)
    assert_each_once(settings, shipped)
    again = an_hour_later(lake)
    assert again.never_claimed.count == again.never_committed.count == 0
    assert queue_is_empty(settings)


def test_the_reconciler_sends_what_was_claimed_and_never_committed(settings):
    lake, shipped = LakeConnections(settings), ship(settings)
    (batch,) = Drain(lake).claim().batches
    lake.queue.delete(message.receipt for message in batch.held)  # an operator's purge
    assert an_hour_later(lake).never_committed.first == shipped.keys
    assert drain_once(settings).committed == [batch.batch_id]
    assert_each_once(settings, shipped)


def test_the_reconciler_names_what_is_no_raw_object_and_sends_the_others(settings):
    lake = LakeConnections(settings)
    damaged = ship_bytes(settings, b"not Arrow", send=False, described=False)
    shipped = ship(settings, send=False)
    result = an_hour_later(lake)
    assert result.never_claimed.first == shipped.keys
    with pytest.raises(DamagedRawObject, match=damaged.key):
        raise_if_damaged(result)


def test_a_quarantined_raw_object_is_replayed_after_it_was_mended(settings):
    lake = LakeConnections(settings)
    whole = ship(settings, send=False)
    body = lake.store.get(settings.s3.raw_bucket, whole.keys[0])
    damaged = ship_bytes(settings, body[:-200], count=3)
    others = ship(settings)
    first = drain_once(settings)
    assert [letter.raw_object for letter in dead_letters(settings)] == [damaged.key]

    # Replayed as it is, it comes back; and it is never lost on the way.
    assert replay_dead_letters(lake).sent.first == [damaged.key]
    second = drain_once(settings)
    assert second.committed != first.committed
    assert [letter.raw_object for letter in dead_letters(settings)] == [damaged.key]

    # The right bytes are put there. Its message is made again from what it says about itself.
    lake.store.put(settings.s3.raw_bucket, damaged.key, body)
    assert damaged.key in replay_raw_objects(lake, DAY).sent.first
    drain_once(settings)
    replay_dead_letters(lake)
    drain_once(settings)
    assert dead_letters(settings) == []
    # The segment that was cut is there twice, under two keys: `whole` was never announced before.
    assert_each_once(settings, Shipped(whole.good * 2 + others.good))


def test_replaying_what_is_committed_changes_nothing(settings):
    lake, shipped = LakeConnections(settings), ship(settings, objects=2, bad=1)
    drain_once(settings)
    result = replay_raw_objects(lake, DAY, DAY + timedelta(days=1))
    assert (result.sent.count, result.already_committed) == (0, 2)
    for message in shipped.messages:
        IndexQueue(settings.sqs).dead_letters().send(message)
    assert replay_dead_letters(lake).already_committed == 2
    assert dead_letters(settings) == []
    drain_once(settings)
    assert_each_once(settings, shipped)


def test_what_is_no_index_message_stays_in_the_dead_letters_until_a_person_deletes_it(settings):
    lake, queue = LakeConnections(settings), IndexQueue(settings.sqs)
    queue._sqs.send_message(QueueUrl=queue._url(settings.sqs.index_queue_name), MessageBody="nonsense")
    drain_once(settings)
    assert replay_dead_letters(lake).left_alone.count == 1
    assert len(dead_letters(settings)) == 1

    shipped = ship(settings, send=False)
    queue.dead_letters().send_all(shipped.messages)
    result = replay_dead_letters(lake, delete_foreign=True)
    assert (result.deleted.count, result.sent.first, result.left_alone.count) == (1, shipped.keys, 0)
    assert dead_letters(settings) == []


def test_raw_objects_of_other_days_are_not_replayed(settings):
    shipped = ship(settings, send=False)
    assert replay_raw_objects(LakeConnections(settings), DAY + timedelta(days=1)).sent.count == 0
    assert (
        replay_raw_objects(LakeConnections(settings), DAY - timedelta(days=1), DAY).sent.first == shipped.keys
    )


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
    assert replay(LakeConnections(mended), request).rejected_pings == 5
    assert rejected_document_ids(settings) == sorted(others.bad)
    drain_once(mended)
    assert live_document_ids(settings) == sorted([*names, *others.good])
    assert rejected_document_ids(settings) == sorted(others.bad)

    # Nothing is left to replay, and what is live is not touched.
    assert replay(LakeConnections(mended), request).rejected_pings == 0
    drain_once(mended)
    assert live_document_ids(settings) == sorted([*names, *others.good])


def test_pings_that_are_rejected_again_are_rejected_rows_again(settings):
    shipped = ship(settings, objects=2, good=1, bad=3)
    drain_once(settings)
    for _ in range(2):
        assert replay_rejected(LakeConnections(settings), RejectedSelection(error_type="invalid_json")) == 6
        drain_once(settings)
        assert_each_once(settings, shipped)


def test_a_replay_whose_commit_is_not_answered_moves_its_rows_once(settings):
    shipped = ship(settings, good=1, bad=3)
    drain_once(settings)
    lost = threading.Event()

    def lose_one_commit(request: str) -> bool:
        if request.startswith("POST ") and "/tables/rejected_pings " in request and not lost.is_set():
            lost.set()
            return False
        return True

    with _catalog_through_proxy(settings, lose_one_commit) as proxied:
        selection = RejectedSelection(error_type="invalid_json")
        assert replay_rejected(LakeConnections(proxied), selection) == 3
    assert lost.is_set()
    drain_once(settings)
    assert_each_once(settings, shipped)


def test_a_replay_whose_table_has_moved_looks_again_and_moves_its_rows_once(settings):
    shipped = ship(settings, good=1, bad=3)
    drain_once(settings)
    more = ship(settings, good=0, bad=1)
    loads: list[str] = []

    def drain_after_the_third_look(request: str) -> bool:
        if request.startswith("GET ") and "/tables/rejected_pings" in request:
            loads.append(request)
            if len(loads) == 3:  # after those for unfinished replays and the selection comes the commit's
                assert drain_once(settings).failures == []
        return True

    with _catalog_through_proxy(settings, drain_after_the_third_look) as proxied:
        selection = RejectedSelection(error_type="invalid_json")
        assert replay_rejected(LakeConnections(proxied), selection) == 3
    assert len(loads) == 5  # the commit's second look, and the one that removes the replay's property
    drain_once(settings)
    assert_each_once(settings, shipped + more)


def test_two_replays_that_take_the_same_rows_and_one_of_them_more_move_each_once(settings, monkeypatch):
    """The replay that comes second has prepared all rows when the first takes some of them."""
    monkeypatch.setattr("telemetry_lake.recovery.replay_rejected.REPLAY_MAX_PINGS", 1)
    names = [f"00000000-0000-4000-8000-{number:012d}" for number in range(2)]
    unknown = greeting(names[0]).path.replace(b"greeting", b"farewell")
    keys = {
        "invalid_json": ship_pings(settings, [greeting(names[0], body=b"{")]).key,
        "unknown_document_type": ship_pings(settings, [replace(greeting(names[1]), path=unknown)]).key,
    }
    drain_once(settings)
    before = rejected_document_ids(settings)
    assert len(before) == 2
    looks: list[str] = []

    def replay_the_first_at_the_third_look(request: str) -> bool:
        if request.startswith("GET ") and "/tables/rejected_pings" in request:
            looks.append(request)
            if len(looks) == 3:
                selection = RejectedSelection(error_type=min(keys, key=keys.__getitem__))
                assert replay_rejected(LakeConnections(settings), selection) == 1
        return True

    with _catalog_through_proxy(settings, replay_the_first_at_the_third_look) as proxied:
        assert replay_rejected(LakeConnections(proxied), RejectedSelection()) == 1
    assert rejected_document_ids(settings) == []
    drain_once(settings)
    assert rejected_document_ids(settings) == before


def test_a_replay_that_died_after_its_rows_had_left_is_finished(settings):
    shipped = ship(settings, bad=3)
    drain_once(settings)

    before = len(list(history(LakeConnections(settings).catalog.load_table(LIVE_REJECTED_PINGS))))
    # Killed before the raw object is in its place: the queue is away, and what was put last is taken back.
    sqs = settings.sqs.model_copy(update={"index_queue_name": "not-there"})
    with pytest.raises(TelemetryLakeError, match="not-there"):
        replay_rejected(LakeConnections(settings.model_copy(update={"sqs": sqs})), RejectedSelection())
    _delete(settings, "raw/v1/2026-11-23/09/replay/", bucket=settings.s3.raw_bucket)
    assert rejected_document_ids(settings) == []
    assert len(list(history(LakeConnections(settings).catalog.load_table(LIVE_REJECTED_PINGS)))) > before

    assert len(finish_replays(LakeConnections(settings))) == 1
    assert finish_replays(LakeConnections(settings)) == []
    drain_once(settings)
    assert_each_once(settings, shipped)


def test_the_ledger_is_rebuilt_from_manifests_publications_and_tables(settings):
    shipped = ship(settings, objects=2, good=2, bad=1)
    ship_bytes(settings, b"not Arrow")
    (first,) = drain_once(settings).committed
    replay_dead_letters(LakeConnections(settings))
    (second,) = drain_once(settings).committed
    shipped += ship(settings)
    (third,) = drain_once(settings).committed
    more = ship(settings)
    (undecided,) = Drain(LakeConnections(settings)).claim().batches

    lake = LakeConnections(settings)
    before = {batch: lake.ledger.commitment(batch) for batch in (first, second, third)}
    _delete(settings, "ledger/")
    for batch in before:
        _delete(settings, f"batches/{batch}/committed.json")
    result = rebuild_ledger(lake)
    assert {batch: lake.ledger.commitment(batch) for batch in before} == before
    assert sorted(result.commitments.first) == sorted(before)
    assert result.undecided.first == [undecided.batch_id]

    # Everything is announced again: what was committed is recognised, the rest is drained.
    assert replay_raw_objects(lake).already_committed == len(shipped.keys)
    for message in [*shipped.messages, *more.messages]:
        lake.queue.send(message)
    drain_once(settings)
    assert_each_once(settings, shipped + more)


def test_the_queue_is_rebuilt_from_the_raw_bucket(settings):
    committed = ship(settings, objects=2)
    drain_once(settings)
    claimed = ship(settings, objects=2)
    lake = LakeConnections(settings)
    (batch,) = Drain(lake).claim().batches
    waiting = ship(settings, objects=2)
    _delete_queue(settings)
    result = replay_raw_objects(lake)
    assert sorted(result.sent.first) == sorted(claimed.keys + waiting.keys)
    assert result.already_committed == len(committed.keys)
    report = drain_once(settings)
    assert batch.batch_id in report.committed
    assert_each_once(settings, committed + claimed + waiting)


@contextmanager
def _catalog_through_proxy(settings: Settings, on_answer: Callable[[str], bool]) -> Iterator[Settings]:
    """The same lake, with a proxy before its catalog that calls `on_answer` after each request."""
    with lossy_proxy(settings.catalog.properties["uri"], on_answer) as url:
        properties = {**settings.catalog.properties, "uri": url}
        catalog = settings.catalog.model_copy(update={"properties": properties})
        yield settings.model_copy(update={"catalog": catalog})


def _copy_schemas(settings: Settings, target: Path) -> None:
    """The schemas of the project, and one more: a farewell is what a greeting is."""
    shutil.copytree(settings.conversion.schemas_directory, target)
    farewell = target / "lake-demo" / "farewell" / "farewell.1.schema.json"
    farewell.parent.mkdir()
    shutil.copy(target / "lake-demo" / "greeting" / "greeting.1.schema.json", farewell)


def _delete(settings: Settings, prefix: str, *, bucket: str | None = None) -> None:
    store, bucket = LakeConnections(settings).store, bucket or settings.s3.lake_bucket
    for item in list(store.list_objects(bucket, prefix)):
        store._s3.delete_object(Bucket=bucket, Key=item.key)


def _delete_queue(settings: Settings) -> None:
    queue = IndexQueue(settings.sqs)
    queue._sqs.delete_queue(QueueUrl=queue._url(settings.sqs.index_queue_name))
    queue._sqs.create_queue(QueueName=settings.sqs.index_queue_name)
