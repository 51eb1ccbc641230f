"""The counting job: right, repeatable, and understandable when it fails."""

import os
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.count_pings import PING_COUNTS, count_pings
from jobs.spark_session import JARS_DIRECTORY, SHORT_JOB_JAVA_OPTIONS, open_session, spark_failures
from lake_testing.airflow_runs import run_dags
from lake_testing.sample_rows import sample_rows
from lake_testing.stack import Lake
from telemetry_lake.failures import ConfigurationError, FatalError, RetriableError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, SQL_DIRECTORY
from telemetry_lake.units import DateRange

SUNDAY, MONDAY = date(2026, 11, 22), date(2026, 11, 23)
JOB_DEADLINE_SECONDS = 500


def receive(catalog: Catalog, *pings: tuple[date, str]) -> None:
    rows = [{"submission_date": day, "document_type": document_type} for day, document_type in pings]
    catalog.load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, rows))


def counts(catalog: Catalog) -> dict[tuple[date, str], int]:
    rows = catalog.load_table(PING_COUNTS).scan().to_arrow().to_pylist()
    found = {(row["submission_date"], row["document_type"]): row["pings"] for row in rows}
    assert len(found) == len(rows), "a type is counted twice"
    return found


def test_the_golden_input_gives_the_golden_rows(spark: SparkSession, catalog: Catalog):
    golden = yaml.safe_load((SQL_DIRECTORY / "derived" / "ping_counts" / "golden.yaml").read_text())
    for table, rows in golden["input"].items():
        catalog.load_table(table).append(sample_rows(table, rows))

    written = count_pings(spark, DateRange.parse(golden["arguments"]["dates"], MONDAY))

    assert [row.asDict() for row in written] == golden["expected"]
    in_table = catalog.load_table(PING_COUNTS).scan().to_arrow().to_pylist()
    assert sorted(in_table, key=str) == sorted(golden["expected"], key=str)


def test_counting_again_replaces_the_counts_of_these_dates_and_no_others(
    spark: SparkSession, catalog: Catalog
):
    receive(catalog, (SUNDAY, "main"), (SUNDAY, "crash"), (MONDAY, "main"))
    for _ in range(2):
        count_pings(spark, DateRange(SUNDAY, MONDAY))
        assert counts(catalog) == {(SUNDAY, "main"): 1, (SUNDAY, "crash"): 1, (MONDAY, "main"): 1}

    receive(catalog, (SUNDAY, "main"), (MONDAY, "main"))
    count_pings(spark, DateRange(SUNDAY, SUNDAY))
    assert counts(catalog) == {(SUNDAY, "main"): 2, (SUNDAY, "crash"): 1, (MONDAY, "main"): 1}

    catalog.load_table(LIVE_PINGS).delete(f"submission_date = '{SUNDAY}'")
    assert count_pings(spark, DateRange(SUNDAY, SUNDAY)) == []
    assert counts(catalog) == {(MONDAY, "main"): 1}


def test_a_count_is_one_commit(spark: SparkSession, catalog: Catalog):
    receive(catalog, (SUNDAY, "main"), (MONDAY, "main"))
    before = len(catalog.load_table(PING_COUNTS).snapshots())
    count_pings(spark, DateRange(SUNDAY, MONDAY))
    count_pings(spark, DateRange(SUNDAY, MONDAY))
    assert len(catalog.load_table(PING_COUNTS).snapshots()) == before + 2


def test_credentials_are_not_on_the_command_line_of_the_jvm(spark: SparkSession, settings: Settings):
    assert settings.s3.secret_access_key is not None
    java: Any = spark.sparkContext._jvm
    jvm = int(java.java.lang.ProcessHandle.current().pid())
    command_line = Path(f"/proc/{jvm}/cmdline").read_bytes()
    assert b"spark.sql.extensions" in command_line
    assert settings.s3.secret_access_key.get_secret_value().encode() not in command_line


def test_missing_tables_are_said_with_what_to_do(spark: SparkSession, catalog: Catalog):
    catalog.drop_table(PING_COUNTS)
    with pytest.raises(FatalError, match=r"derived.*ping_counts.*create-tables"):
        count_pings(spark, DateRange(SUNDAY, MONDAY))


def test_a_catalog_that_is_away_is_a_reason_to_try_again(spark: SparkSession):
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        away = {"type": "rest", "uri": f"http://127.0.0.1:{nobody_listens.getsockname()[1]}"}
        for key, value in away.items():
            spark.conf.set(f"spark.sql.catalog.away.{key}", value)
        spark.conf.set("spark.sql.catalog.away", "org.apache.iceberg.spark.SparkCatalog")
        with pytest.raises(RetriableError, match="make run") as failure, spark_failures():
            spark.table("away.live.pings").collect()
    assert len(str(failure.value).splitlines()) == 1


def test_spark_is_not_started_without_a_catalog():
    with pytest.raises(ConfigurationError, match="make run"):
        open_session(Settings(), "tests")


def job(*command: str | Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        # Somewhere else, so that the job has to find the project by itself.
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=JOB_DEADLINE_SECONDS,
    )


@pytest.fixture
def lake_with_a_ping(lake: Lake) -> Lake:
    catalog = load_lake_catalog(lake.settings)
    create_tables(catalog)
    receive(catalog, (MONDAY, "main"))
    return lake


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_job_runs_under_spark_submit(lake_with_a_ping: Lake):
    done = job(
        Path(sys.executable).with_name("spark-submit"),
        *("--driver-class-path", f"{JARS_DIRECTORY}/*"),
        *("--driver-java-options", " ".join(SHORT_JOB_JAVA_OPTIONS)),
        PROJECT_ROOT / "jobs" / "count_pings.py",
        *("--dates", "2026-11-22..2026-11-23"),
        environment={**os.environ, **lake_with_a_ping.environment, "PYSPARK_PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stderr
    assert counts(load_lake_catalog(lake_with_a_ping.settings)) == {(MONDAY, "main"): 1}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_dag_runs_the_job_for_the_dates_of_its_form(lake_with_a_ping: Lake, tmp_path: Path):
    (run,), output = run_dags(
        tmp_path, lake_with_a_ping, ("count_pings", {"dates": "2026-11-22..2026-11-23"})
    )
    assert run["state"] == "success"
    assert counts(load_lake_catalog(lake_with_a_ping.settings)) == {(MONDAY, "main"): 1}
    # What the job prints is the task's log.
    assert "derived.ping_counts has 1 rows for 2026-11-22..2026-11-23" in output


@pytest.mark.parametrize(
    "form", [("-m", "jobs.count_pings"), (str(PROJECT_ROOT / "jobs" / "count_pings.py"),)]
)
def test_the_job_explains_itself_and_refuses_what_it_cannot_read(form: tuple[str, ...]):
    environment = {"PYTHONPATH": str(PROJECT_ROOT)} if form[0] == "-m" else {}
    explained = job(sys.executable, *form, "--help", environment=environment)
    assert explained.returncode == 0, explained.stderr
    assert "yesterday..today" in explained.stdout
    refused = job(sys.executable, *form, "--dates", "someday", environment=environment)
    assert refused.returncode == 2
    assert "'someday' is not a date" in refused.stderr
