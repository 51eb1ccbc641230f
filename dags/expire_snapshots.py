"""# Expire snapshots

Keeps the history of the live tables short, which every commit of the drain reads and writes: expires the
snapshots that only appended files and are older than an hour and a half. Deletes no file, and needs no Spark.

**When** Every ten minutes. Readers and writers go on meanwhile.

**Again?** Any time. `python -m telemetry_lake expire-snapshots` does the same.

**Look at the result** The task returns how many snapshots of each table were expired.

**Red?** The catalog was away, or a table is missing; the last line of the log says which. While this does not
run, the drain becomes slower by and by, and nothing else happens: the next run catches up.
"""

from datetime import timedelta

from airflow.sdk import dag, task

from dags.lake_drain import PATIENT, lake_connections
from telemetry_lake.settings import Role


@task
def expire() -> dict[str, int]:
    """Expire snapshots of the live tables; return how many of each."""
    from telemetry_lake.drain.steps import utc_now
    from telemetry_lake.tables.commits import TABLES_IN_ORDER
    from telemetry_lake.tables.expiry import expire_appends

    with lake_connections(Role.MAINTENANCE) as lake:
        return {
            table: expire_appends(lake.settings.drain, lake.catalog, table, now=utc_now())
            for table in TABLES_IN_ORDER
        }


@dag(
    dag_display_name="Expire snapshots",
    schedule=timedelta(minutes=10),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=PATIENT,
    doc_md=__doc__,
    tags=["live"],
)
def expire_snapshots() -> None:
    """Run the one task."""
    expire()


expire_snapshots()
