"""One accept worker: a process that owns connections and one open segment, and shares nothing."""

import asyncio
import errno
import gc
import logging
import os
import socket
from collections.abc import Callable
from typing import Final

import uvloop

from ingest_server import answers, health
from ingest_server.answers import Answer
from ingest_server.counters import Counters
from ingest_server.edge import Connection, Edge
from ingest_server.group_commit import GroupCommit
from ingest_server.segment_writer import SegmentWriter
from ingest_server.spool import Spool
from ingest_server.stop_signals import STOP_SIGNALS, unblock_signals
from telemetry_lake.settings import IngestSettings

TICK_SECONDS: Final = 0.1
SPOOL_LOOK_SECONDS: Final = 1.0
REFUSAL_AFTER_FAILURE_SECONDS: Final = 1.0
LISTEN_BACKLOG: Final = 4_096
STOP_POLL_SECONDS: Final = 0.01
GC_THRESHOLD: Final = 50_000
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

log = logging.getLogger(__name__)


class Worker:
    """Accept worker number `number` (from 0); `run` returns when it has stopped."""

    def __init__(
        self, number: int, settings: IngestSettings, spool: Spool, counters: Counters, listener: socket.socket
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._counters = counters
        self._listener = listener
        self._writer = SegmentWriter(spool, number, settings.segment_max_bytes)
        self._spool_bytes = 0
        self._spool_refusal: Answer | None = None
        self._failure: Answer | None = None
        self._failure_ends_seconds = 0.0

    def run(self, parent_pipe: int) -> None:
        """Serve until SIGTERM, SIGINT, or the end of the parent that holds the other end of the pipe."""
        uvloop.run(self._serve(parent_pipe))

    async def _serve(self, parent_pipe: int) -> None:
        loop = asyncio.get_running_loop()
        self._commit = GroupCommit(loop, self._writer, lambda: len(self._edge.connections), self._on_commit)
        self._edge = Edge(
            self._settings,
            self._counters,
            self._commit,
            health.pages(self._spool, self._counters, lambda: self._edge.refusal),
            _answer_to,
        )
        stop = asyncio.Event()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stop.set)
        unblock_signals()
        loop.add_reader(parent_pipe, stop.set)
        self._look_at_spool()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        server = await loop.create_server(
            lambda: Connection(self._edge), sock=self._listener, backlog=LISTEN_BACKLOG
        )
        log.info("worker_ready")
        tasks = [
            loop.create_task(_every(TICK_SECONDS, self._tick)),
            loop.create_task(_every(SPOOL_LOOK_SECONDS, self._look_at_spool)),
        ]
        await stop.wait()
        loop.remove_reader(parent_pipe)
        server.close()
        await self._answer_what_has_begun(loop)
        for task in tasks:
            task.cancel()
        try:
            await asyncio.wait_for(self._commit.close(), self._settings.commit_max_seconds)
        except TimeoutError:
            log.error("segment_not_sealed", extra={"why": "the disk is stuck; the next start recovers it"})
            os._exit(1)
        log.info("worker_stopped")

    async def _answer_what_has_begun(self, loop: asyncio.AbstractEventLoop) -> None:
        deadline = loop.time() + self._settings.stop_answer_seconds
        self._edge.stop()
        while self._edge.connections and loop.time() < deadline:  # noqa: ASYNC110  (it happens once)
            await asyncio.sleep(STOP_POLL_SECONDS)
        for connection in list(self._edge.connections):
            connection.close_without_answer()

    def _tick(self) -> None:
        self._edge.tick()
        self._edge.close_late_connections()
        if self._commit.stuck_seconds() > self._settings.commit_max_seconds:
            self._fail(answers.NOT_DURABLE)
            self._commit.give_up_waiting()
        self._commit.seal_older_than(self._settings.segment_max_age_seconds)
        self._refuse()

    def _look_at_spool(self) -> None:
        """Refuse pings while the spool or its disk is full."""
        settings = self._settings
        try:
            self._spool_bytes = self._spool.waiting_open().bytes + self._spool.waiting_sealed().bytes
            is_full = (
                self._spool_bytes > settings.spool_max_bytes
                or self._spool.free_bytes() < settings.spool_min_free_bytes
            )
            self._spool_refusal = answers.DISK_FULL if is_full else None
        except OSError as error:
            log.error("spool_not_readable", extra={"error": str(error)})
            self._spool_refusal = answers.NOT_DURABLE
        self._refuse()

    def _refuse(self) -> None:
        """Decide what every ping is answered from now on."""
        if self._failure is not None and self._edge.now_seconds >= self._failure_ends_seconds:
            self._failure = None
        refusal = self._failure or self._spool_refusal
        if refusal is not self._edge.refusal:
            log.warning(
                "accepting" if refusal is None else "refusing",
                extra={"status": refusal.status if refusal else 200},
            )
            self._edge.refusal = refusal

    def _fail(self, answer: Answer) -> None:
        self._failure = answer
        self._failure_ends_seconds = self._edge.now_seconds + REFUSAL_AFTER_FAILURE_SECONDS

    def _on_commit(self, error: OSError | None, pings: int, length: int, seconds: float) -> None:
        self._counters.observe_commit(seconds)
        if error is not None:
            self._counters.add("commit_failures")
            log.error("commit_failed", extra={"pings": pings, "bytes": length, "error": str(error)})
            self._fail(_answer_to(error))
            self._refuse()
            return
        self._spool_bytes += length
        if self._spool_bytes > self._settings.spool_max_bytes and self._spool_refusal is None:
            self._spool_refusal = answers.DISK_FULL
            self._refuse()


def _answer_to(error: OSError) -> Answer:
    """What a ping is answered that could not be made durable."""
    return answers.DISK_FULL if error.errno in _DISK_FULL else answers.NOT_DURABLE


async def _every(seconds: float, act: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        act()
