"""The doorbell rings while messages wait, takes none of them, and calms down when nobody answers."""

import asyncio
import contextlib
from itertools import pairwise

from dags.doorbell import RING_AGAIN_MAX_SECONDS, RING_AGAIN_SECONDS, Bell, IndexQueueDoorbell
from lake_testing.shipping import ship
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import ENV_FILE_VARIABLE

RING_DEADLINE_SECONDS = 30


def test_it_rings_at_once_and_not_again_before_the_pause_is_over():
    bell = Bell()
    assert not bell.rings(0, 0, now=0)
    assert bell.rings(1, 0, now=1)
    assert not bell.rings(1, 0, now=1 + RING_AGAIN_SECONDS - 0.1)
    assert bell.rings(3, 2, now=1 + RING_AGAIN_SECONDS)


def test_a_queue_that_was_empty_rings_at_once_again():
    bell = Bell()
    assert bell.rings(1, 0, now=0)
    assert not bell.rings(0, 1, now=1)
    assert bell.rings(1, 1, now=2)


def test_while_nobody_answers_the_pauses_double_up_to_their_limit():
    bell = Bell()
    moments = [second for second in range(600) if bell.rings(5, 0, now=second)]
    pauses = [after - before for before, after in pairwise(moments)]
    assert pauses[:4] == [5, 10, 20, 40]
    assert set(pauses[4:]) == {RING_AGAIN_MAX_SECONDS}


def test_it_rings_for_a_message_and_leaves_it_in_the_queue(lake, monkeypatch):
    monkeypatch.setenv(ENV_FILE_VARIABLE, str(lake.env_file))
    ship(lake.settings, objects=2)

    async def first_ring() -> dict[str, int]:
        events = IndexQueueDoorbell().run()
        async with contextlib.aclosing(events):
            event = await asyncio.wait_for(anext(events), RING_DEADLINE_SECONDS)
        return dict(event.payload)

    assert asyncio.run(first_ring()) == {"waiting": 2}
    messages = IndexQueue(lake.settings.sqs).receive(10, wait_seconds=0)
    assert [message.receive_count for message in messages] == [1, 1]


def test_it_is_made_again_from_what_the_database_keeps_of_it():
    classpath, arguments = IndexQueueDoorbell().serialize()
    assert (classpath, arguments) == ("dags.doorbell.IndexQueueDoorbell", {})
