"""# Ping volumes

Counts pings and bytes by hour, document type, channel and reason of rejection, into `derived.ping_volumes`.

**When** Every hour at a quarter past, for yesterday and today (UTC), and for those of all days before whose
pings have changed, 31 in a run, oldest first.

**Again?** Any time: each date is replaced in one commit, and what is up to date is left alone.

**Look at the result** `make query SQL="FROM derived.ping_volumes ORDER BY ALL"`

**Red?** The last line of the task's log says what is wrong and what to do. The same by hand:
`python jobs/ping_volumes.py --dates 2026-11-01..2026-11-07 --debug`
"""

from datetime import timedelta

from airflow.sdk import dag

from dags.date_form import dates_param
from dags.owners import ENGINEERS
from dags.spark_job import spark_job


@dag(
    dag_display_name="Ping volumes",
    schedule="15 * * * *",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": ENGINEERS, "retries": 2, "retry_delay": timedelta(minutes=1)},
    params={"dates": dates_param("yesterday..today")},
    doc_md=__doc__,
    tags=["derived", "spark"],
)
def ping_volumes() -> None:
    """Run one Spark job."""
    spark_job(
        "ping_volumes",
        "jobs.ping_volumes",
        ["--dates", "{{ params.dates }}"],
        execution_timeout=timedelta(minutes=30),
        reads=["live.pings", "live.rejected_pings"],
        writes=["derived.ping_volumes", "derived.made_dates"],
    )


ping_volumes()
