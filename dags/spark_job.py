"""How a DAG runs one of the programs in `jobs/`: the one place that decides where.

The settings say where (`TELEMETRY_LAKE_SPARK__RUN_ON`): as a process on the worker's machine, in an EMR
Serverless application, or on an EMR cluster that is made for the job and ends with it. The program, its
arguments and its time limit are the same everywhere. docs/emr.md says what to set.
"""

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.exceptions import AirflowException

from telemetry_lake.settings import PROJECT_ROOT, RunOn, load_settings

Templated = str | XComArg
KILL_AFTER_SECONDS: Final = 30
"""How long a process may take to end once its time is up."""
TIMED_OUT: Final = 124
"""The exit status of `timeout` when it had to end its command."""
TEMPLATE_FIELDS: Final = ("arguments", "time_limit_minutes", "workers")


def spark_job(
    task_id: str,
    module: str,
    arguments: Sequence[str] | XComArg,
    *,
    execution_timeout: timedelta,
    time_limit_minutes: Templated | None = None,
    workers: Templated | None = None,
) -> BaseOperator:
    """A task that runs the program `module`, for example `jobs.count_pings`, with these arguments.

    `execution_timeout` is the longest it may run; `time_limit_minutes` may make it shorter for one run, and
    `workers` says on how many machines of a cluster, or executors of EMR Serverless, instead of what the
    settings say. Arguments and these two may be Jinja templates or come from another task.

    Raises ConfigurationError when the settings are wrong.
    """
    request: dict[str, Any] = {
        "task_id": task_id,
        "module": module,
        "arguments": arguments if isinstance(arguments, XComArg) else list(arguments),
        "time_limit": execution_timeout,
        "time_limit_minutes": time_limit_minutes,
        "workers": workers,
    }
    # Airflow's provider for AWS takes seconds to import: only where it is needed, as DAGs are parsed often.
    match load_settings().spark.run_on:
        case RunOn.LOCAL:
            return LocalJob(**request)
        case RunOn.EMR_SERVERLESS:
            from dags.emr import ServerlessJob

            return ServerlessJob(**request)
        case RunOn.EMR_CLUSTER:
            from dags.emr import ClusterJob

            return ClusterJob(**request)


def limit_seconds(time_limit: timedelta, minutes: object) -> int:
    """The time limit of one run in seconds: `minutes`, when something is given, but at most `time_limit`."""
    longest = int(time_limit.total_seconds())
    return longest if minutes in (None, "", "None") else min(longest, int(str(minutes)) * 60)


class SparkJob(BaseOperator):
    """What runs a job, wherever: the first of the base classes of each operator here."""

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


class LocalJob(SparkJob):
    """Runs a job as a process of its own on this machine.

    It has the worker's environment, and with it the lake's settings. What it prints is the task's log, and
    its exit status decides. A task that is stopped or takes too long takes the whole process group with it,
    and a job whose worker was killed still ends when its time is up.
    """

    def __init__(self, *, time_limit: timedelta, **request: Any) -> None:
        # Airflow's own limit comes last, for a process that does not end when it should.
        spare = timedelta(seconds=2 * KILL_AFTER_SECONDS)
        super().__init__(time_limit=time_limit, execution_timeout=time_limit + spare, **request)
        self._process = SubprocessHook()

    def execute(self, context: Any) -> str:  # noqa: ARG002 (Airflow passes it)
        """Run the job; the last line that it printed."""
        seconds = limit_seconds(self.time_limit, self.time_limit_minutes)
        # A list and no shell: arguments come from a form.
        done = self._process.run_command(
            [
                *("timeout", f"--kill-after={KILL_AFTER_SECONDS}", str(seconds)),
                *(sys.executable, "-m", self.module, *map(str, self.arguments)),
            ],
            cwd=str(PROJECT_ROOT),
        )
        if done.exit_code == TIMED_OUT:
            raise AirflowException(f"{self.module} took longer than its limit of {seconds} seconds")
        if done.exit_code != 0:
            last_words = done.output or "it printed nothing"
            raise AirflowException(f"{self.module} ended with exit status {done.exit_code}: {last_words}")
        return str(done.output)

    def on_kill(self) -> None:
        """End the process and all that it started."""
        self._process.send_sigterm()  # type: ignore[no-untyped-call]
