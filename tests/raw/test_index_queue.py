"""The index queue against a real SQS."""

from datetime import UTC, datetime

import boto3
import pytest

from telemetry_lake.failures import RetriableError
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.index_queue import ATTRIBUTE_MAX_CHARACTERS, IndexQueue, ReceivedMessage
from telemetry_lake.storage.aws import client_arguments

MOMENT = datetime(2026, 11, 23, 14, tzinfo=UTC)


def message(number=0):
    return IndexMessage(
        bucket="raw",
        key=f"raw/v1/2026-11-23/14/node-1/segment-{number}.arrows",
        bytes=1,
        ping_count=1,
        sha256="0" * 64,
        first_submission_timestamp=MOMENT,
        last_submission_timestamp=MOMENT,
    )


@pytest.fixture
def queue(lake_settings):
    return IndexQueue(lake_settings.sqs)


def receive_all(queue, count):
    received: list[ReceivedMessage] = []
    while len(received) < count:
        more = queue.receive(10, wait_seconds=5)
        assert more, f"only {len(received)} of {count} messages came"
        received += more
    return received


def test_what_is_sent_is_received_and_gone_once_deleted(queue):
    sent = [message(number) for number in range(25)]
    for one in sent:
        queue.send(one)
    assert queue.waiting() == len(sent)
    received = receive_all(queue, len(sent))
    assert {IndexMessage.from_json(one.body).key for one in received} == {one.key for one in sent}
    assert sorted(one.index.key for one in received) == sorted(one.key for one in sent)
    assert {one.receive_count for one in received} == {1}
    queue.extend_visibility(one.receipt for one in received)
    queue.delete(one.receipt for one in received)
    assert queue.receive(10, wait_seconds=0) == []


def test_deleting_twice_is_deleting(queue):
    queue.send(message())
    [received] = receive_all(queue, 1)
    queue.delete([received.receipt])
    queue.delete([received.receipt])


def test_a_dead_letter_carries_its_reasons_and_leaves_the_queue(queue, lake_settings):
    queue.send(message())
    [received] = receive_all(queue, 1)
    queue.move_to_dead_letters(received, {"reason": "poison" * 1_000, "batch": ""})
    assert queue.waiting() == 0
    sqs = boto3.client("sqs", **client_arguments(lake_settings.sqs))  # type: ignore[call-overload]
    url = sqs.get_queue_url(QueueName=lake_settings.sqs.dead_letter_queue_name)["QueueUrl"]
    [letter] = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], WaitTimeSeconds=5)["Messages"]
    assert letter["Body"] == received.body
    reasons = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert reasons == {"reason": ("poison" * 1_000)[:ATTRIBUTE_MAX_CHARACTERS], "batch": "-"}


def test_a_queue_that_is_away_is_retriable_and_not_reachable(lake_settings):
    away = lake_settings.sqs.model_copy(update={"endpoint_url": "http://127.0.0.1:9", "max_attempts": 1})
    queue = IndexQueue(away)
    assert not queue.is_reachable()
    with pytest.raises(RetriableError):
        queue.send(message())


def test_many_messages_are_sent_ten_at_a_time_and_the_queue_says_what_it_holds(queue):
    assert queue.state().is_empty
    queue.send_all([message(number) for number in range(23)])
    assert queue.state().waiting == 23
    assert len(queue.receive(10, wait_seconds=0)) == 10
    state = queue.state()
    assert (state.waiting, state.hidden, state.is_empty) == (13, 10, False)
    assert state.retention is None  # ElasticMQ keeps messages until they are deleted
