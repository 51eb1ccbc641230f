"""What Airflow keeps is bounded: the cleaning works on a real database of Airflow and on real files."""

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from lake_testing.airflow_runs import airflow_environment
from local_stack.airflow_cleaning import (
    CLEANED_TABLES,
    FAILED,
    INTERVAL_SECONDS,
    RETRY_SECONDS,
    CleaningFailed,
    check_health,
    clean_before,
    clean_daily,
    remove_old_files,
)
from local_stack.program import Unhealthy
from telemetry_lake.project_files import PROJECT_ROOT

DEADLINE_SECONDS = 300
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
DOCUMENT = PROJECT_ROOT / "docs" / "housekeeping.md"
PER_RUN = {
    "dag_run": 1,
    "asset_event": 1,
    "dagrun_asset_event": 1,
    "task_instance": 5,
    "rendered_task_instance_fields": 5,
    "xcom": 5,
    "log": 5,
}
"""What one run has in the tables that grow."""


class Pause(Exception):
    """Ends the endless loop of a test."""


def run(home: Path, *command: str) -> str:
    program = subprocess.run(
        [sys.executable, "-m", *command],
        env=airflow_environment(home),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert program.returncode == 0, program.stdout[-4_000:] + program.stderr[-4_000:]
    return program.stdout


def rows(home: Path, *runs: tuple[float, str]) -> dict[str, int]:
    """Add runs to the database; return how many rows each of its tables has then."""
    counts = json.loads(run(home, "lake_testing.airflow_history", json.dumps(runs)).splitlines()[-1])
    assert isinstance(counts, dict)
    return counts


@pytest.mark.slow
def test_old_runs_leave_the_database_and_what_is_younger_than_an_unfinished_one_stays(tmp_path: Path) -> None:
    before = rows(tmp_path, *((40 - day, "running" if day == 20 else "success") for day in range(40)))
    assert {name: before[name] for name in PER_RUN} == {name: 40 * count for name, count in PER_RUN.items()}

    run(tmp_path, "local_stack.airflow_cleaning", "--logs", str(tmp_path / "logs"))

    after = rows(tmp_path)
    assert {name: after[name] for name in PER_RUN} == {name: 20 * count for name, count in PER_RUN.items()}
    assert after["job"] == 0
    assert after["trigger"] == after["asset_watcher"] == 1, "the doorbell of the drain is old, and rings"
    assert set(after) == set(before), "no table of deleted rows is left"


@pytest.mark.parametrize("unfinished_days,kept_days", [(None, 14), (1, 14), (20, 20), (90, 90), (400, 90)])
def test_an_unfinished_run_keeps_what_is_younger_but_not_for_ever(
    unfinished_days: int | None, kept_days: int
) -> None:
    unfinished = None if unfinished_days is None else NOW - unfinished_days * DAY
    before = clean_before(NOW, 14 * DAY, unfinished)
    assert NOW - kept_days * DAY - timedelta(seconds=1) <= before <= NOW - kept_days * DAY


@pytest.mark.slow
def test_every_table_of_airflow_is_bounded_in_a_way_that_is_written_down(tmp_path: Path) -> None:
    tables = set(rows(tmp_path)) - {"alembic_version"}
    told = dict(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE))
    named = {name: how for names, how in told.items() for name in re.findall(r"`(\w+)`", names)}
    assert set(named) == tables
    assert {name for name, how in named.items() if how.startswith("cleaned")} == set(CLEANED_TABLES)


def test_old_logs_go_with_their_folders_and_young_ones_stay(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    outside = tmp_path / "outside.log"
    for path in (
        *(
            logs / "dag_id=drain" / f"run_id={run}" / "task_id=claim" / "attempt=1.log"
            for run in ("old", "new")
        ),
        logs / "dag_processor" / "2026-11-01" / "drain.py.log",
        outside,
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (logs / "latest").symlink_to(outside)
    old = (NOW - 15 * DAY).timestamp()
    for path in (outside, *sorted(logs.rglob("*"), reverse=True), logs):
        if "run_id=new" not in str(path):
            os.utime(path, (old, old), follow_symlinks=False)
    os.utime(logs / "dag_id=drain", (NOW.timestamp(), NOW.timestamp()))

    assert remove_old_files(logs, before=NOW - 14 * DAY) == 3

    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    claim = "logs/dag_id=drain/run_id=new/task_id=claim"
    assert left == {
        *("logs", "logs/dag_id=drain", "logs/dag_id=drain/run_id=new", claim, f"{claim}/attempt=1.log"),
        "outside.log",
    }


def test_a_folder_that_something_was_just_put_into_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()  # a task is about to write its log there
    assert remove_old_files(tmp_path, before=NOW - 14 * DAY) == 0
    assert (tmp_path / "run").is_dir()


def test_the_cleaning_comes_once_a_day_and_soon_again_when_it_failed(tmp_path: Path) -> None:
    pauses: list[float] = []
    outcomes = [None, CleaningFailed("the database is locked"), None]

    def act() -> None:
        if (failure := outcomes.pop(0)) is not None:
            raise failure

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if failed.exists():
            with pytest.raises(Unhealthy, match=r"not cleaned since 2.*: the database is locked"):
                check_health(tmp_path)
        if not outcomes:
            raise Pause

    failed = tmp_path / FAILED
    failed.touch()  # of an earlier start
    with pytest.raises(Pause):
        clean_daily(tmp_path, act, pause)
    day = pytest.approx(INTERVAL_SECONDS, abs=60)
    assert pauses == [day, day, RETRY_SECONDS, day, day]
    check_health(tmp_path)


def test_days_without_a_stack_are_made_up_for_at_once(tmp_path: Path) -> None:
    def act() -> NoReturn:
        raise Pause

    (tmp_path / "succeeded").touch()
    long_ago = time.time() - 30 * INTERVAL_SECONDS
    os.utime(tmp_path / "succeeded", (long_ago, long_ago))
    waited: list[float] = []
    with pytest.raises(Pause):
        clean_daily(tmp_path, act, waited.append)
    assert waited == [0]
