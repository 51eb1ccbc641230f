"""Which tasks of a running stack are worked on, by which Celery worker, and what became of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from lake_testing.local_lake import LocalLake
from local_stack.airflow import ADMIN
from telemetry_lake.analysis_jobs.airflow_api import AirflowApi
from telemetry_lake.settings import AirflowSettings

AT_ONCE_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task instance by its run, its name and its place among mapped ones; which try of it this is."""

    run: str
    name: str
    map_index: int
    try_number: int


@dataclass(frozen=True, slots=True)
class AirflowTasks:
    """The tasks of one DAG of a stack."""

    lake: LocalLake
    api: AirflowApi
    dag: str

    def running_on(self, worker: str) -> list[RunningTask]:
        """Return the tasks that run on this worker at this moment."""
        processes = {process.pid for process in self.lake.processes(worker)}
        return [_task(found) for found in self._instances(state="running") if found["pid"] in processes]

    def was_tried_again(self, task: RunningTask) -> bool | None:
        """Return whether there is a later try of the task; None as long as it counts as running."""
        for found in self._instances():
            seen = _task(found)
            if (seen.run, seen.name, seen.map_index) == (task.run, task.name, task.map_index):
                if seen.try_number > task.try_number or found["state"] == "up_for_retry":
                    return True
                return None if found["state"] == "running" else False
        return None

    def _instances(self, **wanted: str) -> list[dict[str, Any]]:
        where = f"dags/{self.dag}/dagRuns/~/taskInstances"
        answer = self.api.get(where, limit=AT_ONCE_MAX, order_by="-start_date", **wanted)
        return [] if answer is None else list(answer["task_instances"])


def _task(found: dict[str, Any]) -> RunningTask:
    return RunningTask(found["dag_run_id"], found["task_id"], found["map_index"], found["try_number"])


@contextmanager
def airflow_tasks(lake: LocalLake, dag: str) -> Iterator[AirflowTasks]:
    """Yield the tasks of a DAG, asked for as the administrator of the stack's Airflow."""
    password = SecretStr(lake.plan.airflow_password_file.read_text())
    api = AirflowApi(AirflowSettings(url=lake.plan.airflow_url, user=ADMIN, password=password))
    try:
        yield AirflowTasks(lake, api, dag)
    finally:
        api.close()
