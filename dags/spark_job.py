"""How a DAG runs one of the programs in `jobs/`: as a process of its own on the worker's machine.

The process has the worker's environment, and with it the lake's settings. What it prints is the task's
log, and its exit status decides; a task that is stopped or takes too long takes the process with it.
"""

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from airflow.providers.standard.operators.bash import BashOperator

PROJECT_ROOT: Final = Path(__file__).resolve().parent.parent


def spark_job(
    task_id: str, module: str, arguments: Sequence[str], *, execution_timeout: timedelta
) -> BashOperator:
    """A task that runs `python -m <module> <arguments>`; arguments may be Jinja templates."""
    # Arguments come from a form, so the shell is shown variables, never the text in them.
    variables = {f"JOB_ARGUMENT_{number}": argument for number, argument in enumerate(arguments)}
    quoted = " ".join(f'"${name}"' for name in variables)
    return BashOperator(
        task_id=task_id,
        bash_command=f'exec "$JOB_PYTHON" -m {module} {quoted}',
        env={"JOB_PYTHON": sys.executable, **variables},
        append_env=True,
        cwd=str(PROJECT_ROOT),
        execution_timeout=execution_timeout,
    )
