"""The doorbell of the drain: rings while index messages wait, and never takes one.

The queue is asked for its length only, so receive counts are not used up, and a run that never starts
loses nothing. While no run takes messages, the bell rings more and more rarely, so that an outage of the
scheduler does not leave hundreds of runs behind that find nothing to do.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

POLL_SECONDS: Final = 1.0
"""How often the length of the queue is asked for."""
RING_AGAIN_SECONDS: Final = 5.0
"""How soon the bell rings again while messages still wait."""
RING_AGAIN_MAX_SECONDS: Final = 60.0
UNAVAILABLE_SECONDS: Final = 5.0
"""How long to wait after an error before the queue is asked again."""

_log = logging.getLogger(__name__)


class IndexQueueDoorbell(BaseEventTrigger):
    """Fires at once when index messages wait, then again while they do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments: none, because the settings say which queue it is."""
        return (f"{type(self).__module__}.{type(self).__qualname__}", {})

    async def run(self) -> AsyncGenerator[TriggerEvent, None]:
        """Ring until the trigger is stopped; an outage of the queue is waited out."""
        bell = Bell()
        while True:
            try:
                async for waiting, in_flight in _queue_lengths():
                    if bell.rings(waiting, in_flight, now=time.monotonic()):
                        yield TriggerEvent({"waiting": waiting})  # type: ignore[no-untyped-call]
            except Exception as error:  # noqa: BLE001  after any error: without the doorbell the drain would stop
                _log.warning("the queue does not say how long it is, asking again: %s", error)
                await asyncio.sleep(UNAVAILABLE_SECONDS)


class Bell:
    """Decides when to ring: at once, then after pauses that double while the queue stands still."""

    def __init__(self) -> None:
        self._next = float("-inf")
        self._pause = RING_AGAIN_SECONDS
        self._seen: tuple[int, int] | None = None

    def rings(self, waiting: int, in_flight: int, *, now: float) -> bool:
        """Return whether to ring at the time `now` in seconds, with these numbers of messages."""
        if waiting == 0:
            self._next, self._pause = float("-inf"), RING_AGAIN_SECONDS
            return False
        if now < self._next:
            return False
        stands_still = self._seen == (waiting, in_flight)
        self._pause = min(self._pause * 2, RING_AGAIN_MAX_SECONDS) if stands_still else RING_AGAIN_SECONDS
        self._next = now + self._pause
        self._seen = (waiting, in_flight)
        return True


async def _queue_lengths() -> AsyncGenerator[tuple[int, int], None]:
    """Yield about how many messages wait and how many are worked on, every `POLL_SECONDS`."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    from telemetry_lake.settings import Role, load_settings
    from telemetry_lake.storage.aws import client_arguments

    settings = load_settings(role=Role.DOORBELL).sqs
    arguments = {**client_arguments(settings), "config": AioConfig(retries={"total_max_attempts": 1})}
    async with get_session().create_client("sqs", **arguments) as sqs:
        url = (await sqs.get_queue_url(QueueName=settings.index_queue_name))["QueueUrl"]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        while True:
            answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
            waiting, in_flight = (int(answer["Attributes"][name]) for name in names)
            yield waiting, in_flight
            await asyncio.sleep(POLL_SECONDS)
