"""A job of the lake and one of an analyst as DAGs, on EMR Serverless and on an EMR cluster."""

import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from dags.spark_job import spark_job

TIME_LIMIT = timedelta(seconds=2)

for where in ("emr-serverless", "emr-cluster"):
    os.environ["TELEMETRY_LAKE_SPARK__RUN_ON"] = where
    with DAG(dag_id=where, schedule=None, params={"dates": "yesterday", "workers": Param(None)}):
        spark_job(
            "count_pings",
            "jobs.count_pings",
            ["--dates", "{{ params.dates }}"],
            execution_timeout=TIME_LIMIT,
            workers="{{ params.workers }}",
        )
    with DAG(dag_id=f"{where}-script", schedule=None, params={"dates": "yesterday", "output": ""}):
        spark_job(
            "run",
            "jobs.mapreduce",
            ["--output={{ params.output }}", "{{ params.dates }}"],
            execution_timeout=TIME_LIMIT,
        )
