"""One accept worker by itself, for benchmarks/ingest.py: the real one, or one that stores nothing.

`python -m benchmarks.ingest_worker durable|discard PORT SPOOL_DIRECTORY`. Both read, check and capture a
request alike; `discard` answers 200 where `durable` hands the ping to the group commit. Nothing is shipped.
"""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import uvloop

from ingest_server import answers
from ingest_server.counters import shared_counters
from ingest_server.edge import Connection, Edge
from ingest_server.spool import Spool
from ingest_server.worker import LISTEN_BACKLOG, TICK_SECONDS, Worker
from telemetry_lake.settings import IngestSettings

SPOOL_MAX_BYTES = 64 * 1024**3
"""The benchmark deletes sealed segments; it must not run into the limit when it is slow to."""


class Discard:
    """A store that forgets."""

    def submit(self, waiter: Connection, _metadata: bytes, _body: bytes | bytearray, /) -> None:
        waiter.committed(None)


async def serve_discarding(settings: IngestSettings, listener: socket.socket) -> None:
    """What `Worker` does, without its spool."""
    loop = asyncio.get_running_loop()
    edge = Edge(settings, shared_counters(1), Discard(), {}, lambda _: answers.NOT_DURABLE)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await loop.create_server(lambda: Connection(edge), sock=listener, backlog=LISTEN_BACKLOG)
    while not stop.is_set():
        edge.tick()
        await asyncio.sleep(TICK_SECONDS)


def main() -> None:
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
    Worker(0, settings, spool, shared_counters(1), listener).run(never_written)


if __name__ == "__main__":
    main()
