"""The source `airflow`: signs of life, and what came of runs and tasks, by Airflow's REST API.

Airflow's own metrics are not relied on: some are missing in Airflow 3 and others change their names. Runs and
tasks that ended since the last look are counted once, also over a new start of the exporter.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, TypeAdapter

from telemetry_lake.analysis_jobs.airflow_api import AirflowApi
from telemetry_lake.failures import FatalError
from telemetry_lake.monitoring.exporter_metrics import AIRFLOW_COMPONENTS, DAGS, RUN_STATES
from telemetry_lake.monitoring.sources.facts import Fact, KeptRecord, age, value
from telemetry_lake.settings import AirflowSettings

AIRFLOW_SECONDS: Final = 30.0
PAGE_SIZE: Final = 100
PAGES_MAX: Final = 10
"""So many pages of runs, and of tasks, are read in a look; the next one goes on."""
OVERLAP: Final = timedelta(minutes=2)
"""A run that ended this long before the last one that was seen may become visible after it."""
ASKED_AGAIN_AFTER: Final = timedelta(minutes=10)
"""How often a DAG without a known success is asked for its last one."""
WITHIN: Final[Mapping[str, timedelta]] = {
    "expire_snapshots": timedelta(minutes=30),
    "reconcile": timedelta(minutes=45),
    "scheduled_analyses": timedelta(minutes=20),
    "anomalies": timedelta(minutes=30),
    "fresh_aggregates": timedelta(hours=2),
    "ping_volumes": timedelta(hours=2, minutes=15),
    "count_pings": timedelta(hours=2, minutes=15),
    "dashboard": timedelta(hours=2),
    "completeness": timedelta(hours=26),
    "housekeeping": timedelta(hours=26),
    "maintenance": timedelta(hours=27),
    "stable_tables": timedelta(hours=27),
}
"""After a good run of a scheduled DAG, the next one ends within this time."""

_TIME: Final = TypeAdapter(AwareDatetime)


class AirflowRecord(BaseModel):
    """What is known after a look."""

    first_seen_at: AwareDatetime
    seen_until: dict[str, AwareDatetime] = {}
    """The newest end that was seen, of runs and of tasks."""
    seen: dict[str, AwareDatetime] = {}
    """Runs and tasks that ended lately, with that time."""
    runs: dict[str, int] = {}
    failed_tasks: dict[str, int] = {}
    last_success: dict[str, AwareDatetime] = {}


def exporters_api(settings: AirflowSettings) -> AirflowApi:
    """Return Airflow's API for the exporter, which tries once. Raises ConfigurationError."""
    return AirflowApi(
        settings.model_copy(update={"max_attempts": 1}),
        what="runs are looked at",
        needs="the user needs to read DAGs, runs, task instances and import errors",
    )


