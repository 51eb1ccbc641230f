"""# Dashboard

Makes the cubes that the dashboard shows (`docs/dashboard.md`), of every date whose aggregates were made
again.

**When** As soon as a run of *Fresh aggregates* or *Stable tables* has made `derived.histogram_aggregates`,
and at 50 minutes past every hour, should that not have been noticed.

**Again?** Any time, also beside itself. What is up to date is left alone.

**Look at the result** The page of the dashboard says until when its data goes.

**Red?** The last line of the task's log says what is wrong and what to do. The same by hand:
`python jobs/dashboard_cubes.py`
"""

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag

from dags.assets import DASHBOARD_CUBES, assets
from dags.owners import ENGINEERS
from dags.spark_job import local_job


@dag(
    dag_display_name="Dashboard",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("50 * * * *", timezone="UTC"),
        assets=assets("derived.histogram_aggregates"),
    ),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": ENGINEERS, "retries": 2, "retry_delay": timedelta(minutes=1)},
    doc_md=__doc__,
    tags=["dashboard"],
)
def dashboard() -> None:
    """Make what is shown."""
    local_job(
        "cubes",
        "jobs.dashboard_cubes",
        [],
        execution_timeout=timedelta(hours=6),
        reads=["derived.histogram_aggregates"],
        writes=[DASHBOARD_CUBES],
    )


dashboard()
