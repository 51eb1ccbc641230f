"""A person at the pages of a stack's Airflow: who may switch DAGs off and on, and start runs."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import httpx

from lake_testing.local_lake import LocalLake, wait_for
from local_stack.airflow import ADMIN

RUN_SECONDS: Final = 300.0
"""What a run of a quick DAG needs at most, on a busy machine."""


@contextmanager
def logged_in(url: str, user: str, password: str) -> Iterator[httpx.Client]:
    """Yield a client of Airflow's pages and API for who has this password. Raises httpx.HTTPStatusError."""
    login = httpx.post(f"{url}/auth/token", json={"username": user, "password": password}).raise_for_status()
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        yield client


def administrator(lake: LocalLake) -> AbstractContextManager[httpx.Client]:
    """Yield a client for the administrator of a stack's Airflow."""
    return logged_in(lake.plan.airflow_url, ADMIN, lake.plan.airflow_password_file.read_text())


class AirflowUser:
    """What a person who is logged in does with DAGs."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def switch(self, dag: str, *, on: bool) -> None:
        """Switch a DAG on or off."""
        self._client.patch(f"/api/v2/dags/{dag}", json={"is_paused": not on}).raise_for_status()

    @contextmanager
    def switched_off(self, dag: str) -> Iterator[None]:
        """Keep a DAG from starting runs for the length of the block."""
        self.switch(dag, on=False)
        try:
            yield
        finally:
            self.switch(dag, on=True)

    def run(self, dag: str) -> str:
        """Start a run of a DAG, and wait for its end. Returns its state, `success` or `failed`."""
        runs = f"/api/v2/dags/{dag}/dagRuns"
        started: dict[str, Any] = (
            self._client.post(runs, json={"logical_date": None}).raise_for_status().json()
        )
        where = f"{runs}/{started['dag_run_id']}"

        def ended() -> str | None:
            state = str(self._client.get(where).raise_for_status().json()["state"])
            return state if state in ("success", "failed") else None

        return wait_for(ended, deadline_seconds=RUN_SECONDS, what=f"the run of {dag} ends")
