"""The watcher: ends and starts programs that live and do not do their work, as a process of the stack.

supervisord sees a process that ends; it does not see one that answers 503 for ever.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from local_stack.layout import Layout
from local_stack.program import Program, wrong_with
from local_stack.supervision import ProcessState, Supervisor, SupervisorAway

WATCHER: Final = "watcher"
CHECK_INTERVAL_SECONDS: Final = 5.0
FAILURES_BEFORE_RESTART: Final = 6
"""In a row: half a minute of wrong answers, or a minute and a half without one. A busy machine is no
reason to restart anything: it would only have more to do."""


def watcher_program(layout: Layout, *, project_root: Path) -> Program:
    """The watcher's own process; it is as healthy as its process."""
    return Program(
        name=WATCHER,
        command=(sys.executable, "-m", "local_stack", "watch", "--directory", str(layout.root)),
        directory=project_root,
        log_file=layout.log(WATCHER),
        check_health=lambda: None,
    )


def health_of(
    programs: Iterable[Program], states: dict[str, ProcessState], executor: ThreadPoolExecutor
) -> dict[str, str | None]:
    """For every running program, None when it is healthy, else what is wrong; the checks run side by side.

    A program whose health is asked of another one is left out while that one is not healthy itself.
    """
    running = [program for program in programs if program.name in states and states[program.name].runs]
    answers = dict(zip((program.name for program in running), executor.map(wrong_with, running), strict=True))
    return {
        program.name: answers[program.name]
        for program in running
        if program.health_is_asked_of is None or answers.get(program.health_is_asked_of, "") is None
    }


class FailureCounts:
    """How often in a row each program was unhealthy, and which ones are due for a restart."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self._programs = {program.name: program for program in programs}
        self._failures: dict[str, int] = {}
        self._was_healthy: dict[str, int] = {}
        """The process in which each program was healthy last."""

    def due(self, states: Mapping[str, ProcessState], health: Mapping[str, str | None]) -> list[str]:
        """Take one round of answers in; the programs to be restarted now."""
        due = []
        for name, wrong in health.items():
            if wrong is None:
                self._was_healthy[name] = states[name].pid
                self._failures[name] = 0
            elif not self._is_starting(states[name]):
                self._failures[name] = self._failures.get(name, 0) + 1
            if self._failures.get(name, 0) >= FAILURES_BEFORE_RESTART:
                self._failures[name] = 0
                due.append(name)
        return due

    def _is_starting(self, state: ProcessState) -> bool:
        """A new process has its time to become healthy for the first time."""
        return (
            self._was_healthy.get(state.name) != state.pid
            and state.uptime_seconds < self._programs[state.name].ready_deadline_seconds
        )


def watch(
    layout: Layout,
    programs: list[Program],
    say: Callable[[str], None],
    *,
    interval_seconds: float = CHECK_INTERVAL_SECONDS,
) -> None:
    """Check every program again and again, until supervisord is gone."""
    supervisor = Supervisor(layout)
    counts = FailureCounts(programs)
    with ThreadPoolExecutor(max_workers=len(programs)) as executor:
        while True:
            time.sleep(interval_seconds)
            try:
                states = supervisor.states()
                health = health_of(programs, states, executor)
                for name in counts.due(states, health):
                    say(f"{name} is restarted: {health[name]}")
                    supervisor.restart(name)
                for name, state in states.items():
                    if state.state == "FATAL":
                        say(f"{name} ended again and again; it is started once more, see its log")
                        supervisor.start(name)
            except SupervisorAway:
                say("supervisord is gone, so there is nothing left to watch")
                return
