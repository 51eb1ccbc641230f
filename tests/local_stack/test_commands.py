"""The commands of the local stack, used as a person uses them, with S3 and SQS and without Airflow."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from lake_testing.shipping import SAMPLE_MESSAGE
from lake_testing.stack import DrivenStack, wait_until
from local_stack.leftovers import find
from local_stack.program import LOOPBACK
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import Role
from telemetry_lake.storage.object_store import ObjectStore

KEPT = "raw/v1/2026-11-23/09/node-1/kept.arrows"
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
    ObjectStore(stack.settings(Role.NODE).s3).put("raw", KEPT, b"body")
    IndexQueue(stack.settings().sqs).send(SAMPLE_MESSAGE)

    before = stack.pids()
    for name in ("seaweedfs", "elasticmq"):
        os.kill(stack.pid(name), signal.SIGKILL)
    wait_until(
        lambda: stack.programs() == EXPECTED and len({*stack.pids(), *before}) == len(EXPECTED) + 2,
        deadline_seconds=DEADLINE_SECONDS,
        what="each of the two runs again, once",
    )
    wait_until(
        lambda: ObjectStore(stack.settings(Role.NODE).s3).get_or_none("raw", KEPT) == b"body",
        deadline_seconds=DEADLINE_SECONDS,
        what="S3 answers again",
    )

    survivor = stack.pid("seaweedfs")
    os.kill(stack.pid("supervisord"), signal.SIGKILL)
    assert "supervisord is not running" in stack.command("status", code=1)
    stack.command("start", *ONLY)
    assert stack.programs() == EXPECTED
    assert stack.pid("seaweedfs") != survivor
    assert ObjectStore(stack.settings(Role.NODE).s3).get_or_none("raw", KEPT) == b"body"
    assert [message.body for message in IndexQueue(stack.settings().sqs).receive(10, wait_seconds=1)] == [
        SAMPLE_MESSAGE.to_json()
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
        ObjectStore(stack.settings(Role.NODE).s3).put("raw", KEPT, b"body")
        assert "`run`" in stack.command("start", *ONLY, code=1), "one command at a time"
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=DEADLINE_SECONDS)
        assert running.returncode == 0, rest
    assert find(stack.layout.root) == []
    assert "not running" in stack.command("status", code=1)

    with stack.popen("run", *ONLY) as running:
        assert running.stdout is not None
        assert any("all healthy" in line for line in running.stdout)
        assert ObjectStore(stack.settings(Role.NODE).s3).get("raw", KEPT) == b"body"
        # A killed run stops nothing: the next command finds and ends what it started.
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


@pytest.mark.stack
def test_a_run_goes_on_after_supervisord_was_killed_again_while_it_started_again(stack: DrivenStack) -> None:
    with stack.popen("run", "--only", "elasticmq") as running:
        assert running.stdout is not None
        lines = _lines_until(running.stdout, "all healthy")
        first_life = {pid for _, pid in stack.pids()}
        os.kill(stack.pid("supervisord"), signal.SIGKILL)
        lines += _lines_until(running.stdout, "starting the stack again")
        # While ElasticMQ starts, which takes seconds.
        wait_until(
            lambda: (
                {"elasticmq", "supervisord"} <= {*stack.programs()}
                and first_life.isdisjoint(pid for _, pid in stack.pids())
            ),
            deadline_seconds=DEADLINE_SECONDS,
            what="another supervisord starts ElasticMQ",
        )
        os.kill(stack.pid("supervisord"), signal.SIGKILL)
        lines += _lines_until(running.stdout, "all healthy")
        assert stack.programs() == ["elasticmq", "supervisord", "watcher"]
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=DEADLINE_SECONDS)
        assert running.returncode == 0, rest
    output = "".join((*lines, rest))
    assert "supervisord ended while the stack was starting" in output
    assert "Traceback" not in output


def _lines_until(stdout: IO[str], text: str) -> list[str]:
    """Read lines up to one that holds `text`; AssertionError with all of them when there is not one."""
    lines = []
    for line in stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError("".join(lines))


def test_a_taken_port_stops_the_start_with_one_clear_message(stack: DrivenStack) -> None:
    with socket.create_server((LOOPBACK, stack.ports["S3"])):
        output = stack.command("start", *ONLY, code=1)
    assert f"port {stack.ports['S3']} for seaweedfs is in use by process {os.getpid()}" in output
    assert "LOCAL_STACK_S3_PORT" in output
    assert "Traceback" not in output
    assert find(stack.layout.root) == []
