"""The cleaning of Airflow: once a day, old runs leave its database and old logs its disk.

A process of its own, because a task of Airflow has no access to Airflow's database. This one has that access,
and no key of the lake. It calls what `airflow db clean` calls, in small transactions, while everything goes
on.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from local_stack.program import Unhealthy
from telemetry_lake.settings import load_settings

CLEANED_TABLES: Final = (
    *("asset_event", "callback", "connection_test_request", "dag_run", "dag_version", "deadline"),
    *("import_error", "job", "log", "partitioned_asset_key_log", "revoked_token", "task_instance"),
    *("task_instance_history", "task_reschedule", "task_state_store", "xcom"),
)
"""Not `trigger`: the doorbell of the drain would be deleted for its age, and Airflow itself removes triggers
that nothing uses. Not `dag`: after a long absence of the DAG processor all DAGs look as if their files were
gone. docs/housekeeping.md lists all tables."""
UNFINISHED_KEPT_MAX: Final = timedelta(days=90)
"""How long a run that does not end keeps the rows that are younger than itself; a backfill may take weeks."""
BATCH_ROWS: Final = 2_000
"""How many rows one transaction deletes: SQLite lets one process write at a time."""
DEADLINE_SECONDS: Final = 6 * 3_600
INTERVAL_SECONDS: Final = 24 * 3_600
RETRY_SECONDS: Final = 600
"""The pause after a cleaning that failed."""
_SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
"""The file that says what was wrong with the last cleaning, while it has failed."""


class CleaningFailed(Exception):
    """The database was not cleaned; the message says what to look at."""


def clean(logs_directory: Path, history: timedelta, *, now: datetime) -> None:
    """Delete what is older than `history` at the aware time `now`: rows of the database, and log files.

    Works on the database of Airflow's settings. Raises RuntimeError when a table could not be cleaned; the
    others were.
    """
    from airflow.utils.db_cleanup import drop_archived_tables, run_cleanup

    before = clean_before(now, history, _oldest_unfinished_run())
    # What a cleaning that was killed has left behind.
    drop_archived_tables(None, False)
    run_cleanup(
        clean_before_timestamp=before,  # type: ignore[arg-type]  # it is converted there
        table_names=list(CLEANED_TABLES),
        confirm=False,
        skip_archive=True,
        batch_size=BATCH_ROWS,
        error_on_cleanup_failure=True,
    )
    print(f"{remove_old_files(logs_directory, before=before)} log files deleted")


def clean_before(now: datetime, history: timedelta, unfinished: datetime | None) -> datetime:
    """Return from when on things stay, if the oldest run that has not ended was started at `unfinished`.

    Airflow would delete the rows of tasks that still run, too.
    """
    before = now - history
    if unfinished is None:
        return before
    # SQLite compares times as texts of different lengths: equal ones are not seen as equal.
    return min(before, max(unfinished - timedelta(seconds=1), now - UNFINISHED_KEPT_MAX))


def _oldest_unfinished_run() -> datetime | None:
    """Return when the first of the runs was started that have not ended."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    with create_session() as session:
        return session.scalar(select(func.min(DagRun.start_date)).where(DagRun.end_date.is_(None)))


def remove_old_files(directory: Path, *, before: datetime) -> int:
    """Delete the files below `directory` that were written last before the aware time `before`.

    Folders that are empty then go as well, unless something was put into them since. Symbolic links are not
    followed. What disappears meanwhile, or may not be deleted, is left alone. Returns how many files were
    deleted.
    """
    oldest, deleted = before.timestamp(), 0
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):
                is_old = entry.stat(follow_symlinks=False).st_mtime < oldest
                if entry.is_dir(follow_symlinks=False):
                    deleted += remove_old_files(Path(entry.path), before=before)
                    if is_old:
                        Path(entry.path).rmdir()
                elif is_old:
                    Path(entry.path).unlink()
                    deleted += 1
    return deleted


def check_health(state_directory: Path) -> None:
    """Raise Unhealthy when the last cleaning failed."""
    try:
        raise Unhealthy((state_directory / FAILED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return


def clean_daily(state_directory: Path, act: Callable[[], None], pause: Callable[[float], None]) -> NoReturn:
    """Call `act` once a day, counted over restarts, and again soon when it has failed.

    `pause` waits for a number of seconds. A new installation is a day old when it is cleaned first.
    """
    state_directory.mkdir(parents=True, exist_ok=True)
    succeeded, failed = state_directory / _SUCCEEDED, state_directory / FAILED
    failed.unlink(missing_ok=True)
    if not succeeded.exists():
        succeeded.touch()
    while True:
        pause(max(0.0, succeeded.stat().st_mtime + INTERVAL_SECONDS - time.time()))
        try:
            act()
        except CleaningFailed as error:
            failed.write_text(f"not cleaned since {_age(succeeded)}: {error}", encoding="utf-8")
            pause(RETRY_SECONDS)
        else:
            failed.unlink(missing_ok=True)
            succeeded.touch()


def _age(succeeded: Path) -> str:
    return datetime.fromtimestamp(succeeded.stat().st_mtime, UTC).isoformat(timespec="minutes")


def _end(_signal: int, _frame: FrameType | None) -> None:
    # `subprocess.run` ends its command on the way out.
    raise SystemExit(0)


def clean_in_a_process(logs_directory: Path) -> None:
    """Clean now, in a process of its own: it takes 200 MB of memory. Raises CleaningFailed."""
    command = (sys.executable, "-m", "local_stack.airflow_cleaning", "--logs", str(logs_directory))
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=DEADLINE_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise CleaningFailed(f"{error} See the log of airflow-cleaning.") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: clean at once, or once a day for ever."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=Path, required=True, help="the folder of Airflow's logs")
    parser.add_argument(
        "--daily",
        type=Path,
        metavar="FOLDER",
        help="do it once a day, and note in this folder when it was done",
    )
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    if chosen.daily is not None:
        clean_daily(chosen.daily, lambda: clean_in_a_process(chosen.logs), time.sleep)
    history = timedelta(days=load_settings().housekeeping.airflow_history_days)
    clean(chosen.logs, history, now=datetime.now(UTC))


if __name__ == "__main__":
    main()
