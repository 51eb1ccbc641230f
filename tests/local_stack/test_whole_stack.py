"""Everything at once, Airflow included: it starts, listens on loopback only, comes back, and goes."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from lake_testing.stack import DrivenStack, wait_until
from local_stack.airflow import ADMIN, SCHEDULER
from local_stack.leftovers import find
from local_stack.plan import AIRFLOW_LOGIN_FILE
from local_stack.program import LOOPBACK

DEADLINE_SECONDS = 300.0


@pytest.fixture
def stack() -> Iterator[DrivenStack]:
    with tempfile.TemporaryDirectory(prefix="lake-") as directory:
        # As a repository is: else PostgreSQL, which runs as another user, could not be used.
        Path(directory).chmod(0o755)
        stack = DrivenStack(Path(directory) / "s")
        yield stack
        stack.command("stop")
        assert find(stack.layout.root) == []


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_the_whole_stack_starts_survives_and_goes(stack: DrivenStack) -> None:
    stack.command("start")
    wait_until(lambda: _is_healthy(stack), deadline_seconds=DEADLINE_SECONDS, what="everything is healthy")

    airflow = f"http://{LOOPBACK}:{stack.ports['AIRFLOW']}"
    password = (stack.layout.secrets / AIRFLOW_LOGIN_FILE).read_text()
    login = httpx.post(f"{airflow}/auth/token", json={"username": ADMIN, "password": password})
    assert login.status_code == httpx.codes.CREATED, login.text
    refused = httpx.post(f"{airflow}/auth/token", json={"username": ADMIN, "password": "admin"})
    assert refused.status_code == httpx.codes.UNAUTHORIZED

    pages = httpx.get(f"http://{LOOPBACK}:{stack.ports['WEB']}/__heartbeat__").json()
    # Cubes are made later; the analysis service is well with the rights of its role.
    assert pages["analyses"] == {"problem": None}

    listening = {address for process in find(stack.layout.root) for address in _listens_on(process)}
    assert LOOPBACK in listening
    assert listening <= {LOOPBACK, f"::ffff:{LOOPBACK}"}

    scheduler = stack.pid(SCHEDULER)
    first_life = {pid for name, pid in stack.pids() if name == SCHEDULER}
    os.kill(scheduler, signal.SIGKILL)
    wait_until(
        lambda: SCHEDULER in stack.programs() and first_life.isdisjoint(pid for _, pid in stack.pids()),
        deadline_seconds=DEADLINE_SECONDS,
        what="another scheduler runs, and the workers of the first are gone",
    )
    wait_until(
        lambda: _is_healthy(stack),
        deadline_seconds=DEADLINE_SECONDS,
        what="everything is healthy again",
    )


def _listens_on(process: psutil.Process) -> set[str]:
    """The addresses; none of a process that has ended since it was found, as those of tasks do."""
    with contextlib.suppress(psutil.NoSuchProcess):
        connections = process.net_connections("inet")
        return {each.laddr[0] for each in connections if each.status == psutil.CONN_LISTEN}
    return set()


def _is_healthy(stack: DrivenStack) -> bool:
    with stack.popen("status") as process:
        process.communicate()
    return process.returncode == 0
