"""# Reconcile

Sends the index message again of every raw object that the drain seems to have lost: those that no batch
claims, those that a batch claimed and did not commit, and replays that stopped half-way. It looks at every
day that is not complete, oldest first. Nothing is sent that is younger than a grace period, or that waits
for a drain which is stopped or behind; the rest less and less often.

**Runs** every 15 minutes, for 10 at most; the next run goes on where it stopped. Running it again changes
nothing.

**Red?** An object in the raw bucket is not a raw object: see "Not a raw object" in `docs/drain.md`.
"""

from datetime import timedelta

from airflow.sdk import dag, task

from dags.lake_drain import PATIENT, lake_connections, time_limit

RUN_MAX = timedelta(minutes=10)


@task
def send_again() -> list[str]:
    """Send again what is missing; return what was done, in words."""
    from telemetry_lake.drain.steps import utc_now
    from telemetry_lake.recovery.reconcile import raise_if_damaged, reconcile

    with lake_connections() as lake:
        result = reconcile(lake, now=utc_now(), is_over=time_limit(RUN_MAX))
        raise_if_damaged(result)
    return result.lines()


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
    """Run the one task."""
    send_again()


reconcile()
