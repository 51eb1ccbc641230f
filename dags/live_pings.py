"""Waiting for pings of today: the operator whose task goes on when `live.pings` has some."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from telemetry_lake.settings import Role

POLL_SECONDS: Final = 5.0
"""How often the table is asked; it answers from its manifests alone."""
WAIT_MAX: Final = timedelta(minutes=10)
"""How long pings are waited for: a new lake has its first ones after some two minutes."""

_log = logging.getLogger(__name__)


class WaitForPings(BaseOperator):
    """Waits until pings of today are in `live.pings`, without a worker; skips what follows if none come."""

    def execute(self, context: object) -> None:  # noqa: ARG002 (Airflow passes it)
        """Go on at once when there are pings, which is the rule."""
        if not has_pings(datetime.now(UTC).date(), Role.JOBS):
            self.defer(
                trigger=PingsArrive((datetime.now(UTC) + WAIT_MAX).isoformat()),
                method_name=self.go_on.__name__,
            )

    def go_on(self, context: object, event: dict[str, Any]) -> None:  # noqa: ARG002 (Airflow passes it)
        """Go on when the trigger found pings."""
        if not event["arrived"]:
            raise AirflowSkipException("no ping arrived today; nothing to make of them")


class PingsArrive(BaseTrigger):
    """Fires when pings of today are in `live.pings`, or at a moment at which it is too late."""

    def __init__(self, until: str) -> None:
        """`until` is the moment, in ISO 8601."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments."""
        return (f"{type(self).__module__}.{type(self).__qualname__}", {"until": self._until})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask again and again; an outage of the catalog is waited out."""
        until = datetime.fromisoformat(self._until)
        arrived = False
        while not arrived and datetime.now(UTC) < until:
            await asyncio.sleep(POLL_SECONDS)
            try:
                arrived = await asyncio.to_thread(has_pings, datetime.now(UTC).date(), Role.DOORBELL)
            except Exception as error:  # noqa: BLE001  after any error: the trigger's end would fail the run
                _log.warning("live.pings does not say which pings it has, asking again: %s", error)
        yield TriggerEvent({"arrived": arrived})  # type: ignore[no-untyped-call]


def has_pings(day: date, role: Role) -> bool:
    """Return whether `live.pings` has pings of a submission date, by its manifests, asked as `role`."""
    from telemetry_lake.columns import SUBMISSION_DATE
    from telemetry_lake.settings import load_settings
    from telemetry_lake.tables.catalog import load_lake_catalog
    from telemetry_lake.tables.definitions import LIVE_PINGS
    from telemetry_lake.tables.files import READ_ONLY_FILE_IO

    catalog = load_lake_catalog(load_settings(role=role), file_io=READ_ONLY_FILE_IO)
    of_day = catalog.load_table(LIVE_PINGS).scan(f"{SUBMISSION_DATE} = '{day.isoformat()}'")
    return any(True for _ in of_day.plan_files())
