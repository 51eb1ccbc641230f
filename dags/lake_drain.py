"""What the tasks of the drain share: how often they are tried, and the connections to the lake."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk.exceptions import AirflowFailException

from dags.owners import OPERATORS
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import Role

if TYPE_CHECKING:
    from telemetry_lake.drain.connections import LakeConnections

PATIENT: Final[dict[str, Any]] = {
    "owner": OPERATORS,
    # pyiceberg waits without a limit for an answer of a REST catalog.
    "execution_timeout": timedelta(minutes=20),
    "retries": 4,
    "retry_delay": timedelta(seconds=2),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=1),
}
"""Four more tries within about half a minute; what lasts longer is left to the next run."""


def time_limit(limit: timedelta) -> Callable[[], bool]:
    """Return a function that says whether this long has passed since now."""
    ends = time.monotonic() + limit.total_seconds()
    return lambda: time.monotonic() > ends


@contextmanager
def lake_connections(role: Role = Role.DRAIN) -> Iterator["LakeConnections"]:
    """Give a task that acts as `role` the connections of this machine's settings.

    A task in which a fatal error is raised fails at once: trying again could not help.
    """
    from telemetry_lake.drain.connections import LakeConnections
    from telemetry_lake.settings import load_settings
    from telemetry_lake.tables.catalog_failures import catalog_failures

    try:
        with catalog_failures("using the Iceberg catalog"):
            yield LakeConnections(load_settings(role=role))
    except FatalError as error:
        raise AirflowFailException(str(error)) from error
