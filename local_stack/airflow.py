"""Airflow: migration, api-server, scheduler, dag-processor, triggerer and cleaning, each its own process.

`airflow standalone` is not used: SIGTERM to it leaves its scheduler and api-server running.
"""

import base64
import hashlib
import importlib.metadata
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from local_stack.airflow_cleaning import check_health as check_cleaned
from local_stack.celery_workers import REDIS, CeleryWorkers, check_ready, worker_arguments
from local_stack.celery_workers import STOP_WAIT_SECONDS as WORKER_STOP_WAIT_SECONDS
from local_stack.program import LOOPBACK, Program, Step, Unhealthy, probe
from telemetry_lake.deploy.airflow_database import JOBS_AT_ONCE, JOBS_POOL

ADMIN: Final = "admin"
MIGRATION: Final = "airflow-migrate"
API_SERVER: Final = "airflow-api-server"
SCHEDULER: Final = "airflow-scheduler"
DAG_PROCESSOR: Final = "airflow-dag-processor"
TRIGGERER: Final = "airflow-triggerer"
CLEANING: Final = "airflow-cleaning"
DRAIN_TASKS_AT_ONCE: Final = 4
PARALLELISM: Final = DRAIN_TASKS_AT_ONCE + JOBS_AT_ONCE
START_DEADLINE_SECONDS: Final = 600
"""Half a minute on a machine of its own; two cores shared with a test run were seen to need four minutes."""
STOP_WAIT_SECONDS: Final = 20
ANSWER_HOLDS_SECONDS: Final = 1.0
CLEANING_NEEDS: Final = (
    *("AIRFLOW_HOME", "PYTHONPATH", "AIRFLOW__CORE__LOAD_EXAMPLES", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"),
)
"""What the cleaning is told of Airflow: its database, and none of its keys."""
NOT_FOR_WORKERS: Final = (
    *("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__FERNET_KEY"),
    *("AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"),
)
"""A worker asks the api-server, with a token that came with its task."""
LOCAL_SETTINGS_FILE: Final = Path(__file__).with_name("airflow_local_settings.py")


_MonitorAnswer = Mapping[str, Mapping[str, str | None] | None]
"""For each component, at least its `status`."""


class _Monitor:
    """The api-server's answer about all components: it costs several queries, so one serves all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered_at = -ANSWER_HOLDS_SECONDS
        self._answer: _MonitorAnswer | Unhealthy = {}

    def answer(self, url: str) -> _MonitorAnswer:
        """Return its answer, at most ANSWER_HOLDS_SECONDS old; raises Unhealthy."""
        with self._lock:
            if time.monotonic() - self._answered_at >= ANSWER_HOLDS_SECONDS:
                try:
                    self._answer = json.loads(probe("Airflow", f"{url}/api/v2/monitor/health"))
                except Unhealthy as failure:
                    self._answer = failure
                self._answered_at = time.monotonic()
            if isinstance(self._answer, Unhealthy):
                raise Unhealthy(*self._answer.args)
            return self._answer


@dataclass(frozen=True, slots=True)
class Airflow:
    """One Airflow, with LocalExecutor unless it has `workers`; `database_url` is SQLAlchemy's."""

    home: Path
    logs_directory: Path
    log_of: Callable[[str], Path]
    project_root: Path
    port: int
    database_url: str
    admin_password: str
    secret: str
    """The keys of its API, its sessions and its encrypted fields are derived from it."""
    workers: CeleryWorkers | None = None
    _monitor: _Monitor = field(default_factory=_Monitor)

    @property
    def url(self) -> str:
        """The user interface."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def _passwords_file(self) -> Path:
        return self.home / "passwords.json"

    def migration(self, *, database_is_new: bool, after: tuple[str, ...]) -> Step | None:
        """Return the step that creates or upgrades the database, None when this version has done so."""
        marker = self.home / "migrated"
        version = importlib.metadata.version("apache-airflow")
        jobs_at_once = JOBS_AT_ONCE if self.workers is None else min(JOBS_AT_ONCE, self.workers.count)
        pool = f"{JOBS_POOL}={jobs_at_once}"
        fingerprint = hashlib.sha256(f"{version} {self.database_url} {pool}".encode()).hexdigest()
        # Finding out that there is nothing to do takes Airflow itself 7 seconds.
        if not database_is_new and marker.is_file() and marker.read_text(encoding="utf-8") == fingerprint:
            return None
        script = '"$1" -m telemetry_lake.deploy.airflow_database --jobs-at-once "$4" && printf %s "$2" > "$3"'
        arguments = (sys.executable, fingerprint, str(marker), str(jobs_at_once))
        return Step(
            name=MIGRATION,
            command=("/bin/sh", "-c", script, MIGRATION, *arguments),
            directory=self.home,
            log_file=self.log_of(MIGRATION),
            environment=self.variables(),
            files=self._files(),
            after=after,
            deadline_seconds=START_DEADLINE_SECONDS,
        )

    def programs(self, *, database: tuple[str, ...], after: tuple[str, ...]) -> list[Program]:
        """Return the processes. All wait for `database`, and those that start tasks for `after` too."""
        # The log servers of scheduler and triggerer listen on every address, which no setting changes;
        # the api-server reads the log files themselves.
        return [
            self._program(
                API_SERVER, "api-server", after=database, ports={self.port: "LOCAL_STACK_AIRFLOW_PORT"}
            ),
            self._program(DAG_PROCESSOR, "dag-processor", after=database),
            self._program(TRIGGERER, "triggerer", "--skip-serve-logs", after=(*database, *after)),
            self._program(
                SCHEDULER,
                "scheduler",
                "--skip-serve-logs",
                after=(*database, *after, *((REDIS,) if self.workers else ())),
            ),
            self._cleaning(after=database),
            *self._worker_programs(after=(*database, *after)),
        ]

    def _worker_programs(self, *, after: tuple[str, ...]) -> list[Program]:
        if self.workers is None:
            return []
        environment = {
            name: value for name, value in self.variables().items() if name not in NOT_FOR_WORKERS
        } | {"AIRFLOW__DAG_PROCESSOR__STALE_BUNDLE_CLEANUP_INTERVAL": "0"}
        return [
            Program(
                name=name,
                command=self._command(*worker_arguments(name, self.home / f"{name}.pid")),
                directory=self.home,
                log_file=self.log_of(name),
                # Whether it lives is what supervisord says.
                check_health=lambda: None,
                check_ready=partial(check_ready, self.log_of(name)),
                environment=environment,
                files=self._files(),
                # A task reports to the api-server, so that one outlives the workers.
                after=(*after, REDIS, API_SERVER),
                ready_deadline_seconds=START_DEADLINE_SECONDS,
                stop_wait_seconds=WORKER_STOP_WAIT_SECONDS,
                may_be_stopped=True,
            )
            for name in self.workers.names
        ]

    def _cleaning(self, *, after: tuple[str, ...]) -> Program:
        state_directory = self.home / "cleaning"
        return Program(
            name=CLEANING,
            command=(
                *(sys.executable, "-m", "local_stack.airflow_cleaning"),
                *("--logs", str(self.logs_directory), "--daily", str(state_directory)),
            ),
            directory=self.home,
            log_file=self.log_of(CLEANING),
            check_health=lambda: check_cleaned(state_directory),
            restart_when_unhealthy=False,
            environment={name: value for name, value in self.variables().items() if name in CLEANING_NEEDS},
            after=after,
        )

    def variables(self) -> dict[str, str]:
        """Return the environment of every Airflow process and of every task."""
        return {
            "AIRFLOW_HOME": str(self.home),
            "PYTHONPATH": str(self.project_root),
            "PYSPARK_PYTHON": sys.executable,
            "GX_ANALYTICS_ENABLED": "false",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.project_root / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.project_root / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords_file),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": self._key("fernet"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database_url,
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": self._key("sessions"),
            "AIRFLOW__API_AUTH__JWT_SECRET": self._key("tokens"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.logs_directory),
            # A changed file is read at once all the same; all of them every 30 s took a tenth of a core.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
            # A task whose process was killed is tried again after a minute, not after five.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
            # What watches over a task waits this long for a sign of life. On a busy machine it misses the
            # end of the task, and keeps the slot until then: 5 s by default.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            # On a busy machine the api-server took longer than the default of 5 s to let a task begin, and
            # each time cost one of its tries.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            **(self.workers.variables() if self.workers else {}),
        }

    def _program(
        self, name: str, *arguments: str, after: tuple[str, ...], ports: Mapping[int, str] | None = None
    ) -> Program:
        return Program(
            name=name,
            command=self._command(*arguments),
            directory=self.home,
            log_file=self.log_of(name),
            check_health=lambda: self.check_health(name),
            health_reporter=None if name == API_SERVER else API_SERVER,
            environment=self.variables(),
            files=self._files(),
            after=after,
            ports=ports or {},
            ready_deadline_seconds=START_DEADLINE_SECONDS,
            stop_wait_seconds=STOP_WAIT_SECONDS,
        )

    def check_health(self, name: str) -> None:
        """Ask the api-server about itself or about another component; raises Unhealthy."""
        component = {
            API_SERVER: "metadatabase",
            SCHEDULER: "scheduler",
            DAG_PROCESSOR: "dag_processor",
            TRIGGERER: "triggerer",
        }[name]
        status = (self._monitor.answer(self.url).get(component) or {}).get("status")
        if status != "healthy":
            raise Unhealthy(f"Airflow's {component} is {status}")

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "airflow", *arguments)

    def _files(self) -> dict[Path, str]:
        return {
            self._passwords_file: json.dumps({ADMIN: self.admin_password}),
            self.home / "config" / "airflow_local_settings.py": LOCAL_SETTINGS_FILE.read_text(
                encoding="utf-8"
            ),
        }

    def _key(self, purpose: str) -> str:
        """Return 32 bytes in URL-safe base64, the form that Fernet needs, different for each purpose."""
        digest = hashlib.sha256(f"{purpose}:{self.secret}".encode()).digest()
        return base64.urlsafe_b64encode(digest).decode()
