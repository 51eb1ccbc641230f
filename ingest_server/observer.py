"""The observer: one process that looks at the spool for all others, and shows the node to its operators.

What it sees it leaves in the counters. So neither a spool of many segments nor a disk that is stuck holds up
a worker, and what a node shows about itself does not depend on how busy its workers are.
"""

import asyncio
import logging
import socket
import time
from functools import partial
from typing import Final, NoReturn

import uvloop

from ingest_server import health
from ingest_server.clients import Clients
from ingest_server.counters import Counters
from ingest_server.cross_origin import NO_OTHER_ORIGIN
from ingest_server.edge import Connection, Edge
from ingest_server.gate import Gate
from ingest_server.repeat import every
from ingest_server.request import HeadRules
from ingest_server.spool import Spool
from ingest_server.spool_look import look_at_spool
from ingest_server.stop_signals import STOP_SIGNALS, unblock_signals
from telemetry_lake.settings import IngestSettings

TICK_SECONDS: Final = 0.1
LISTEN_BACKLOG: Final = 128
LOOK_SECONDS: Final = 1.0
LOOK_PAUSE_RATIO: Final = 10
"""How much longer than a look the pause behind it is at least: looking takes a tenth of one core at most."""

log = logging.getLogger(__name__)


class Observer:
    """The observer of one node; `run` returns when it has stopped."""

    def __init__(
        self, settings: IngestSettings, spool: Spool, counters: Counters, listener: socket.socket
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._counters = counters
        self._listener = listener

    def run(self, parent_pipe: int) -> None:
        """Look and show until SIGTERM, SIGINT, or the end of the parent that holds the pipe's other end."""
        uvloop.run(self._serve(parent_pipe))

    async def _serve(self, parent_pipe: int) -> None:
        loop = asyncio.get_running_loop()
        settings = self._settings
        rules = HeadRules(
            settings,
            health.public_pages() | health.private_pages(self._counters, settings),
            lambda _path: False,
            NO_OTHER_ORIGIN,
            is_behind_proxies=False,
        )
        edge = Edge(
            settings,
            rules,
            self._counters,
            _NoStore(),
            Gate(settings, self._counters),
            set(),
            Clients(settings, trusted_proxies=0),
        )
        stop = asyncio.Event()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stop.set)
        unblock_signals()
        loop.add_reader(parent_pipe, stop.set)
        await loop.create_server(partial(Connection, edge), sock=self._listener, backlog=LISTEN_BACKLOG)
        log.info("observer_ready")

        def tick() -> None:
            edge.tick()
            edge.close_late_connections()

        tasks = [loop.create_task(every(TICK_SECONDS, tick)), loop.create_task(self._look_again_and_again())]
        await stop.wait()
        for task in tasks:
            task.cancel()
        log.info("observer_stopped")

    async def _look_again_and_again(self) -> NoReturn:
        while True:
            began = time.monotonic()
            # In a thread: the pages say so when the disk is stuck.
            await asyncio.to_thread(look_at_spool, self._spool, self._counters)
            await asyncio.sleep(max(LOOK_SECONDS, LOOK_PAUSE_RATIO * (time.monotonic() - began)))


class _NoStore:
    """Stands where pings would go: none is taken here."""

    def submit(self, _waiter: Connection, _metadata: bytes, _body: bytes | bytearray, /) -> None:
        raise AssertionError("no path of the private address is a submission")
