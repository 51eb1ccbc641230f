"""# Scheduled analyses

Starts the runs of jobs of the analysis service that are due, each as a run of *Map-reduce* of its own, and
finishes what a process of the service left half done when it died. A run that exists is not started again;
days without a scheduler are made up for, seven runs of a job at a time.

**When** Every five minutes. A run that is due for half an hour and was not started is shown by the service,
which looks at the documents of the jobs and not at this DAG.

**Which are there?** The pages of the analysis service show the jobs, and so does
`python -m telemetry_lake jobs list`. Analyses that the form repeated before there were jobs become jobs of
the owner `airflow`.

**Remove one** In the service. Or trigger this DAG with its name: its outputs stay.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

from dags.owners import ANALYSIS_SERVICE


@task(retries=2, retry_delay=timedelta(minutes=1))
def due(params: Any = None) -> list[dict[str, Any]]:
    """Write down the runs that are due, and return all that are written down and have not begun."""
    import logging
    from datetime import UTC, datetime

    from telemetry_lake.analysis_jobs.airflow_api import AirflowApi
    from telemetry_lake.analysis_jobs.notify import Notifier
    from telemetry_lake.analysis_jobs.old_schedules import make_jobs
    from telemetry_lake.analysis_jobs.people import Person
    from telemetry_lake.analysis_jobs.runs import Runs
    from telemetry_lake.analysis_jobs.store import JobStore
    from telemetry_lake.failures import FatalError
    from telemetry_lake.settings import Role, load_settings

    now, log = datetime.now(UTC), logging.getLogger(__name__)
    settings = load_settings(role=Role.ANALYSES)
    jobs = JobStore.of(settings)
    for job in make_jobs(jobs, now=now):
        log.info("the scheduled analysis %s is a job of %s now", job.name, job.owner)
    try:
        if params["remove"]:
            job = jobs.get(params["remove"])
            jobs.delete(Person("airflow", is_admin=True), job.name, job.version)
    except FatalError as error:
        raise AirflowFailException(str(error)) from error
    airflow = AirflowApi(settings.airflow) if settings.airflow.url is not None else None
    runs = Runs(jobs, settings, airflow, Notifier(jobs, settings).on_end)
    runs.due(now)
    runs.settle_all(now)
    waiting = runs.not_begun()
    log.info("to be started: %s", ", ".join(run.run_id for run in waiting) or "nothing")
    return [{"trigger_run_id": run.run_id} for run in waiting]


@dag(
    dag_display_name="Scheduled analyses",
    schedule="*/5 * * * *",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": ANALYSIS_SERVICE},
    doc_md=__doc__,
    tags=["analysts"],
    params={
        "remove": Param(
            None,
            type=["null", "string"],
            title="Remove",
            description="The name of a job that is not to be repeated any more.",
        )
    },
)
def scheduled_analyses() -> None:
    """Start what is due."""
    runs: Any = due()
    TriggerDagRunOperator.partial(
        task_id="start", trigger_dag_id="mapreduce", logical_date=None, skip_when_already_exists=True
    ).expand_kwargs(runs)


scheduled_analyses()
