"""Redis and Celery workers: Airflow's tasks on workers that come and go, when a stack has `--workers`.

docs/scaling.md says when that is worth it. Without workers the scheduler runs the tasks itself, with
LocalExecutor, and nothing of this is started.
"""

import re
import socket
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_stack.program import LOOPBACK, PROBE_TIMEOUT_SECONDS, Program, Unhealthy, required

REDIS: Final = "redis"
WORKER_PREFIX: Final = "airflow-worker-"
WORKERS_MAX: Final = 32
CONCURRENCY: Final = 2
"""Tasks of one worker at the same time: a Spark job of minutes must not hold up the drain."""
VISIBILITY_TIMEOUT_SECONDS: Final = 86_400
"""Redis gives a message that was taken and not confirmed to another worker after this long, which is longer
than any task. What a worker that was killed had begun is found by its missing heartbeats, within a minute."""
QUEUED_MAX_SECONDS: Final = 180
"""A task that waits longer is sent again: its message is lost, or no worker is there."""
QUEUED_CHECK_SECONDS: Final = 15
STOP_WAIT_SECONDS: Final = 900
"""A worker that is stopped finishes its tasks first: the longest of the drain converts pings one by one."""
_LOG_TAIL_BYTES: Final = 64 * 1024
_BANNER: Final = re.compile(r" -{14} \S+ v\d")
_READY: Final = re.compile(r"@\S+ ready\.\s")


def worker_name(number: int) -> str:
    """Return the name of the program that is worker `number`, counted from 1."""
    return f"{WORKER_PREFIX}{number}"


@dataclass(frozen=True, slots=True)
class Redis:
    """One Redis on loopback that carries the messages to the workers."""

    data_directory: Path
    log_file: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """Its address with the password, as Celery takes it."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def program(self) -> Program:
        """Return the process; raises ConfigurationError when Redis is not installed."""
        file = self.data_directory / "redis.conf"
        return Program(
            name=REDIS,
            command=(required("redis-server", package="redis-server"), str(file)),
            directory=self.data_directory,
            log_file=self.log_file,
            check_health=self.check_health,
            files={file: self.configuration()},
            ports={self.port: "LOCAL_STACK_REDIS_PORT"},
        )

    def configuration(self) -> str:
        """Return the text of its configuration file, which holds the password: anybody could send tasks."""
        # With its append-only file it has the messages again after kill -9.
        return textwrap.dedent(f"""\
            bind {LOOPBACK}
            port {self.port}
            requirepass {self.password}
            dir {self.data_directory}
            appendonly yes
            save ""
            databases 1
            daemonize no
            """)

    def check_health(self) -> None:
        """Log in and send a ping; raises Unhealthy."""
        try:
            with socket.create_connection((LOOPBACK, self.port), PROBE_TIMEOUT_SECONDS) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\nQUIT\r\n".encode())
                answer = b""
                while part := connection.recv(256):
                    answer += part
        except OSError as error:
            raise Unhealthy(f"Redis at {LOOPBACK}:{self.port}: {error}") from error
        if b"+PONG" not in answer:
            said = answer.decode(errors="replace").strip()
            raise Unhealthy(f"Redis at {LOOPBACK}:{self.port} answers {said!r}")


@dataclass(frozen=True, slots=True)
class CeleryWorkers:
    """`count` workers that take Airflow's tasks from `redis`; `result_backend` is SQLAlchemy's address."""

    count: int
    redis: Redis
    result_backend: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of their programs."""
        return tuple(worker_name(number) for number in range(1, self.count + 1))

    def variables(self) -> dict[str, str]:
        """Return what every process of Airflow has to know, workers and scheduler alike."""
        return {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            # Of all workers together.
            "AIRFLOW__CORE__PARALLELISM": str(max(4, 2 * CONCURRENCY * self.count)),
            "AIRFLOW__CELERY__BROKER_URL": self.redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self.result_backend}",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT_SECONDS),
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": str(QUEUED_MAX_SECONDS),
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": str(QUEUED_CHECK_SECONDS),
        }


def worker_arguments(name: str, pid_file: Path) -> tuple[str, ...]:
    """Return the arguments of `airflow` that start one worker."""
    # The log server of a worker would listen on every address; the api-server reads the log files itself.
    return (
        *("celery", "worker", "--skip-serve-logs", "--concurrency", str(CONCURRENCY)),
        *("--celery-hostname", f"{name}@lake", "--pid", str(pid_file)),
    )


def check_ready(log_file: Path) -> None:
    """Look in a worker's log whether its last start is done; raises Unhealthy."""
    if not has_started(_tail(log_file)):
        raise Unhealthy("it does not take tasks yet")


def has_started(log: str) -> bool:
    """Return whether the last start that `log` tells of is done."""
    starts = list(_BANNER.finditer(log))
    # Without a start in it, the start is further back than the part of the log that was read.
    return bool(log) and (not starts or _READY.search(log, starts[-1].end()) is not None)


def _tail(log_file: Path) -> str:
    if not log_file.is_file():
        return ""
    with log_file.open("rb") as file:
        file.seek(max(0, log_file.stat().st_size - _LOG_TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")
