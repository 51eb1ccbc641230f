"""How a DAG runs one of the programs in `jobs/`: the one place that decides where.

The settings say where (`TELEMETRY_LAKE_SPARK__RUN_ON`): as a process on the worker's machine, in an EMR
Serverless application, or on an EMR cluster that is made for the job and ends with it. The program, its
arguments and its time limit are the same everywhere. docs/emr.md says what to set.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.assets import assets
from dags.job_process import JobProcess
from dags.spark_operator import (
    KILL_AFTER_SECONDS,
    SCRIPTED,
    SparkJob,
    Templated,
    TimeLimitReached,
    limit_seconds,
)
from telemetry_lake.deploy.airflow_database import JOBS_POOL
from telemetry_lake.failures import REFUSED_EXIT_STATUS
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role, RunOn, load_settings

BOX: Final = "telemetry_lake.analysis_jobs.sandbox.boxed_run"
TIMED_OUT: Final = 124
"""The exit status of `timeout` when it had to end its command."""


def spark_job(
    task_id: str,
    module: str,
    arguments: Sequence[str] | XComArg,
    *,
    execution_timeout: timedelta,
    time_limit_minutes: Templated | None = None,
    workers: Templated | None = None,
    keep_log: bool = False,
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
) -> BaseOperator:
    """Return a task that runs the program `module`, for example `jobs.count_pings`, with these arguments.

    `execution_timeout` is the longest it may run; `time_limit_minutes` may make it shorter for one run, and
    `workers` says on how many machines of a cluster, or executors of EMR Serverless, instead of what the
    settings say. Arguments and these two may be Jinja templates or come from another task. With `keep_log`,
    what a job on this machine prints is also kept in the lake bucket, as the log of the run. The job `reads`
    and `writes` the assets of these names.

    Raises ConfigurationError when the settings are wrong, or there is no such asset.
    """
    request: dict[str, Any] = {
        "task_id": task_id,
        "module": module,
        "arguments": arguments if isinstance(arguments, XComArg) else list(arguments),
        "time_limit": execution_timeout,
        "time_limit_minutes": time_limit_minutes,
        "workers": workers,
        "inlets": assets(*reads),
        "outlets": assets(*writes),
    }
    # Airflow's provider for AWS takes seconds to import: only where it is needed, as DAGs are parsed often.
    match load_settings().spark.run_on:
        case RunOn.LOCAL:
            return LocalJob(**request, keep_log=keep_log)
        case RunOn.EMR_SERVERLESS:
            from dags.emr import ServerlessJob

            return ServerlessJob(**request)
        case RunOn.EMR_CLUSTER:
            from dags.emr import ClusterJob

            return ClusterJob(**request)


def local_job(
    task_id: str,
    module: str,
    arguments: Sequence[str],
    *,
    execution_timeout: timedelta,
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
) -> BaseOperator:
    """Return a task that runs a program that needs no Spark, always on this machine; see `spark_job`."""
    return LocalJob(
        task_id=task_id,
        module=module,
        arguments=list(arguments),
        time_limit=execution_timeout,
        time_limit_minutes=None,
        workers=None,
        inlets=assets(*reads),
        outlets=assets(*writes),
    )


class LocalJob(SparkJob):
    """Runs a job as a process of its own on this machine.

    It has the worker's environment, and with it the lake's settings. What it prints is the task's log, and
    its exit status decides. A task that is stopped or takes too long takes the whole process group with it,
    and a job whose worker was killed still ends when its time is up.
    """

    def __init__(self, *, time_limit: timedelta, keep_log: bool = False, **request: Any) -> None:
        # Airflow's own limit comes last, for a process that does not end when it should.
        spare = timedelta(seconds=2 * KILL_AFTER_SECONDS)
        super().__init__(
            time_limit=time_limit, execution_timeout=time_limit + spare, pool=JOBS_POOL, **request
        )
        self.keep_log = keep_log
        self._process = JobProcess()

    def execute(self, context: Any) -> str:
        """Run the job, and return the last line that it printed."""
        seconds = limit_seconds(self.time_limit, self.time_limit_minutes)
        # A list and no shell: arguments come from a form.
        command = [
            *(sys.executable, "-m", "jobs.giving_way", str(load_settings().spark.local_niceness)),
            *("timeout", f"--kill-after={KILL_AFTER_SECONDS}", str(seconds)),
            *(sys.executable, "-m", *((BOX,) if self.module == SCRIPTED else ()), self.module),
            *map(str, self.arguments),
        ]
        with self._shown(context) as shown:
            status, last_line = self._process.run(command, PROJECT_ROOT, shown)
        if status == TIMED_OUT:
            raise TimeLimitReached(f"{self.module} took longer than its limit of {seconds} seconds")
        if status == REFUSED_EXIT_STATUS:
            raise AirflowFailException(f"{self.module}: {last_line}")
        if status != 0:
            reason = last_line or "it printed nothing"
            raise AirflowException(f"{self.module} ended with exit status {status}: {reason}")
        return last_line

    @contextmanager
    def _shown(self, context: Any) -> Iterator[Callable[[str], bool]]:
        """Yield what takes the lines that the job prints, and says which of them are for the task's log."""
        if not self.keep_log:
            yield lambda line: True  # noqa: ARG005 (each of them)
            return
        from telemetry_lake.analysis_jobs.run_log import RunLog
        from telemetry_lake.storage.object_store import ObjectStore

        settings = load_settings(role=Role.ANALYSES)
        with RunLog(ObjectStore(settings.s3), settings.s3.lake_bucket, context["run_id"]) as log:
            yield log.add

    def on_kill(self) -> None:
        """End the process and all that it started."""
        self._process.end()
