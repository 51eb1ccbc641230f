"""# Reconcile

Sends the index message again of every raw object that the drain seems to have lost: those that no batch
claims, those that a batch claimed lately and did not commit, and replays that died half-way. Nothing
younger than a grace period is touched.

**Runs** every 15 minutes. A message too many is harmless; running it again changes nothing.

**Red?** An object in the raw bucket is not a raw object: see "Not a raw object" in `docs/drain.md`.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from dags.lake_drain import PATIENT, lake_drain


@task
def send_again() -> dict[str, Any]:
    """Send again what is missed; what was sent."""
    from dataclasses import asdict

    from telemetry_lake.drain import utc_now
    from telemetry_lake.reconcile import raise_if_damaged, reconcile

    with lake_drain() as lake:
        result = reconcile(lake, now=utc_now())
        raise_if_damaged(result)
    return asdict(result)


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
    """One task."""
    send_again()


reconcile()
