"""Real services for tests: SeaweedFS (S3 and Iceberg REST) and ElasticMQ (SQS) on free loopback ports.

A pytest plugin, loaded by `tests/conftest.py`. Fixtures:

- `embedded_s3` (session): `EmbeddedS3`, a running SeaweedFS: buckets raw and lake, table bucket warehouse.
- `embedded_sqs` (session): `EmbeddedSqs`, a running ElasticMQ with queues raw-index and raw-index-dlq.
- `lake_settings` (function): a `telemetry_lake.settings.Settings` whose buckets, table bucket and queues are
  new for this test, on those servers. This is what most tests want.
- `lake` (function): the `Lake` that `lake_settings` belongs to: its settings, the same as variables
  (`lake.environment`) and as a file for `TELEMETRY_LAKE_ENV_FILE` (`lake.env_file`), for programs that a test
  starts.
- `new_lake` (session): a function that makes one more `Lake`; fixtures of wider scope call it once a module.

A test may kill the servers and start them again; they keep their data: `embedded_s3.kill()` (SIGKILL),
`.stop()` (SIGTERM, waits), `.start()` (waits until healthy; nothing happens when it runs already),
`.start(wait=False)`, `.wait_until_healthy()`. The next test that asks for a lake finds them running again.

`RunningProgram` does the same for any `local_stack.program.Program`, `DrivenStack` starts a whole stack by
its command line; `free_ports(n)` finds ports, and
`wait_until(condition, deadline_seconds=…, what=…)` is how to wait.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import boto3
import psutil
import pytest
from pydantic import SecretStr

from local_stack.elasticmq import ElasticMq
from local_stack.lake_environment import env_file_text, lake_environment
from local_stack.layout import Layout
from local_stack.leftovers import find
from local_stack.program import LOOPBACK, PROGRAM_MARKER, Program, Unhealthy, write_files
from local_stack.seaweedfs import INTERNAL_PORTS, SeaweedFs
from local_stack.secret_files import write_secret_file
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import AccessKey, Role, Settings, load_settings
from telemetry_lake.storage.aws import client_arguments

PORT_RANGE: Final = range(20_000, 32_000)
"""Below the range that the kernel takes the ports of outgoing connections from."""
START_DEADLINE_SECONDS: Final = 60.0
STOP_DEADLINE_SECONDS: Final = 20.0
COMMAND_DEADLINE_SECONDS: Final = 400.0
POLL_SECONDS: Final = 0.05
STACK_PORTS: Final = (
    *("S3", "CATALOG", "SQS", "POSTGRES", "AIRFLOW", "WEB", "BALANCER", "NODE_1", "NODE_2"),
    *("NODE_1_PRIVATE", "NODE_2_PRIVATE", "REDIS"),
    *("EXPORTER", "PROMETHEUS", "ALERTMANAGER"),
    "SEAWEEDFS_INTERNAL",
)
"""The last one stands for several in a row."""
ADMINISTRATOR: Final = AccessKey(access_key_id="test-key", secret_access_key=SecretStr("test-secret"))

T = TypeVar("T")

# The kernel ends a child with the thread that made it (--pdeathsig below). This thread lives as long as the
# test run, so that a test run that is killed leaves no server behind.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def wait_until(condition: Callable[[], T], *, deadline_seconds: float, what: str) -> T:
    """Return what `condition` returns as soon as that is true; AssertionError after the deadline."""
    ends = time.monotonic() + deadline_seconds
    while True:
        if result := condition():
            return result
        if time.monotonic() > ends:
            raise AssertionError(f"not within {deadline_seconds} seconds: {what}")
        time.sleep(POLL_SECONDS)


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive loopback ports that are free."""
    for _ in range(1_000):
        first = random.choice(PORT_RANGE[: -count or None])
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind((LOOPBACK, port))
        except OSError:
            continue
        return first
    raise AssertionError(f"no {count} free ports in a row between {PORT_RANGE.start} and {PORT_RANGE.stop}")


