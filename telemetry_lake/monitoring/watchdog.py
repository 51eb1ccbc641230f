"""The outer watcher: whether the alarm that always fires has reached Alertmanager, asked from elsewhere.

Prometheus says to Alertmanager until when an alert holds, a few minutes ahead, and says it again meanwhile.
So an alert that has not ended proves that Prometheus lives, evaluates its rules and reaches Alertmanager.
"""

from typing import Final

import httpx

from telemetry_lake.failures import FatalError
from telemetry_lake.monitoring.rules import RUNBOOKS

WATCHDOG: Final = "Watchdog"
TIMEOUT_SECONDS: Final = 10.0


class WatchersSilent(FatalError):
    """Nothing would be told of alarms: Prometheus or Alertmanager does not do its work."""


def check_watchdog(alertmanager_url: str) -> None:
    """Return when Alertmanager has heard of the watchdog lately; raises WatchersSilent."""
    where = f"see {RUNBOOKS}#{WATCHDOG.lower()}"
    try:
        with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            answer = client.get(
                f"{alertmanager_url.rstrip('/')}/api/v2/alerts",
                params={"filter": f'alertname="{WATCHDOG}"', "active": "true"},
            )
            answer.raise_for_status()
            alerts = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise WatchersSilent(
            f"Alertmanager does not answer at {alertmanager_url}: {error!r}; {where}"
        ) from error
    if not alerts:
        raise WatchersSilent(
            f"Alertmanager at {alertmanager_url} has not heard of {WATCHDOG} lately: Prometheus is down, or "
            f"does not reach it; {where}"
        )
