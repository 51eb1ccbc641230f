"""# Dashboard

Makes `stable.pings` and `derived.histogram_aggregates` of yesterday and today, as far as they are out of
date, and then the cubes that the dashboard shows (`docs/dashboard.md`), of every date that was made again.

**When** At 5 and 35 minutes past every hour, and at once when the DAG is new: on a new lake it waits, for up
to ten minutes, until the first pings are in `live.pings`. A run costs what the pings of today cost; on a lake
with so many that half an hour is not enough, the next run waits.

**Again?** Any time, also beside itself and beside *Stable tables*.

**Look at the result** The page of the dashboard says until when its data goes.

**Red?** The last line of the task's log says what is wrong and what to do. The same by hand:
`python jobs/fresh_aggregates.py` and then `python jobs/dashboard_cubes.py`
"""

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, TriggerRule, dag

from dags.date_form import dates_param
from dags.live_pings import WAIT_MAX, WaitForPings
from dags.spark_job import local_job, spark_job


@dag(
    dag_display_name="Dashboard",
    schedule=CronTriggerTimetable("5,35 * * * *", timezone="UTC", run_immediately=True),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={"dates": dates_param("yesterday..today")},
    doc_md=__doc__,
    tags=["derived", "spark"],
)
def dashboard() -> None:
    """Make what is shown of today."""
    aggregates = spark_job(
        "aggregates",
        "jobs.fresh_aggregates",
        ["--dates", "{{ params.dates }}"],
        execution_timeout=timedelta(hours=6),
    )
    cubes = local_job(
        "cubes",
        "jobs.dashboard_cubes",
        [],
        execution_timeout=timedelta(hours=6),
        # Other dates may have been made meanwhile, also when there are no pings of today.
        trigger_rule=TriggerRule.NONE_FAILED,
    )
    WaitForPings(task_id="pings", execution_timeout=WAIT_MAX + timedelta(minutes=5)) >> aggregates >> cubes


dashboard()
