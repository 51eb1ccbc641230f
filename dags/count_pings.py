"""# Count pings

Counts the pings of each day by document type, from `live.pings` into `derived.ping_counts`.

**When** Every hour, for yesterday and today (UTC), and for those of all days before for which pings have come
since they were counted, 7 in a run, oldest first.

**Again?** Any time: the counts of the chosen days are replaced in one commit.

**Look at the result** `make query SQL="FROM derived.ping_counts ORDER BY ALL"`

**Red?** The last line of the task's log says what is wrong and what to do. The same by hand:
`python jobs/count_pings.py --dates 2026-11-01..2026-11-07 --debug`
"""

from datetime import timedelta

from airflow.sdk import dag

from dags.date_form import dates_param
from dags.owners import ENGINEERS
from dags.spark_job import spark_job


@dag(
    dag_display_name="Count pings",
    schedule="@hourly",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": ENGINEERS, "retries": 2, "retry_delay": timedelta(minutes=1)},
    params={"dates": dates_param("yesterday..today")},
    doc_md=__doc__,
    tags=["derived", "spark"],
)
def count_pings() -> None:
    """Run one Spark job."""
    spark_job(
        "count_pings",
        "jobs.count_pings",
        ["--dates", "{{ params.dates }}"],
        execution_timeout=timedelta(minutes=30),
        reads=["live.pings"],
        writes=["derived.ping_counts", "derived.made_dates"],
    )


count_pings()
