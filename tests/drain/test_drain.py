"""From raw objects to rows, each ping once, whatever is delivered, damaged, refused or fought over."""

import gzip
import threading
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from lake_testing.shipping import (
    Shipped,
    assert_each_once,
    greeting,
    live_document_ids,
    queue_is_empty,
    ship,
    ship_bytes,
    ship_pings,
)
from lake_testing.stack import wait_until
from telemetry_lake.drain.audit import Audit
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.convert_part import Stager
from telemetry_lake.drain.steps import Drain, UnfinishedDrain, drain_once, raise_if_unfinished
from telemetry_lake.failures import FatalError, GateFailed, RetriableError
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.recovery.replay import dead_letters, replay_dead_letters
from telemetry_lake.recovery.replay_rejected import RejectedSelection, replay_rejected
from telemetry_lake.settings import Settings
from telemetry_lake.tables.checks import Severity
from telemetry_lake.tables.staged import Staged
from telemetry_lake.units import MIB


class Died(BaseException):
    """Stands for the end of a process: it leaves an attempt without an end."""


def with_limits(settings: Settings, **limits: int) -> Settings:
    return settings.model_copy(update={"drain": settings.drain.model_copy(update=limits)})


def stager_of(settings: Settings, batch: str, before: Callable[[RawObject], None]) -> Stager:
    """The real conversion, with `before` called on each raw object."""

    def stage(raws: Iterable[RawObject]) -> Staged:
        def watched() -> Iterable[RawObject]:
            for raw in raws:
                before(raw)
                yield raw

        return Drain(LakeConnections(settings)).stager(batch)(watched())

    return stage


def forgetful(stage: Stager) -> Stager:
    """The conversion `stage`, without the files that it has written."""
    return lambda raws: Staged(raw_objects=stage(raws).raw_objects)


def test_nothing_is_received_while_the_catalog_is_away(settings):
    shipped = ship(settings)
    properties = {**settings.catalog.properties, "uri": "http://127.0.0.1:9"}
    catalog = settings.catalog.model_copy(update={"properties": properties})
    with pytest.raises(RetriableError, match="opening the Iceberg catalog"):
        drain_once(settings.model_copy(update={"catalog": catalog}))
    (message,) = IndexQueue(settings.sqs).receive(10, wait_seconds=0)
    assert message.receive_count == 1
    assert isinstance(message.index, IndexMessage)
    assert message.index.key == shipped.keys[0]


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
    batches = Drain(LakeConnections(small)).claim().batches
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
    (lost,) = Drain(LakeConnections(settings)).claim().batches
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
    claimed = Drain(LakeConnections(settings)).claim()

    def work(_: int) -> None:
        drain = Drain(LakeConnections(settings))
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
    body = LakeConnections(settings).store.get(settings.s3.raw_bucket, whole.keys[0])
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

    drain = Drain(LakeConnections(few))
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
    replay_dead_letters(LakeConnections(settings))
    report = drain_once(settings)
    assert len(report.committed) == 1
    assert report.committed[0] != batch.batch_id
    assert dead_letters(settings) == []
    assert len(live_document_ids(settings)) == 9


def test_what_failed_before_is_tried_after_all_others(settings):
    shipped = ship(settings, objects=3, good=1)
    drain = Drain(LakeConnections(settings))
    (batch,) = drain.claim().batches
    (part,) = batch.parts
    first, *others = part.keys
    seen: list[str] = []

    def die_on_the_first(raw: RawObject) -> None:
        seen.append(raw.key)
        if raw.key == first:
            raise Died

    drain.stage = stager_of(settings, batch.batch_id, die_on_the_first)
    for _ in range(3):
        with pytest.raises(Died):
            drain.convert(part)
    # Together; one by one; then after those that were not to blame.
    assert seen == [first, first, *others, first]
    assert len(shipped.keys) == 3


def test_a_ping_that_ended_the_conversion_is_rejected_and_its_raw_object_is_not_set_aside(settings):
    """Its process was killed, as by the kernel when memory is short: the attempt has no end."""
    bomb = gzip.compress(b'{"text":"","x":[' + b"{}," * 2_700_000 + b"{}]}")
    limits = {"document_max_values": 10**9, "document_max_expansion": 10**6}
    conversion = settings.conversion.model_copy(update={**limits, "isolated_memory_max_bytes": 64 * MIB})
    unlimited = settings.model_copy(update={"conversion": conversion})
    names = [str(uuid.uuid4()) for _ in range(4)]
    message = ship_pings(
        settings, [greeting(names[0]), greeting(names[1], body=bomb), *map(greeting, names[2:])]
    )
    shipped = ship(settings, objects=2, good=2, bad=1)
    drain = Drain(LakeConnections(unlimited))
    claimed = drain.claim()
    (batch,) = claimed.batches
    (part,) = batch.parts
    killed = drain.connections.ledger.attempt(batch.batch_id, part.name)
    killed.__enter__()
    staged = drain.convert(part)
    assert staged.quarantined == {}
    (rows,) = (rows for rows in staged.raw_objects if rows.key == message.key)
    assert (rows.pings, rows.rejected) == (3, {"too_costly": 1})
    drain.validate(claimed)
    drain.publish(claimed)
    drain.acknowledge(claimed)
    assert_each_once(settings, shipped + Shipped(good=[names[0], *names[2:]], bad=[names[1]]))
    assert dead_letters(settings) == []

    # It keeps its bytes, and is converted once the limits allow it.
    selection = RejectedSelection(error_type="too_costly")
    assert replay_rejected(drain.connections, selection) == 1
    roomy = conversion.model_copy(update={"isolated_memory_max_bytes": 1_024 * MIB})
    assert len(drain_once(settings.model_copy(update={"conversion": roomy})).committed) == 1
    assert_each_once(settings, shipped + Shipped(good=names))


