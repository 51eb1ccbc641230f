"""# Anomalies

Looks for what is unusual: volumes of pings against the same weekday and hour of eight weeks, shares and new
kinds of errors, and the distributions of new builds and days against those before. What is opened or closed
becomes a row of `derived.anomalies`, and is told once, by mail and web hook.

**When** Every five minutes: what stops altogether is found within a quarter of an hour. Distributions are
looked at once a day, when the cubes of the dashboard have another whole date.

**Again?** Any time, also beside itself.

**Look at the result** `python -m telemetry_lake anomalies`

**Red?** The last line of the task's log says what is wrong and what to do. The same by hand:
`python jobs/anomalies.py`. `docs/anomalies.md` says what is compared, and how to silence it.
"""

from datetime import timedelta

from airflow.sdk import dag

from dags.assets import DASHBOARD_CUBES
from dags.owners import OPERATORS
from dags.spark_job import local_job


@dag(
    dag_display_name="Anomalies",
    schedule="*/5 * * * *",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": OPERATORS, "retries": 1, "retry_delay": timedelta(seconds=20)},
    doc_md=__doc__,
    tags=["monitoring"],
)
def anomalies() -> None:
    """Look once."""
    local_job(
        "look",
        "jobs.anomalies",
        [],
        execution_timeout=timedelta(minutes=4),
        reads=["live.pings", "live.rejected_pings", "derived.ping_volumes", DASHBOARD_CUBES],
        writes=["derived.anomalies"],
    )


anomalies()
