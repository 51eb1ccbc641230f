"""# Housekeeping

Removes records of the lake bucket that nothing needs any more: entries of the page *Audits* and what is kept
of finished replays, after 90 days. It removes nothing that an unfinished replay or a batch needs.

**When** Every day at 04:30 UTC. Days on which it did not run are made up for by the next run.

**Again?** Any time, also beside itself.

`docs/housekeeping.md` says what else grows, and what bounds it.
"""

from airflow.sdk import dag, task

from dags.lake_drain import PATIENT, lake_connections
from telemetry_lake.settings import Role


@task
def remove_old() -> dict[str, int]:
    """Remove what is older than the settings say; return how much that was."""
    from dataclasses import asdict

    from telemetry_lake.drain.steps import utc_now
    from telemetry_lake.recovery.remove_old import remove_old

    with lake_connections(Role.MAINTENANCE) as lake:
        return asdict(remove_old(lake, now=utc_now()))


@dag(
    dag_display_name="Housekeeping",
    schedule="30 4 * * *",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=PATIENT,
    doc_md=__doc__,
    tags=["live"],
)
def housekeeping() -> None:
    """Run the one task."""
    remove_old()


housekeeping()
