"""Imported by each of Airflow's processes; the local stack and the containers put it into Airflow's home.

The scheduler, or a Celery worker where there are some, forks a process for every task. Each of them has at
once what was loaded before: Great Expectations alone takes 4 to 13 seconds to import, in every task, without
this. So a change of our own code reaches the tasks when the scheduler or the worker starts again.
"""

import importlib
import os
import sys
from typing import Literal

__all__: list[str] = []

_HEAVY = (
    "airflow.sdk.definitions.decorators",
    "great_expectations",
    "jsonschema_rs",
    "pandas",
    "polars",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pyiceberg.catalog.rest",
    "pyiceberg.io.pyarrow",
    "telemetry_lake.convert.parquet_writer",
    "telemetry_lake.drain.steps",
)
_SERVICES: tuple[Literal["s3"], Literal["sqs"]] = ("s3", "sqs")

# With Celery workers the scheduler runs no tasks itself.
_SCHEDULER_RUNS_TASKS = os.environ.get("AIRFLOW__CORE__EXECUTOR") != "CeleryExecutor"

if (sys.argv[1:2] == ["scheduler"] and _SCHEDULER_RUNS_TASKS) or sys.argv[1:3] == ["celery", "worker"]:
    for _name in _HEAVY:
        importlib.import_module(_name)
    from boto3 import client as _client
    from botocore import UNSIGNED as _UNSIGNED
    from botocore.config import Config as _Config

    from telemetry_lake.convert.fast_histograms.column import compile_parser as _compile_parser

    _compile_parser()
    for _service in _SERVICES:
        # Reads the service's description, a megabyte of JSON, into boto3's default session. Nothing is sent.
        _client(_service, region_name="us-east-1", config=_Config(signature_version=_UNSIGNED))

if sys.argv[1:3] == ["celery", "worker"] and (_agent := os.environ.get("ECS_AGENT_URI")):
    from telemetry_lake.deploy.task_protection import protect_while_tasks_run as _protect_while_tasks_run

    _protect_while_tasks_run(_agent)
