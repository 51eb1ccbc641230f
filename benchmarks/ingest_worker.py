"""Run one accept worker alone for `benchmarks.ingest`: the real one, or one that stores nothing.

`python -m benchmarks.ingest_worker durable|discard PORT SPOOL_DIRECTORY`. Both read, check and capture a
request alike; `discard` answers 200 where `durable` hands the ping to the group commit. Nothing is shipped.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import uvloop

from ingest_server.clients import Clients
from ingest_server.counters import Counters, shared_counters
from ingest_server.cross_origin import CrossOrigin
from ingest_server.edge import Connection, Edge
from ingest_server.gate import Gate
from ingest_server.observer import LOOK_SECONDS
from ingest_server.request import HeadRules
from ingest_server.spool import Spool
from ingest_server.spool_look import look_at_spool
from ingest_server.worker import LISTEN_BACKLOG, TICK_SECONDS, Worker
from telemetry_lake.raw.submission_path import is_submission
from telemetry_lake.settings import IngestSettings

SPOOL_MAX_BYTES = 64 * 1024**3
"""More than the benchmark can leave when it deletes sealed segments slowly."""


class Discard:
    """A store that forgets every ping."""

    def submit(self, waiter: Connection, _metadata: bytes, _body: bytes | bytearray, /) -> None:
        waiter.committed(None)


async def serve_discarding(settings: IngestSettings, listener: socket.socket) -> None:
    """Serve as `Worker` does, without a spool."""
    loop = asyncio.get_running_loop()
    counters = shared_counters(1)
    rules = HeadRules(settings, {}, is_submission, CrossOrigin(("*",)), is_behind_proxies=False)
    clients = Clients(settings, trusted_proxies=0)
    edge = Edge(settings, rules, counters, Discard(), Gate(settings, counters), set(), clients)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await loop.create_server(lambda: Connection(edge), sock=listener, backlog=LISTEN_BACKLOG)
    while not stop.is_set():
        edge.tick()
        await asyncio.sleep(TICK_SECONDS)


def keep_looking(spool: Spool, counters: Counters) -> None:
    """Do what the observer of a node does."""
    while True:
        time.sleep(LOOK_SECONDS)
        look_at_spool(spool, counters)


def main() -> None:
    """Run the command line: kind of worker, port, spool directory."""
    kind, port, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    settings = IngestSettings(
        port=port, spool_directory=directory, spool_max_bytes=SPOOL_MAX_BYTES, spool_min_free_bytes=0
    )
    listener = socket.create_server(("127.0.0.1", port), backlog=LISTEN_BACKLOG)
    if kind == "discard":
        uvloop.run(serve_discarding(settings, listener))
        return
    spool = Spool(directory / settings.node)
    spool.prepare()
    never_written, _ = os.pipe()
    counters = shared_counters(1)
    look_at_spool(spool, counters)
    threading.Thread(target=keep_looking, args=(spool, counters), daemon=True).start()
    Worker(0, settings, 0, spool, counters, listener).run(never_written)


if __name__ == "__main__":
    main()
