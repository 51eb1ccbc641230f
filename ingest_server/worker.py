"""One accept worker: a process that owns connections and one open segment, and shares nothing."""

import asyncio
import gc
import logging
import math
import os
import socket
from functools import partial
from typing import Final

import uvloop

from ingest_server import answers, health
from ingest_server.clients import Clients
from ingest_server.counters import Counters
from ingest_server.cross_origin import CrossOrigin
from ingest_server.edge import Connection, Edge
from ingest_server.gate import Gate
from ingest_server.group_commit import GroupCommit
from ingest_server.repeat import every
from ingest_server.request import HeadRules
from ingest_server.segment_writer import SegmentWriter
from ingest_server.spool import Spool
from ingest_server.stop_signals import STOP_SIGNALS, unblock_signals
from telemetry_lake.raw.submission_path import is_submission
from telemetry_lake.settings import IngestSettings

TICK_SECONDS: Final = 0.1
SEALED_ENOUGH: Final = 16
"""While this many segments wait to be shipped, segments are sealed by size only: one that is sealed sooner
would not be shipped sooner, and in a long outage of S3 there would be a file for every few seconds."""
LISTEN_BACKLOG: Final = 4_096
STOP_POLL_SECONDS: Final = 0.01
GC_THRESHOLD: Final = 50_000

log = logging.getLogger(__name__)


class Worker:
    """Accept worker number `number` (from 0); `run` returns when it has stopped."""

    def __init__(
        self,
        number: int,
        settings: IngestSettings,
        trusted_proxies: int,
        spool: Spool,
        counters: Counters,
        listener: socket.socket,
    ) -> None:
        self._settings = settings
        self._trusted_proxies = trusted_proxies
        self._counters = counters
        self._listener = listener
        self._writer = SegmentWriter(spool, number, settings.segment_max_bytes)
        self._gate = Gate(settings, counters)

    def run(self, parent_pipe: int) -> None:
        """Serve until SIGTERM, SIGINT, or the end of the parent that holds the other end of the pipe."""
        uvloop.run(self._serve(parent_pipe))

    async def _serve(self, parent_pipe: int) -> None:
        loop = asyncio.get_running_loop()
        # The commit waits for more pings while there are connections that could send some; the edge, which
        # keeps the connections, gives it their pings.
        connections: set[Connection] = set()
        commit = GroupCommit(loop, self._writer, connections, self._on_commit)
        rules = HeadRules(
            self._settings,
            health.public_pages(),
            is_submission,
            CrossOrigin(self._settings.cors_allowed_origins),
            is_behind_proxies=self._trusted_proxies > 0,
        )
        clients = Clients(self._settings, self._trusted_proxies)
        edge = Edge(self._settings, rules, self._counters, commit, self._gate, connections, clients)
        stop = asyncio.Event()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stop.set)
        unblock_signals()
        loop.add_reader(parent_pipe, stop.set)
        self._gate.update()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        server = await loop.create_server(
            partial(Connection, edge), sock=self._listener, backlog=LISTEN_BACKLOG
        )
        log.info("worker_ready")
        ticking = loop.create_task(every(TICK_SECONDS, partial(self._tick, edge, commit)))
        await stop.wait()
        loop.remove_reader(parent_pipe)
        server.close()
        await self._answer_what_has_begun(loop, edge)
        ticking.cancel()
        try:
            await asyncio.wait_for(commit.close(), self._settings.commit_max_seconds)
        except TimeoutError:
            log.error("segment_not_sealed", extra={"why": "the disk is stuck; the next start recovers it"})
            os._exit(1)
        log.info("worker_stopped")

    async def _answer_what_has_begun(self, loop: asyncio.AbstractEventLoop, edge: Edge) -> None:
        deadline = loop.time() + self._settings.stop_answer_seconds
        edge.stop()
        while edge.connections and loop.time() < deadline:  # noqa: ASYNC110  (it happens once)
            await asyncio.sleep(STOP_POLL_SECONDS)
        for connection in list(edge.connections):
            connection.close_without_answer()

    def _tick(self, edge: Edge, commit: GroupCommit) -> None:
        """Do what depends on the time: deadlines, a disk that is stuck, the age of the open segment."""
        edge.tick()
        edge.close_late_connections()
        if commit.stuck_seconds() > self._settings.commit_max_seconds:
            self._gate.failed(answers.NOT_DURABLE)
            commit.give_up_waiting()
        is_behind = self._counters.total("spool_sealed_segments") >= SEALED_ENOUGH
        commit.seal_older_than(math.inf if is_behind else self._settings.segment_max_age_seconds)
        self._gate.update()

    def _on_commit(self, error: OSError | None, pings: int, length: int, seconds: float) -> None:
        self._counters.observe_commit(seconds)
        if error is None:
            self._gate.stored(length)
            return
        self._counters.add("commit_failures")
        log.error("commit_failed", extra={"pings": pings, "bytes": length, "error": str(error)})
        self._gate.failed(answers.answer_to(error))
