"""Celery workers of a whole stack are killed in the middle of tasks of the drain."""

from pathlib import Path

import pytest

from lake_testing.airflow_tasks import AirflowTasks, RunningTask, airflow_tasks
from lake_testing.chaos import VARIABLES, kill_all, workers_of
from lake_testing.local_lake import LocalLake, local_lake, running_fleet, wait_for
from lake_testing.proof_check import wait_for_verdict
from local_stack.program import find_server

DEADLINE_SECONDS = 300.0
KILLS = 2
TRIES_MAX = 5
"""A task may end between the look at it and the kill."""

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(find_server("redis-server") is None, reason="redis-server is not installed"),
]


def test_workers_killed_with_tasks_of_the_drain_lose_and_double_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "acknowledged"
    with local_lake({"LOCAL_STACK_WORKERS": "2", **VARIABLES}) as lake, airflow_tasks(lake, "drain") as tasks:
        with running_fleet(lake.url, proof, "--rate", "200", "--quiet") as fleet:
            assert len(workers_of(lake)) == 2
            for _ in range(KILLS):
                assert any(_a_worker_is_killed_with_a_task(lake, tasks) for _ in range(TRIES_MAX))
            fleet.stop()
        verdict = wait_for_verdict(proof, lake.settings, deadline_seconds=DEADLINE_SECONDS)
    assert verdict.holds, str(verdict)
    assert verdict.acknowledged > 1000


def _a_worker_is_killed_with_a_task(lake: LocalLake, tasks: AirflowTasks) -> bool:
    """Kill all processes of a worker that has a task; returns whether the task was cut off by that."""

    def found() -> tuple[str, RunningTask] | None:
        return next(((name, task) for name in workers_of(lake) for task in tasks.running_on(name)), None)

    worker, task = wait_for(found, deadline_seconds=DEADLINE_SECONDS, what="a worker has a task of the drain")
    # The main process first: it would start the others again.
    kill_all(lake.processes(worker))
    wait_for(
        lambda: tasks.was_tried_again(task) is not None,
        deadline_seconds=DEADLINE_SECONDS,
        what=f"Airflow notices that {task} ended",
    )
    wait_for(lambda: lake.is_up(worker), deadline_seconds=DEADLINE_SECONDS, what=f"{worker} is back")
    return tasks.was_tried_again(task) is True
