"""Runs and a real Airflow, whose api-server runs without a scheduler: what is asked for stays queued."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from pydantic import SecretStr

from lake_testing.airflow_runs import airflow_environment
from lake_testing.analysts import ANN
from lake_testing.stack import RunningProgram, free_ports
from local_stack.airflow import ADMIN, API_SERVER, Airflow
from telemetry_lake.analysis_jobs.airflow_api import AirflowApi
from telemetry_lake.analysis_jobs.documents import JobDraft, RunState
from telemetry_lake.analysis_jobs.runs import Runs, new_token
from telemetry_lake.analysis_jobs.store import JobStore
from telemetry_lake.failures import ConfigurationError, FatalError, RetriableError
from telemetry_lake.monitoring.sources.airflow import AirflowSource, exporters_api
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import AirflowSettings, Settings
from telemetry_lake.storage.aws import client_arguments
from telemetry_lake.storage.object_keys import OPEN_RUN_PREFIX, job_run_id
from telemetry_lake.storage.object_store import ObjectStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMMAND_DEADLINE_SECONDS = 400
START_DEADLINE_SECONDS = 300.0
PASSWORD = "airflow's"
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowSettings]:
    """An api-server that knows the DAG `mapreduce` and no other."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "mapreduce.py").symlink_to(PROJECT_ROOT / "dags" / "mapreduce.py")
    service = Airflow(
        home=home,
        logs_directory=home / "logs",
        log_of=lambda name: home / f"{name}.log",
        project_root=PROJECT_ROOT,
        port=free_ports(1),
        database_url=f"sqlite:///{home / 'airflow.db'}",
        admin_password=PASSWORD,
        secret="secret",
    )
    dags_folder = {"AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags")}
    for command in (("db", "migrate"), ("dags", "reserialize")):
        subprocess.run(
            [sys.executable, "-m", "airflow", *command],
            env={**airflow_environment(home), **service.variables(), **dags_folder},
            cwd=home,
            check=True,
            capture_output=True,
            timeout=COMMAND_DEADLINE_SECONDS,
        )
    (program,) = (item for item in service.programs(database=(), after=()) if item.name == API_SERVER)
    server = RunningProgram(program)
    try:
        server.start(wait=False)
        server.wait_until_healthy(deadline_seconds=START_DEADLINE_SECONDS)
        yield AirflowSettings(url=service.url, user=ADMIN, password=SecretStr(PASSWORD), retry_wait_seconds=0)
    finally:
        server.kill()


@pytest.fixture
def api(airflow: AirflowSettings) -> Iterator[AirflowApi]:
    found = AirflowApi(airflow)
    yield found
    found.close()


@pytest.fixture
def started(jobs: JobStore, lake_settings: Settings, api: AirflowApi, draft: Callable[..., JobDraft]) -> Runs:
    """The runs of a lake with a job, and with an Airflow."""
    jobs.create(ANN, draft())
    return Runs(jobs, lake_settings, api)


def open_marks(jobs: JobStore) -> int:
    return len(list(jobs.objects.list_objects(jobs.bucket, OPEN_RUN_PREFIX)))


def test_a_run_is_queued_once_and_cancelled(started, api, jobs):
    token = new_token()
    asked = [started.start(ANN, "os", token) for _ in range(3)]
    assert len({one.model_dump_json() for one in asked}) == 1
    run_id = asked[0].run_id
    assert not api.trigger(run_id)
    run = started.get(ANN, run_id)
    assert (run.state, run.started_at, run.problem) == (RunState.QUEUED, None, "")
    assert run.airflow_page is not None
    assert run.airflow_page.endswith(f"/dags/mapreduce/runs/{run_id}")
    assert [other.state for other in started.of_job(ANN, "os")] == [RunState.QUEUED]
    cancelled = started.cancel(ANN, run_id)
    assert cancelled.state is RunState.CANCELLED
    known = api.run(run_id)
    assert known is not None
    assert known.state == "failed"
    assert open_marks(jobs) == 0
    started.start(ANN, "os", token)
    assert started.get(ANN, run_id).state is RunState.CANCELLED


class Died(BaseException):
    """Ends a start in the middle, as SIGKILL would: nothing catches it."""


