"""Redis and Celery workers of a stack: what they are started with, and what Redis keeps."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lake_testing.stack import RunningProgram, free_ports
from local_stack.airflow import API_SERVER, NOT_FOR_WORKERS, SCHEDULER
from local_stack.bring_up import needs_of
from local_stack.celery_workers import CONCURRENCY, REDIS, WORKERS_MAX, Redis, has_started, worker_name
from local_stack.configuration import Balancer, Database, StackConfiguration, StackVariables
from local_stack.layout import Layout
from local_stack.plan import Plan, make_plan
from local_stack.postgres import find_binaries
from local_stack.program import LOOPBACK, Program, Unhealthy, find_server
from local_stack.secret_files import secret
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role

needs_redis = pytest.mark.skipif(
    find_server("redis-server") is None, reason="redis-server is not installed: apt-get install redis-server"
)
needs_postgresql = pytest.mark.skipif(find_binaries() is None, reason="PostgreSQL is not installed")


def plan(layout: Layout, *, workers: int, database: Database = Database.POSTGRESQL) -> Plan:
    """Return the plan of a stack."""
    return make_plan(
        layout,
        StackConfiguration(
            variables=StackVariables(workers=workers),
            database=database,
            database_reason="a test says so",
            balancer=Balancer.NONE,
            fleet=False,
            foreground=True,
        ),
    )


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """The folder of a stack."""
    return Layout(tmp_path / "stack")


@pytest.fixture
def programs(layout: Layout) -> dict[str, Program]:
    """The programs of a stack with two workers."""
    return {program.name: program for program in plan(layout, workers=2).programs}


def test_without_workers_the_scheduler_runs_the_tasks(layout: Layout) -> None:
    programs = {item.name: item for item in plan(layout, workers=0, database=Database.SQLITE).programs}
    assert not {REDIS, worker_name(1)} & programs.keys()
    environment = programs[SCHEDULER].environment
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert environment["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] == "1"
    assert environment["AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"] == "60"
    assert not any("CELERY" in name for name in environment)


@needs_redis
@needs_postgresql
def test_with_workers_all_of_airflow_sends_tasks_to_them(
    programs: dict[str, Program], layout: Layout
) -> None:
    password = secret(layout.secrets, "redis_password")
    for name in (SCHEDULER, API_SERVER, worker_name(1), worker_name(2)):
        environment = programs[name].environment
        assert environment["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
        assert environment["AIRFLOW__CELERY__BROKER_URL"] == f"redis://:{password}@127.0.0.1:6380/0"
        assert environment["AIRFLOW__CELERY__RESULT_BACKEND"].startswith("db+postgresql+psycopg2://")
        assert int(environment["AIRFLOW__CORE__PARALLELISM"]) >= 2 * CONCURRENCY
    assert worker_name(3) not in programs
    assert programs[worker_name(1)].command != programs[worker_name(2)].command
    assert "--skip-serve-logs" in programs[worker_name(1)].command, "the log server listens on every address"


@needs_redis
@needs_postgresql
def test_a_worker_has_the_keys_of_the_tasks_and_none_of_airflow(layout: Layout) -> None:
    stack = plan(layout, workers=1)
    keys = {role: key.secret_access_key.get_secret_value() for role, key in stack.s3.role_keys.items()}

    def roles(name: str) -> set[Role]:
        [program] = [item for item in stack.programs if item.name == name]
        return {role for role, key in keys.items() if any(key in text for text in program.files.values())}

    alone = plan(Layout(layout.root / "alone"), workers=0, database=Database.SQLITE)
    [scheduler] = [item for item in alone.programs if item.name == SCHEDULER]
    alone_keys = {r: k.secret_access_key.get_secret_value() for r, k in alone.s3.role_keys.items()}
    of_tasks = {r for r, key in alone_keys.items() if any(key in text for text in scheduler.files.values())}
    assert roles(worker_name(1)) == of_tasks
    assert Role.DRAIN in of_tasks
    assert roles(SCHEDULER) == set(), "its tasks run elsewhere"
    [worker] = [item for item in stack.programs if item.name == worker_name(1)]
    assert not set(NOT_FOR_WORKERS) & worker.environment.keys()


@needs_redis
@needs_postgresql
def test_redis_outlives_its_users_and_the_api_server_the_workers(layout: Layout) -> None:
    needs = needs_of(plan(layout, workers=1))
    assert {REDIS, API_SERVER, "postgres"} <= set(needs[worker_name(1)])
    assert REDIS in needs[SCHEDULER]
    assert worker_name(1) not in needs[SCHEDULER], "they come and go"


@needs_redis
@needs_postgresql
def test_no_password_is_shown_in_a_command(programs: dict[str, Program], layout: Layout) -> None:
    password = secret(layout.secrets, "redis_password")
    assert not any(password in " ".join(program.command) for program in programs.values())
    assert "bind 127.0.0.1\n" in next(iter(programs[REDIS].files.values()))


@pytest.mark.skipif(find_server("redis-server") is None, reason="redis-server is not installed")
def test_workers_with_sqlite_are_refused_with_the_remedy(layout: Layout) -> None:
    with pytest.raises(ConfigurationError, match=r"Celery workers need PostgreSQL .* install postgresql"):
        plan(layout, workers=1, database=Database.SQLITE)


@pytest.mark.parametrize(
    "workers, valid", [(0, True), (WORKERS_MAX, True), (WORKERS_MAX + 1, False), (-1, False)]
)
def test_the_number_of_workers_has_bounds(workers, valid, monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_STACK_WORKERS", str(workers))
    if valid:
        assert StackVariables.load().workers == workers
        assert StackVariables.load(workers=3).workers == 3, "the command line wins"
    else:
        with pytest.raises(ConfigurationError, match="LOCAL_STACK_WORKERS"):
            StackVariables.load()


@pytest.mark.parametrize(
    "log, started",
    [
        ("", False),
        (" -------------- airflow-worker-1@lake v5.6.3 (recovery)\n", False),
        (
            " -------------- w@lake v5.6.3 (recovery)\n... [info ] w@lake ready.   [celery.apps.worker]\n",
            True,
        ),
        ("w@lake ready.   [celery]\n -------------- w@lake v5.6.3 (recovery)\n", False),
        ("many lines of tasks\n", True),
    ],
)
def test_a_worker_is_ready_when_its_last_start_is_done(log, started) -> None:
    assert has_started(log) is started


@needs_redis
def test_redis_takes_its_password_alone_and_keeps_messages_when_it_is_killed(tmp_path: Path) -> None:
    service = Redis(tmp_path / "redis", tmp_path / "redis.log", free_ports(1), "right")
    server = RunningProgram(service.program())
    server.start()
    try:
        with pytest.raises(Unhealthy, match="WRONGPASS"):
            Redis(service.data_directory, service.log_file, service.port, "wrong").check_health()
        assert b"+OK" in _say(service, "RPUSH default task")
        server.kill()
        with pytest.raises(Unhealthy, match=r"Redis at 127\.0\.0\.1"):
            service.check_health()
        server.start()
        assert b"task" in _say(service, "LRANGE default 0 -1")
    finally:
        server.kill()


def _say(service: Redis, command: str) -> bytes:
    with socket.create_connection((LOOPBACK, service.port)) as connection:
        connection.sendall(f"AUTH {service.password}\r\n{command}\r\nQUIT\r\n".encode())
        answer = b""
        while part := connection.recv(1_024):
            answer += part
    return answer


def test_with_workers_the_scheduler_loads_nothing_for_tasks() -> None:
    program = (
        "import json, os, runpy, sys; os.environ['AIRFLOW__CORE__EXECUTOR'] = 'CeleryExecutor'; "
        "sys.argv = ['airflow', 'scheduler']; runpy.run_path('local_stack/airflow_local_settings.py'); "
        "print(json.dumps([name for name in ('polars', 'great_expectations') if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