class AirflowSource:
    """The source `airflow`; one thread reads it."""

    name = "airflow"
    interval_seconds = AIRFLOW_SECONDS

    def __init__(self, api: AirflowApi, directory: Path) -> None:
        self._api = api
        self._kept = KeptRecord(directory, self.name, AirflowRecord)
        self._record = self._kept.load()
        self._asked_at: dict[str, datetime] = {}

    def read(self, now: datetime) -> list[Fact]:
        """Look once, keep what was counted, and return it."""
        record = (
            AirflowRecord(first_seen_at=now) if self._record is None else self._record.model_copy(deep=True)
        )
        facts = list(self._signs_of_life())
        self._take_runs(record, now)
        self._take_tasks(record, now)
        self._take_last_successes(record, now)
        record.seen = {
            key: at
            for key, at in record.seen.items()
            if at >= record.seen_until[key.partition(":")[0]] - OVERLAP
        }
        facts += [
            value("airflow_runs_open", self._total("dags/~/dagRuns", state=state), state)
            for state in ("queued", "running")
        ]
        facts.append(value("airflow_import_errors", self._total("importErrors")))
        self._record = record
        self._kept.save(record)
        return [*facts, *_facts(record, now)]

    def _signs_of_life(self) -> Iterator[Fact]:
        health = self._answer("monitor/health")
        for component in AIRFLOW_COMPONENTS:
            beat = (health.get(component) or {}).get(f"latest_{component}_heartbeat")
            if beat is not None:
                yield age("airflow_heartbeat_age_seconds", _TIME.validate_python(beat), component)

    def _take_runs(self, record: AirflowRecord, now: datetime) -> None:
        where, identity = "dags/~/dagRuns", ("dag_id", "dag_run_id")
        for run in self._ended("runs", where, "dag_runs", identity, record, now, state=list(RUN_STATES)):
            dag, state = run["dag_id"], run["state"]
            key = f"{dag}/{state}"
            record.runs[key] = record.runs.get(key, 0) + 1
            if state == "success":
                ended = _TIME.validate_python(run["end_date"])
                record.last_success[dag] = max(record.last_success.get(dag, ended), ended)

    def _take_tasks(self, record: AirflowRecord, now: datetime) -> None:
        where = "dags/~/dagRuns/~/taskInstances"
        for task in self._ended(
            "tasks", where, "task_instances", ("id", "try_number"), record, now, state=["failed"]
        ):
            dag = task["dag_id"]
            record.failed_tasks[dag] = record.failed_tasks.get(dag, 0) + 1

    def _ended(
        self,
        kind: str,
        where: str,
        what: str,
        identity: tuple[str, str],
        record: AirflowRecord,
        now: datetime,
        state: list[str],
    ) -> Iterator[dict[str, Any]]:
        """Yield what ended since the last look and is of one of our DAGs, once, the oldest first."""
        seen_until = record.seen_until.setdefault(kind, now)
        since = max(seen_until - OVERLAP, record.first_seen_at)
        for page in range(PAGES_MAX):
            answer = self._answer(
                where,
                end_date_gte=since.isoformat(),
                order_by="end_date",
                limit=PAGE_SIZE,
                offset=page * PAGE_SIZE,
                state=state,
            )
            found = answer[what]
            for item in found:
                if item["end_date"] is None:  # Airflow takes what runs for something that ends now
                    continue
                key = ":".join((kind, *(str(item[name]) for name in identity)))
                ended = _TIME.validate_python(item["end_date"])
                record.seen_until[kind] = max(record.seen_until[kind], ended)
                if key not in record.seen and item["dag_id"] in DAGS:
                    yield item
                record.seen[key] = ended
            if len(found) < PAGE_SIZE:
                return

    def _take_last_successes(self, record: AirflowRecord, now: datetime) -> None:
        """Ask for the last good run of DAGs of which none is known; later ones come with the runs."""
        for dag in DAGS:
            asked_at = self._asked_at.get(dag)
            if dag in record.last_success or (asked_at is not None and now - asked_at < ASKED_AGAIN_AFTER):
                continue
            answer = self._api.get(f"dags/{dag}/dagRuns", state="success", order_by="-end_date", limit=1)
            self._asked_at[dag] = now
            if answer is not None and answer["dag_runs"]:
                record.last_success[dag] = _TIME.validate_python(answer["dag_runs"][0]["end_date"])

    def _total(self, where: str, **filters: str) -> int:
        return int(self._answer(where, limit=1, **filters)["total_entries"])

    def _answer(self, where: str, **params: Any) -> dict[str, Any]:
        answer = self._api.get(where, **params)
        if answer is None:
            raise FatalError(
                f"Airflow does not know /api/v2/{where}: it is older than 3.0, or something else"
            )
        return answer


def _facts(record: AirflowRecord, now: datetime) -> Iterator[Fact]:
    for dag in DAGS:
        for state in RUN_STATES:
            yield value("airflow_runs_total", record.runs.get(f"{dag}/{state}", 0), dag, state)
        yield value("airflow_failed_tasks_total", record.failed_tasks.get(dag, 0), dag)
        if dag in record.last_success:
            yield age("airflow_last_success_age_seconds", record.last_success[dag], dag)
        if dag in WITHIN:
            due_at = record.last_success.get(dag, record.first_seen_at) + WITHIN[dag]
            is_late = now > due_at
            yield (
                age("airflow_dag_late_seconds", due_at, dag)
                if is_late
                else value("airflow_dag_late_seconds", 0, dag)
            )
