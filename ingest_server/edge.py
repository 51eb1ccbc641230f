"""One connection of a client: HTTP in, pings to the store, answers out, as docs/ingest_spec.md says.

A `Request` decides what one request is; what is here decides what its connection does. Answers keep the
order of the requests: a ping waits for its commit, and what was answered behind it waits with it.
"""

import asyncio
import logging
import time
from collections import deque
from typing import Final, NamedTuple, Protocol, cast

import httptools

from ingest_server import answers
from ingest_server.answers import BUSY, CONTINUE, DURABLE, Answer
from ingest_server.chunks import ChunkedBody, MalformedChunks
from ingest_server.clients import Client, Clients
from ingest_server.counters import FIRST_STATUS, INDEX, Counters
from ingest_server.gate import Gate
from ingest_server.head_end import TAIL_BYTES, end_of_head, length_in_head, start_of_head
from ingest_server.request import INCOMPLETE_OBJECTS_BYTES, HeadRules, Request
from telemetry_lake.settings import IngestSettings

REQUESTS_WAITING_MAX: Final = 64
"""A connection that pipelines more is not read from until half of them are answered."""
PIPELINED_MAX: Final = 32
"""Requests that are taken from one read, which may hold ten thousand: the connection ends with the last of
them, so that others are served within a millisecond."""
DISCARD_MAX_BYTES: Final = 16 * 1024 * 1024
"""Read and dropped after an answer that ends the connection, so that a reset does not overtake it."""

_STATUS_200: Final = FIRST_STATUS[200]
_BODY_BYTES: Final = INDEX["body_bytes"]

log = logging.getLogger(__name__)


class Store(Protocol):
    """Makes pings durable."""

    def submit(self, waiter: "Connection", metadata: bytes, body: bytes | bytearray, /) -> None:
        """Call `waiter.committed` once the ping is on stable storage, or when it cannot be."""


class Edge:
    """What all connections of a worker share: limits, the store, the numbers, and a coarse clock.

    `rules` say what is read and taken. `connections` has every open connection; it is made by the caller,
    since the store has to know how many there are. `clients` are those that the connections belong to.
    """

    def __init__(
        self,
        settings: IngestSettings,
        rules: HeadRules,
        counters: Counters,
        store: Store,
        gate: Gate,
        connections: "set[Connection]",
        clients: Clients,
    ) -> None:
        self.settings = settings
        self.rules = rules
        self.counters = counters
        self.store = store
        self.gate = gate
        self.connections = connections
        self.clients = clients
        self.is_stopping = False
        self.now_seconds = 0.0
        self.date = ""
        self.durable_answer = b""
        self.tick()

    def tick(self) -> None:
        """Move the clock of deadlines and Date headers; called several times a second."""
        self.now_seconds = time.monotonic()
        self.counters.set("held_bytes", self.clients.held_bytes)
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        if date != self.date:
            self.date = date
            self.durable_answer = DURABLE.render(
                date,
                keeps_open=True,
                is_http_10=False,
                further_headers=self.rules.cross_origin.default,
            )

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


class _OwedAnswer(NamedTuple):
    """An answer that waits behind the pings of earlier requests; `keeps_open` as in `Request`."""

    answer: bytes
    keeps_open: bool


class _Ended(Exception):
    """Stops the parser: nothing that follows on this connection is a request."""


class _ChunksFollow(Exception):
    """Stops the parser behind the head of a request whose body comes in chunks: `ChunkedBody` reads that."""


