"""Clients that want a server's connections and memory, and give nothing: for tests and `benchmarks.flood`.

    python -m lake_testing.flood KIND PORT ADDRESS CONNECTIONS

keeps that many connections of one kind open from one loopback address, opens another one for each that the
server closes, and ends with SIGTERM. `flooding` runs it as a process of its own.
"""

import argparse
import contextlib
import errno
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.units import KIB, MIB

SERVER: Final = "127.0.0.1"
ROUND_SECONDS: Final = 0.05
OPENED_A_ROUND: Final = 100
"""2,000 new connections a second at most."""
DRIP_SECONDS: Final = 2.0
FILES_BESIDES: Final = 200
"""Open files that are no connections of the flood."""
STOP_DEADLINE_SECONDS: Final = 30

_HEAD: Final = b"POST /submit/telemetry/flood HTTP/1.1\r\nHost: x\r\n"
_LENGTH: Final = b"Content-Length: %d\r\n\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n"
_SLOW: Final = _HEAD + b"A: " + b"a" * 1_000
_CLIENT_HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508)


@dataclass(frozen=True, slots=True)
class Kind:
    """What each connection of a flood sends: `opening` at once, then a piece of `drips` now and then."""

    opening: bytes = b""
    drips: tuple[bytes, ...] = ()
    reads: bool = True


KINDS: Final = {
    "idle": Kind(),
    "slow heads": Kind(_SLOW[:1], tuple(bytes((byte,)) for byte in _SLOW[1:])),
    "long heads": Kind(_HEAD + b"A: " + b"a" * 60_000),
    "many header lines": Kind(_HEAD + b"A: a\r\n" * 120),
    "announced bodies": Kind(_HEAD + _LENGTH % MIB, (b"x",)),
    "bodies but for a byte": Kind(_HEAD + _LENGTH % MIB + b"x" * (MIB - 1)),
    "endless chunks": Kind(_HEAD + _CHUNKED, (b"4000\r\n" + b"x" * 16 * KIB + b"\r\n",)),
    "endless trailers": Kind(_HEAD + _CHUNKED + b"1\r\nx\r\n0\r\nA: ", (b"a" * 16 * KIB,)),
    "kept alive": Kind(_HEAD + _LENGTH % 2 + b"{}"),
    "pipelined, unread": Kind(b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * 20_000, reads=False),
    "garbage": Kind(bytes(range(256)) * 4),
    "TLS": Kind(_CLIENT_HELLO),
}


def connections_possible(wanted: int) -> int:
    """Raise this process's limit of open files as far as it goes. Returns how many connections it allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return min(wanted, most - FILES_BESIDES)


class Flood:
    """Keeps `count` connections of one kind open."""

    def __init__(self, kind: Kind, port: int, address: str, count: int) -> None:
        self._kind = kind
        self._port = port
        self._address = address
        self._count = count
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._sent: dict[int, int] = {}
        """How much of the opening is sent, by descriptor."""
        self._dripped: dict[int, int] = {}
        """How many pieces were sent after it."""
        self._turn = 0

    def run(self) -> None:
        """Go on until the process ends."""
        while True:
            began = time.monotonic()
            for _ in range(min(OPENED_A_ROUND, self._count - len(self._sockets))):
                self._open()
            for descriptor, event in self._poll.poll(0, 4_096):
                self._serve(descriptor, event)
            if self._kind.drips:
                self._drip()
            time.sleep(max(0.0, ROUND_SECONDS - (time.monotonic() - began)))

    def _open(self) -> None:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not self._kind.reads:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        try:
            client.bind((self._address, 0))
            status = client.connect_ex((SERVER, self._port))
        except OSError:
            # No port is free: those of closed connections are for a minute.
            status = errno.EADDRNOTAVAIL
        if status not in (0, errno.EINPROGRESS):
            client.close()
            return
        descriptor = client.fileno()
        self._sockets[descriptor] = client
        self._sent[descriptor] = self._dripped[descriptor] = 0
        self._poll.register(descriptor, select.EPOLLOUT | self._reading())

    def _reading(self) -> int:
        return select.EPOLLRDHUP | (select.EPOLLIN if self._kind.reads else 0)

    def _serve(self, descriptor: int, event: int) -> None:
        client = self._sockets[descriptor]
        try:
            if event & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                raise ConnectionResetError
            if event & select.EPOLLIN and not client.recv(64 * KIB):
                raise ConnectionResetError
            if event & select.EPOLLOUT:
                rest = memoryview(self._kind.opening)[self._sent[descriptor] :]
                self._sent[descriptor] += client.send(rest) if rest else 0
                if self._sent[descriptor] == len(self._kind.opening):
                    self._poll.modify(descriptor, self._reading())
        except BlockingIOError:
            return
        except OSError:
            self._close(descriptor)

    def _drip(self) -> None:
        """Send the next piece to those whose turn it is."""
        shares = int(DRIP_SECONDS / ROUND_SECONDS)
        self._turn = (self._turn + 1) % shares
        for descriptor in list(islice(self._sockets, self._turn, None, shares)):
            if self._sent[descriptor] < len(self._kind.opening):
                continue
            drips = self._kind.drips
            try:
                # A piece that is sent in part is another kind of nonsense.
                self._sockets[descriptor].send(drips[self._dripped[descriptor] % len(drips)])
                self._dripped[descriptor] += 1
            except BlockingIOError:
                continue
            except OSError:
                self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        del self._sent[descriptor], self._dripped[descriptor]
        self._sockets.pop(descriptor).close()


@contextlib.contextmanager
def flooding(kind: str, port: int, address: str, connections: int) -> Iterator[None]:
    """Flood the server on `port` while the block runs."""
    # Less of the processor, as it would run elsewhere.
    command = (
        "nice",
        "-n",
        "10",
        sys.executable,
        "-m",
        "lake_testing.flood",
        kind,
        str(port),
        address,
        str(connections),
    )
    process = subprocess.Popen(("setpriv", "--pdeathsig", "KILL", *command), cwd=PROJECT_ROOT)
    try:
        yield
        if process.poll() is not None:
            raise AssertionError(f"the flood of {kind} ended by itself with status {process.returncode}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_DEADLINE_SECONDS)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lake_testing.flood", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("address")
    parser.add_argument("connections", type=int)
    options = parser.parse_args()
    count = connections_possible(options.connections)
    Flood(KINDS[options.kind], options.port, options.address, count).run()


if __name__ == "__main__":
    main()
