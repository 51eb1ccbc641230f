"""Brings Airflow's database up to date: its schema, and the pool of the jobs that run on a worker's machine.

    python -m telemetry_lake.deploy.airflow_database

Again at any time, and before Airflow's processes start: a task whose pool does not exist is never run.
"""

import subprocess
import sys
from typing import Final

JOBS_POOL: Final = "jobs_of_this_machine"
JOBS_AT_ONCE: Final = 3
"""Tasks of the drain never wait for jobs, of which some take hours: only so many slots are theirs."""
DESCRIPTION: Final = (
    "Jobs that run on a worker's machine, not on EMR; the drain's tasks have the other slots."
)
_COMMANDS: Final = (("db", "migrate"), ("pools", "set", JOBS_POOL, str(JOBS_AT_ONCE), DESCRIPTION))


def main() -> None:
    """Run the commands of Airflow one after the other. Exits with the status of the first that fails."""
    for command in _COMMANDS:
        status = subprocess.run((sys.executable, "-m", "airflow", *command), check=False).returncode
        if status != 0:
            sys.exit(status)


if __name__ == "__main__":
    main()
