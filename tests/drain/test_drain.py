"""From raw objects to rows, each ping once, whatever is delivered, damaged, refused or fought over."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from telemetry_lake.audit import Audit
from telemetry_lake.checks import Severity
from telemetry_lake.drain import Drain, UnfinishedDrain, drain_once, raise_if_unfinished
from telemetry_lake.failures import GateFailed, RetriableError
from telemetry_lake.index_queue import IndexQueue
from telemetry_lake.raw_object import RawObject
from telemetry_lake.replay import dead_letters, replay_dead_letters
from telemetry_lake.settings import Settings
from telemetry_lake.stage_part import Staged, Stager
from tests.drain.shipping import (
    Shipped,
    assert_each_once,
    greeting,
    live_document_ids,
    queue_is_empty,
    ship,
    ship_bytes,
    ship_pings,
)
from tests.stack_fixture import wait_until


def with_limits(settings: Settings, **limits: int) -> Settings:
    return settings.model_copy(update={"drain": settings.drain.model_copy(update=limits)})


def stager_of(settings: Settings, batch: str, before: Callable[[RawObject], None]) -> Stager:
    """The real conversion, with `before` called on each raw object."""

    def stage(raws: Iterable[RawObject]) -> Staged:
        def watched() -> Iterable[RawObject]:
            for raw in raws:
                before(raw)
                yield raw

        return Drain(settings).stager(batch)(watched())

    return stage


def test_an_empty_queue_is_a_drain_that_does_nothing(settings):
    report = drain_once(settings)
    assert report.claimed.batches == []
    assert report.failures == []


def test_every_ping_becomes_one_row_and_every_message_is_deleted(settings):
    shipped = ship(settings, objects=3, good=3, bad=2)
    report = drain_once(settings)
    assert report.failures == []
    assert len(report.committed) == 1
    assert_each_once(settings, shipped)
    assert queue_is_empty(settings)


def test_a_claim_is_cut_into_batches_and_batches_into_parts(settings):
    shipped = ship(settings, objects=5, good=1)
    size = max(message.bytes for message in shipped.messages)
    small = with_limits(settings, batch_max_raw_objects=3, part_max_bytes=2 * size)
    batches = Drain(small).claim().batches
    assert sorted(sum(len(part.keys) for part in batch.parts) for batch in batches) == [2, 3]
    assert sorted(len(part.keys) for batch in batches for part in batch.parts) == [1, 2, 2]
    assert sorted(key for batch in batches for part in batch.parts for key in part.keys) == sorted(
        shipped.keys
    )


def test_a_message_that_comes_again_after_the_commit_is_deleted(settings):
    shipped = ship(settings)
    drain_once(settings)
    for message in shipped.messages * 2:
        IndexQueue(settings.sqs).send(message)
    report = drain_once(settings)
    assert report.claimed.already_committed == 2
    assert report.claimed.batches == []
    assert_each_once(settings, shipped)
    assert queue_is_empty(settings)


def test_a_message_that_comes_twice_at_once_is_one_raw_object(settings):
    shipped = ship(settings)
    IndexQueue(settings.sqs).send(shipped.messages[0])
    drain_once(settings)
    assert_each_once(settings, shipped)
    assert queue_is_empty(settings)


def test_a_claimed_batch_is_resumed_with_all_its_members(settings):
    shipped = ship(settings, objects=3)
    (lost,) = Drain(settings).claim().batches
    # Its messages are hidden. One of them comes again, together with something new.
    IndexQueue(settings.sqs).send(shipped.messages[0])
    more = ship(settings)
    report = drain_once(settings)
    assert lost.batch_id in report.committed
    assert len(report.committed) == 2
    assert_each_once(settings, shipped + more)


def test_drains_that_fight_for_the_same_messages_commit_each_ping_once(settings):
    shipped = ship(settings, objects=8, good=2, bad=1)
    small = with_limits(settings, batch_max_raw_objects=3)
    both = threading.Barrier(3)

    def fight(number: int) -> None:
        for message in shipped.messages[number:]:
            IndexQueue(settings.sqs).send(message)
        both.wait()
        while drain_once(small).claimed.batches:
            pass

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(fight, range(3)))
    assert_each_once(settings, shipped)


def test_two_drains_on_one_batch_commit_it_once(settings):
    shipped = ship(settings, objects=2, good=3, bad=1)
    claimed = Drain(settings).claim()

    def work(_: int) -> None:
        drain = Drain(settings)
        for part in claimed.batches[0].parts:
            drain.convert(part)
        drain.validate(claimed)
        drain.publish(claimed)
        drain.acknowledge(claimed)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert_each_once(settings, shipped)
    assert queue_is_empty(settings)


@pytest.mark.parametrize(
    "body, promised",
    [
        (b"", {}),
        (b"this is not Arrow at all", {}),
        (b"whatever", {"sha256": "0" * 64}),
    ],
    ids=["empty", "not Arrow", "wrong checksum"],
)
def test_a_poison_raw_object_is_set_aside_and_the_others_go_on(settings, body, promised):
    poison = ship_bytes(settings, body, **promised)
    shipped = ship(settings, objects=2)
    report = drain_once(settings)
    assert report.failures == []
    assert_each_once(settings, shipped)
    (letter,) = dead_letters(settings)
    assert letter.raw_object == poison.key
    assert letter.batch == report.committed[0]
    assert queue_is_empty(settings)
    with pytest.raises(UnfinishedDrain, match=poison.key):
        raise_if_unfinished(report.claimed, report.acknowledged)


def test_a_truncated_raw_object_a_wrong_checksum_and_a_missing_one_are_set_aside(settings):
    whole = ship(settings, send=False)
    body = Drain(settings).store.get(settings.s3.raw_bucket, whole.keys[0])
    ship_bytes(settings, body[:-200], count=3)
    ship_bytes(settings, body, count=3, sha256="0" * 64)
    missing = ship(settings).messages[0]
    missing_key = missing.key.replace(".arrows", "-gone.arrows")
    IndexQueue(settings.sqs).send(missing.model_copy(update={"key": missing_key}))
    report = drain_once(settings)
    assert report.failures == []
    reasons = {letter.raw_object: letter.reason for letter in dead_letters(settings)}
    assert len(reasons) == 3
    assert "not in the raw bucket" in reasons[missing_key]
    assert any("SHA-256" in reason for reason in reasons.values())
    assert any("not a whole Arrow stream" in reason or "promised" in reason for reason in reasons.values())


def test_what_is_no_index_message_goes_to_the_dead_letters_with_the_reason(settings):
    queue = IndexQueue(settings.sqs)
    for body in ("", "{}", "not JSON", '{"version": 2}'):
        queue._sqs.send_message(QueueUrl=queue._url(settings.sqs.index_queue_name), MessageBody=body or " ")
    shipped = ship(settings)
    queue.send(shipped.messages[0].model_copy(update={"bucket": "elsewhere"}))
    report = drain_once(settings)
    assert_each_once(settings, shipped)
    assert queue_is_empty(settings)
    reasons = [letter.reason for letter in dead_letters(settings)]
    assert len(reasons) == 5
    assert sum("not an index message" in reason for reason in reasons) == 4
    assert sum("elsewhere" in reason for reason in reasons) == 1
    assert len(report.claimed.dead_letters) == 5


def test_a_raw_object_that_breaks_the_conversion_is_set_aside_after_its_attempts(settings):
    bad, shipped = ship(settings).messages[0], ship(settings, objects=2)
    few = with_limits(settings, conversion_max_attempts=2)

    def break_on_the_bad_one(raw: RawObject) -> None:
        if raw.key == bad.key:
            raise TypeError("this converter has a mistake")

    drain = Drain(few)
    claimed = drain.claim()
    (batch,) = claimed.batches
    drain.stage = stager_of(few, batch.batch_id, break_on_the_bad_one)
    (part,) = batch.parts
    with pytest.raises(TypeError):
        drain.convert(part)
    for _ in range(2):
        with pytest.raises(RetriableError, match="TypeError: this converter has a mistake"):
            drain.convert(part)
    drain.convert(part)
    drain.validate(claimed)
    drain.publish(claimed)
    drain.acknowledge(claimed)
    assert_each_once(settings, shipped)
    (letter,) = dead_letters(settings)
    assert letter.raw_object == bad.key
    assert "this converter has a mistake" in letter.reason

    # Mended, it is replayed, and makes another batch.
    replay_dead_letters(Drain(settings))
    report = drain_once(settings)
    assert len(report.committed) == 1
    assert report.committed[0] != batch.batch_id
    assert dead_letters(settings) == []
    assert len(live_document_ids(settings)) == 9


def test_a_message_received_too_often_goes_to_the_dead_letters_with_its_batch_and_the_last_error(settings):
    shipped = ship(settings)
    impatient = settings.model_copy(
        update={
            "sqs": settings.sqs.model_copy(update={"max_receive_count": 1, "visibility_timeout_seconds": 5})
        }
    )
    drain = Drain(impatient)
    claimed = drain.claim()
    (batch,) = claimed.batches

    def always_breaks(raw: RawObject) -> None:
        raise TypeError("this converter has a mistake")

    drain.stage = stager_of(impatient, batch.batch_id, always_breaks)
    with pytest.raises(TypeError):
        drain.convert(batch.parts[0])
    drain.queue.show_again(message.receipt for message in batch.held)
    report = drain_once(impatient)
    assert report.claimed.batches == []
    (letter,) = dead_letters(settings)
    assert (letter.raw_object, letter.batch) == (shipped.keys[0], batch.batch_id)
    assert "received 2 times" in letter.reason
    assert "this converter has a mistake" in letter.last_error

    replay_dead_letters(Drain(settings))
    assert drain_once(settings).committed == [batch.batch_id]
    assert_each_once(settings, shipped)


def test_a_gate_that_fails_lets_nothing_of_its_batch_through_and_the_others_go_on(settings):
    """Hundreds of pings of a known type that the schema refuses: more likely it is wrong than they."""
    names = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(200)]
    refused = ship_pings(settings, [greeting(name, body=b'{"text": 5}') for name in names])
    shipped = ship(settings, objects=2, good=2)
    single = with_limits(settings, batch_max_raw_objects=1)
    report = Drain(single).claim()
    drain = Drain(single)
    for batch in report.batches:
        for part in batch.parts:
            drain.convert(part)
    with pytest.raises(GateFailed, match="refused_percent") as failure:
        drain.validate(report)
    assert "What to do" in str(failure.value)
    assert len(drain.publish(report)) == 2
    done = drain.acknowledge(report)
    assert_each_once(settings, shipped)
    assert queue_is_empty(settings)
    with pytest.raises(UnfinishedDrain, match="gates failed"):
        raise_if_unfinished(report, done)
    (letter,) = dead_letters(settings)
    assert letter.raw_object == refused.key
    assert "lake-demo#greeting" in letter.reason
    audit = drain.ledger.audit(letter.batch, Audit)
    assert audit is not None
    assert [result.column for result in audit.failures(Severity.FAIL)] == ["refused_percent"]

    # Replayed as it is, it is stopped again; with a waiver it goes through.
    replay_dead_letters(Drain(settings))
    assert drain_once(settings).committed == []
    replay_dead_letters(Drain(settings), waive_gates="the clients really are wrong")
    assert drain_once(settings).committed == [letter.batch]
    assert_each_once(settings, shipped + Shipped(bad=names))


def test_a_document_id_that_clients_sent_twice_is_a_warning_and_stays_twice(settings):
    name = "00000000-0000-4000-8000-00000000000a"
    ship_pings(settings, [greeting(name), greeting(name)])
    report = drain_once(settings)
    audit = Drain(settings).ledger.audit(report.committed[0], Audit)
    assert audit is not None
    assert audit.passed
    assert "document_id" in [result.column for result in audit.failures(Severity.WARN)]
    assert live_document_ids(settings) == [name, name]


def test_rows_that_do_not_add_up_are_stopped(settings):
    """A conversion that forgets what it read last: no schema sees that, the counts do."""
    ship(settings)
    drain = Drain(settings)
    claimed = drain.claim()
    (batch,) = claimed.batches

    def forget(raws: Iterable[RawObject]) -> Staged:
        staged = drain.stager(batch.batch_id)(raws)
        return Staged([], staged.raw_objects)

    drain.stage = forget
    drain.convert(batch.parts[0])
    with pytest.raises(GateFailed, match=r"raw objects, missing.*\.arrows"):
        drain.validate(claimed)
    assert live_document_ids(settings) == []


def test_messages_stay_hidden_while_a_step_works_on_their_batch(settings):
    ship(settings)
    short = settings.model_copy(
        update={"sqs": settings.sqs.model_copy(update={"visibility_timeout_seconds": 5})}
    )
    drain = Drain(short)
    claimed = drain.claim()
    (batch,) = claimed.batches
    claimed_at = datetime.now(UTC)

    def wait_longer_than_the_timeout(raw: RawObject) -> None:
        wait_until(
            lambda: (datetime.now(UTC) - claimed_at).total_seconds() > 7,
            deadline_seconds=10,
            what="the visibility timeout is over",
        )
        assert IndexQueue(short.sqs).receive(10, wait_seconds=0) == []

    drain.stage = stager_of(short, batch.batch_id, wait_longer_than_the_timeout)
    drain.convert(batch.parts[0])


def test_an_outage_of_s3_uses_up_no_receive_count(settings):
    shipped = ship(settings)
    away = settings.model_copy(update={"s3": settings.s3.model_copy(update={"raw_bucket": "not-there"})})
    with pytest.raises(RetriableError, match="not-there"):
        Drain(away).claim()
    (message,) = IndexQueue(settings.sqs).receive(1, wait_seconds=0)
    assert message.receive_count == 1
    IndexQueue(settings.sqs).show_again([message.receipt])
    drain_once(settings)
    assert_each_once(settings, shipped)
