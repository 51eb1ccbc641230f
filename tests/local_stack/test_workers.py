"""Celery workers of a real stack: killed under load, and added and removed by the backlog."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lake_testing.airflow_dags import Dags, dags_of
from lake_testing.chaos import BUSY_WORKER, FLEET_OPTIONS, VARIABLES, chaos
from lake_testing.local_lake import LocalLake, local_lake, running_fleet, wait_for
from lake_testing.proof_check import wait_for_verdict
from local_stack.celery_workers import REDIS
from local_stack.postgres import find_binaries
from local_stack.program import find_server
from local_stack.scale_workers import Controller, Workers, tasks_of
from telemetry_lake.deploy import scaling
from telemetry_lake.settings import Role, load_settings
from telemetry_lake.units import KIB

# Not of `stack`: those are run by `make test`, too.
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(
        find_server("redis-server") is None,
        reason="redis-server is not installed: apt-get install redis-server",
    ),
    pytest.mark.skipif(find_binaries() is None, reason="PostgreSQL is not installed"),
]
CHANGE_MAX_SECONDS = 300.0
RECOVERY_MAX_SECONDS = 400.0
SMALL = {"LOCAL_STACK_WORKERS": "2", "LOCAL_STACK_BALANCER": "none", "LOCAL_STACK_PROMETHEUS": "false"}


@pytest.fixture(scope="module")
def lake() -> Iterator[LocalLake]:
    """A stack with two workers."""
    with local_lake({**VARIABLES, **SMALL}) as started:
        yield started


@pytest.fixture
def dags(lake: LocalLake) -> Iterator[Dags]:
    """Its Airflow, in which nothing but the drain runs."""
    with dags_of(lake) as found:
        found.pause_all_but("drain")
        yield found


def run_again(dags: Dags) -> int:
    """Return how many tasks of the drain did not succeed at their first attempt."""
    unsuccessful = ("failed", "up_for_retry", "upstream_failed")
    return sum(task.attempts > 1 or task.state in unsuccessful for task in dags.tasks("drain"))


def test_no_ping_is_lost_or_doubled_when_workers_are_killed(
    lake: LocalLake, dags: Dags, tmp_path: Path
) -> None:
    Workers(lake.layout).add(2)
    before = run_again(dags)
    victims = (BUSY_WORKER, REDIS, BUSY_WORKER)
    report = chaos(
        lake, tmp_path / "killed", victims=victims, rate=20, recovery_max_seconds=RECOVERY_MAX_SECONDS
    )
    assert report.verdict.holds, str(report)
    assert report.killed == {BUSY_WORKER: 2, REDIS: 1}
    assert run_again(dags) > before, "no task was killed"


def test_workers_come_with_a_backlog_and_go_with_it(
    lake: LocalLake, dags: Dags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A backlog of some hundred pings, and a quarter of an hour in 15 seconds.
    monkeypatch.setattr(scaling, "TARGET_BACKLOG_BYTES_PER_WORKER", 64 * KIB)
    workers = Workers(lake.layout)
    said: list[str] = []
    settings = load_settings(lake.layout.env_file, role=Role.DRAIN)
    controller = Controller(settings, workers, ceiling_workers=2, say=said.append, speed=60)

    def wait(condition: Callable[[], bool], what: str) -> None:
        wait_for(condition, deadline_seconds=CHANGE_MAX_SECONDS, what=what)

    def steps_until(count: int) -> None:
        """Let the controller work until `count` workers run."""

        def step() -> bool:
            controller.step()
            time.sleep(controller.interval_seconds)
            return len(workers.busy()) == count

        wait(step, f"{count} workers run; {said}")

    before = run_again(dags)
    second = workers.names()[-1]
    proof = tmp_path / "acknowledged"
    with running_fleet(lake.url, proof, "--rate", "60", *FLEET_OPTIONS) as fleet:
        wait(lambda: bool(tasks_of(lake.leader(second))), f"{second} has a task")
        workers.remove(second)
        wait(lambda: lake.leader(second) == 0, f"{second} has finished its tasks, and is gone")
        steps_until(2)
        wait(lambda: bool(tasks_of(lake.leader(second))), f"{second} has a task again")
        fleet.stop()
    steps_until(1)
    changes = [line.split()[-1] for line in said]
    assert changes == ["started", "stops"], said
    verdict = wait_for_verdict(proof, lake.settings, deadline_seconds=RECOVERY_MAX_SECONDS)
    assert verdict.holds, str(verdict)
    assert run_again(dags) == before, "a worker was stopped with a task of the drain on it"
