"""The watcher: restarts programs that run and do not do their work, as a process of the stack.

supervisord sees a process that ends; it does not see one that only answers 503.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from local_stack.layout import Layout
from local_stack.program import Program, health_problem
from local_stack.supervision import ProcessState, Supervisor, SupervisorUnavailable

WATCHER: Final = "watcher"
CHECK_INTERVAL_SECONDS: Final = 5.0
FAILURES_BEFORE_RESTART: Final = 6
"""In a row: half a minute of wrong answers, or a minute and a half without one. Restarts do not help a busy
machine: it would only have more to do."""


def watcher_program(layout: Layout, *, project_root: Path) -> Program:
    """Return the watcher's own process; it is as healthy as its process."""
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
    """Return what is wrong with each running program, None when it is healthy; the checks run side by side.

    A program whose health another one reports is left out while that one is not healthy itself.
    """
    running = [program for program in programs if program.name in states and states[program.name].runs]
    answers = dict(
        zip((program.name for program in running), executor.map(health_problem, running), strict=True)
    )
    return {
        program.name: answers[program.name]
        for program in running
        if program.health_reporter is None or answers.get(program.health_reporter, "") is None
    }


class FailureCounts:
    """How often in a row each program was unhealthy, and which ones are due for a restart."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self._programs = {program.name: program for program in programs}
        self._failures: dict[str, int] = {}
        self._was_healthy: dict[str, int] = {}
        """The process in which each program was healthy last."""

    def due(self, states: Mapping[str, ProcessState], health: Mapping[str, str | None]) -> list[str]:
        """Count one round of answers; return the programs to be restarted now."""
        due = []
        for name, wrong in health.items():
            if wrong is None:
                self._was_healthy[name] = states[name].pid
                self._failures[name] = 0
            elif not self._is_starting(states[name]):
                self._failures[name] = self._failures.get(name, 0) + 1
            if not self._programs[name].restart_when_unhealthy:
                continue
            if self._failures.get(name, 0) >= FAILURES_BEFORE_RESTART:
                self._failures[name] = 0
                due.append(name)
        return due

    def _is_starting(self, state: ProcessState) -> bool:
        """Return whether the process is new and has never been healthy, and its deadline is not over."""
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
    """Check every program again and again, until supervisord does not answer any more."""
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
                        say(f"{name} ended again and again and is started once more: see its log")
                        supervisor.start(name)
            except SupervisorUnavailable:
                say("supervisord is not running, so there is nothing left to watch")
                return
