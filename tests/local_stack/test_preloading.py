"""What Airflow's scheduler loads before it forks its tasks."""

import subprocess
import sys

from telemetry_lake.project_files import PROJECT_ROOT

PROGRAM = """
import os, runpy, sys
sys.argv = ["airflow", "scheduler"]
runpy.run_path("local_stack/airflow_local_settings.py")
print(*{open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")})
"""


def test_preloading_starts_no_threads_of_polars():
    """A forked process has no threads of its parent: its first expression would wait for them and not end."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    threads = done.stdout.split()
    assert threads
    assert [name for name in threads if name.removeprefix("polars-").isdigit()] == []
