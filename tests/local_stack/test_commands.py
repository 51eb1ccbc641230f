"""The commands of the local stack, used as a person uses them, with S3 and SQS and without Airflow."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.leftovers import find
from local_stack.program import LOOPBACK
from telemetry_lake.index_queue import IndexQueue
from telemetry_lake.object_store import ObjectStore
from tests.local_stack.test_embedded_services import MESSAGE
from tests.stack_fixture import DrivenStack, wait_until

DEADLINE_SECONDS = 90.0
EXPECTED = ["elasticmq", "seaweedfs", "supervisord", "watcher"]


ONLY = ("--only", "seaweedfs", "--only", "elasticmq")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[DrivenStack]:
    stack = DrivenStack(tmp_path / "s")
    yield stack
    stack.command("stop")
    assert find(stack.layout.root) == []


def test_killed_services_and_a_killed_supervisor_come_back_once_with_their_data(stack: DrivenStack) -> None:
    assert "S3: http://127.0.0.1:" in stack.command("start", *ONLY)
    assert stack.programs() == EXPECTED
    ObjectStore(stack.settings().s3).put("raw", "kept", b"body")
    IndexQueue(stack.settings().sqs).send(MESSAGE)

    before = stack.pids()
    for name in ("seaweedfs", "elasticmq"):
        os.kill(stack.pid(name), signal.SIGKILL)
    wait_until(
        lambda: stack.programs() == EXPECTED and len({*stack.pids(), *before}) == len(EXPECTED) + 2,
        deadline_seconds=DEADLINE_SECONDS,
        what="each of the two runs again, once",
    )
    wait_until(
        lambda: ObjectStore(stack.settings().s3).get_or_none("raw", "kept") == b"body",
        deadline_seconds=DEADLINE_SECONDS,
        what="S3 answers again",
    )

    survivor = stack.pid("seaweedfs")
    os.kill(stack.pid("supervisord"), signal.SIGKILL)
    assert "supervisord is gone" in stack.command("status", code=1)
    stack.command("start", *ONLY)
    assert stack.programs() == EXPECTED
    assert stack.pid("seaweedfs") != survivor
    assert ObjectStore(stack.settings().s3).get_or_none("raw", "kept") == b"body"
    assert [message.body for message in IndexQueue(stack.settings().sqs).receive(10, wait_seconds=1)] == [
        MESSAGE.to_json()
    ]

    assert "running already" in stack.command("start", *ONLY)
    shown = stack.command("status")
    assert "seaweedfs" in shown
    assert "healthy" in shown
    assert "stop it first" in stack.command("clean", code=1)
    assert "in the background already" in stack.command("run", *ONLY, code=1)


def test_a_run_ends_cleanly_and_the_next_one_goes_on(stack: DrivenStack) -> None:
    with stack.popen("run", *ONLY) as running:
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            lines.append(line)
            if "all healthy" in line:
                break
        assert any("everything is up" in line for line in lines), lines
        ObjectStore(stack.settings().s3).put("raw", "kept", b"body")
        assert "`run`" in stack.command("start", *ONLY, code=1), "one command at a time"
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=DEADLINE_SECONDS)
        assert running.returncode == 0, rest
    assert find(stack.layout.root) == []
    assert "not running" in stack.command("status", code=1)

    with stack.popen("run", *ONLY) as running:
        assert running.stdout is not None
        assert any("all healthy" in line for line in running.stdout)
        assert ObjectStore(stack.settings().s3).get("raw", "kept") == b"body"
        # Its own end takes nothing down: what it started is found and ended by whoever comes next.
        running.kill()
        running.communicate(timeout=DEADLINE_SECONDS)
    assert stack.programs() == EXPECTED
    assert "stop it first" in stack.command("clean", code=1)
    with stack.popen("run", *ONLY) as running:
        assert running.stdout is not None
        assert any("all healthy" in line for line in running.stdout)
        assert stack.programs() == EXPECTED
        assert "asking `run`" in stack.command("stop")
        running.communicate(timeout=DEADLINE_SECONDS)
    assert find(stack.layout.root) == []

    assert "Deleted" in stack.command("clean")
    assert [path.name for path in stack.layout.root.iterdir()] == ["lock"]


def test_a_taken_port_stops_the_start_with_one_clear_message(stack: DrivenStack) -> None:
    with socket.create_server((LOOPBACK, stack.ports["S3"])):
        output = stack.command("start", *ONLY, code=1)
    assert f"port {stack.ports['S3']} for seaweedfs is in use by process {os.getpid()}" in output
    assert "LOCAL_STACK_S3_PORT" in output
    assert "Traceback" not in output
    assert find(stack.layout.root) == []
