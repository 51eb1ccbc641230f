"""What the tasks of the drain share: how often they are tried, and the core's drain to call."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk.exceptions import AirflowFailException

from telemetry_lake.failures import FatalError

if TYPE_CHECKING:
    from telemetry_lake.drain import Drain

PATIENT: Final[dict[str, Any]] = {
    # pyiceberg waits for an answer of a REST catalog for ever.
    "execution_timeout": timedelta(minutes=20),
    "retries": 4,
    "retry_delay": timedelta(seconds=2),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=1),
}
"""Four more tries within about half a minute; what lasts longer is left to the next run."""


@contextmanager
def lake_drain() -> Iterator["Drain"]:
    """The drain of this machine's settings.

    A task in which it meets a fatal error fails at once: trying again could not help.
    """
    from telemetry_lake.drain import Drain
    from telemetry_lake.settings import load_settings

    try:
        yield Drain(load_settings())
    except FatalError as error:
        raise AirflowFailException(str(error)) from error
