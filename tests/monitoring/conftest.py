"""A lake whose volumes are simulated, and a mail server and a web hook that keep what they get."""

from collections.abc import Iterator

import pytest

from lake_testing.notice_receivers import Hook, Mails, running_hook, running_mail_server
from lake_testing.tabled_lakes import tabled_lake
from local_stack.program import LOOPBACK
from telemetry_lake.settings import AnomalySettings, MailSecurity, MailSettings, Settings, WebhookSettings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog

__all__ = ["tabled_lake"]

PAGES = "https://lake.example.org"


@pytest.fixture
def mails() -> Iterator[tuple[Mails, MailSettings]]:
    """A mail server on loopback, and the settings to reach it."""
    mails = Mails()
    with running_mail_server(mails) as port:
        settings = MailSettings(
            host=LOOPBACK,
            port=port,
            security=MailSecurity.NONE,
            sender="lake@example.org",
            max_attempts=1,
            retry_wait_seconds=0,
        )
        yield mails, settings


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A web hook on loopback."""
    with running_hook() as hook:
        yield hook


@pytest.fixture
def watched(lake_settings: Settings, mails: tuple[Mails, MailSettings], hook: Hook) -> Settings:
    """The settings of a new lake with all tables, whose anomalies are mailed and called."""
    create_tables(load_lake_catalog(lake_settings))
    url = f"{hook.url}/secret"
    return lake_settings.model_copy(
        update={
            "mail": mails[1],
            "webhooks": WebhookSettings(max_attempts=1, retry_wait_seconds=0),
            "anomalies": AnomalySettings(mails=("ann@example.org", "bob@example.org"), webhooks=(url,)),
            "web": lake_settings.web.model_copy(update={"public_url": PAGES}),
        }
    )
