"""Answers that a client does not read: what the kernel does not take waits in the worker, and is held."""

import asyncio
import socket
from typing import Final

import pytest
import uvloop

from ingest_server.clients import Clients
from ingest_server.counters import shared_counters
from ingest_server.cross_origin import NO_OTHER_ORIGIN
from ingest_server.edge import PIPELINED_MAX, Connection, Edge
from ingest_server.gate import Gate
from ingest_server.request import HeadRules
from telemetry_lake.settings import IngestSettings

HIGH_WATER_BYTES: Final = 64 * 1024
"""More that is not sent lets uvloop ask for a pause."""
REQUESTS: Final = b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * (PIPELINED_MAX // 2)
DEADLINE_SECONDS: Final = 30


class NoStore:
    """Nothing is stored here."""

    def submit(self, _waiter: Connection, _metadata: bytes, _body: bytes | bytearray, /) -> None:
        raise AssertionError("no request of this test is a ping")


async def send_without_reading(settings: IngestSettings) -> tuple[bool, int, int]:
    """Send requests until the edge takes no more: whether it hung up, and what it held before and after."""
    loop = asyncio.get_running_loop()
    counters = shared_counters(1)
    rules = HeadRules(settings, {}, lambda _path: False, NO_OTHER_ORIGIN, is_behind_proxies=False)
    clients = Clients(settings, trusted_proxies=0)
    edge = Edge(settings, rules, counters, NoStore(), Gate(settings, counters), set(), clients)
    listener = socket.create_server(("127.0.0.1", 0))
    # Those that it accepts have the same: the kernel takes little for a client that does not read.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    server = await loop.create_server(lambda: Connection(edge), sock=listener)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        # Requests that come together would end the connection.
        deaf.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        deaf.setblocking(False)
        await loop.sock_connect(deaf, listener.getsockname())
        held = 0
        is_cut = False
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not held and not is_cut:
                try:
                    await loop.sock_sendall(deaf, REQUESTS)
                except ConnectionError:
                    is_cut = True
                # The edge reads them before the next ones are sent.
                await asyncio.sleep(0.001)
                held = clients.held_bytes
    for connection in list(edge.connections):
        connection.close_without_answer()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while edge.connections:  # noqa: ASYNC110  (it happens once)
            await asyncio.sleep(0.001)
    server.close()
    return is_cut, held, clients.held_bytes


@pytest.mark.parametrize("share_bytes, is_cut", [(4 * HIGH_WATER_BYTES, False), (HIGH_WATER_BYTES, True)])
def test_they_are_held_and_their_client_is_cut_when_there_is_no_room(share_bytes: int, is_cut: bool) -> None:
    settings = IngestSettings(max_body_bytes=1_000, memory_per_address_max_bytes=share_bytes)
    was_cut, held, held_afterwards = uvloop.run(send_without_reading(settings))
    assert was_cut == is_cut
    assert (held > HIGH_WATER_BYTES) == (not is_cut)
    assert held_afterwards == 0
