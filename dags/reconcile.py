"""# Reconcile

Sends the index message again of every raw object that the drain seems to have lost: those that no batch
claims, those that a batch claimed and did not commit, and replays that stopped half-way. It looks at every
day that is not complete, oldest first. Nothing is sent that is younger than a grace period, or that waits
for a drain which is stopped or behind; the rest less and less often.

Then it tells Airflow which dates are *finished*: over for a quarter of an hour, with everything that arrived
for them in the live tables or set aside. That starts *Stable tables*. A date is told once, and again when
more has arrived for it since.

**Runs** every 15 minutes, for 10 at most; the next run goes on where it stopped. Running it again changes
nothing.

**Red?** An object in the raw bucket is not a raw object: see "Not a raw object" in `docs/drain.md`.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.assets import FINISHED_DATES, RAW_INDEX, assets
from dags.lake_drain import PATIENT, lake_connections, time_limit

RUN_MAX = timedelta(minutes=10)
FINISHED = "finished"


@task
def send_again(ti: Any = None) -> list[str]:
    """Send again what is missing; return what was done, in words."""
    from telemetry_lake.drain.steps import utc_now
    from telemetry_lake.recovery.reconcile import raise_if_damaged, reconcile

    with lake_connections() as lake:
        result = reconcile(lake, now=utc_now(), is_over=time_limit(RUN_MAX))
        ti.xcom_push(FINISHED, [day.isoformat() for day in result.days_finished])
        raise_if_damaged(result)
    return result.lines()


@task(inlets=assets(RAW_INDEX), outlets=assets(FINISHED_DATES))
def tell_finished_dates(ti: Any = None, outlet_events: Any = None) -> list[str]:
    """Make an event of the dates that are finished now, or again; is skipped when there are none."""
    finished: list[str] = ti.xcom_pull(task_ids="send_again", key=FINISHED) or []
    if not finished:
        raise AirflowSkipException("no date is finished that was not so before")
    outlet_events[assets(FINISHED_DATES)[0]].extra = {"dates": finished}
    return finished


@dag(
    dag_display_name="Reconcile",
    schedule=timedelta(minutes=15),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=PATIENT,
    doc_md=__doc__,
    tags=["live"],
)
def reconcile() -> None:
    """Send again, then tell what is finished, also when something is damaged: the run is red all the same."""
    send_again() >> tell_finished_dates().as_teardown()


reconcile()
