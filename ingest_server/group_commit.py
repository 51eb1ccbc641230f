"""Group commit: pings that are complete while one flush runs share the next one.

The event loop collects records; one thread writes and flushes a group at a time, both without the GIL.

When nothing is being flushed, a group starts at the end of the loop's current round, so that an idle node
answers after one flush. Under load a flush costs more than all else that is done for a ping, so a group
that would start within GROUP_INTERVAL_SECONDS of the one before waits for that time to pass, unless it has
GROUP_ENOUGH_PINGS already, or no other client is connected that could still send one.
"""

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sized
from queue import SimpleQueue
from typing import Final, Protocol

from ingest_server.segment import record_head
from ingest_server.segment_writer import Buffer, SegmentWriter

GROUP_MAX_BYTES: Final = 16 * 1024 * 1024
"""A larger group is cut, so that a segment outgrows its limit by no more than this and one body."""

GROUP_INTERVAL_SECONDS: Final = 0.01
"""Short beside the way to any client. At 366 pings a second it saves a fifth of the processor time."""
GROUP_ENOUGH_PINGS: Final = 8
"""A group this large shares out most of what its flush costs."""

log = logging.getLogger(__name__)


class Waiter(Protocol):
    """What waits until a ping is durable."""

    def committed(self, error: OSError | None) -> None:
        """Called once: None when the ping is on stable storage."""


class CommitStuck(OSError):
    """The flush of a group takes longer than a client can be kept waiting."""


class GroupCommit:
    """Commits for one worker; everything but `_run` belongs to the event loop's thread.

    `connections` are those of all clients; most wait for an answer before they send the next
    ping. `on_commit` is called after each group with its error, its pings, its bytes and its seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        writer: SegmentWriter,
        connections: Sized,
        on_commit: Callable[[OSError | None, int, int, float], None],
    ) -> None:
        self._loop = loop
        self._writer = writer
        self._connections = connections
        self._marker = writer.marker
        self._on_commit = on_commit
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._buffers: list[Buffer] = []
        self._waiters: list[Waiter] = []
        self._bytes = 0
        self._in_flight: list[Waiter] = []
        self._started_seconds = -math.inf
        self._is_flushing = False
        self._is_running = False
        self._pause: asyncio.TimerHandle | None = None
        self._opened_seconds: float | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def submit(self, waiter: Waiter, metadata: bytes, body: bytes | bytearray) -> None:
        """Store one ping with the next group; `waiter` is called when it is durable, or cannot be."""
        head = record_head(self._marker, metadata, body)
        self._buffers.append(head)
        if body:
            self._buffers.append(body)
        self._bytes += len(head) + len(body)
        self._waiters.append(waiter)
        if not self._is_running:
            self._is_running = True
            self._idle.clear()
            self._loop.call_soon(self._start_or_wait)
        elif self._pause is not None and self._is_enough():
            self._pause.cancel()
            self._pause = None
            self._loop.call_soon(self._start)

    def stuck_seconds(self) -> float:
        """For how long the group that is being flushed has been; 0 when there is none."""
        return time.monotonic() - self._started_seconds if self._is_flushing else 0.0

    def give_up_waiting(self) -> None:
        """Fail all pings that wait, because the disk is stuck; they may be stored nevertheless."""
        waiters = self._in_flight + self._waiters
        self._in_flight = []
        self._buffers, self._waiters, self._bytes = [], [], 0
        error = CommitStuck("the flush of the spool does not return")
        for waiter in waiters:
            waiter.committed(error)

    def seal_older_than(self, age_seconds: float) -> None:
        """Seal the open segment when its first ping is older, and whatever could not be sealed before."""
        if self._opened_seconds is not None and time.monotonic() - self._opened_seconds >= age_seconds:
            self._opened_seconds = None
            self._work.put(self._writer.seal)
        self._work.put(self._writer.seal_given_up)

    async def close(self) -> None:
        """Wait for the groups under way, seal the open segment and end the thread."""
        await self._idle.wait()
        self._work.put(self._writer.seal)
        self._work.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _start_or_wait(self) -> None:
        """Start the next group, now or when enough time has passed since the last one started."""
        pause = self._started_seconds + GROUP_INTERVAL_SECONDS - time.monotonic()
        if pause > 0 and self._waiters and not self._is_enough():
            self._pause = self._loop.call_later(pause, self._start)
        else:
            self._start()

    def _is_enough(self) -> bool:
        return len(self._waiters) >= min(GROUP_ENOUGH_PINGS, len(self._connections))

    def _start(self) -> None:
        """Hand the next group to the thread."""
        self._pause = None
        if not self._waiters:
            self._is_running = False
            self._idle.set()
            return
        buffers, self._buffers = self._buffers, []
        waiters, self._waiters = self._waiters, []
        length, self._bytes = self._bytes, 0
        self._in_flight = waiters
        self._is_flushing = True
        self._started_seconds = time.monotonic()
        pings = len(waiters)

        def commit() -> None:
            error: OSError | None = None
            started = time.perf_counter()
            try:
                self._writer.append(buffers, length, pings)
            except OSError as failure:
                error = failure
            seconds = time.perf_counter() - started
            self._loop.call_soon_threadsafe(self._done, error, pings, length, seconds, self._writer.is_open)

        self._work.put(commit)

    def _done(self, error: OSError | None, pings: int, length: int, seconds: float, is_open: bool) -> None:
        waiters, self._in_flight = self._in_flight, []
        self._is_flushing = False
        if not is_open:
            self._opened_seconds = None
        elif self._opened_seconds is None:
            self._opened_seconds = self._started_seconds
        # The next group starts after one more round of the loop, with everything that is ready by then.
        self._loop.call_soon(self._start_or_wait)
        self._on_commit(error, pings, length, seconds)
        for waiter in waiters:
            waiter.committed(error)

    def _run(self) -> None:
        try:
            while (work := self._work.get()) is not None:
                work()
        except BaseException:
            # Without this thread no request is ever answered; the parent starts a new worker.
            log.critical("commit_thread_died", exc_info=True)
            os._exit(1)
