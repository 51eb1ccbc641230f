"""Runs of DAGs in a process of their own, in an Airflow home and on a lake of the test's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lake_testing.stack import Lake
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog

RUN_DEADLINE_SECONDS = 560

Run = dict[str, Any]
"""The state of a run, and those of its tasks by name."""


def airflow_environment(home: Path, lake: Lake | None = None) -> dict[str, str]:
    """Return the environment of a process in which Airflow finds our DAGs, and a lake if there is one."""
    return {
        **os.environ,
        **(lake.environment if lake else {}),
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(PROJECT_ROOT),
        "GX_ANALYTICS_ENABLED": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def run_dags(home: Path, lake: Lake, *dags: tuple[str, dict[str, object]]) -> tuple[list[Run], str]:
    """Run DAGs, each an id and a configuration, one after the other.

    Returns the states of the runs, and all that they printed.
    """
    create_tables(load_lake_catalog(lake.settings))
    program = subprocess.run(
        [sys.executable, "-m", "lake_testing.run_dag", json.dumps(dags)],
        env=airflow_environment(home, lake),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_DEADLINE_SECONDS,
        check=False,
    )
    assert program.returncode == 0, program.stdout[-4_000:] + program.stderr[-4_000:]
    return json.loads(program.stdout.splitlines()[-1]), program.stdout + program.stderr