def test_a_start_that_dies_between_any_two_steps_is_one_run(started, api, jobs, lake_settings):
    deaths = 0
    while True:
        client = boto3.client("s3", **client_arguments(lake_settings.s3))  # type: ignore[call-overload]
        left = [deaths + 1]

        def die_later(left: list[int] = left, **_: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Died

        # After the answer to the request: it has been done, and the process does not learn of it.
        client.meta.events.register("after-call.s3", die_later)
        mortal = Runs(JobStore(ObjectStore(lake_settings.s3, client), jobs.bucket), lake_settings, api)
        token = new_token()
        run_id = job_run_id("os", token)
        try:
            mortal.start(ANN, "os", token)
        except Died:
            deaths += 1
        else:
            break
        finally:
            client.close()
        # The page, or the DAG, of another process comes by.
        other = Runs(jobs, lake_settings, AirflowApi(api._settings))
        other.settle_all(datetime.now(UTC))
        is_written = other.is_written_down(run_id)
        assert (api.run(run_id) is not None) == is_written
        # The person presses the button again.
        assert other.start(ANN, "os", token).run_id == run_id
        assert other.get(ANN, run_id).state is RunState.QUEUED
        other.cancel(ANN, run_id)
        assert open_marks(jobs) == 0
    assert deaths > 5
    assert started.get(ANN, run_id).state is RunState.QUEUED


def test_a_run_that_ended_without_a_report_gets_its_outcome(started, api, jobs, lake_settings):
    failed, forgotten = (started.start(ANN, "os", new_token()).run_id for _ in range(2))
    api.cancel(failed)  # as an operator does in Airflow
    assert started.get(ANN, failed).state is RunState.RUNNING
    started.settle_all(datetime.now(UTC))
    ended = started.get(ANN, failed)
    assert ended.state is RunState.FAILED
    assert ended.outcome is not None
    assert "its log in Airflow has more" in (ended.outcome.error or "")
    assert started.get(ANN, forgotten).state is RunState.QUEUED
    assert open_marks(jobs) == 1

    later = datetime.now(UTC) + 2 * DAY
    job = jobs.get("os")
    lost = started._write_down(started._request(job, new_token(), "ann", later - 3 * DAY, later))
    started.settle_all(later)
    ended = started.get(ANN, lost.run_id)
    assert ended.outcome is not None
    assert ended.outcome.error == "Airflow does not know this run any more"
    assert api.run(lost.run_id) is None


def test_what_is_asked_for_while_airflow_is_away_starts_when_it_is_back(started, api, airflow, lake_settings):
    away = AirflowApi(airflow.model_copy(update={"url": "http://127.0.0.1:9", "max_attempts": 2}))
    runs = Runs(started.jobs, lake_settings, away)
    token = new_token()
    with pytest.raises(RetriableError, match="is done as soon as it answers"):
        runs.start(ANN, "os", token)
    run_id = job_run_id("os", token)
    run = runs.get(ANN, run_id)
    assert run.state is RunState.ASKED
    assert "does not answer" in run.problem
    started.settle_all(datetime.now(UTC))
    assert started.get(ANN, run_id).state is RunState.QUEUED


def test_a_token_that_is_not_taken_any_more_is_replaced_and_a_password_that_is_wrong_is_said(api, airflow):
    api._token = "expired"
    assert api.run("no such run") is None
    wrong = AirflowApi(airflow.model_copy(update={"password": SecretStr("hunter2")}))
    with pytest.raises(FatalError, match="does not accept the password of admin") as failure:
        wrong.trigger("run")
    assert "hunter2" not in str(failure.value)
    with pytest.raises(ConfigurationError, match="TELEMETRY_LAKE_AIRFLOW__URL"):
        AirflowApi(AirflowSettings())


def test_the_exporter_counts_what_ended_once_and_goes_on_after_a_new_start(api, airflow, tmp_path):
    begun = datetime.now(UTC)
    source = AirflowSource(exporters_api(airflow), tmp_path)

    def shown(source: AirflowSource) -> dict[tuple[str, ...], float]:
        now = datetime.now(UTC)
        return {
            (fact.name.removeprefix("telemetry_lake_airflow_"), *fact.labels): fact.value_at(now.timestamp())
            for fact in source.read(now)
        }

    before = shown(source)
    assert before[("runs_total", "mapreduce", "failed")] == 0
    assert before[("import_errors",)] == 0
    assert before[("dag_late_seconds", "reconcile")] == 0
    # The runs of other tests that are open stay so: no scheduler runs.
    names = [f"exporter-{number}" for number in range(3)]
    for name in names:
        assert api.trigger(name)
    assert shown(source)[("runs_open", "queued")] == before[("runs_open", "queued")] + 3
    for name in names[:2]:
        api.cancel(name)
    assert shown(source)[("runs_total", "mapreduce", "failed")] == 2
    assert shown(source)[("runs_total", "mapreduce", "failed")] == 2
    api.cancel(names[2])
    again = AirflowSource(exporters_api(airflow), tmp_path)
    found = shown(again)
    assert found[("runs_total", "mapreduce", "failed")] == 3
    assert found[("runs_total", "mapreduce", "success")] == 0
    assert found[("failed_tasks_total", "mapreduce")] == 0
    assert ("last_success_age_seconds", "mapreduce") not in found
    late = {fact.labels: fact for fact in again.read(begun + DAY) if fact.name.endswith("dag_late_seconds")}
    assert late[("reconcile",)].value_at((begun + DAY).timestamp()) > 23 * 3_600
    assert late[("maintenance",)].value == 0


def test_the_exporter_says_that_airflow_is_away_without_promising_anything(airflow, tmp_path):
    away = airflow.model_copy(update={"url": "http://127.0.0.1:9"})
    with pytest.raises(RetriableError, match=r"does not answer: ConnectError[^.]*$"):
        AirflowSource(exporters_api(away), tmp_path).read(datetime.now(UTC))
