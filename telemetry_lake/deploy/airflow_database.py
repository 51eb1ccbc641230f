"""Brings Airflow's database up to date: its schema, and the pool of the jobs that run on a worker's machine.

    python -m telemetry_lake.deploy.airflow_database

Again at any time, and before Airflow's processes start: a task whose pool does not exist is never run.
"""

import argparse
import subprocess
import sys
from typing import Final

JOBS_POOL: Final = "jobs_of_this_machine"
JOBS_AT_ONCE: Final = 3
DESCRIPTION: Final = (
    "Jobs that run on a worker's machine, not on EMR; the drain's tasks have the other slots."
)


def main() -> None:
    """Run the commands of Airflow one after the other. Exits with the status of the first that fails."""
    parser = argparse.ArgumentParser(
        prog="python -m telemetry_lake.deploy.airflow_database",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--jobs-at-once",
        type=int,
        default=JOBS_AT_ONCE,
        help="slots of the pool, fewer than Airflow has: some jobs take hours, and the drain must not wait",
    )
    jobs_at_once = str(parser.parse_args().jobs_at_once)
    for command in (("db", "migrate"), ("pools", "set", JOBS_POOL, jobs_at_once, DESCRIPTION)):
        status = subprocess.run((sys.executable, "-m", "airflow", *command), check=False).returncode
        if status != 0:
            sys.exit(status)


if __name__ == "__main__":
    main()
