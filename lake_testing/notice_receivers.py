"""A mail server and a web hook on loopback that keep what they get, and answer as they are told to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

from aiosmtpd.controller import Controller

from lake_testing.stack import free_ports
from local_stack.program import LOOPBACK

REFUSED_MAILBOX: Final = "nobody@example.org"
REDIRECTED_TO: Final = "http://169.254.169.254/"
"""Where a web hook sends who follows redirects: the place of the keys of machines in the cloud."""
OK: Final = "250 OK"


class Mails:
    """What a mail server got; `answers` come before it takes a mail again."""

    def __init__(self) -> None:
        self.received: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        """Of each mail."""
        self.encrypted: list[bool] = []
        """Whether each mail came over TLS."""
        self.answers: list[str] = []

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        """Take every recipient but one."""
        if address == REFUSED_MAILBOX:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return OK

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's name)
        """Keep a mail."""
        if self.answers:
            return self.answers.pop(0)
        message = message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.received.append(message)
        self.recipients.append(envelope.rcpt_tos)
        self.encrypted.append(session.ssl is not None)
        return OK


@contextmanager
def running_mail_server(mails: Mails, **options: Any) -> Iterator[int]:
    """Run a mail server that gives what it gets to `mails`; `options` are aiosmtpd's. Yields its port."""
    server = Controller(mails, hostname=LOOPBACK, port=free_ports(1), **options)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


class Call(NamedTuple):
    """One call of a web hook."""

    path: str
    idempotency_key: str | None
    body: bytes


class Hook:
    """A running web hook: what it got, and the statuses that it answers before it takes calls again."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self.received: list[Call] = []
        self.answers: list[HTTPStatus] = []


@contextmanager
def running_hook() -> Iterator[Hook]:
    """Run a web hook."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.received.append(Call(self.path, self.headers["Idempotency-Key"], body))
            self.send_response(hook.answers.pop(0) if hook.answers else HTTPStatus.NO_CONTENT)
            self.send_header("Location", REDIRECTED_TO)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (http.server's name)
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    hook = Hook(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
