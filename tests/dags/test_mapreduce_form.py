"""The form of the map-reduce DAG, filled in as an analyst would: right, wrong, killed half-way, repeated."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException

from dags.spark_job import LocalJob
from dags.spark_operator import limit_seconds
from lake_testing.airflow_runs import Run, run_dags
from lake_testing.sample_pings import DAYS, PINGS_PER_DAY, sample_pings
from lake_testing.stack import Lake, free_ports
from telemetry_lake.analysis_jobs.documents import RunRequest, RunState, read_draft
from telemetry_lake.analysis_jobs.old_schedules import ScheduledAnalysis
from telemetry_lake.analysis_jobs.people import Person
from telemetry_lake.analysis_jobs.runs import Runs
from telemetry_lake.analysis_jobs.store import JobStore
from telemetry_lake.mapreduce.form import read_request
from telemetry_lake.mapreduce.requests import prepare_run
from telemetry_lake.storage.object_keys import ANALYSIS_RUN_PREFIX, scheduled_analysis_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog

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
DAY = timedelta(days=1)
TODAY = datetime.now(UTC).date()


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
    # As an earlier version kept it when its form had been filled in two days ago.
    request = read_request({"script": str(folder / "count.py"), "schedule": "daily", "name": "old"})
    prepared = prepare_run(settings, request, "manual__old")
    kept = ScheduledAnalysis(
        name="old",
        created=TODAY - 2 * DAY,
        run="manual__old",
        request=request.model_copy(update={"script": prepared.script}),
    )
    store.put(bucket, scheduled_analysis_key("old"), kept.model_dump_json().encode())
    jobs = JobStore.of(settings)
    digest = jobs.put_code({"count.py": COUNT.encode(), "helping.py": HELPER.encode()})
    code = {"kind": "file", "digest": digest, "entry": "count.py", "arguments": ["{{ 1 }}", "$(id)"]}
    draft = {"name": "mine", "code": code, "request": {"dates": "2026-11-23"}}
    jobs.create(Person("ann"), read_draft({**draft, "schedule": {"every": "daily", "hour": 0}}))
    job = jobs.get("mine")
    (written,) = Runs(jobs, settings, None).due(datetime.now(UTC) + DAY)
    assert written.job == job.name
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
        ("scheduled_analyses", {"remove": "old"}),
    )
    return found, output


def outputs(lake: Lake) -> dict[str, bytes]:
    """All outputs in the lake bucket, by key."""
    store, bucket = ObjectStore(lake.settings.s3), lake.settings.s3.lake_bucket
    keys = (found.key for found in store.list_objects(bucket, ANALYSIS_RUN_PREFIX))
    return {key: store.get(bucket, key) for key in keys if "/output." in key}


@pytest.mark.long
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


@pytest.mark.long
def test_a_run_that_is_killed_has_no_output(runs, lake_of_pings):
    assert runs[0][1]["tasks"] == {"prepare": ["success"], "run": ["failed"], "output": ["upstream_failed"]}
    assert len(outputs(lake_of_pings)) == 1, "only that of the run that went well"


@pytest.mark.long
def test_a_script_that_cannot_be_used_is_red_at_the_first_task(runs, lake_of_pings):
    tasks = {"prepare": ["failed"], "run": ["upstream_failed"], "output": ["upstream_failed"]}
    assert runs[0][2]["tasks"] == tasks
    assert "script.py:1 is not Python 3.11: expected ':'" in runs[1]
    assert {job.name for job in JobStore.of(lake_of_pings.settings).all()} == {"mine"}


@pytest.mark.long
def test_what_the_form_asked_for_is_kept_as_the_runs_of_jobs_are(runs, lake_of_pings):
    kept = Runs(JobStore.of(lake_of_pings.settings), lake_of_pings.settings, None)
    listed = kept.jobs.objects.list_objects(kept.jobs.bucket, ANALYSIS_RUN_PREFIX)
    ids = [
        RunRequest.model_validate_json(kept.jobs.objects.get(kept.jobs.bucket, item.key)).run_id
        for item in listed
        if item.key.endswith("/run.json")
    ]
    admin = Person("admin", is_admin=True)
    ended = sorted(
        (run for run_id in ids if (run := kept.get(admin, run_id)).outcome),
        key=lambda run: run.request.asked_at,
    )
    counted, killed, broken = ended
    # The user that Airflow names for runs of its own test command.
    assert (counted.state, counted.request.owner, counted.request.job) == (RunState.SUCCESS, "dag_test", None)
    assert counted.outcome is not None
    assert counted.outcome.records == 2 * PINGS_PER_DAY
    assert counted.run_seconds(datetime.now(UTC)) > 0
    assert "mapped" in kept.log(counted)
    assert "@progress" not in kept.log(counted)
    assert killed.outcome is not None
    assert killed.state is broken.state is RunState.FAILED
    assert "exit status" in (killed.outcome.error or "")
    assert broken.outcome is not None
    assert "script.py:1" in (broken.outcome.error or "")


@pytest.mark.long
def test_what_is_due_is_started_once_and_old_schedules_are_jobs(runs, home, lake_of_pings):
    first, removed = runs[0][3:]
    assert first["tasks"] == {"due": ["success"], "start": ["success"] * len(first["tasks"]["start"])}
    assert removed["tasks"] == {"due": ["success"], "start": ["skipped"] * len(first["tasks"]["start"])}

    with sqlite3.connect(home / "airflow.db") as metadata:
        queued = {
            run_id
            for (run_id,) in metadata.execute(
                "SELECT run_id FROM dag_run WHERE dag_id = 'mapreduce' AND run_id LIKE 'job.%'"
            )
        }
    metadata.close()
    assert f"job.old.{TODAY - DAY:%Y%m%d}T060000Z" in queued
    assert f"job.mine.{TODAY + DAY:%Y%m%d}T000000Z" in queued
    settings = lake_of_pings.settings
    jobs = JobStore.of(settings)
    assert [job.name for job in jobs.all()] == ["mine"]
    old = Runs(jobs, settings, None).get(Person("airflow"), f"job.old.{TODAY - DAY:%Y%m%d}T060000Z")
    assert old.request.request.dates == f"{TODAY - 2 * DAY}..{TODAY - 2 * DAY}"
    assert (
        jobs.code_files(old.request.code.digest)["count.py"].decode() == COUNT if old.request.code else False
    )
    kept = jobs.objects.get(jobs.bucket, scheduled_analysis_key("old"))
    assert ScheduledAnalysis.model_validate_json(kept).removed


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
