"""The commands of the local stack, used as a person uses them, with S3 and SQS and without Airflow."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from local_stack.layout import Layout
from local_stack.leftovers import find
from local_stack.program import LOOPBACK, PROGRAM_MARKER
from local_stack.seaweedfs import INTERNAL_PORTS
from telemetry_lake.index_queue import IndexQueue
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.settings import PROJECT_ROOT, load_settings
from tests.local_stack.test_embedded_services import MESSAGE
from tests.stack_fixture import free_ports, wait_until

DEADLINE_SECONDS = 90.0
EXPECTED = ["elasticmq", "seaweedfs", "supervisord", "watcher"]


class Stack:
    """One stack in a folder and on ports of its own, driven by its command line."""

    def __init__(self, directory: Path) -> None:
        first = free_ports(3 + INTERNAL_PORTS)
        self.layout = Layout(directory)
        self.s3_port = first
        self._environment = {
            **os.environ,
            "LOCAL_STACK_S3_PORT": str(first),
            "LOCAL_STACK_CATALOG_PORT": str(first + 1),
            "LOCAL_STACK_SQS_PORT": str(first + 2),
            "LOCAL_STACK_SEAWEEDFS_INTERNAL_PORT": str(first + 3),
        }

    def popen(self, command: str, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (
                *(sys.executable, "-m", "local_stack", command, "--directory", str(self.layout.root)),
                *(("--only", "seaweedfs", "--only", "elasticmq") if command in {"run", "start"} else ()),
                *options,
            ),
            cwd=PROJECT_ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, command: str, *options: str, code: int = 0) -> str:
        with self.popen(command, *options) as process:
            output, _ = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == code, output
        return output

    def pids(self) -> list[tuple[str, int]]:
        """Every living process: its program's name and its id."""
        found = []
        for process in find(self.layout.root):
            with suppress(psutil.Error):
                found.append((process.environ()[PROGRAM_MARKER], process.pid))
        return sorted(found)

    def programs(self) -> list[str]:
        """The programs of the living processes, one name a process."""
        return [name for name, _ in self.pids()]

    def pid(self, program: str) -> int:
        (pid,) = (pid for name, pid in self.pids() if name == program)
        return pid

    def store(self) -> ObjectStore:
        return ObjectStore(load_settings(self.layout.env_file).s3)

    def queue(self) -> IndexQueue:
        return IndexQueue(load_settings(self.layout.env_file).sqs)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "s")
    yield stack
    stack.command("stop")
    assert find(stack.layout.root) == []


def test_killed_services_and_a_killed_supervisor_come_back_once_with_their_data(stack: Stack) -> None:
    assert "S3: http://127.0.0.1:" in stack.command("start")
    assert stack.programs() == EXPECTED
    stack.store().put("raw", "kept", b"body")
    stack.queue().send(MESSAGE)

    before = stack.pids()
    for name in ("seaweedfs", "elasticmq"):
        os.kill(stack.pid(name), signal.SIGKILL)
    wait_until(
        lambda: stack.programs() == EXPECTED and len({*stack.pids(), *before}) == len(EXPECTED) + 2,
        deadline_seconds=DEADLINE_SECONDS,
        what="each of the two runs again, once",
    )
    wait_until(
        lambda: stack.store().get_or_none("raw", "kept") == b"body",
        deadline_seconds=DEADLINE_SECONDS,
        what="S3 answers again",
    )

    survivor = stack.pid("seaweedfs")
    os.kill(stack.pid("supervisord"), signal.SIGKILL)
    assert "supervisord is gone" in stack.command("status", code=1)
    stack.command("start")
    assert stack.programs() == EXPECTED
    assert stack.pid("seaweedfs") != survivor
    assert stack.store().get_or_none("raw", "kept") == b"body"
    assert [message.body for message in stack.queue().receive(10, wait_seconds=1)] == [MESSAGE.to_json()]

    assert "running already" in stack.command("start")
    shown = stack.command("status")
    assert "seaweedfs" in shown
    assert "healthy" in shown
    assert "stop it first" in stack.command("clean", code=1)
    assert "in the background already" in stack.command("run", code=1)


def test_a_run_ends_cleanly_and_the_next_one_goes_on(stack: Stack) -> None:
    with stack.popen("run") as running:
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            lines.append(line)
            if "all healthy" in line:
                break
        assert any("everything is up" in line for line in lines), lines
        stack.store().put("raw", "kept", b"body")
        assert "`run`" in stack.command("start", code=1), "one command at a time"
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=DEADLINE_SECONDS)
        assert running.returncode == 0, rest
    assert find(stack.layout.root) == []
    assert "not running" in stack.command("status", code=1)

    with stack.popen("run") as running:
        assert running.stdout is not None
        assert any("all healthy" in line for line in running.stdout)
        assert stack.store().get("raw", "kept") == b"body"
        # Its own end takes nothing down: what it started is found and ended by whoever comes next.
        running.kill()
        running.communicate(timeout=DEADLINE_SECONDS)
    assert stack.programs() == EXPECTED
    assert "stop it first" in stack.command("clean", code=1)
    with stack.popen("run") as running:
        assert running.stdout is not None
        assert any("all healthy" in line for line in running.stdout)
        assert stack.programs() == EXPECTED
        assert "asking `run`" in stack.command("stop")
        running.communicate(timeout=DEADLINE_SECONDS)
    assert find(stack.layout.root) == []

    assert "Deleted" in stack.command("clean")
    assert [path.name for path in stack.layout.root.iterdir()] == ["lock"]


def test_a_taken_port_stops_the_start_with_one_clear_message(stack: Stack) -> None:
    with socket.create_server((LOOPBACK, stack.s3_port)):
        output = stack.command("start", code=1)
    assert f"port {stack.s3_port} for seaweedfs is in use by process {os.getpid()}" in output
    assert "LOCAL_STACK_S3_PORT" in output
    assert "Traceback" not in output
    assert find(stack.layout.root) == []