class RunningProgram:
    """One program of the local stack, run by a test in a process group of its own."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id; AssertionError when it was never started."""
        assert self._process is not None, f"{self.program.name} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start the process unless it runs; with `wait`, return when it is healthy and ready."""
        if not self.is_running:
            self._process = _spawner.submit(self._spawn).result()
        if wait:
            self.wait_until_healthy()

    def stop(self) -> None:
        """End it with SIGTERM and wait; SIGKILL to what is left after the deadline."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_DEADLINE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole process group, and wait until the process is gone."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait(STOP_DEADLINE_SECONDS)

    def wait_until_healthy(self, *, deadline_seconds: float = START_DEADLINE_SECONDS) -> None:
        """Wait for the program's own health and readiness checks."""
        ends = time.monotonic() + deadline_seconds
        while True:
            try:
                self.program.check_health()
                if self.program.check_ready is not None:
                    self.program.check_ready()
                return
            except Unhealthy as answer:
                if not self.is_running:
                    raise AssertionError(f"{self.program.name} ended at its start:\n{self.log()}") from answer
                if time.monotonic() > ends:
                    raise AssertionError(f"{self.program.name}: {answer}\n{self.log()}") from answer
            time.sleep(POLL_SECONDS)

    def log(self) -> str:
        """Return the last part of what it wrote."""
        log_file = self.program.log_file
        return log_file.read_text(errors="replace")[-4_000:] if log_file.is_file() else ""

    def _spawn(self) -> subprocess.Popen[bytes]:
        write_files(self.program)
        with self.program.log_file.open("ab") as log:
            return subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", *self.program.command),
                cwd=self.program.directory,
                env={**os.environ, **self.program.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class EmbeddedS3(RunningProgram):
    """A SeaweedFS of this test run; `service` says where it listens and which keys open it."""

    def __init__(self, service: SeaweedFs) -> None:
        super().__init__(service.program())
        self.service = service


class EmbeddedSqs(RunningProgram):
    """An ElasticMQ of this test run; `service` says where it listens."""

    def __init__(self, service: ElasticMq) -> None:
        super().__init__(service.program())
        self.service = service


class DrivenStack:
    """A whole local stack in a folder and on free ports of its own, driven by its command line.

    Use it as `stack.command("start")`, look at `stack.settings()` and `stack.ports`, and end with
    `stack.command("stop")`; options such as `--only seaweedfs` go behind the command.
    """

    def __init__(self, directory: Path) -> None:
        first = free_ports(len(STACK_PORTS) + INTERNAL_PORTS - 1)
        self.layout = Layout(directory)
        self.ports = {name: first + offset for offset, name in enumerate(STACK_PORTS)}
        """Ports by the name in `LOCAL_STACK_<name>_PORT`."""
        self.environment = {
            **os.environ,
            **{f"LOCAL_STACK_{name}_PORT": str(port) for name, port in self.ports.items()},
        }

    def popen(self, command: str, *options: str) -> subprocess.Popen[str]:
        """Start `python -m local_stack COMMAND …`; its output, errors included, is in `stdout`."""
        return subprocess.Popen(
            (sys.executable, "-m", "local_stack", command, "--directory", str(self.layout.root), *options),
            cwd=PROJECT_ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, command: str, *options: str, code: int = 0) -> str:
        """Run `python -m local_stack COMMAND …` to its end, which has to be `code`; its output."""
        with self.popen(command, *options) as process:
            output, _ = process.communicate(timeout=COMMAND_DEADLINE_SECONDS)
        assert process.returncode == code, output
        return output

    def settings(self, role: Role = Role.DRAIN) -> Settings:
        """Return the settings of the started stack for one that acts as `role`."""
        return load_settings(self.layout.env_file, role=role)

    def pids(self) -> list[tuple[str, int]]:
        """Return every living process: its program's name and its id."""
        found = []
        for process in find(self.layout.root):
            with contextlib.suppress(psutil.Error):
                found.append((process.environ().get(PROGRAM_MARKER, "?"), process.pid))
        return sorted(found)

    def programs(self) -> list[str]:
        """Return the programs of the living processes, one name a process."""
        return [name for name, _ in self.pids()]

    def pid(self, program: str) -> int:
        """Return the first process of `program`."""
        return min(pid for name, pid in self.pids() if name == program)


@dataclass(frozen=True, slots=True)
class Lake:
    """Settings of a lake, and the same as variables of the environment and as an env file."""

    settings: Settings
    environment: dict[str, str]
    env_file: Path


@pytest.fixture(scope="session")
def embedded_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    directory = tmp_path_factory.mktemp("seaweedfs")
    first_port = free_ports(2 + INTERNAL_PORTS)
    server = EmbeddedS3(
        SeaweedFs(
            data_directory=directory / "data",
            configuration_file=directory / "s3.json",
            log_file=directory / "seaweedfs.log",
            s3_port=first_port,
            catalog_port=first_port + 1,
            first_internal_port=first_port + 2,
            role_keys={},
            inner_secret="test-inner-secret",
            administrator=ADMINISTRATOR,
        )
    )
    try:
        server.start()
        yield server
    finally:
        # Its data is not needed any more, and a clean stop takes 4 seconds.
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_sqs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSqs]:
    directory = tmp_path_factory.mktemp("elasticmq")
    server = EmbeddedSqs(
        ElasticMq(
            data_directory=directory / "data",
            log_file=directory / "elasticmq.log",
            jars_directory=PROJECT_ROOT / "java" / "lib" / "elasticmq",
            port=free_ports(1),
        )
    )
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def new_lake(
    embedded_s3: EmbeddedS3, embedded_sqs: EmbeddedSqs, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Lake]:
    """Return a function that makes a lake with buckets, a table bucket and queues of its own."""

    def make() -> Lake:
        embedded_s3.start()
        embedded_sqs.start()
        unique = uuid.uuid4().hex[:12]
        s3 = replace(
            embedded_s3.service,
            buckets=(f"raw-{unique}", f"lake-{unique}"),
            table_bucket=f"warehouse-{unique}",
        )
        sqs = replace(embedded_sqs.service, queues=(f"raw-index-{unique}", f"raw-index-dlq-{unique}"))
        environment = {**lake_environment(s3, sqs, roles=()), **administrator_variables()}
        env_file = tmp_path_factory.mktemp("lake") / "telemetry_lake.env"
        write_secret_file(env_file, env_file_text(environment))
        settings = load_settings(env_file)
        _create(settings, s3, sqs)
        return Lake(settings, {**environment, "TELEMETRY_LAKE_ENV_FILE": str(env_file)}, env_file)

    return make


