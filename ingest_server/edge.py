"""One connection of a client: HTTP in, pings to the store, answers out, as docs/ingest_spec.md says.

llhttp parses; what is here decides. Whatever can be refused before the body is refused when the head
is complete. Answers keep the order of the requests: a ping waits for its commit, and what was
answered behind it waits with it.
"""

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol, cast

import httptools

from ingest_server import answers
from ingest_server.answers import CONTINUE, DURABLE, Answer
from ingest_server.counters import FIRST_STATUS, INDEX, Counters
from telemetry_lake.settings import IngestSettings
from telemetry_lake.submission_path import is_submission

CONNECTIONS_MAX: Final = 10_000
"""Of one worker; one more is answered 503."""
BUFFERED_MAX_BYTES: Final = 256 * 1024 * 1024
"""Of bodies in one worker's memory; the next request is answered 503."""
HEAD_MAX_BYTES: Final = 64 * 1024
"""All header lines of a request: name, value and four bytes for each."""
HEAD_MAX_LINES: Final = 128
_LINE_OVERHEAD_BYTES: Final = len(": \r\n")
CHUNK_OVERHEAD_MAX_BYTES: Final = 64 * 1024
CHUNK_OVERHEAD_MAX_RATIO: Final = 8
"""Sizes, extensions and trailers of a chunked body: so much, and so much for each byte of the body.

Chunks of one byte cost five more each, which is silly and allowed.
"""
REQUESTS_WAITING_MAX: Final = 64
"""A connection that pipelines more is not read from until half of them are answered."""
DISCARD_MAX_BYTES: Final = 16 * 1024 * 1024
"""Read and dropped after an answer that ends the connection, so that a reset does not overtake it."""
HEADER_SPELLINGS_MAX: Final = 512
"""How many spellings of header names a worker remembers."""

log = logging.getLogger(__name__)

_AUTHORITY: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_HTTP_10: Final = b"HTTP/1.0"
_PROTOCOLS: Final = {"1.1": b"HTTP/1.1", "1.0": _HTTP_10}
_HOST: Final = 1
_LENGTH: Final = 2
_CODING: Final = 3
_EXPECT: Final = 4
_SPECIAL: Final = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"expect": _EXPECT,
}
_IDLE: Final = 0
_HEAD: Final = 1
_BODY: Final = 2


class Store(Protocol):
    """Makes pings durable."""

    def submit(self, waiter: "Connection", metadata: bytes, body: bytes | bytearray, /) -> None:
        """Call `waiter.committed` once the ping is on stable storage, or when it cannot be."""


class Edge:
    """What all connections of a worker share: limits, the store, the numbers, and a coarse clock.

    `pages` are the paths that are read, with what makes their answer; `failure` makes the answer to a
    ping that could not be made durable.
    """

    def __init__(
        self,
        settings: IngestSettings,
        counters: Counters,
        store: Store,
        pages: Mapping[bytes, Callable[[], Answer]],
        failure: Callable[[OSError], Answer],
    ) -> None:
        self.settings = settings
        self.counters = counters
        self.store = store
        self.pages = pages
        self.failure = failure
        self.refusal: Answer | None = None
        """The answer to every ping, while the node cannot take one."""
        self.connections: set[Connection] = set()
        self.buffered_bytes = 0
        self.is_stopping = False
        self.header_kinds: dict[bytes, _HeaderKind] = {}
        self.now_seconds = 0.0
        self.date = ""
        self.durable_answer = b""
        self._captured = {name.lower().encode() for name in settings.captured_headers}
        self.tick()

    def tick(self) -> None:
        """Move the clock of deadlines and Date headers; called several times a second."""
        self.now_seconds = time.monotonic()
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        if date != self.date:
            self.date = date
            self.durable_answer = DURABLE.render(date, keeps_open=True, is_http_10=False)

    def close_late_connections(self) -> None:
        """Close those whose client did not send in time; they get no answer, so that the ping is kept."""
        late = [
            connection for connection in self.connections if connection.deadline_seconds < self.now_seconds
        ]
        for connection in late:
            connection.close_without_answer()

    def stop(self) -> None:
        """Close what is idle; every answer from now on ends its connection."""
        self.is_stopping = True
        for connection in [item for item in self.connections if item.is_idle]:
            connection.close_without_answer()

    def header_kind(self, name: bytes) -> "_HeaderKind":
        """What a header's name, as it was spelled, means to us."""
        lower = name.lower()
        kind = (lower, lower in self._captured, _SPECIAL.get(lower, 0))
        if len(self.header_kinds) < HEADER_SPELLINGS_MAX:
            self.header_kinds[name] = kind
        return kind


