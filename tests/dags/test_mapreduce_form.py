"""The form of the map-reduce DAG, filled in as an analyst would: right, wrong, killed half-way, repeated."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException

from dags.spark_job import LocalJob, limit_seconds
from telemetry_lake.analysis_runs import prepare_run, read_request
from telemetry_lake.catalog import create_tables, load_lake_catalog
from telemetry_lake.object_keys import ANALYSIS_RUN_PREFIX, started_key
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.scheduled_analyses import save, scheduled
from tests.dags.test_dags import Run, run_dags
from tests.mapreduce.sample_pings import DAYS, PINGS_PER_DAY, sample_pings
from tests.stack_fixture import Lake, free_ports

HELPER = "def words(dimensions):\n    return dimensions[1], 1\n"
COUNT = """
import helping

fields = ()

def map(key, dimensions, value, context):
    context.write(*helping.words(dimensions))

def reduce(key, values, context):
    context.write(key, sum(values))
"""
KILLS_SPARK = """
import psutil

fields = ()

def map(key, dimensions, value, context):
    context.write(key, 1)
    java = next(parent for parent in psutil.Process().parents() if parent.name() == "java")
    java.kill()
"""
FORGOTTEN_COLON = "def map(key, dimensions, value, context)\n    pass\n"
FILTER = {"version": 1, "dimensions": [{"field_name": "appUpdateChannel", "allowed_values": "*"}]}
TIME_LIMIT = timedelta(seconds=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def lake_of_pings(new_lake: Any) -> Lake:
    lake: Lake = new_lake()
    catalog = load_lake_catalog(lake.settings)
    create_tables(catalog)
    catalog.load_table("stable.pings").append(sample_pings())
    return lake


@pytest.fixture(scope="module")
def runs(home: Path, lake_of_pings: Lake, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], str]:
    """A run for each form, in the order of the names of `FORMS`."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "helping.py").write_text(HELPER)
    (folder / "count.py").write_text(COUNT)
    settings = lake_of_pings.settings
    store, bucket = ObjectStore(settings.s3), settings.s3.lake_bucket
    # As if the form had been filled in yesterday.
    request = read_request({"script": str(folder / "count.py"), "schedule": "daily", "name": "yesterdays"})
    prepared = prepare_run(settings, request, "manual__yesterday")
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    save(store, bucket, request, prepared, "manual__yesterday", yesterday)
    forms: dict[str, dict[str, object]] = {
        "counted": {
            "script": str(folder / "count.py"),
            "filter": json.dumps(FILTER),
            "dates": "2026-11-23..2026-11-24",
            "format": "csv",
            "num_reducers": 2,
        },
        "killed": {"script_text": KILLS_SPARK, "dates": "2026-11-23"},
        "no Python": {"script_text": FORGOTTEN_COLON, "schedule": "daily", "name": "broken"},
    }
    found, output = run_dags(
        home,
        lake_of_pings,
        *(("mapreduce", form) for form in forms.values()),
        ("scheduled_analyses", {}),
        ("scheduled_analyses", {"remove": "yesterdays"}),
    )
    return found, output


def outputs(lake: Lake) -> dict[str, bytes]:
    """All outputs in the lake bucket, by key."""
    store, bucket = ObjectStore(lake.settings.s3), lake.settings.s3.lake_bucket
    keys = (found.key for found in store.list_objects(bucket, ANALYSIS_RUN_PREFIX))
    return {key: store.get(bucket, key) for key in keys if "/output." in key}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_form_gives_an_output_and_says_where(runs, lake_of_pings):
    counted, output = runs[0][0], runs[1]
    assert counted["tasks"] == {name: ["success"] for name in ("prepare", "run", "output")}
    ((key, content),) = outputs(lake_of_pings).items()
    assert key.endswith("/output.csv")
    counts = dict(line.split(",") for line in content.decode().splitlines())
    assert sum(map(int, counts.values())) == 2 * PINGS_PER_DAY < DAYS * PINGS_PER_DAY
    assert "Firefox" in counts
    # The log of the last task names the output and shows how it begins.
    assert f"s3://{lake_of_pings.settings.s3.lake_bucket}/{key} has {len(content)} bytes and begins" in output


@pytest.mark.slow
def test_a_run_that_is_killed_has_no_output(runs, lake_of_pings):
    assert runs[0][1]["tasks"] == {"prepare": ["success"], "run": ["failed"], "output": ["upstream_failed"]}
    assert len(outputs(lake_of_pings)) == 1, "only that of the run that went well"


@pytest.mark.slow
def test_a_script_that_cannot_be_used_is_red_at_the_first_task(runs, lake_of_pings):
    tasks = {"prepare": ["failed"], "run": ["upstream_failed"], "output": ["upstream_failed"]}
    assert runs[0][2]["tasks"] == tasks
    assert "script.py:1 is not Python 3.11: expected ':'" in runs[1]
    settings = lake_of_pings.settings
    names = [one.name for one in scheduled(ObjectStore(settings.s3), settings.s3.lake_bucket)]
    assert "broken" not in names


@pytest.mark.slow
def test_what_is_due_is_started_once_until_it_is_removed(runs, home, lake_of_pings):
    first, removed = runs[0][3:]
    assert first["tasks"] == {"due": ["success"], "start": ["success"], "record": ["success"]}
    assert removed["tasks"] == {"due": ["success"], "start": ["skipped"], "record": ["success"]}

    with sqlite3.connect(home / "airflow.db") as metadata:
        queued = metadata.execute(
            "SELECT run_id, conf FROM dag_run WHERE dag_id = 'mapreduce' AND run_id LIKE 'scheduled%'"
        ).fetchall()
    metadata.close()
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    ((run_id, conf),) = queued
    assert run_id == f"scheduled__yesterdays__{yesterday}"
    asked = read_request({name: value for name, value in json.loads(conf).items() if name != "openlineage"})
    assert asked.dates == f"{yesterday}..{yesterday}"
    assert asked.schedule == "once"
    settings = lake_of_pings.settings
    store, bucket = ObjectStore(settings.s3), settings.s3.lake_bucket
    assert store.get(bucket, started_key("yesterdays", yesterday))
    assert scheduled(store, bucket) == []


def local_job(module: str, *arguments: str, **limits: Any) -> LocalJob:
    limits = {"time_limit": timedelta(minutes=1), "time_limit_minutes": None, **limits}
    return LocalJob(task_id="job", module=module, arguments=list(arguments), workers=None, **limits)


def test_a_job_that_takes_too_long_is_ended():
    job: Any = local_job("http.server", str(free_ports(1)), "--bind=127.0.0.1", time_limit=TIME_LIMIT)
    with pytest.raises(AirflowException, match=r"http\.server took longer than its limit of 1 seconds"):
        job.execute({})


def test_arguments_are_no_shell_s():
    text = "$(id) `id` ; id & 'x' \"y\" {{ params }} *"
    job: Any = local_job("timeit", "-n1", "-r1", "-s", f"print({text!r})", "pass")
    assert "1 loop" in job.execute({})
    job = local_job("json.tool", text)
    with pytest.raises(AirflowException) as failure:
        job.execute({})
    assert text in str(failure.value)


@pytest.mark.parametrize(
    "minutes, seconds", [(None, 600), ("", 600), ("None", 600), (1, 60), ("2", 120), (11, 600)]
)
def test_a_form_can_make_a_time_limit_shorter_and_not_longer(minutes, seconds):
    assert limit_seconds(timedelta(minutes=10), minutes) == seconds