@pytest.fixture
def lake(new_lake: Callable[[], Lake]) -> Lake:
    """Return a lake of this test's own."""
    return new_lake()


@pytest.fixture
def lake_settings(lake: Lake) -> Settings:
    """Return the settings of a lake of this test's own."""
    return lake.settings


def administrator_variables() -> dict[str, str]:
    """Return the variables that give a process all rights: a lake of a test has buckets of its own."""
    return {
        f"TELEMETRY_LAKE_{service}__{name}": value
        for service in ("S3", "SQS")
        for name, value in (
            ("ACCESS_KEY_ID", ADMINISTRATOR.access_key_id),
            ("SECRET_ACCESS_KEY", ADMINISTRATOR.secret_access_key.get_secret_value()),
        )
    }


def _create(settings: Settings, s3: SeaweedFs, sqs: ElasticMq) -> None:
    buckets = boto3.client("s3", **client_arguments(settings.s3))  # type: ignore[call-overload]
    tables = boto3.client("s3tables", **client_arguments(settings.s3))  # type: ignore[call-overload]
    queues = boto3.client("sqs", **client_arguments(settings.sqs))  # type: ignore[call-overload]
    for bucket in s3.buckets:
        buckets.create_bucket(Bucket=bucket)
    tables.create_table_bucket(name=s3.table_bucket)
    for queue in sqs.queues:
        queues.create_queue(
            QueueName=queue, Attributes={"VisibilityTimeout": str(settings.sqs.visibility_timeout_seconds)}
        )
    for client in (buckets, tables, queues):
        client.close()
