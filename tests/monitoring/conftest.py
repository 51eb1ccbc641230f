"""A lake whose volumes are simulated, and a mail server and a web hook that keep what they get."""

import threading
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from lake_testing.stack import free_ports
from lake_testing.tabled_lakes import tabled_lake
from telemetry_lake.settings import AnomalySettings, MailSecurity, MailSettings, Settings, WebhookSettings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog

__all__ = ["tabled_lake"]

PAGES = "https://lake.example.org"


class Mails:
    """A mail server's other end: keeps what comes, and answers as it is told to."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.answers: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's name)
        if self.answers:
            return self.answers.pop(0)
        self.received.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"


class Hook(BaseHTTPRequestHandler):
    """A web hook that keeps what it is sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.headers["Idempotency-Key"], body))  # type: ignore[attr-defined]
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def mails() -> Iterator[tuple[Mails, MailSettings]]:
    """A mail server on loopback, and the settings to reach it."""
    mails, port = Mails(), free_ports(1)
    server = Controller(mails, hostname="127.0.0.1", port=port)
    server.start()
    settings = MailSettings(
        host="127.0.0.1",
        port=port,
        security=MailSecurity.NONE,
        sender="lake@example.org",
        max_attempts=1,
        retry_wait_seconds=0,
    )
    yield mails, settings
    server.stop()


@pytest.fixture
def hook() -> Iterator[Any]:
    """A web hook on loopback."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.received = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def watched(lake_settings: Settings, mails: tuple[Mails, MailSettings], hook: Any) -> Settings:
    """The settings of a new lake with all tables, whose anomalies are mailed and called."""
    create_tables(load_lake_catalog(lake_settings))
    url = f"http://127.0.0.1:{hook.server_address[1]}/secret"
    return lake_settings.model_copy(
        update={
            "mail": mails[1],
            "webhooks": WebhookSettings(max_attempts=1, retry_wait_seconds=0),
            "anomalies": AnomalySettings(mails=("ann@example.org", "bob@example.org"), webhooks=(url,)),
            "web": lake_settings.web.model_copy(update={"public_url": PAGES}),
        }
    )
