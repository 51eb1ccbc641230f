"""Looks at a running stack: its processes, and how far the pings have come. Cheap: no table is scanned."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError, RESTError
from requests.exceptions import RequestException

from local_stack.plan import Plan
from local_stack.program import Program, Unhealthy, probe
from local_stack.supervision import ProcessState, Supervisor, SupervisorUnavailable
from local_stack.watch import health_of
from telemetry_lake.drain.days import DayLedger
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import Role, Settings, load_settings
from telemetry_lake.storage.object_store import ObjectStore

LIVE_TABLE: Final = ("live", "pings")
REJECTED_TABLE: Final = ("live", "rejected_pings")
_METRIC: Final = "telemetry_lake_ingest_"


@dataclass(frozen=True, slots=True)
class ProcessLook:
    """One program at one moment."""

    name: str
    state: str
    pid: int
    uptime_seconds: int
    wrong: str | None
    """What is wrong with it; None when it is healthy, or when its health is unknown."""
    log_file: str


@dataclass(frozen=True, slots=True)
class FlowLook:
    """How far the pings have come; None where that part of the stack does not answer."""

    acknowledged: int | None
    """Pings answered 200 since the ingest nodes started."""
    segments_waiting: int | None
    index_messages_waiting: int | None
    live_rows: int | None
    rejected_rows: int | None
    last_commit_age_seconds: float | None
    completeness: str | None
    """What the last look at all days found; None before the first one."""
    at_seconds: float
    """On the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Look:
    """The stack at one moment."""

    processes: tuple[ProcessLook, ...]
    flow: FlowLook
    supervisor_runs: bool

    @property
    def is_healthy(self) -> bool:
        """Whether everything runs and answers."""
        return self.supervisor_runs and all(
            process.state == "RUNNING" and process.wrong is None for process in self.processes
        )


class Observer:
    """Looks at one stack again and again over connections that it keeps."""

    def __init__(self, plan: Plan, executor: ThreadPoolExecutor) -> None:
        self._plan = plan
        self._supervisor = Supervisor(plan.layout)
        self._executor = executor

    def look(self) -> Look:
        """Look at everything once, which takes as long as the slowest answer."""
        flow = self._executor.submit(self._flow)
        try:
            states: dict[str, ProcessState] = self._supervisor.states()
            health = health_of(self._plan.programs, states, self._executor)
            supervisor_runs = True
        except SupervisorUnavailable:
            states, health, supervisor_runs = {}, {}, False
        processes = tuple(
            _process(program, states, health)
            for program in self._plan.programs
            if not (program.may_be_stopped and _is_stopped(states.get(program.name)))
        )
        return Look(processes, flow.result(), supervisor_runs)

    def _flow(self) -> FlowLook:
        acknowledged, waiting = self._ingest()
        live_rows, last_commit = self._table(LIVE_TABLE)
        rejected_rows, last_rejected_commit = self._table(REJECTED_TABLE)
        commits = [commit for commit in (last_commit, last_rejected_commit) if commit is not None]
        return FlowLook(
            acknowledged=acknowledged,
            segments_waiting=waiting,
            index_messages_waiting=self._queue_length(),
            live_rows=live_rows,
            rejected_rows=rejected_rows,
            last_commit_age_seconds=time.time() - max(commits) if commits else None,
            completeness=self._completeness(),
            at_seconds=time.monotonic(),
        )

    def _ingest(self) -> tuple[int | None, int | None]:
        acknowledged = waiting = 0
        for node in self._plan.nodes:
            try:
                text = probe(node.name, node.metrics_url).decode()
            except Unhealthy:
                return None, None
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    # Of submissions only; the 200s of health checks are in requests_total too.
                    if sample.name == f"{_METRIC}request_seconds_count":
                        acknowledged += int(sample.value)
                    elif sample.name == f"{_METRIC}spool_segments" and sample.labels["state"] != "damaged":
                        waiting += int(sample.value)
        return acknowledged, waiting

    def _queue_length(self) -> int | None:
        with suppress(TelemetryLakeError):
            return self._queue.waiting()
        return None

    def _completeness(self) -> str | None:
        with suppress(TelemetryLakeError):
            found = self._days.completeness()
            return None if found is None else found.line(datetime.now(UTC))
        return None

    def _table(self, identifier: tuple[str, str]) -> tuple[int | None, float | None]:
        """Return a table's rows and the time of its last commit (seconds since 1970), from its snapshot."""
        try:
            snapshot = self._catalog.load_table(identifier).current_snapshot()
        except (TelemetryLakeError, NoSuchTableError, RESTError, RequestException, OSError):
            return None, None
        if snapshot is None or snapshot.summary is None:
            return 0, None
        return int(snapshot.summary["total-records"] or 0), snapshot.timestamp_ms / 1_000

    @cached_property
    def _settings(self) -> Settings:
        return load_settings(self._plan.layout.env_file, role=Role.ANALYST)

    @cached_property
    def _queue(self) -> IndexQueue:
        # One try: the next look is only seconds away.
        return IndexQueue(
            self._settings.sqs.model_copy(update={"max_attempts": 1, "read_timeout_seconds": 5.0})
        )

    @cached_property
    def _days(self) -> DayLedger:
        settings = load_settings(self._plan.layout.env_file, role=Role.WEB)
        s3 = settings.s3.model_copy(update={"max_attempts": 1, "read_timeout_seconds": 5.0})
        return DayLedger(ObjectStore(s3), s3.lake_bucket)

    @cached_property
    def _catalog(self) -> Catalog:
        from telemetry_lake.tables.catalog import load_lake_catalog

        return load_lake_catalog(self._settings)


def _is_stopped(state: ProcessState | None) -> bool:
    """Return whether the process was told to stop, and not ended by itself."""
    return state is not None and state.state == "STOPPED"


def _process(program: Program, states: dict[str, ProcessState], health: dict[str, str | None]) -> ProcessLook:
    state = states.get(program.name)
    if state is None:
        return ProcessLook(program.name, "UNKNOWN", 0, 0, "supervisord is not running", str(program.log_file))
    return ProcessLook(
        program.name,
        state.state,
        state.pid,
        state.uptime_seconds,
        health.get(program.name),
        str(program.log_file),
    )
