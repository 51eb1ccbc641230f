"""Celery workers of a real stack: killed under load, and added and removed by the backlog."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from lake_testing.chaos import FLEET_OPTIONS, VARIABLES, chaos, workers_of
from lake_testing.local_lake import LocalLake, local_lake, running_fleet, wait_for
from lake_testing.proof_check import wait_for_verdict
from local_stack.celery_workers import REDIS
from local_stack.postgres import DATABASE, USER, find_binaries
from local_stack.program import LOOPBACK, find_server
from local_stack.scale_workers import Controller, Workers
from local_stack.secret_files import secret
from telemetry_lake.deploy import scaling
from telemetry_lake.settings import Role, load_settings
from telemetry_lake.units import KIB

pytestmark = [
    pytest.mark.long,
    pytest.mark.stack,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(find_server("redis-server") is None, reason="redis-server is not installed"),
    pytest.mark.skipif(find_binaries() is None, reason="PostgreSQL is not installed"),
]
RECOVERY_MAX_SECONDS = 600.0
CHANGE_MAX_SECONDS = 300.0
RUN_AGAIN = (
    "SELECT count(*) FROM task_instance WHERE dag_id = 'drain' "
    "AND (try_number > 1 OR state IN ('failed', 'up_for_retry', 'upstream_failed'))"
)


@pytest.fixture(scope="module")
def lake() -> Iterator[LocalLake]:
    """A stack with two workers."""
    with local_lake({**VARIABLES, "LOCAL_STACK_WORKERS": "2"}) as started:
        yield started


def test_workers_come_with_a_backlog_and_go_with_it(
    lake: LocalLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A backlog of some hundred pings, and a quarter of an hour in 15 seconds.
    monkeypatch.setattr(scaling, "TARGET_BACKLOG_BYTES_PER_WORKER", 256 * KIB)
    workers = Workers(lake.layout, 2)
    before = drain_tasks_run_again(lake)
    said: list[str] = []
    settings = load_settings(lake.layout.env_file, role=Role.DRAIN)
    controller = Controller(settings, workers, ceiling_workers=2, say=said.append, speed=60)
    workers.remove(workers_of(lake)[1])
    wait_for(lambda: len(workers.busy()) == 1, deadline_seconds=CHANGE_MAX_SECONDS, what="one worker is left")

    def steps_until(count: int) -> None:
        """Let the controller work until `count` workers run."""

        def step() -> bool:
            controller.step()
            time.sleep(controller.interval_seconds)
            return len(workers.busy()) == count

        wait_for(step, deadline_seconds=CHANGE_MAX_SECONDS, what=f"{count} workers run; {said}")

    proof = tmp_path / "acknowledged"
    with running_fleet(lake.url, proof, "--rate", "100", *FLEET_OPTIONS) as fleet:
        steps_until(2)
        fleet.stop()
    steps_until(1)
    changes = [line.split()[-1] for line in said if line.endswith(("started", "stops"))]
    assert changes == ["started", "stops"], said
    verdict = wait_for_verdict(proof, lake.settings, deadline_seconds=RECOVERY_MAX_SECONDS)
    assert verdict.holds, str(verdict)
    assert drain_tasks_run_again(lake) == before, "a worker was stopped with a task of the drain on it"


def test_no_ping_is_lost_or_doubled_when_workers_are_killed(lake: LocalLake, tmp_path: Path) -> None:
    first, second = workers_of(lake)
    for name in (first, second):
        Workers(lake.layout, 2).add(2)
        wait_for(lambda: lake.is_up(name), deadline_seconds=CHANGE_MAX_SECONDS, what=f"{name} runs")  # noqa: B023
    victims = ("a task process", first, REDIS, second, "a task process")
    report = chaos(
        lake, tmp_path / "killed", victims=victims, rate=10, recovery_max_seconds=RECOVERY_MAX_SECONDS
    )
    assert report.verdict.holds, str(report)
    assert report.killed.total() == len(victims)


def drain_tasks_run_again(lake: LocalLake) -> int:
    """Return how many tasks of the drain did not succeed at their first attempt."""
    connection = psycopg2.connect(
        host=LOOPBACK,
        port=lake.plan.configuration.variables.postgres_port,
        user=USER,
        password=secret(lake.layout.secrets, "postgres_password"),
        dbname=DATABASE,
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(RUN_AGAIN)
            [(count,)] = cursor.fetchall()
            return int(count)
    finally:
        connection.close()
