"""What the operators that run Spark jobs have in common, wherever they run them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.exceptions import AirflowException

Templated = str | XComArg
SCRIPTED: Final = "jobs.mapreduce"
"""The job that runs the code of analysts: on one machine in a box, on EMR apart from the lake's own jobs."""
KILL_AFTER_SECONDS: Final = 30
"""How long a process may take to end once its time is up."""
TEMPLATE_FIELDS: Final = ("arguments", "time_limit_minutes", "workers")


class TimeLimitReached(AirflowException):
    """A job did not end in time, and was ended."""


def limit_seconds(time_limit: timedelta, minutes: object) -> int:
    """Return the time limit of a run in seconds: `minutes` if there are any, but at most `time_limit`."""
    longest = int(time_limit.total_seconds())
    return longest if minutes in (None, "", "None") else min(longest, int(str(minutes)) * 60)


class SparkJob(BaseOperator):
    """Runs a job: the first base class of every operator that does."""

    template_fields: Sequence[str] = TEMPLATE_FIELDS

    def __init__(
        self,
        *,
        module: str,
        arguments: list[str] | XComArg,
        time_limit: timedelta,
        time_limit_minutes: Templated | None,
        workers: Templated | None,
        **operator: Any,
    ) -> None:
        super().__init__(**operator)
        self.module = module
        self.arguments: Any = arguments
        self.time_limit = time_limit
        self.time_limit_minutes = time_limit_minutes
        self.workers = workers
