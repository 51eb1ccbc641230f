"""Pings of two channels that arrive at the same rate for weeks, as rows of the lake's tables."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from lake_testing.sample_rows import sample_rows
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, PING_VOLUMES

CHANNELS: Final = {"release": 3, "beta": 1}
"""Pings a minute."""
HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)


def count_hours(settings: Settings, until: datetime) -> None:
    """Write down nine weeks of the same volumes, as the job Ping volumes would."""
    rows = [
        {
            "submission_date": (until - number * HOUR).date(),
            "submission_hour": until - number * HOUR,
            "namespace": "telemetry",
            "document_type": "main",
            "app_update_channel": channel,
            "error_type": None,
            "pings": pings * 60,
            "bytes": 1,
        }
        for number in range(9 * 7 * 24 + 48)
        for channel, pings in CHANNELS.items()
    ]
    load_lake_catalog(settings).load_table(PING_VOLUMES).append(sample_rows(PING_VOLUMES, rows))


def receive(settings: Settings, first: datetime, end: datetime, channels: Iterable[str] = CHANNELS) -> None:
    """Put pings into live.pings, as many each minute as there always are."""
    rows = [
        {
            "submission_date": at.date(),
            "submission_timestamp": at,
            "namespace": "telemetry",
            "document_type": "main",
            "app_update_channel": channel,
        }
        for minute in range((end - first) // MINUTE)
        for channel in channels
        for at in [first + minute * MINUTE] * CHANNELS[channel]
    ]
    load_lake_catalog(settings).load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, rows))
