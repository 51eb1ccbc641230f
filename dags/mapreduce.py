"""# Map-reduce

Runs a script over the pings: trigger it and fill in the form. `docs/mapreduce.md` says how a script is
written, `docs/mapreduce_form.md` what each field of the form means.

**Steps** `prepare` checks the form, the script and the filter, and copies them into the lake bucket; `run` is
the job; `output` says where its result is, how it begins, and links to it.

**Repeated** With a schedule other than *once* the run takes place now, for the dates of the form, and is then
repeated for each day, week (from Monday) or month that ends: see *Scheduled analyses*, which also removes it.

**Red?** The last lines of the red task's log say what is wrong and what to do. A run that failed, was stopped
or took too long has no output: it appears all at once or not at all. Clearing the run starts it again.

**Who may trigger this DAG can run any code with the rights of the Spark jobs.** Give that to analysts only.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

from dags.spark_job import spark_job

DATE = r"(\d{4}-\d{2}-\d{2}|today|yesterday)"
LONGEST = timedelta(hours=24)


class OutputLink(BaseOperatorLink):
    """From the page of the run to its output."""

    name = "Output"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 (Airflow passes it)
        """The link that the task has made."""
        return getattr(operator, "link", "")


class Output(BaseOperator):
    """Says where the output of a run is, how it begins, and links to it."""

    template_fields = ("place",)
    operator_extra_links = (OutputLink(),)

    def __init__(self, *, place: Any, **operator: Any) -> None:
        super().__init__(**operator)
        self.place = place
        self.link = ""

    def execute(self, context: Any) -> str:  # noqa: ARG002 (Airflow passes it)
        """The place of the output."""
        from telemetry_lake.analysis_runs import output_link, output_summary
        from telemetry_lake.settings import load_settings

        settings = load_settings()
        self.log.info("%s", output_summary(settings, self.place))
        self.link = output_link(settings, self.place)
        return str(self.place)


@task(multiple_outputs=True, retries=2, retry_delay=timedelta(seconds=10))
def prepare(params: Any = None, dag_run: Any = None) -> dict[str, Any]:
    """Check the form, the script and the filter, and copy what the job needs into the lake bucket."""
    from datetime import UTC, datetime

    from telemetry_lake import scheduled_analyses
    from telemetry_lake.analysis_runs import Schedule, prepare_run, read_request
    from telemetry_lake.failures import FatalError
    from telemetry_lake.object_store import ObjectStore
    from telemetry_lake.settings import load_settings

    settings = load_settings()
    try:
        request = read_request(params)
        prepared = prepare_run(settings, request, dag_run.run_id)
        if request.schedule is not Schedule.ONCE:
            store, today = ObjectStore(settings.s3), datetime.now(UTC).date()
            bucket = settings.s3.lake_bucket
            scheduled_analyses.save(store, bucket, request, prepared, dag_run.run_id, today)
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
    params={
        "script": Param(
            None,
            type=["null", "string"],
            pattern=r"^(s3://[^/]+/.+|/.+)\.py$",
            title="Script",
            description="Where it is: s3://bucket/folder/script.py, or a path on the Airflow worker. "
            "The modules beside it that it imports come along.",
        ),
        "script_text": Param(
            None,
            type=["null", "string"],
            format="multiline",
            maxLength=1024 * 1024,
            title="or its text",
            description="Paste a script here instead: def map(key, dimensions, value, context): …",
        ),
        "filter": Param(
            None,
            type=["null", "string"],
            format="multiline",
            maxLength=1024 * 1024,
            title="Filter",
            description="A filter document, or s3:// where it is. Without one, every ping.",
        ),
        "table": Param(
            "stable",
            type="string",
            enum=["stable", "live"],
            title="Table",
            description="stable: each ping once, up to yesterday. live: minutes fresh, repetitions included.",
        ),
        "dates": Param(
            "yesterday",
            type=["null", "string"],
            pattern=rf"^{DATE}(\.\.{DATE})?$",
            title="Submission dates (UTC)",
            description="FIRST..LAST, both included, or one date: YYYY-MM-DD, today or yesterday. "
            "Runs of a schedule take the day, week or month that has ended.",
        ),
        "sample": Param(
            100,
            type="integer",
            minimum=1,
            maximum=100,
            title="Sample (percent of clients)",
            description="Always the same clients.",
        ),
        "format": Param("text", type="string", enum=["text", "csv", "parquet"], title="Format of the output"),
        "output": Param(
            None,
            type=["null", "string"],
            pattern=r"^(s3://[^/]+/.+|/.+)$",
            title="Output",
            description="s3://bucket/key. Empty: a place of this run's own in the lake bucket.",
        ),
        "num_reducers": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=1_000,
            title="Reducers",
            description="Empty: as many as the data needs. The output is the same.",
        ),
        "workers": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=100,
            title="Cluster size",
            description="Machines of a cluster, or executors of EMR Serverless. Empty: as the settings say. "
            "A job on one machine takes its cores.",
        ),
        "time_limit_minutes": Param(
            60,
            type="integer",
            minimum=1,
            maximum=int(LONGEST.total_seconds() // 60),
            title="Time limit (minutes)",
            description="The job is stopped after that, without an output.",
        ),
        "schedule": Param(
            "once",
            type="string",
            enum=["once", "daily", "weekly", "monthly"],
            title="Schedule",
            description="Other than once: this run now, then one for each day, week or month that ends.",
        ),
        "name": Param(
            None,
            type=["null", "string"],
            pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
            title="Name",
            description="For a schedule: small letters, digits, - and _.",
        ),
    },
)
def mapreduce() -> None:
    """The order of the steps."""
    prepared: Any = prepare()
    run = spark_job(
        "run",
        "jobs.mapreduce",
        prepared["arguments"],
        execution_timeout=LONGEST,
        time_limit_minutes=prepared["time_limit_minutes"],
        workers=prepared["workers"],
    )
    run >> Output(task_id="output", place=prepared["output"])


mapreduce()
