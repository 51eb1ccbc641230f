"""DAGs of a running local stack, over Airflow's API: pause them, and ask how their tasks went."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import httpx

from lake_testing.local_lake import LocalLake, wait_for
from local_stack.airflow import ADMIN
from telemetry_lake.project_files import PROJECT_ROOT

PARSED_MAX_SECONDS: Final = 120.0
TIMEOUT_SECONDS: Final = 60.0
PAGE_ITEMS: Final = 100
"""The most that Airflow's API returns at once."""


@dataclass(frozen=True, slots=True)
class TaskLook:
    """One task of one run, as its last attempt left it; seconds are since 1970."""

    name: str
    state: str | None
    attempts: int
    started_at: float
    ended_at: float


class Dags:
    """What is asked of the Airflow of one stack."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def pause_all_but(self, kept: str) -> None:
        """Pause every DAG except one, once Airflow knows all of them."""
        files = (PROJECT_ROOT / "dags").glob("*.py")
        count = sum(re.search(r"^@dag\(", file.read_text(), re.MULTILINE) is not None for file in files)
        wait_for(
            lambda: self._get("dags")["total_entries"] == count,
            deadline_seconds=PARSED_MAX_SECONDS,
            what=f"Airflow knows {count} DAGs",
        )
        answer = self._client.patch("dags", params={"dag_id_pattern": "~"}, json={"is_paused": True})
        answer.raise_for_status()
        self.pause(kept, paused=False)

    def pause(self, dag: str, *, paused: bool = True) -> None:
        """Pause a DAG, or let it go on."""
        self._client.patch(f"dags/{dag}", json={"is_paused": paused}).raise_for_status()

    def runs_at_work(self, dag: str) -> int:
        """Return how many runs of a DAG have not ended."""
        return int(self._get(f"dags/{dag}/dagRuns", state=["queued", "running"])["total_entries"])

    def scheduler_seen_at(self) -> float:
        """Return when the scheduler gave its last sign of life; 0 when there is none."""
        found = self._get("monitor/health")["scheduler"]["latest_scheduler_heartbeat"]
        return _seconds(found)

    def tasks(self, dag: str) -> list[TaskLook]:
        """Return the tasks of all runs of a DAG that have begun."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(f"dags/{dag}/dagRuns/~/taskInstances", limit=PAGE_ITEMS, offset=len(found))
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                break
        return [
            TaskLook(
                item["task_id"],
                item["state"],
                item["try_number"],
                _seconds(item["start_date"]),
                _seconds(item["end_date"]),
            )
            for item in found
            if item["start_date"]
        ]

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return dict(self._client.get(path, params=params).raise_for_status().json())


@contextmanager
def dags_of(lake: LocalLake) -> Iterator[Dags]:
    """Log in to the Airflow of a stack. Yields what can be asked there."""
    airflow = lake.plan.airflow_url
    login = {"username": ADMIN, "password": lake.plan.airflow_password_file.read_text().strip()}
    answer = httpx.post(f"{airflow}/auth/token", json=login, timeout=TIMEOUT_SECONDS).raise_for_status()
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    with httpx.Client(base_url=f"{airflow}/api/v2/", headers=headers, timeout=TIMEOUT_SECONDS) as client:
        yield Dags(client)


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0
