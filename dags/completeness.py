"""# Completeness

Proves that nothing was forgotten: each raw object of each day that is not marked complete is in the tables,
or was set aside, or is named here. Days that are complete are marked, and are not looked at again unless raw
objects arrive for them later.

**Runs** every day at 04:30 UTC. Running it again changes nothing. `python -m telemetry_lake completeness`
does the same.

**Red?** Raw objects do not come to their end by themselves, or a queue forgets messages too early. The last
lines of the log say which, and what to do; "Completeness" in `docs/drain.md` has the background.
"""

from datetime import timedelta

from airflow.sdk import dag, task

from dags.lake_drain import PATIENT, lake_connections, time_limit

RUN_MAX = timedelta(minutes=15)


@task
def prove() -> list[str]:
    """Look at every day; return what was found, in words."""
    from telemetry_lake.drain.steps import utc_now
    from telemetry_lake.recovery.completeness import check_completeness, raise_if_incomplete

    with lake_connections() as lake:
        now = utc_now()
        found = check_completeness(lake, now=now, is_over=time_limit(RUN_MAX))
        raise_if_incomplete(found)
    return found.lines(now)


@dag(
    dag_display_name="Completeness",
    schedule="30 4 * * *",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=PATIENT,
    doc_md=__doc__,
    tags=["live"],
)
def completeness() -> None:
    """Run the one task."""
    prove()


completeness()
