"""One HTTP/1.1 connection of a client: a request at a time, kept open as long as the server allows.

`httptools` (llhttp, the parser of Node.js) reads the answers. A general HTTP client takes several times the
processor time of this, which the benchmarks would then measure instead of the server.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import httptools


class Connection(asyncio.Protocol):
    """Calls `answered(connection, status)` after each answer, and `lost(connection)` once it is closed."""

    def __init__(
        self, answered: Callable[["Connection", int], None], lost: Callable[["Connection"], None]
    ) -> None:
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self.is_open = False

    def send(self, head: bytes, body: bytes) -> None:
        """Write one request; the connection must be open and the answer before it must have come."""
        self._transport.writelines((head, body))

    def abort(self) -> None:
        """Close at once, whatever is in flight."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # Not HTTP: to a client that is the same as no answer.
            self.abort()

    def on_message_complete(self) -> None:
        """Called by the parser at the end of an answer."""
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK:
            return  # 100 Continue and its like: the answer is still to come
        if not self._parser.should_keep_alive():
            self.is_open = False
            self._transport.close()
        else:
            self._parser = httptools.HttpResponseParser(self)
        self._answered(self, status)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        """Called by the event loop."""
        self.is_open = False
        self._lost(self)
