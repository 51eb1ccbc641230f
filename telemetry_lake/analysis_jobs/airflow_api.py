"""The requests of the analysis service to Airflow's REST API: start a run, ask for its state, end it.

A failed request is tried again, because each of them may be repeated: the id of a run is the service's, and
Airflow refuses a second run of the same id, which counts as success.
"""

import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import httpx
from pydantic import AwareDatetime, BaseModel, ValidationError

from telemetry_lake.failures import ConfigurationError, FatalError, RetriableError
from telemetry_lake.settings import AirflowSettings

DAG: Final = "mapreduce"
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
CONFLICT: Final = 409
BUSY: Final = frozenset({429, 500, 502, 503, 504})
ANSWER_SHOWN_CHARACTERS: Final = 300
STARTS_RUNS: Final = "runs are started"
RIGHTS_TO_START: Final = f"the user needs to start runs of the DAG {DAG} and to change their state"


class _Run(BaseModel):
    state: str
    queued_at: AwareDatetime | None
    start_date: AwareDatetime | None
    end_date: AwareDatetime | None


@dataclass(frozen=True, slots=True)
class AirflowRun:
    """What Airflow knows of a run; `state` is `queued`, `running`, `success` or `failed`."""

    state: str
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


class AirflowApi:
    """The API at the URL of the settings; safe to share between threads.

    Raises RetriableError when Airflow does not answer or is busy, and FatalError when it refuses.
    """

    def __init__(
        self, settings: AirflowSettings, *, what: str = STARTS_RUNS, needs: str = RIGHTS_TO_START
    ) -> None:
        """`what` goes through Airflow and `needs` rights there, both in words, for messages.

        Raises ConfigurationError when the settings do not say where Airflow is.
        """
        if settings.url is None or settings.user is None or settings.password is None:
            raise ConfigurationError(
                f"{what} through Airflow: set TELEMETRY_LAKE_AIRFLOW__URL, "
                "TELEMETRY_LAKE_AIRFLOW__USER and TELEMETRY_LAKE_AIRFLOW__PASSWORD"
            )
        self._what = what
        self._needs = needs
        self._settings = settings
        self._url = settings.url.rstrip("/")
        self._client = httpx.Client(timeout=settings.timeout_seconds)
        self._lock = threading.Lock()
        self._token: str | None = None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def trigger(self, run_id: str) -> bool:
        """Start a run of the DAG `mapreduce`; returns False when there is one of this id already."""
        answer = self._request("POST", self._runs(), json={"dag_run_id": run_id, "logical_date": None})
        if answer.status_code == CONFLICT:
            return False
        _raise_unless_good(answer, f"starting the run {run_id}")
        return True

    def run(self, run_id: str) -> AirflowRun | None:
        """Return what Airflow knows of a run; None when it does not know it."""
        answer = self._request("GET", self._runs(run_id))
        if answer.status_code == NOT_FOUND:
            return None
        _raise_unless_good(answer, f"asking for the run {run_id}")
        try:
            found = _Run.model_validate_json(answer.content)
        except ValidationError as error:
            raise FatalError(f"Airflow at {self._url} answers what no Airflow 3 does: {error}") from error
        return AirflowRun(found.state, found.queued_at, found.start_date, found.end_date)

    def get(self, path: str, **params: Any) -> dict[str, Any] | None:
        """Return the answer to a question below `/api/v2/`; None when what is asked for does not exist."""
        answer = self._request("GET", f"{self._url}/api/v2/{path}", params=params)
        if answer.status_code == NOT_FOUND:
            return None
        _raise_unless_good(answer, f"asking for {path}")
        return dict(answer.json())

    def cancel(self, run_id: str) -> None:
        """End a run; one that has ended, or that Airflow does not know, stays as it is."""
        found = self.run(run_id)
        if found is None or found.state not in ("queued", "running"):
            return
        answer = self._request(
            "PATCH", self._runs(run_id), params={"update_mask": "state"}, json={"state": "failed"}
        )
        # 409: it ended meanwhile.
        if answer.status_code not in (NOT_FOUND, CONFLICT):
            _raise_unless_good(answer, f"cancelling the run {run_id}")

    def page(self, run_id: str) -> str:
        """Return the address of Airflow's page of a run."""
        return page_of_run(self._settings, run_id) or ""

    def _runs(self, run_id: str | None = None) -> str:
        runs = f"{self._url}/api/v2/dags/{DAG}/dagRuns"
        return runs if run_id is None else f"{runs}/{quote(run_id, safe='')}"

    def _request(self, method: str, url: str, **request: Any) -> httpx.Response:
        """Return the answer to a request, sent again with a new token when the old one is refused."""
        token = self._current_token()
        answer = self._send(method, url, headers={"Authorization": f"Bearer {token}"}, **request)
        # Airflow answers 401 or 403 to a token that it does not take, for example after a new start.
        if answer.status_code in (UNAUTHORIZED, FORBIDDEN):
            token = self._current_token(refused=token)
            answer = self._send(method, url, headers={"Authorization": f"Bearer {token}"}, **request)
        if answer.status_code in (UNAUTHORIZED, FORBIDDEN):
            raise FatalError(
                f"Airflow refuses {self._settings.user} what is asked for ({_shown(answer)}): {self._needs}"
            )
        return answer

    def _current_token(self, *, refused: str | None = None) -> str:
        with self._lock:
            if self._token is None or self._token == refused:
                password = self._settings.password
                assert password is not None, "the constructor has checked it"
                answer = self._send(
                    "POST",
                    f"{self._url}/auth/token",
                    json={"username": self._settings.user, "password": password.get_secret_value()},
                )
                if answer.status_code in (UNAUTHORIZED, FORBIDDEN):
                    raise FatalError(
                        f"Airflow does not accept the password of {self._settings.user}: see "
                        "TELEMETRY_LAKE_AIRFLOW__PASSWORD"
                    )
                _raise_unless_good(answer, "signing in")
                self._token = str(answer.json()["access_token"])
            return self._token

    def _send(self, method: str, url: str, **request: Any) -> httpx.Response:
        """Return the answer to a request that may be repeated."""
        wait = self._settings.retry_wait_seconds
        for attempt in range(1, self._settings.max_attempts + 1):
            problem: str
            try:
                answer = self._client.request(method, url, **request)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code not in BUSY:
                    return answer
                problem = _shown(answer)
            if attempt < self._settings.max_attempts:
                time.sleep(wait)
                wait *= 2
        what_then = ". What was asked for is written down, and is done as soon as it answers"
        raise RetriableError(
            f"Airflow at {self._url} does not answer: {problem}"
            + (what_then if self._what == STARTS_RUNS else "")
        )


def page_of_run(settings: AirflowSettings, run_id: str) -> str | None:
    """Return the address of Airflow's page of a run; None when the settings do not say where Airflow is."""
    url = settings.public_url or settings.url
    return None if url is None else f"{url.rstrip('/')}/dags/{DAG}/runs/{quote(run_id, safe='')}"


def _raise_unless_good(answer: httpx.Response, what: str) -> None:
    if answer.is_success:
        return
    if answer.status_code == NOT_FOUND:
        raise RetriableError(f"{what}: Airflow does not know the DAG {DAG} yet ({_shown(answer)})")
    raise FatalError(f"{what}: Airflow answers {_shown(answer)}")


def _shown(answer: httpx.Response) -> str:
    return f"{answer.status_code}: {answer.text[:ANSWER_SHOWN_CHARACTERS]}"