def test_a_message_received_too_often_goes_to_the_dead_letters_with_its_batch_and_the_last_error(settings):
    shipped = ship(settings)
    impatient = settings.model_copy(
        update={
            "sqs": settings.sqs.model_copy(update={"max_receive_count": 1, "visibility_timeout_seconds": 5})
        }
    )
    drain = Drain(LakeConnections(impatient))
    claimed = drain.claim()
    (batch,) = claimed.batches

    def always_breaks(raw: RawObject) -> None:
        raise TypeError("this converter has a mistake")

    drain.stage = stager_of(impatient, batch.batch_id, always_breaks)
    with pytest.raises(TypeError):
        drain.convert(batch.parts[0])
    drain.connections.queue.show_again(message.receipt for message in batch.held)
    report = drain_once(impatient)
    assert report.claimed.batches == []
    (letter,) = dead_letters(settings)
    assert (letter.raw_object, letter.batch) == (shipped.keys[0], batch.batch_id)
    assert "received 2 times" in letter.reason
    assert "this converter has a mistake" in letter.last_error

    replay_dead_letters(LakeConnections(settings))
    assert drain_once(settings).committed == [batch.batch_id]
    assert_each_once(settings, shipped)


def test_a_gate_that_fails_lets_nothing_of_its_batch_through_and_the_others_go_on(settings):
    """A conversion that forgets what it read last: no schema sees that, the counts do."""
    damaged = ship(settings, good=2)
    shipped = ship(settings, objects=2, good=2)
    single = with_limits(settings, batch_max_raw_objects=1)
    drain = Drain(LakeConnections(single))
    claimed = drain.claim()
    for batch in claimed.batches:
        for part in batch.parts:
            stage = drain.stager(batch.batch_id)
            drain.stage = forgetful(stage) if part.keys == tuple(damaged.keys) else stage
            drain.convert(part)
    with pytest.raises(GateFailed, match=r"raw objects, missing.*\.arrows") as failure:
        drain.validate(claimed)
    assert "What to do" in str(failure.value)
    assert len(drain.publish(claimed)) == 2
    done = drain.acknowledge(claimed)
    assert_each_once(settings, shipped)
    assert queue_is_empty(settings)
    with pytest.raises(UnfinishedDrain, match="gates failed"):
        raise_if_unfinished(claimed, done)
    (letter,) = dead_letters(settings)
    assert letter.raw_object == damaged.keys[0]
    audit = drain.connections.ledger.audit(letter.batch, Audit)
    assert audit is not None
    assert [result.column for result in audit.failures(Severity.FAIL)] == ["missing"]

    # Replayed as it is, it is stopped again; with a waiver it goes through, with what it has.
    broken = forgetful(drain.stager(letter.batch))
    replay_dead_letters(LakeConnections(settings))
    assert drain_once(settings, stage=broken).committed == []
    replay_dead_letters(LakeConnections(settings), waive_gates="two pings are a small loss")
    assert drain_once(settings, stage=broken).committed == [letter.batch]
    assert_each_once(settings, shipped)


def test_a_document_id_that_clients_sent_twice_is_a_warning_and_stays_twice(settings):
    name = "00000000-0000-4000-8000-00000000000a"
    ship_pings(settings, [greeting(name), greeting(name)])
    report = drain_once(settings)
    audit = LakeConnections(settings).ledger.audit(report.committed[0], Audit)
    assert audit is not None
    assert audit.passed
    assert "document_id" in [result.column for result in audit.failures(Severity.WARN)]
    assert live_document_ids(settings) == [name, name]


def test_messages_stay_hidden_while_a_step_works_on_their_batch(settings):
    ship(settings)
    short = settings.model_copy(
        update={"sqs": settings.sqs.model_copy(update={"visibility_timeout_seconds": 5})}
    )
    drain = Drain(LakeConnections(short))
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


def test_a_bucket_that_is_not_there_uses_up_no_receive_count(settings):
    shipped = ship(settings)
    away = settings.model_copy(update={"s3": settings.s3.model_copy(update={"raw_bucket": "not-there"})})
    with pytest.raises(FatalError, match="not-there"):
        Drain(LakeConnections(away)).claim()
    (message,) = IndexQueue(settings.sqs).receive(1, wait_seconds=0)
    assert message.receive_count == 1
    IndexQueue(settings.sqs).show_again([message.receipt])
    drain_once(settings)
    assert_each_once(settings, shipped)
