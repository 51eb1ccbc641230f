"""Starts and stops the Celery workers of a running stack, as `telemetry_lake.deploy.scaling` decides.

The queue says how many raw objects are not committed, and the raw bucket how large the newest of them are.
A worker that is stopped gets SIGTERM and finishes its tasks first, so one that takes a task between the look
and the stop loses nothing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

import psutil

from local_stack.celery_workers import WORKER_PREFIX
from local_stack.layout import Layout
from local_stack.supervision import Supervisor
from telemetry_lake.deploy.scaling import (
    DECIDE_EVERY_SECONDS,
    Decision,
    History,
    Observation,
    decide,
    worker_to_remove,
)
from telemetry_lake.failures import RetriableError
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import raw_object_prefix
from telemetry_lake.storage.object_store import ObjectStore, StoredObject

DAYS_SEEN: Final = 2
"""Raw objects of today and yesterday are looked at: of a larger backlog only those are counted."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits or is in work: bytes of raw objects, and the age of the oldest."""

    bytes: int
    oldest_age_seconds: float


def backlog(store: ObjectStore, queue: IndexQueue, raw_bucket: str, *, now: datetime) -> Backlog:
    """Return the backlog: as many of the newest raw objects as the queue has messages, hidden ones included.

    A message does not say how large its raw object is unless it is received, and which one it names. Messages
    that come again after a kill count as new ones. Raises RetriableError when S3 or SQS is unavailable.
    """
    state = queue.state()
    newest = list(islice(_newest_first(store, raw_bucket, now), state.waiting + state.hidden))
    if not newest:
        return Backlog(0, 0.0)
    oldest = min(item.modified_at for item in newest)
    return Backlog(sum(item.bytes for item in newest), max(0.0, (now - oldest).total_seconds()))


def _newest_first(store: ObjectStore, bucket: str, now: datetime) -> Iterator[StoredObject]:
    for days in range(DAYS_SEEN):
        day = (now - timedelta(days=days)).date()
        items = list(store.list_objects(bucket, raw_object_prefix(day)))
        yield from sorted(items, key=lambda item: item.modified_at, reverse=True)


class Workers:
    """The Celery workers of the stack in `layout`. All methods raise SupervisorUnavailable."""

    def __init__(self, layout: Layout) -> None:
        self._supervisor = Supervisor(layout)

    def names(self) -> list[str]:
        """Return the workers that the stack was started with, whether they run or not, in their order."""
        found = [name for name in self._supervisor.states() if name.startswith(WORKER_PREFIX)]
        return sorted(found, key=lambda name: (len(name), name))

    def busy(self) -> dict[str, bool]:
        """Return the running workers, and whether each has a task.

        One that is stopping counts as gone: it takes no task any more.
        """
        states = self._supervisor.states()
        return {
            name: bool(tasks_of(states[name].pid))
            for name in self.names()
            if states[name].state in {"STARTING", "RUNNING", "BACKOFF"}
        }

    def add(self, count: int) -> list[str]:
        """Start up to `count` workers that do not run, and do not wait for them; returns their names."""
        states = self._supervisor.states()
        names = [name for name in self.names() if states[name].is_over][:count]
        for name in names:
            self._supervisor.start(name)
        return names

    def remove(self, name: str) -> None:
        """Have a worker finish its tasks and end; returns at once."""
        self._supervisor.stop(name)


def tasks_of(main_process: int) -> list[psutil.Process]:
    """Return the task processes of a Celery worker, or of a scheduler that runs tasks itself; none of pid 0.

    Both have child processes that wait for tasks, and each of those starts another one for every task.
    """
    found: list[psutil.Process] = []
    if not main_process:
        return found
    with suppress(psutil.Error):
        for waiting in psutil.Process(main_process).children():
            # One that ends just now takes nothing away from the others.
            with suppress(psutil.Error):
                found += waiting.children()
    return found


class Controller:
    """Looks at a stack and changes its workers, again and again.

    `speed` makes the clock of the decision faster than time, to test what takes a quarter of an hour.
    """

    def __init__(
        self, settings: Settings, workers: Workers, *, ceiling_workers: int, say: Say, speed: float = 1.0
    ) -> None:
        self._store = ObjectStore(settings.s3)
        self._queue = IndexQueue(settings.sqs)
        self._bucket = settings.s3.raw_bucket
        self._workers = workers
        self._ceiling_workers = ceiling_workers
        self._say = say
        self._speed = speed
        self._history = History()
        self._was_at_ceiling = False

    @property
    def interval_seconds(self) -> float:
        """From one step to the next."""
        return DECIDE_EVERY_SECONDS / self._speed

    def step(self) -> Decision:
        """Look, decide, and start or stop workers. Raises RetriableError and SupervisorUnavailable."""
        seen = backlog(self._store, self._queue, self._bucket, now=datetime.now(UTC))
        busy = self._workers.busy()
        now = Observation(
            at_seconds=time.monotonic() * self._speed,
            backlog_bytes=seen.bytes,
            oldest_age_seconds=seen.oldest_age_seconds,
            workers=len(busy),
            busy_workers=sum(busy.values()),
        )
        decision = decide(now, self._history, ceiling_workers=self._ceiling_workers)
        self._history = decision.history
        if decision.workers > now.workers:
            # None is started as long as all that do not run are still finishing their tasks.
            if names := self._workers.add(decision.workers - now.workers):
                self._say(f"{decision.why}: {', '.join(names)} started")
        elif decision.workers < now.workers and (name := worker_to_remove(busy)) is not None:
            self._workers.remove(name)
            self._say(f"{decision.why}: {name} stops")
        if decision.at_ceiling and not self._was_at_ceiling:
            self._say(f"{decision.why}, for a quarter of an hour: raise LOCAL_STACK_WORKERS, or send less")
        self._was_at_ceiling = decision.at_ceiling
        return decision

    def run(self) -> None:
        """Take steps until supervisord does not answer any more, which raises SupervisorUnavailable."""
        while True:
            try:
                self.step()
            except RetriableError as failure:
                self._say(f"the number of workers stays as it is: {failure}")
            time.sleep(self.interval_seconds)
