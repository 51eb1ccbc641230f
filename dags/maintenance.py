"""# Maintenance

Keeps the tables quick to read: compacts the files of yesterday, and of dates before that have too many,
expires old snapshots, rewrites manifests, and deletes files that no snapshot names.

**When** Every day at 03:30 UTC. Readers and writers go on meanwhile.

**Again?** Any time. What is compacted already is left alone.

**Look at the result** `make query SQL="FROM derived.maintenance_runs ORDER BY ALL"` says what each run saved.

**Red?** The last line of the task's log says which table, what is wrong and what to do; the other tables
were maintained all the same. The same by hand: `python jobs/maintenance.py --table live.pings --debug`

**Do not shorten** the age of orphans below that of the oldest batch or backfill that is not committed yet:
its staged files look like orphans (`docs/tables.md`).
"""

from datetime import timedelta

from airflow.sdk import Param, dag

from dags.date_form import dates_param, late_dates_param
from dags.owners import OPERATORS
from dags.spark_job import spark_job


def days(default: int, minimum: int, title: str, description: str) -> Param:
    """Return a field for a number of days."""
    return Param(default, type="integer", minimum=minimum, maximum=365, title=title, description=description)


@dag(
    dag_display_name="Maintenance",
    schedule="30 3 * * *",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": OPERATORS, "retries": 2, "retry_delay": timedelta(minutes=5)},
    params={
        "dates": dates_param("yesterday", description="The partitions to compact."),
        "late_dates": late_dates_param(7),
        "keep_days": days(
            7,
            1,
            "Keep snapshots (days)",
            "Of stable and derived tables; live ones keep two days of those that replaced files.",
        ),
        "orphan_days": days(7, 3, "Keep orphans (days)", "How old a file has to be that no snapshot names."),
    },
    doc_md=__doc__,
    tags=["live", "stable", "derived", "spark"],
)
def maintenance() -> None:
    """Run one Spark job for all tables."""
    spark_job(
        "maintenance",
        "jobs.maintenance",
        [
            *("--dates", "{{ params.dates }}"),
            *("--late-dates", "{{ params.late_dates }}"),
            *("--keep-days", "{{ params.keep_days }}"),
            *("--orphan-days", "{{ params.orphan_days }}"),
        ],
        execution_timeout=timedelta(hours=6),
        # It moves the rows of the other tables and changes none.
        writes=["derived.maintenance_runs"],
    )


maintenance()
