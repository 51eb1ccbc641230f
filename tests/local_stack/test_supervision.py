"""supervisord, the launcher and the watcher, with real processes that do nothing."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lake_testing.stack import wait_until
from local_stack.bring_up import StartFailed, bring_up, take_down
from local_stack.configuration import Balancer, Database, StackConfiguration, StackVariables
from local_stack.launch import describe
from local_stack.layout import Layout
from local_stack.leftovers import find
from local_stack.plan import make_plan
from local_stack.program import PROGRAM_MARKER, Program, Unhealthy
from local_stack.supervision import (
    Supervisor,
    SupervisorUnavailable,
    start_supervisor,
    supervisor_configuration,
)
from local_stack.watch import watch

DEADLINE_SECONDS = 30.0


started: list[subprocess.Popen[bytes]] = []


def quiet(_text: str) -> None:
    pass


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path / "s")
    yield layout
    take_down(layout, quiet)
    for process in started:
        process.wait(DEADLINE_SECONDS)
    started.clear()


@pytest.fixture
def sleeper(layout: Layout) -> Program:
    """Sleeps, with a child that sleeps too."""
    return Program(
        name="sleeper",
        command=("/bin/sh", "-c", "sleep 1000 & exec sleep 1001"),
        directory=layout.root,
        log_file=layout.log("sleeper"),
        check_health=lambda: None,
        ready_deadline_seconds=0,
    )


def supervise(layout: Layout, *programs: Program) -> Supervisor:
    commands = {program.name: describe(program, layout) for program in programs}
    layout.supervisor_configuration.write_text(supervisor_configuration(layout, programs, commands))
    started.append(start_supervisor(layout))
    supervisor = Supervisor(layout)
    wait_until(supervisor.is_available, deadline_seconds=DEADLINE_SECONDS, what="supervisord answers")
    for program in programs:
        supervisor.start(program.name)
    wait_until(
        lambda: all(state.state == "RUNNING" for state in supervisor.states().values()),
        deadline_seconds=DEADLINE_SECONDS,
        what="everything runs",
    )
    wait_until(
        lambda: all(_has_been_launched(layout, program) for program in programs),
        deadline_seconds=DEADLINE_SECONDS,
        what="the launchers have become what they launch",
    )
    return supervisor


def _has_been_launched(layout: Layout, program: Program) -> bool:
    commands = sleeps(layout, program.name)
    return bool(commands) and all(command[0] != "/bin/sh" for command in commands)


def sleeps(layout: Layout, program: str = "sleeper") -> list[list[str]]:
    found = []
    for process in find(layout.root, program):
        # A killed one is listed until its parent has noticed.
        with contextlib.suppress(psutil.Error):
            found.append(process.cmdline())
    return sorted(found)


def test_a_killed_program_comes_back_alone(layout: Layout, sleeper: Program) -> None:
    supervisor = supervise(layout, sleeper)
    first = supervisor.states()["sleeper"].pid
    assert sleeps(layout) == [["sleep", "1000"], ["sleep", "1001"]]

    psutil.Process(first).kill()

    wait_until(
        lambda: supervisor.states()["sleeper"].pid not in {0, first},
        deadline_seconds=DEADLINE_SECONDS,
        what="it runs again",
    )
    wait_until(
        lambda: sleeps(layout) == [["sleep", "1000"], ["sleep", "1001"]],
        deadline_seconds=DEADLINE_SECONDS,
        what="the child of its first life is gone",
    )


def test_the_watcher_restarts_what_lives_and_does_not_answer(layout: Layout, sleeper: Program) -> None:
    sick = layout.root / "sick"

    def check_health() -> None:
        if sick.exists():
            raise Unhealthy("503")

    program = replace(sleeper, check_health=check_health)
    supervisor = supervise(layout, program)
    first = supervisor.states()["sleeper"].pid
    lines: list[str] = []
    sick.touch()

    def say(text: str) -> None:
        lines.append(text)
        sick.unlink(missing_ok=True)

    watcher = threading.Thread(target=watch, args=(layout, [program], say), kwargs={"interval_seconds": 0.05})
    watcher.start()
    wait_until(
        lambda: supervisor.states()["sleeper"].pid not in {0, first},
        deadline_seconds=DEADLINE_SECONDS,
        what="another process runs",
    )
    assert lines == ["sleeper is restarted: 503"]

    take_down(layout, quiet)
    watcher.join(DEADLINE_SECONDS)
    assert not watcher.is_alive(), "it ends with supervisord"


def test_a_stop_after_supervisord_was_killed_leaves_nothing(layout: Layout, sleeper: Program) -> None:
    supervise(layout, sleeper)
    (supervisord,) = (
        process for process in find(layout.root) if process.environ()[PROGRAM_MARKER] == "supervisord"
    )
    supervisord.send_signal(signal.SIGKILL)
    started[0].wait(DEADLINE_SECONDS)
    assert sleeps(layout)

    lines: list[str] = []
    take_down(layout, lines.append)

    assert find(layout.root) == []
    assert lines == ["ended 2 left-over processes"]


def test_a_stop_goes_against_the_order_of_needs(layout: Layout, sleeper: Program) -> None:
    names = ("storage", "ingest", "client")
    programs = [replace(sleeper, name=name, log_file=layout.log(name)) for name in names]
    supervise(layout, *programs)
    layout.needs_file.write_text(
        json.dumps({"client": ["ingest", "storage"], "ingest": ["storage"], "storage": []})
    )

    lines: list[str] = []
    take_down(layout, lines.append)

    # The children of the leaders, whom SIGTERM does not reach, are ended last.
    assert lines == [
        "stopping client",
        "stopping ingest",
        "stopping storage",
        "ended 3 left-over processes",
    ]
    assert find(layout.root) == []


def test_what_renames_itself_is_found_all_the_same(layout: Layout, sleeper: Program) -> None:
    renamed = replace(
        sleeper,
        command=(
            sys.executable,
            "-c",
            "import setproctitle, time; setproctitle.setproctitle('x' * 4000); time.sleep(1000)",
        ),
    )
    supervise(layout, renamed)
    wait_until(
        lambda: any(command[0].startswith("xx") for command in sleeps(layout)),
        deadline_seconds=DEADLINE_SECONDS,
        what="it has renamed itself",
    )


def test_a_supervisord_that_shuts_down_is_unavailable(layout: Layout, sleeper: Program) -> None:
    stubborn = replace(
        sleeper, command=("/bin/sh", "-c", "trap '' TERM; exec sleep 1001"), stop_wait_seconds=3
    )
    supervisor = supervise(layout, stubborn)
    psutil.Process(supervisor.pid()).terminate()

    def is_unavailable() -> bool:
        try:
            supervisor.states()
        except SupervisorUnavailable:
            return True
        return False

    wait_until(is_unavailable, deadline_seconds=DEADLINE_SECONDS, what="supervisord refuses to answer")
    assert sleeps(layout), "it has not ended yet"


def test_a_supervisord_that_does_not_stay_ends_the_start_with_one_sentence(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It ends at once.
    monkeypatch.setattr(
        "local_stack.bring_up.supervisor_configuration", lambda *_: "[supervisord]\nnodaemon = perhaps\n"
    )
    programs = make_plan(
        layout,
        StackConfiguration(
            variables=StackVariables(),
            database=Database.SQLITE,
            database_reason="",
            balancer=Balancer.NONE,
            fleet=False,
            foreground=True,
        ),
    )
    lines: list[str] = []
    with pytest.raises(StartFailed, match=r"supervisord ended 3 times while the stack was starting: see "):
        bring_up(replace(programs, items=()), lines.append)
    assert lines == ["supervisord ended while the stack was starting: starting the stack again"] * 2
