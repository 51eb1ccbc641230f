import sqlite3
import subprocess
import sys
from pathlib import Path

from lake_testing.airflow_runs import airflow_environment
from local_stack.airflow import DRAIN_TASKS_AT_ONCE, PARALLELISM
from telemetry_lake.deploy.airflow_database import JOBS_AT_ONCE, JOBS_POOL
from telemetry_lake.project_files import PROJECT_ROOT

DEADLINE_SECONDS = 400


def test_a_new_database_has_the_pool_of_the_jobs(tmp_path: Path) -> None:
    database = tmp_path / "airflow.db"
    environment = {
        **airflow_environment(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    subprocess.run(
        [sys.executable, "-m", "telemetry_lake.deploy.airflow_database"],
        env=environment,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
    )
    connection = sqlite3.connect(database)
    try:
        slots = connection.execute("SELECT slots FROM slot_pool WHERE pool = ?", (JOBS_POOL,)).fetchall()
    finally:
        connection.close()
    assert slots == [(JOBS_AT_ONCE,)]


def test_jobs_leave_the_drain_its_tasks_at_once() -> None:
    assert PARALLELISM - JOBS_AT_ONCE == DRAIN_TASKS_AT_ONCE == 4


def test_a_database_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    environment = {
        **airflow_environment(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'none' / 'airflow.db'}",
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "telemetry_lake.deploy.airflow_database"],
        env=environment,
        cwd=tmp_path,
        check=False,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
    )
    assert ended.returncode != 0
