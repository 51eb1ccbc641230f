"""A real Celery worker protects its container while it has a task, by an agent as ECS puts beside it."""

import http.server
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from lake_testing.background_server import BackgroundServer
from lake_testing.stack import RunningProgram, free_ports, wait_until
from local_stack.celery_workers import Redis
from local_stack.program import find_server
from telemetry_lake.deploy.task_protection import (
    EXPIRES_MINUTES,
    MAX_ATTEMPTS,
    STATE_PATH,
    set_protection,
)
from telemetry_lake.project_files import PROJECT_ROOT

DEADLINE_SECONDS = 60.0
WORKER = """
import sys, time
from pathlib import Path
from celery import Celery
from telemetry_lake.deploy.task_protection import protect_while_tasks_run

broker, agent, end = sys.argv[1:]
app = Celery(broker=broker)

@app.task(name="wait")
def wait():
    while not Path(end).exists():
        time.sleep(0.05)

protect_while_tasks_run(agent)
app.worker_main(["worker", "--concurrency", "1", "--loglevel", "WARNING", "--without-gossip"])
"""


class Agent(BackgroundServer):
    """The agent of ECS: keeps what it is asked, and refuses as many requests as it is told to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.refusals = 0
        agent = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                refused = self.path != STATE_PATH or agent.refusals > 0
                agent.refusals -= 1
                if not refused:
                    agent.asked.append(body)
                self.send_response(400 if refused else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)


@pytest.fixture
def agent() -> Iterator[Agent]:
    agent = Agent()
    yield agent
    agent.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    if find_server("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    service = Redis(tmp_path / "redis", tmp_path / "redis.log", free_ports(1), "hush")
    server = RunningProgram(service.program())
    server.start()
    yield service.url
    server.kill()


@pytest.mark.slow
def test_a_worker_is_protected_while_it_has_a_task(agent: Agent, broker: str, tmp_path: Path) -> None:
    end = tmp_path / "end"
    with Celery(broker=broker) as client:
        client.send_task("wait")
        command = (sys.executable, "-c", WORKER, broker, agent.url, str(end))
        with subprocess.Popen(command, cwd=PROJECT_ROOT) as worker:
            try:
                begun = {"ProtectionEnabled": True, "ExpiresInMinutes": EXPIRES_MINUTES}
                wait_until(
                    lambda: agent.asked == [begun], deadline_seconds=DEADLINE_SECONDS, what="protection"
                )
                end.touch()
                wait_until(
                    lambda: agent.asked == [begun, {"ProtectionEnabled": False}],
                    deadline_seconds=DEADLINE_SECONDS,
                    what="the end of the protection",
                )
            finally:
                worker.kill()


def test_an_agent_that_refuses_is_asked_again_and_then_the_task_runs_without(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.refusals = MAX_ATTEMPTS - 1
    assert set_protection(agent.url, enabled=True)
    assert len(agent.asked) == 1
    agent.refusals = MAX_ATTEMPTS
    assert not set_protection(agent.url, enabled=True)
    assert "is not protected from being scaled in" in caplog.text
    agent.refusals = MAX_ATTEMPTS
    assert not set_protection(agent.url, enabled=False)
    assert "is still protected from being scaled in" in caplog.text
