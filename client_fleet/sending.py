"""Sends pings as a fleet of real clients does, at a rate that the server's speed has no influence on.

- A ping arrives when it is due, whether or not the pings before it are answered (an open loop), at random
  intervals around the rate.
- A client deletes its ping on any 2xx and any 4xx. On 5xx, on any other answer, on a time-out and on a
  broken connection it keeps the ping and sends it again after a pause that doubles from one failure to the
  next. Firefox pauses for one minute to two hours; the fleet counts in seconds, to be through within a test.
- When too many pings wait, one is given up, as a client's disk quota does.
"""

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from random import Random
from typing import Final

from client_fleet.connection import Connection
from client_fleet.pings import Ping
from client_fleet.proof import Acknowledgement, ProofFile
from client_fleet.tally import Tally

ANSWER_MAX_SECONDS: Final = 60.0
"""After this long without an answer a client closes the connection."""
BACKOFF_FIRST_SECONDS: Final = 1.0
BACKOFF_MAX_SECONDS: Final = 60.0
WAITING_MAX_PINGS: Final = 100_000
END_MAX_SECONDS: Final = 5.0
"""How long the fleet goes on for pings that are on their way or to be sent again when its time is over."""
_TICK_SECONDS: Final = 0.5
"""The longest that the sender sleeps before it looks for time-outs."""
_SLEEP_MIN_SECONDS: Final = 0.001
"""uvloop's timers count whole milliseconds: a shorter sleep would be none, over and over."""
_BURST_MAX_PINGS: Final = 200
"""After this many arrivals in a row answers are read, so that a sender that lags behind still listens."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server to send to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(slots=True)
class _Delivery:
    """A ping on its way: when it is due, how often it failed, how often it may be stored all the same."""

    ping: Ping
    due: float
    failures: int = 0
    unanswered: int = 0
    started: float = 0.0
    body_bytes: int = 0


class Sender:
    """Sends `pings` to `target` until `stop` is called; `run` may be called once.

    `rate` is in pings per second; 0 sends as fast as the connections take them.
    """

    def __init__(
        self,
        pings: Iterator[Ping],
        target: Target,
        *,
        rate: float,
        connections_max: int,
        seed: int,
        proof: ProofFile | None = None,
    ) -> None:
        self.tally = Tally()
        self._pings = pings
        self._target = target
        self._rate = rate
        self._connections_max = connections_max
        self._rng = Random(seed)  # noqa: S311
        self._proof = proof
        self._host_header = f"{target.host}:{target.port}"
        self._idle: list[Connection] = []
        self._in_flight: dict[Connection, _Delivery] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[_Delivery] = deque()
        self._retries: list[tuple[float, int, _Delivery]] = []
        self._sequence = itertools.count()
        self._stopping = False
        self._hurry = False
        self._wake = asyncio.Event()

    def stop(self) -> None:
        """Let no further ping arrive; `run` returns once all are through, or after END_MAX_SECONDS.

        Called a second time, it ends `run` at once.
        """
        self._hurry = self._stopping
        self._stopping = True
        self._wake.set()

    async def run(self, duration_seconds: float | None) -> None:
        """Send for `duration_seconds`, or until `stop` where that is None."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        next_arrival = loop.time()
        ends = math.inf if duration_seconds is None else next_arrival + duration_seconds
        given_up_at = math.inf
        next_check = 0.0
        while True:
            now = loop.time()
            if now >= ends:
                self._stopping = True
            if self._stopping:
                given_up_at = min(given_up_at, now + END_MAX_SECONDS)
                next_arrival = ends = math.inf
                on_their_way = self._in_flight or self._waiting or self._retries or self._connecting
                if self._hurry or now >= given_up_at or not on_their_way:
                    break
            elif self._rate == 0:
                next_arrival = math.inf
                self._keep_busy(now)
            else:
                next_arrival = self._arrive(now, next_arrival, ends)
            while self._retries and self._retries[0][0] <= now:
                self.tally.retries += 1
                self._dispatch(heapq.heappop(self._retries)[2])
            if now >= next_check:
                next_check = now + _TICK_SECONDS
                self._close_overdue(now)
            next_retry = self._retries[0][0] if self._retries else math.inf
            pause = min(next_arrival, next_retry, ends, given_up_at, now + _TICK_SECONDS) - loop.time()
            await self._sleep(pause)
        self._end()

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        timer = self._loop.call_later(max(seconds, _SLEEP_MIN_SECONDS), self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()

    def _arrive(self, now: float, next_arrival: float, ends: float) -> float:
        for _ in range(_BURST_MAX_PINGS):
            if next_arrival > now or next_arrival >= ends:
                break
            self._submit(next_arrival)
            next_arrival += self._rng.expovariate(self._rate)
        return next_arrival

    def _keep_busy(self, now: float) -> None:
        free = self._connections_max - len(self._in_flight) - len(self._waiting) - len(self._retries)
        for _ in range(min(free, _BURST_MAX_PINGS)):
            self._submit(now)

    def _submit(self, due: float) -> None:
        self.tally.pings += 1
        self._dispatch(_Delivery(next(self._pings), due))

    def _dispatch(self, delivery: _Delivery) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._send(connection, delivery)
                return
        self._waiting.append(delivery)
        if len(self._waiting) + len(self._retries) > WAITING_MAX_PINGS:
            self._waiting.popleft()
            self.tally.dropped += 1
        self._open_connection()

    def _open_connection(self) -> None:
        if self._waiting and len(self._in_flight) + len(self._connecting) < self._connections_max:
            task = self._loop.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_MAX_SECONDS):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._answered, self._lost), self._target.host, self._target.port
                )
        except (OSError, TimeoutError):
            # Nothing was sent, so nothing can have been stored.
            if self._waiting:
                self.tally.attempts += 1
                self._failed(self._waiting.popleft())
            self._loop.call_soon(self._open_connection)
            return
        self._next(connection)

    def _send(self, connection: Connection, delivery: _Delivery) -> None:
        ping = delivery.ping
        body = ping.body()
        head = (
            f"POST {ping.target} HTTP/1.1\r\nHost: {self._host_header}\r\n{ping.headers}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        delivery.started = self._loop.time()
        delivery.body_bytes = len(body)
        self._in_flight[connection] = delivery
        self.tally.attempts += 1
        connection.send(head.encode("latin-1"), body)

    def _next(self, connection: Connection) -> None:
        """Give a free connection something to do."""
        if not connection.is_open:
            return
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)
            if self._rate == 0 or self._stopping:
                self._wake.set()

    def _answered(self, connection: Connection, status: int) -> None:
        delivery = self._in_flight.pop(connection, None)
        if delivery is None:
            connection.abort()
            return
        tally = self.tally
        tally.statuses[status] += 1
        tally.latencies.add(self._loop.time() - delivery.due)
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            self._acknowledged(delivery, status)
        elif HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            tally.refused += 1
        else:
            delivery.unanswered += 1
            self._again(delivery)
        self._next(connection)

    def _acknowledged(self, delivery: _Delivery, status: int) -> None:
        ping = delivery.ping
        self.tally.acknowledged += 1
        self.tally.acknowledged_kinds[ping.kind] += 1
        self.tally.body_bytes += delivery.body_bytes
        if self._proof is not None:
            self._proof.add(
                Acknowledgement(
                    document_id=ping.document_id,
                    document_type=ping.document_type,
                    kind=ping.kind,
                    expected=ping.expected,
                    path=ping.target.partition("?")[0],
                    status=status,
                    attempts=delivery.failures + 1,
                    unanswered=delivery.unanswered,
                    acknowledged_at=datetime.now(UTC).isoformat(timespec="microseconds"),
                )
            )

    def _lost(self, connection: Connection) -> None:
        delivery = self._in_flight.pop(connection, None)
        if delivery is not None:
            delivery.unanswered += 1
            self._failed(delivery)
        elif connection in self._idle:
            self._idle.remove(connection)
        self._open_connection()

    def _failed(self, delivery: _Delivery) -> None:
        self.tally.connection_failures += 1
        self._again(delivery)

    def _again(self, delivery: _Delivery) -> None:
        pause = min(BACKOFF_FIRST_SECONDS * 2**delivery.failures, BACKOFF_MAX_SECONDS) * self._rng.uniform(
            0.5, 1
        )
        delivery.failures += 1
        delivery.due = self._loop.time() + pause
        heapq.heappush(self._retries, (delivery.due, next(self._sequence), delivery))
        self._wake.set()

    def _close_overdue(self, now: float) -> None:
        for connection, delivery in list(self._in_flight.items()):
            if now - delivery.started > ANSWER_MAX_SECONDS:
                connection.abort()

    def _end(self) -> None:
        self.tally.unsent = len(self._in_flight) + len(self._waiting) + len(self._retries)
        for task in self._connecting:
            task.cancel()
        self._waiting.clear()
        self._retries.clear()
        connections = [*self._idle, *self._in_flight]
        self._in_flight.clear()
        for connection in connections:
            connection.abort()
