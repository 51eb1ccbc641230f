import sqlite3
import subprocess
import sys
from pathlib import Path

from lake_testing.airflow_runs import airflow_environment
from local_stack.airflow import DRAIN_TASKS_AT_ONCE, PARALLELISM
from telemetry_lake.deploy.airflow_database import JOBS_AT_ONCE, JOBS_POOL
from telemetry_lake.project_files import PROJECT_ROOT

DEADLINE_SECONDS = 400


def bring_up_to_date(database: Path, home: Path) -> int:
    """Run the program on a database of SQLite. Returns its exit status."""
    environment = {
        **airflow_environment(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    return subprocess.run(
        [sys.executable, "-m", "telemetry_lake.deploy.airflow_database"],
        env=environment,
        cwd=home,
        check=False,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
    ).returncode


def test_a_new_database_has_the_pool_of_the_jobs(tmp_path: Path) -> None:
    database = tmp_path / "airflow.db"
    assert bring_up_to_date(database, tmp_path) == 0
    connection = sqlite3.connect(database)
    try:
        slots = connection.execute("SELECT slots FROM slot_pool WHERE pool = ?", (JOBS_POOL,)).fetchall()
    finally:
        connection.close()
    assert slots == [(JOBS_AT_ONCE,)]


def test_jobs_leave_the_drain_its_tasks_at_once() -> None:
    assert PARALLELISM - JOBS_AT_ONCE == DRAIN_TASKS_AT_ONCE == 4


def test_a_database_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    assert bring_up_to_date(tmp_path / "none" / "airflow.db", tmp_path) != 0
