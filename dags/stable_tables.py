"""# Stable tables

Makes `stable.pings` from `live.pings`, and from it `derived.histogram_aggregates`.

**When** As soon as a date is finished: when *Reconcile* finds that the date is over and that all that arrived
for it is in the live tables, on most days before 00:35 UTC, or when a *Backfill* has published it. And every
day at 01:30 UTC, should that not have been noticed. A run makes yesterday, and of all dates before it those
that are out of date, because late pings came for them, after an outage or a backfill: 14 in a run, oldest
first. The log says which are left to the next run; trigger it with more *late dates* to have them sooner.

**Again?** Any time, also beside itself: each date is replaced in one commit, and what is up to date is left
alone. Tick *Make again* to make the chosen dates all the same.

**Look at the result** `make query SQL="FROM derived.made_dates ORDER BY ALL"` says what was made of what,
and when.

**Red?** The last line of the task's log says what is wrong and what to do. The same by hand:
`python jobs/stable_pings.py --dates 2026-11-01..2026-11-07` and then `python jobs/histogram_aggregates.py`
with the same dates. A check that failed (`sql/stable/pings/checks.yaml`) is about rows that are visible
already; they are replaced when the date is made again.
"""

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, Param, dag

from dags.assets import FINISHED_DATES, assets
from dags.date_form import dates_param, late_dates_param
from dags.owners import ENGINEERS
from dags.spark_job import spark_job

DATES = ["--dates", "{{ params.dates }}", "--late-dates", "{{ params.late_dates }}"]
AGAIN = "{{ '--again' if params.again else '--no-again' }}"


@dag(
    dag_display_name="Stable tables",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("30 1 * * *", timezone="UTC"), assets=assets(FINISHED_DATES)
    ),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": ENGINEERS, "retries": 2, "retry_delay": timedelta(minutes=5)},
    params={
        "dates": dates_param("yesterday"),
        "late_dates": late_dates_param(14),
        "preceding_days": Param(
            1,
            type="integer",
            minimum=0,
            maximum=30,
            title="Window of days",
            description="How many days before a date are searched for its document ids.",
        ),
        "again": Param(
            False,
            type="boolean",
            title="Make again",
            description="Make the chosen dates also when they are up to date.",
        ),
    },
    doc_md=__doc__,
    tags=["stable", "derived", "spark"],
)
def stable_tables() -> None:
    """Make the pings, then what is made of them."""
    pings = spark_job(
        "stable_pings",
        "jobs.stable_pings",
        [*DATES, "--preceding-days", "{{ params.preceding_days }}", AGAIN],
        execution_timeout=timedelta(hours=6),
        reads=["live.pings", FINISHED_DATES],
        writes=["stable.pings", "derived.made_dates"],
    )
    aggregates = spark_job(
        "histogram_aggregates",
        "jobs.histogram_aggregates",
        [*DATES, AGAIN],
        execution_timeout=timedelta(hours=6),
        reads=["stable.pings"],
        writes=["derived.histogram_aggregates", "derived.made_dates"],
    )
    pings >> aggregates


stable_tables()
