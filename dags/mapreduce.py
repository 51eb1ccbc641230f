"""# Map-reduce

Runs a script over the pings. Most runs are those of jobs of the analysis service, which starts them and shows
them. Or trigger this DAG and fill in the form: `docs/mapreduce.md` says how a script is written,
`docs/mapreduce_form.md` what each field of the form means.

**Steps** `prepare` checks what was asked for, the script and the filter, and copies them into the lake
bucket; `run` is the job; `output` says where its result is, how it begins, and links to it.

**Repeated** With a schedule other than *once* the run takes place now, for the dates of the form, and a job
of the analysis service repeats it for each day, week (from Monday) or month that ends.

**Red?** The last lines of the red task's log say what is wrong and what to do. A run that failed, was stopped
or took too long has no output: it appears all at once or not at all. How it ended is kept: to run a job
again, do so in the analysis service.

**Who may trigger this DAG can run any code**: on this machine in a sandbox, if bubblewrap is installed, and
on EMR with the rights of its role. `docs/sandbox.md` says what that code can reach.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink, Param, XComArg, dag, task
from airflow.sdk.exceptions import AirflowFailException

from dags.owners import ANALYSIS_SERVICE
from dags.spark_job import spark_job
from dags.spark_operator import TimeLimitReached
from telemetry_lake.mapreduce.form import TIME_LIMIT_MAX_MINUTES, form_fields
from telemetry_lake.settings import Role, load_settings

LONGEST = timedelta(minutes=TIME_LIMIT_MAX_MINUTES)


class OutputLink(BaseOperatorLink):
    """Leads from the page of the run to its output."""

    name = "Output"

    def get_link(self, operator: BaseOperator, *, ti_key: object) -> str:  # noqa: ARG002 (Airflow passes it)
        """Return the link of an `Output` that found one; Airflow asks in the task's process, at its end."""
        return operator.link if isinstance(operator, Output) else ""


class ServiceLink(BaseOperatorLink):
    """Leads from the page of the run to its page in the analysis service."""

    name = "Analysis service"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002 (Airflow passes it)
        """Return the link; empty when the settings do not say where the service is."""
        from telemetry_lake.analysis_jobs.run import page_in_service

        return page_in_service(load_settings().analysis, ti_key.run_id) or ""


class Output(BaseOperator):
    """Logs where the output is and how it begins, links to it, and records that the run succeeded."""

    template_fields = ("place",)
    operator_extra_links = (OutputLink(), ServiceLink())

    def __init__(self, *, place: str | XComArg, **operator: Any) -> None:
        super().__init__(**operator)
        self.place = place
        self.link = ""
        """Empty until the output is found, so that a run that failed links to nothing."""

    def execute(self, context: Any) -> str:
        """Log the summary of the output.

        Returns the place of the output.
        """
        from telemetry_lake.mapreduce.requests import output_link, output_summary

        settings, place = load_settings(role=Role.ANALYST), str(self.place)
        self.log.info("%s", output_summary(settings, place))
        self.link = output_link(settings, place)
        _record_end(context, "success")
        return place


def record_failure(context: Any) -> None:
    """Record why a run failed; Airflow calls this when a task of it has failed for the last time."""
    error = context.get("exception")
    _record_end(context, "timed out" if isinstance(error, TimeLimitReached) else "failed", str(error or ""))


def _record_end(context: Any, state: str, error: str | None = None) -> None:
    from datetime import UTC, datetime

    from telemetry_lake.analysis_jobs.documents import RunState
    from telemetry_lake.analysis_jobs.prepare import record_end

    started_at = getattr(context["dag_run"], "start_date", None)
    record_end(
        load_settings(role=Role.ANALYSES),
        context["run_id"],
        RunState(state),
        now=datetime.now(UTC),
        started_at=started_at,
        error=error or None,
    )


@task(multiple_outputs=True, retries=2, retry_delay=timedelta(seconds=10))
def prepare(params: Any = None, dag_run: Any = None) -> dict[str, Any]:
    """Check what was asked for, script and filter, and copy what the job needs into the lake bucket."""
    import logging
    from datetime import UTC, datetime

    from telemetry_lake.analysis_jobs.prepare import prepare
    from telemetry_lake.analysis_jobs.run import page_in_service
    from telemetry_lake.failures import FatalError

    settings, asked_by = load_settings(role=Role.ANALYSES), getattr(dag_run, "triggering_user_name", None)
    if page := page_in_service(settings.analysis, dag_run.run_id):
        logging.getLogger(__name__).info("this run in the analysis service: %s", page)
    try:
        prepared = prepare(settings, dag_run.run_id, params, asked_by, now=datetime.now(UTC))
    except FatalError as error:
        raise AirflowFailException(str(error)) from error
    return prepared.model_dump(mode="json")


@dag(
    dag_display_name="Map-reduce",
    schedule=None,
    max_active_runs=4,
    is_paused_upon_creation=False,
    doc_md=__doc__,
    tags=["analysts", "spark"],
    default_args={"owner": ANALYSIS_SERVICE, "on_failure_callback": record_failure},
    params={name: Param(**schema) for name, schema in form_fields().items()},
)
def mapreduce() -> None:
    """Prepare the run, run the job, then show the output."""
    prepared: Any = prepare()
    run = spark_job(
        "run",
        "jobs.mapreduce",
        prepared["arguments"],
        execution_timeout=LONGEST,
        time_limit_minutes=prepared["time_limit_minutes"],
        workers=prepared["workers"],
        keep_log=True,
    )
    run >> Output(task_id="output", place=prepared["output"])


mapreduce()