class Connection(asyncio.Protocol):
    """One client's connection.

    It is *idle* without a request; in a *head* or a *body* of the request that `_request` is; or *ended*:
    its last answer is decided. What each event does there::

        event                idle           head                body                     ended
        -------------------  -------------  ------------------  -----------------------  ----------------
        on_message_begin     -> head        -                   -                        stop the parser
        on_url, on_header    -              kept up to a limit  trailers are dropped     dropped
        on_headers_complete  -              judged, its length  -                        -
                                            held: -> body, or
                                            refused: -> ended;
                                            chunks: another
                                            parser for them
        on_body              -              -                   kept; of a refused one   dropped
                                                                dropped; too large:
                                                                413 -> ended
        on_message_complete  -              -                   stored or answered:      ignored
                                                                -> idle or -> ended
        malformed bytes      400 -> ended   400 -> ended        400 -> ended             dropped, up to
                                                                                         a limit, as all
        end of a read        -              held; over a limit: held if in chunks; over  -
                                            431, 414, 503       a limit: 400, 503
                                            -> ended            -> ended
        deadline             closed         closed              closed                   closed
        end of file          closed once    closed              closed                   closed
                             all is sent
        connection lost      forgotten      counted as aborted  counted as aborted       forgotten

    The deadline is keep_alive_seconds in *idle* (head_timeout_seconds before the first request),
    head_timeout_seconds in a *head*, body_timeout_seconds in a *body* and when *ended*.
    """

    __slots__ = (
        "_address",
        "_chunks",
        "_client",
        "_continued",
        "_discarded_bytes",
        "_edge",
        "_head_tail",
        "_is_ended",
        "_is_paused",
        "_left_bytes",
        "_lingers",
        "_parser",
        "_read_bytes",
        "_read_requests",
        "_request",
        "_saw_eof",
        "_transport",
        "_unsent_bytes",
        "_waiting",
        "deadline_seconds",
    )

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._chunks: ChunkedBody | None = None
        """What reads the body of the request, in the place of the parser, when it comes in chunks."""
        self._continued: Request | None = None
        """The request that was incomplete when the last read began."""
        self._head_tail = b""
        """The last bytes of the read before, when that one's head was incomplete then."""
        self._left_bytes: int | None = None
        """What its body missed then; None when its head was incomplete."""
        self._client: Client | None = None
        self._waiting: deque[Request | _OwedAnswer] = deque()
        """The requests whose answers are not sent, oldest first: pings that wait for their commit, and
        answers behind them."""
        self._address = b""
        self._read_bytes = self._read_requests = self._discarded_bytes = 0
        self._unsent_bytes = 0
        """What is counted as held for answers while the client does not read them."""
        self._is_ended = self._is_paused = self._lingers = self._saw_eof = False
        self.deadline_seconds = edge.now_seconds + edge.settings.head_timeout_seconds

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request is here and no answer is owed."""
        return self._request is None and not self._waiting

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse one connection too many; otherwise wait for its first request."""
        edge = self._edge
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]).encode() if peer else b""
        if len(edge.connections) < edge.settings.connections_max:
            self._client = edge.clients.connect(self._address)
        if self._client is None:
            # At once, without waiting for the client: connections that are not counted must not add up.
            edge.counters.add("refused_connections")
            self._is_ended = True
            self._answer(
                BUSY, keeps_open=False, is_http_10=False, further_headers=edge.rules.cross_origin.default
            )
            return
        edge.connections.add(self)
        edge.counters.set("connections", len(edge.connections))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Forget the connection; pings that wait for their commit are stored all the same."""
        edge = self._edge
        if self._request is not None:
            if not self._is_ended:
                edge.counters.add("aborted_requests")
            self._forget_request()
        self._transport = None
        # The parser holds bound methods of this object; without it there is no cycle for the collector.
        self._parser = None
        if self._client is not None:
            edge.clients.change(self._client, -self._unsent_bytes)
            edge.clients.end(self._client)
        edge.connections.discard(self)
        edge.counters.set("connections", len(edge.connections))

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._is_ended:
            self._discard(len(data))
            return
        self._read_bytes = len(data)
        self._read_requests = 0
        request = self._continued = self._request
        if request is not None:
            request.is_continued = True
        if self._chunks is None:
            self._parse(data)
        else:
            self._read_chunks(data, 0)
        if self._request is not None and not self._is_ended:
            self._wait_for_rest(self._request, data)
        if len(self._waiting) > REQUESTS_WAITING_MAX:
            self._pause()
        if self._is_paused:
            self._hold_unsent()

    def _parse(self, data: bytes, requests_before: int = 0) -> None:
        """Take the requests in `data`, which in the same read is behind `requests_before` others."""
        parser = self._parser
        assert parser is not None, "it is there until the connection is ended"
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if self._chunks is None and not self._is_ended:
                log.error("request_failed", exc_info=error.__context__ or error)
                self._end(answers.DEFECT)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._is_ended:
                self._end(answers.MALFORMED)
        if self._chunks is not None:
            self._read_chunks(data, self._end_of_head(data, self._read_requests - requests_before))

    def _read_chunks(self, data: bytes, position: int) -> None:
        """Take what `data` has from `position` on of a body in chunks, and the requests behind it."""
        assert self._chunks is not None, "the head of its request has said so"
        try:
            end = self._chunks.read(data, position, self.on_body)
            if end is None:
                return
            self._chunks = None
            self.on_message_complete()
        except MalformedChunks:
            if not self._is_ended:
                self._end(answers.MALFORMED)
            return
        except Exception:
            log.exception("request_failed")
            self._end(answers.DEFECT)
            return
        if self._is_ended:
            return
        self._parser = httptools.HttpRequestParser(self)
        self._continued = None
        if end < len(data):
            self._parse(data[end:], self._read_requests)

    def _end_of_head(self, data: bytes, requests: int) -> int:
        """Return where in `data` the head ends that has stopped the parser, which does not say where that is.

        `requests` have begun in `data`, behind the one that was continued in it, if there was one.
        """
        end = 0
        if (continued := self._continued) is not None:
            end = self._left_bytes or 0
            if self._left_bytes is None:
                end = end_of_head(self._head_tail + data) - len(self._head_tail)
                end += (requests and continued.length) or 0
        for number in range(requests):
            start = start_of_head(data, end)
            end = end_of_head(data, start)
            if number < requests - 1:
                end += length_in_head(data[start:end])
        return end

    def eof_received(self) -> bool:
        """Keep the connection only for answers that the client, which sends no more, may still read."""
        self._saw_eof = True
        return bool(self._waiting) and self._request is None

    def pause_writing(self) -> None:
        """Take no more requests from a client that does not read its answers."""
        self._pause()

    def resume_writing(self) -> None:
        """Go on with a client that reads again."""
        self._resume()

    # --- httptools ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        client = self._client
        if self._is_ended or client is None:
            raise _Ended
        self._read_requests += 1
        self._request = Request(client)

    def on_url(self, url: bytes) -> None:
        """Take a part of the target, or all of it; of one that is too long, what shows that it is."""
        request = self._request
        if request is not None and len(request.target) <= self._edge.settings.max_path_bytes:
            request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header line; those of a chunked body's trailer are dropped."""
        request = self._request
        if request is not None and not request.has_head:
            request.lines.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide about the request before its body."""
        if (request := self._request) is None:
            return
        edge = self._edge
        parser = self._parser
        assert parser is not None, "it is there until the connection is ended"
        request.has_head = True
        if request.held_bytes:
            request.incomplete_bytes = 0
            edge.clients.change(request.client, -request.held_bytes)
            request.held_bytes = 0
        refusal = request.judge(edge.rules, parser, self._read_bytes)
        if refusal is None and not request.reads_page:
            if request.forwarded_for:
                sender = edge.clients.begin_forwarded(request.forwarded_for)
                request.client = sender or request.client
            refusal = edge.gate.refusal
            if refusal is None and (length := request.length or 0):
                if edge.clients.hold(request.client, length):
                    request.held_bytes = length
                else:
                    refusal = BUSY
        request.refusal = refusal
        if refusal is not None:
            is_long = (request.length or 0) > edge.settings.max_body_bytes
            if refusal.ends_connection or request.expects_continue or is_long:
                self._end(refusal)
        elif request.expects_continue:
            self._send(CONTINUE, keeps_open=True)
        if request.is_chunked and not self._is_ended:
            self._chunks = ChunkedBody()
            raise _ChunksFollow

    def on_body(self, part: bytes) -> None:
        """Take a part of the body, or all of it."""
        request = self._request
        if request is None or self._is_ended:
            return
        edge = self._edge
        size = len(part)
        if request.refusal is not None or request.reads_page:
            request.discarded_bytes += size
            if request.discarded_bytes > edge.settings.max_body_bytes:
                self._end(request.refusal or edge.rules.too_large(answers.BODY_TOO_LARGE))
            return
        request.body_bytes += size
        if request.body_bytes > edge.settings.max_body_bytes:
            self._end(edge.rules.too_large(answers.BODY_TOO_LARGE))
        elif not request.body:
            # Most bodies come in one part, which is kept as it is.
            request.body = part
        elif isinstance(request.body, bytearray):
            request.body += part
        else:
            request.body = bytearray(request.body) + part

    def on_message_complete(self) -> None:
        """Store the ping, or answer: the request is complete."""
        request = self._request
        if request is None or self._is_ended:
            return
        edge = self._edge
        parser = self._parser
        assert parser is not None, "it is there until the connection is ended"
        self.deadline_seconds = edge.now_seconds + edge.settings.keep_alive_seconds
        keeps_open = parser.should_keep_alive() and not edge.is_stopping
        if self._read_requests == PIPELINED_MAX:
            keeps_open = False
            self._lingers = True
            self.deadline_seconds = edge.now_seconds + edge.settings.body_timeout_seconds
        request.keeps_open = keeps_open
        if not keeps_open:
            self._is_ended = True
        if request.refusal is not None or request.reads_page:
            self._forget_request()
            self._answer(
                request.refusal or edge.rules.pages[request.path](),
                keeps_open=keeps_open,
                is_http_10=request.is_http_10,
                without_body=request.method == b"HEAD",
                further_headers=request.cross_origin_headers,
            )
            return
        self._request = None
        self._waiting.append(request)
        body, request.body = request.body, b""
        metadata = b"\n".join(
            (
                b"%d" % (time.time_ns() // 1_000),
                request.method,
                request.path,
                request.query,
                request.protocol,
                self._address,
                request.host,
                *request.fields,
            )
        )
        size = len(metadata) + len(body)
        edge.clients.change(request.client, size - request.held_bytes)
        request.held_bytes = size
        edge.store.submit(self, metadata, body)

    # --- the store ----------------------------------------------------------------------------

    def committed(self, error: OSError | None) -> None:
        """Answer the oldest ping that waits: it is durable, or never will be acknowledged."""
        waiting = self._waiting
        edge = self._edge
        request = waiting.popleft()
        assert isinstance(request, Request), "an answer is sent with the ping before it"
        edge.clients.change(request.client, -request.held_bytes)
        if request.client is not self._client:
            edge.clients.end(request.client)
        keeps_open = request.keeps_open
        counters = edge.counters
        if error is None:
            row = counters.row
            row[_STATUS_200] += 1
            row[_BODY_BYTES] += request.body_bytes
            counters.observe_request(time.perf_counter() - request.began_seconds)
            decided = DURABLE
        else:
            decided = answers.answer_to(error)
            counters.row[FIRST_STATUS[decided.status]] += 1
        if (
            decided is DURABLE
            and keeps_open
            and not request.is_http_10
            and request.cross_origin_headers is edge.rules.cross_origin.default
        ):
            answer = edge.durable_answer
        else:
            answer = decided.render(
                edge.date,
                keeps_open=keeps_open,
                is_http_10=request.is_http_10,
                further_headers=request.cross_origin_headers,
            )
        if (transport := self._transport) is None:
            return
        transport.write(answer)
        if waiting:
            while waiting and isinstance(following := waiting[0], _OwedAnswer):
                waiting.popleft()
                keeps_open = following.keeps_open
                transport.write(following.answer)
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

    def _wait_for_rest(self, request: Request, data: bytes) -> None:
        """Bound the time that an incomplete request has, and what the parser holds and skips of it.

        `data` is the read that ends within it.
        """
        edge = self._edge
        self._left_bytes = None
        if not request.has_head:
            self._head_tail = (self._head_tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
        elif not request.is_chunked:
            self._left_bytes = (request.length or 0) - request.body_bytes - request.discarded_bytes
        # The parser holds an unfinished head, and may hold a line of the trailer that ends a chunked body.
        size = self._read_bytes if not request.has_head or request.is_chunked else 0
        if not request.has_head:
            if not request.has_head_deadline:
                request.has_head_deadline = True
                self.deadline_seconds = edge.now_seconds + edge.settings.head_timeout_seconds
                size += INCOMPLETE_OBJECTS_BYTES
        elif not request.has_body_deadline:
            request.has_body_deadline = True
            self.deadline_seconds = edge.now_seconds + edge.settings.body_timeout_seconds
            size += INCOMPLETE_OBJECTS_BYTES + request.head_bytes()
        refusal = request.refusal_of_rest(edge.rules, self._read_bytes)
        if refusal is None and not edge.clients.hold(request.client, size):
            refusal = (request.has_head and request.refusal) or BUSY
            size = 0
        request.held_bytes += size
        if refusal is not None:
            self._end(refusal)

    def _answer(
        self,
        answer: Answer,
        *,
        keeps_open: bool,
        is_http_10: bool,
        further_headers: str,
        without_body: bool = False,
    ) -> None:
        self._edge.counters.row[FIRST_STATUS[answer.status]] += 1
        self._send(
            answer.render(
                self._edge.date,
                keeps_open=keeps_open,
                is_http_10=is_http_10,
                without_body=without_body,
                further_headers=further_headers,
            ),
            keeps_open=keeps_open,
        )

    def _send(self, answer: bytes, *, keeps_open: bool) -> None:
        """Send an answer behind those that are owed already."""
        if self._waiting:
            self._waiting.append(_OwedAnswer(answer, keeps_open))
        elif self._transport is not None:
            self._transport.write(answer)
            if not keeps_open:
                self._finish()

    def _end(self, answer: Answer) -> None:
        """Answer, and take nothing that follows for a request."""
        self._is_ended = True
        # A client that gets a reset instead of 503 keeps its ping, too: what it sends need not be read.
        self._lingers = answer is not BUSY
        # It may hold a part of a head.
        self._parser = None
        self._chunks = None
        further_headers = self._edge.rules.cross_origin.default
        if (request := self._request) is not None:
            self._discarded_bytes = request.discarded_bytes
            if request.has_head:
                further_headers = request.cross_origin_headers
            self._forget_request()
        self.deadline_seconds = self._edge.now_seconds + self._edge.settings.body_timeout_seconds
        self._answer(answer, keeps_open=False, is_http_10=False, further_headers=further_headers)

    def _finish(self) -> None:
        """Tell the client that the last answer is sent, and wait for it to close the connection.

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

    def _forget_request(self) -> None:
        """Let go of the request that is being read, and of all that is held for it."""
        request, self._request = self._request, None
        if request is None:
            return
        clients = self._edge.clients
        clients.change(request.client, -request.held_bytes)
        if request.client is not self._client:
            clients.end(request.client)

    def _hold_unsent(self) -> None:
        """Count the answers that the client does not read as held; hang up when there is no room for them."""
        transport, client = self._transport, self._client
        if transport is None or client is None:
            return
        size = transport.get_write_buffer_size()
        size += sum(len(owed.answer) for owed in self._waiting if isinstance(owed, _OwedAnswer))
        more = size - self._unsent_bytes
        if more > 0:
            if self._edge.clients.hold(client, more):
                self._unsent_bytes = size
            else:
                self.close_without_answer()

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            if self._client is not None:
                self._edge.clients.change(self._client, -self._unsent_bytes)
                self._unsent_bytes = 0
            self._transport.resume_reading()
