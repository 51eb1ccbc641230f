"""# Scheduled analyses

Starts the analyses that the form of *Map-reduce* was asked to repeat: each for the day, week (from Monday) or
month that has ended, as a run of *Map-reduce* of its own. A run that is there already is not started again;
days without a scheduler are made up for.

**When** Every day at 06:00 UTC, when the stable table has the pings of the day before.

**What is there?** The log of `due` lists all of them.

**Remove one** Trigger this DAG with its name. What it has made stays.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowFailException


@task(retries=2, retry_delay=timedelta(minutes=1))
def due(params: Any = None) -> list[dict[str, Any]]:
    """Remove what the form names, list what is there, and say which runs are to be started."""
    import logging
    from datetime import UTC, datetime

    from telemetry_lake.failures import FatalError
    from telemetry_lake.object_store import ObjectStore
    from telemetry_lake.scheduled_analyses import due_runs, remove, scheduled
    from telemetry_lake.settings import load_settings

    settings = load_settings()
    store, bucket = ObjectStore(settings.s3), settings.s3.lake_bucket
    try:
        if params["remove"]:
            remove(store, bucket, params["remove"])
    except FatalError as error:
        raise AirflowFailException(str(error)) from error
    log = logging.getLogger(__name__)
    for analysis in scheduled(store, bucket):
        log.info("%s: %s since %s", analysis.name, analysis.request.schedule, analysis.created)
    runs = due_runs(store, bucket, datetime.now(UTC).date())
    log.info("to be started: %s", ", ".join(run.run_id for run in runs) or "nothing")
    return [{"trigger_run_id": run.run_id, "conf": run.form} for run in runs]


@task(trigger_rule=TriggerRule.NONE_FAILED)
def record(started: list[dict[str, Any]]) -> None:
    """Note that the runs were started, so that they are not due tomorrow."""
    from datetime import UTC, datetime

    from telemetry_lake.object_store import ObjectStore
    from telemetry_lake.scheduled_analyses import due_runs, record_started
    from telemetry_lake.settings import load_settings

    settings = load_settings()
    store, bucket = ObjectStore(settings.s3), settings.s3.lake_bucket
    ids = {run["trigger_run_id"] for run in started}
    for run in due_runs(store, bucket, datetime.now(UTC).date()):
        if run.run_id in ids:
            record_started(store, bucket, run)


@dag(
    dag_display_name="Scheduled analyses",
    schedule="0 6 * * *",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    doc_md=__doc__,
    tags=["analysts"],
    params={
        "remove": Param(
            None,
            type=["null", "string"],
            title="Remove",
            description="The name of an analysis that is to be repeated no more.",
        )
    },
)
def scheduled_analyses() -> None:
    """What is due is started, then noted."""
    runs: Any = due()
    start = TriggerDagRunOperator.partial(
        task_id="start", trigger_dag_id="mapreduce", logical_date=None, skip_when_already_exists=True
    ).expand_kwargs(runs)
    start >> record(runs)


scheduled_analyses()
