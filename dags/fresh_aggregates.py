"""# Fresh aggregates

Makes `stable.pings` and `derived.histogram_aggregates` of yesterday and today, as far as they are out of
date, so that the dashboard shows what arrived within the hour. *Dashboard* starts when this has ended.

**When** At 5 and 35 minutes past every hour, and at once when the DAG is new: on a new lake it waits, for up
to ten minutes, until the first pings are in `live.pings`. By the clock, because the drain commits every few
seconds, and a run costs what the pings of today cost; on a lake with so many that half an hour is not enough,
the next run waits.

**Again?** Any time, also beside itself and beside *Stable tables*.

**Look at the result** `make query SQL="FROM derived.made_dates ORDER BY ALL"` says what was made of what,
and when.

**Red?** The last line of the task's log says what is wrong and what to do. The same by hand:
`python jobs/fresh_aggregates.py`
"""

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag

from dags.date_form import dates_param
from dags.live_pings import WAIT_MAX, WaitForPings
from dags.owners import ENGINEERS
from dags.spark_job import spark_job


@dag(
    dag_display_name="Fresh aggregates",
    schedule=CronTriggerTimetable("5,35 * * * *", timezone="UTC", run_immediately=True),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": ENGINEERS, "retries": 2, "retry_delay": timedelta(minutes=1)},
    params={"dates": dates_param("yesterday..today")},
    doc_md=__doc__,
    tags=["stable", "derived", "spark"],
)
def fresh_aggregates() -> None:
    """Wait for pings, then make what is shown of today."""
    aggregates = spark_job(
        "aggregates",
        "jobs.fresh_aggregates",
        ["--dates", "{{ params.dates }}"],
        execution_timeout=timedelta(hours=6),
        reads=["live.pings"],
        writes=["stable.pings", "derived.histogram_aggregates", "derived.made_dates"],
    )
    WaitForPings(task_id="pings", execution_timeout=WAIT_MAX + timedelta(minutes=5)) >> aggregates


fresh_aggregates()