_HeaderKind = tuple[bytes, bool, int]
"""A header's name in lower case, whether it is captured, and which special one it is (0: none)."""

_Waiting = tuple[bytes | None, float, int, bool, bool]
"""A request whose answer has not been sent: the answer (None: a ping that waits for its commit), when the
request began, the bytes of its body, whether the connection stays open, whether it is HTTP/1.0."""


class _Ended(Exception):
    """Stops the parser: nothing that follows on this connection is a request."""


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_address",
        "_began_in_this_read",
        "_began_seconds",
        "_body",
        "_body_bytes",
        "_discarded_bytes",
        "_edge",
        "_expects_continue",
        "_fields",
        "_host",
        "_incomplete_bytes",
        "_is_chunked",
        "_is_ended",
        "_is_paused",
        "_length",
        "_lines",
        "_lingers",
        "_method",
        "_parser",
        "_path",
        "_phase",
        "_protocol",
        "_query",
        "_read_bytes",
        "_reads_page",
        "_refusal",
        "_saw_eof",
        "_target",
        "_timed_phase",
        "_transport",
        "_waiting",
        "deadline_seconds",
    )

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[_Waiting] = deque()
        self._address = b""
        self._is_ended = False
        self._is_paused = False
        self._lingers = False
        self._saw_eof = False
        # Of the request that is being read; `on_message_begin` and `_judge` set them anew.
        self._phase = self._timed_phase = _IDLE
        self._began_in_this_read = False
        self._began_seconds = 0.0
        self._read_bytes = self._incomplete_bytes = self._discarded_bytes = 0
        self._lines: list[tuple[bytes, bytes]] = []
        self._target = self._method = self._path = self._query = self._protocol = self._host = b""
        self._fields: list[bytes] = []
        self._length: int | None = None
        self._is_chunked = self._expects_continue = self._reads_page = False
        self._refusal: Answer | None = None
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        self.deadline_seconds = edge.now_seconds + edge.settings.head_timeout_seconds

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request is here and no answer is owed."""
        return self._phase == _IDLE and not self._waiting

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse one connection too many; otherwise wait for its first request."""
        edge = self._edge
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]).encode() if peer else b""
        edge.connections.add(self)
        edge.counters.set("connections", len(edge.connections))
        if len(edge.connections) > CONNECTIONS_MAX:
            self._end(answers.NOT_DURABLE)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Forget the connection; pings that wait for their commit are stored all the same."""
        edge = self._edge
        if self._phase != _IDLE and not self._is_ended:
            edge.counters.add("aborted_requests")
        self._drop_body()
        self._transport = None
        # The parser holds bound methods of this object; without it there is no cycle for the collector.
        del self._parser
        edge.connections.discard(self)
        edge.counters.set("connections", len(edge.connections))

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._is_ended:
            self._discard(len(data))
            return
        self._read_bytes = len(data)
        self._began_in_this_read = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if not self._is_ended:
                log.error("request_failed", exc_info=error.__context__ or error)
                self._end(answers.DEFECT)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._is_ended:
                self._end(answers.MALFORMED)
        else:
            if self._phase != _IDLE and not self._is_ended:
                self._wait_for_rest()
        if len(self._waiting) > REQUESTS_WAITING_MAX:
            self._pause()

    def eof_received(self) -> bool:
        """The client sends no more: keep the connection only for answers that it may still read."""
        self._saw_eof = True
        return bool(self._waiting) and self._phase == _IDLE

    def pause_writing(self) -> None:
        """The client does not read its answers: take no more requests from it."""
        self._pause()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._resume()

    # --- httptools ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_ended:
            raise _Ended
        self._phase = _HEAD
        self._timed_phase = _IDLE
        self._began_in_this_read = True
        self._began_seconds = time.perf_counter()
        self._target = b""
        self._lines = []
        self._incomplete_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A part of the target, or all of it; of one that is too long, no more than is needed to know."""
        if len(self._target) <= self._edge.settings.max_path_bytes:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line; those of a chunked body's trailer are dropped."""
        if self._phase == _HEAD:
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide about the request before its body."""
        self._phase = _BODY
        self._discarded_bytes = self._incomplete_bytes = 0
        self._refusal = refusal = self._judge()
        if refusal is not None:
            is_long = (self._length or 0) > self._edge.settings.max_body_bytes
            if refusal.ends_connection or self._expects_continue or is_long:
                self._end(refusal)
        elif self._expects_continue:
            self._send(CONTINUE, keeps_open=True)

    def on_body(self, part: bytes) -> None:
        """A part of the body, or all of it."""
        if self._is_ended:
            return
        size = len(part)
        if self._refusal is not None or self._reads_page:
            self._discarded_bytes += size
            if self._discarded_bytes > self._edge.settings.max_body_bytes:
                self._end(self._refusal or self._too_large(answers.BODY_TOO_LARGE))
            return
        self._body_bytes += size
        self._edge.buffered_bytes += size
        if self._body_bytes > self._edge.settings.max_body_bytes:
            self._end(self._too_large(answers.BODY_TOO_LARGE))
        elif not self._body:
            self._body = part
        elif isinstance(self._body, bytearray):
            self._body += part
        else:
            self._body = bytearray(self._body) + part

    def on_message_complete(self) -> None:
        """The request is complete: store the ping, or answer."""
        if self._is_ended:
            return
        edge = self._edge
        self._phase = _IDLE
        self.deadline_seconds = edge.now_seconds + edge.settings.keep_alive_seconds
        keeps_open = self._parser.should_keep_alive() and not edge.is_stopping
        if not keeps_open:
            self._is_ended = True
        if self._refusal is not None or self._reads_page:
            answer = self._refusal or edge.pages[self._path]()
            self._answer(
                answer,
                keeps_open=keeps_open,
                is_http_10=self._protocol == _HTTP_10,
                without_body=self._method == b"HEAD",
            )
            return
        self._waiting.append(
            (None, self._began_seconds, self._body_bytes, keeps_open, self._protocol == _HTTP_10)
        )
        metadata = b"\n".join(
            (
                b"%d" % (time.time_ns() // 1_000),
                self._method,
                self._path,
                self._query,
                self._protocol,
                self._address,
                self._host,
                *self._fields,
            )
        )
        body, self._body, self._body_bytes = self._body, b"", 0
        edge.store.submit(self, metadata, body)

    # --- the store ----------------------------------------------------------------------------

    def committed(self, error: OSError | None) -> None:
        """The oldest ping that waits is durable, or never will be acknowledged."""
        waiting = self._waiting
        edge = self._edge
        _, begun, body_bytes, keeps_open, is_http_10 = waiting.popleft()
        edge.buffered_bytes -= body_bytes
        counters = edge.counters
        if error is None:
            row = counters.row
            row[_STATUS_200] += 1
            row[_BODY_BYTES] += body_bytes
            counters.observe_request(time.perf_counter() - begun)
            answer = (
                edge.durable_answer
                if keeps_open and not is_http_10
                else DURABLE.render(edge.date, keeps_open=keeps_open, is_http_10=is_http_10)
            )
        else:
            failure = edge.failure(error)
            counters.row[FIRST_STATUS[failure.status]] += 1
            answer = failure.render(edge.date, keeps_open=keeps_open, is_http_10=is_http_10)
        if (transport := self._transport) is None:
            return
        transport.write(answer)
        if waiting:
            while waiting and (following := waiting[0][0]) is not None:
                keeps_open = waiting.popleft()[3]
                transport.write(following)
            if self._is_paused and len(waiting) <= REQUESTS_WAITING_MAX // 2:
                self._resume()
        if not keeps_open:
            self._finish()
        elif self._saw_eof and not waiting:
            transport.close()

    # --- our own ------------------------------------------------------------------------------

    def close_without_answer(self) -> None:
        """End the connection; a client that was sending keeps its ping."""
        if self._transport is not None:
            self._transport.abort()

    def _judge(self) -> Answer | None:
        """The answer to a request that is refused whatever its body is; the order is the specification's."""
        edge = self._edge
        settings = edge.settings
        parser = self._parser
        protocol = _PROTOCOLS.get(parser.get_http_version())
        has_large_field, hosts = self._read_lines()
        if protocol is None or parser.should_upgrade():
            return answers.MALFORMED
        if hosts != 1 and (hosts or protocol != _HTTP_10):
            return answers.MALFORMED
        self._protocol = protocol
        self._method = method = parser.get_method()
        target = self._target
        if len(target) > settings.max_path_bytes:
            return self._too_large(answers.TARGET_TOO_LONG)
        if target[0] != _SLASH and (authority := _AUTHORITY.match(target)) is not None:
            target = target[authority.end() :]
            target = target if target.startswith(b"/") else b"/" + target
        self._path, _, self._query = target.partition(b"?")
        if (
            has_large_field
            or len(self._path) > settings.max_captured_field_bytes
            or len(self._query) > settings.max_captured_field_bytes
        ):
            return answers.FIELD_TOO_LARGE
        if not is_submission(self._path.decode("latin-1")):
            if self._path not in edge.pages:
                return answers.NOT_FOUND
            self._reads_page = True
            return None if method in (b"GET", b"HEAD") else answers.NOT_READ
        if method not in (b"POST", b"PUT"):
            return answers.NOT_SUBMITTED
        if self._length is None:
            if not self._is_chunked:
                return answers.LENGTH_REQUIRED
        elif self._length > settings.max_body_bytes:
            return self._too_large(answers.BODY_TOO_LARGE)
        if edge.buffered_bytes > BUFFERED_MAX_BYTES:
            return answers.NOT_DURABLE
        return edge.refusal

    def _read_lines(self) -> tuple[bool, int]:
        """Take what is needed from the header lines; whether one is over a limit, and the number of hosts."""
        kinds = self._edge.header_kinds
        most = self._edge.settings.max_captured_field_bytes
        lines, self._lines = self._lines, []
        fields: list[bytes] = []
        self._fields = fields
        self._host = b""
        self._length = None
        self._is_chunked = self._expects_continue = self._reads_page = False
        hosts = 0
        is_large = len(lines) > HEAD_MAX_LINES
        # A head that came in one read that is smaller than the limit is within it.
        if self._read_bytes > HEAD_MAX_BYTES or not self._began_in_this_read:
            total = sum(len(name) + len(value) for name, value in lines) + _LINE_OVERHEAD_BYTES * len(lines)
            is_large = is_large or total > HEAD_MAX_BYTES
        for name, value in lines:
            lower, is_captured, special = kinds.get(name) or self._edge.header_kind(name)
            if not (is_captured or special):
                continue
            stripped = value.strip(b" \t")
            if is_captured:
                is_large = is_large or len(stripped) > most
                fields.append(lower)
                fields.append(stripped)
            if special == _HOST:
                is_large = is_large or len(stripped) > most
                self._host = stripped
                hosts += 1
            elif special == _LENGTH:
                self._length = int(stripped)
            elif special == _CODING:
                self._is_chunked = True
            elif special == _EXPECT:
                self._expects_continue = stripped.lower() == b"100-continue"
        return is_large, hosts

    def _wait_for_rest(self) -> None:
        """Bound the time that an incomplete request has, and what the parser holds and skips of it.

        The read in which the request began is not counted: it may have held others before it.
        """
        edge = self._edge
        settings = edge.settings
        if self._phase == _HEAD:
            if self._timed_phase != _HEAD:
                self._timed_phase = _HEAD
                self.deadline_seconds = edge.now_seconds + settings.head_timeout_seconds
        elif self._timed_phase != _BODY:
            self._timed_phase = _BODY
            self.deadline_seconds = edge.now_seconds + settings.body_timeout_seconds
        if len(self._lines) > HEAD_MAX_LINES:
            self._end(self._long_head())
            return
        if self._began_in_this_read:
            return
        self._incomplete_bytes += self._read_bytes
        if self._phase == _HEAD:
            if self._incomplete_bytes > HEAD_MAX_BYTES + settings.max_path_bytes:
                self._end(self._long_head())
        elif self._is_chunked:
            body_bytes = self._body_bytes + self._discarded_bytes
            overhead = self._incomplete_bytes - body_bytes
            if overhead > CHUNK_OVERHEAD_MAX_BYTES + CHUNK_OVERHEAD_MAX_RATIO * body_bytes:
                self._end(answers.MALFORMED)

    def _long_head(self) -> Answer:
        """The answer to a head that is over its limit before it ends; the order is that of `_judge`."""
        if len(self._target) > self._edge.settings.max_path_bytes:
            return self._too_large(answers.TARGET_TOO_LONG)
        return answers.FIELD_TOO_LARGE

    def _too_large(self, answer: Answer) -> Answer:
        return answers.TOO_LARGE_DROPPED if self._edge.settings.answer_too_large_with_202 else answer

    def _answer(
        self, answer: Answer, *, keeps_open: bool, is_http_10: bool, without_body: bool = False
    ) -> None:
        self._edge.counters.row[FIRST_STATUS[answer.status]] += 1
        self._drop_body()
        self._send(
            answer.render(
                self._edge.date, keeps_open=keeps_open, is_http_10=is_http_10, without_body=without_body
            ),
            keeps_open=keeps_open,
        )

    def _send(self, answer: bytes, *, keeps_open: bool) -> None:
        """Send an answer behind those that are owed already."""
        if self._waiting:
            self._waiting.append((answer, 0.0, 0, keeps_open, False))
        elif self._transport is not None:
            self._transport.write(answer)
            if not keeps_open:
                self._finish()

    def _end(self, answer: Answer) -> None:
        """Answer, and take nothing that follows for a request."""
        self._is_ended = self._lingers = True
        self._lines = []
        self.deadline_seconds = self._edge.now_seconds + self._edge.settings.body_timeout_seconds
        self._answer(answer, keeps_open=False, is_http_10=False)

    def _finish(self) -> None:
        """The last answer is sent: tell the client, and wait for it to hang up.

        Closing now, with bytes of the client unread, would send a reset that can overtake the answer.
        """
        transport = self._transport
        if transport is None:
            return
        if self._lingers and not self._saw_eof:
            transport.write_eof()
        else:
            transport.close()

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes > DISCARD_MAX_BYTES:
            self.close_without_answer()

    def _drop_body(self) -> None:
        self._edge.buffered_bytes -= self._body_bytes
        self._body, self._body_bytes = b"", 0

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()


_SLASH: Final = ord("/")
_STATUS_200: Final = FIRST_STATUS[200]
_BODY_BYTES: Final = INDEX["body_bytes"]
