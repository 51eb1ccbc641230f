"""Starts a plan in the right order, side by side where order does not matter, and stops it in reverse."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import psutil

from local_stack.lake_environment import env_file_text
from local_stack.launch import describe
from local_stack.layout import Layout
from local_stack.leftovers import end, find, living_after
from local_stack.plan import Plan
from local_stack.ports import check_ports_are_free
from local_stack.program import Program, Step, Unhealthy, wrong_with
from local_stack.secret_files import write_secret_file
from local_stack.supervision import (
    ProcessState,
    Supervisor,
    SupervisorAway,
    start_supervisor,
    supervisor_configuration,
)
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import PROJECT_ROOT

POLL_SECONDS: Final = 0.2
SUPERVISOR_DEADLINE_SECONDS: Final = 20.0
STOP_DEADLINE_SECONDS: Final = 90.0
LEFTOVERS_GRACE_SECONDS: Final = 15.0
LOG_LINES_SHOWN: Final = 15
LOG_LINE_MAX_CHARACTERS: Final = 300

Say = Callable[[str], None]


class StartFailed(FatalError):
    """Something of the stack did not start; the message holds the end of its log."""


def bring_up(plan: Plan, say: Say) -> None:
    """Start everything; returns when all of it is healthy.

    Raises ConfigurationError when a port is taken and StartFailed when something does not become healthy.
    What was started until then runs on: the caller takes it down.
    """
    check_ports_are_free(plan.programs)
    layout = plan.layout
    write_secret_file(layout.env_file, env_file_text(plan.lake_environment))
    plan.configuration.save(layout)
    write_secret_file(layout.needs_file, json.dumps(needs_of(plan), indent=2))
    commands = {item.name: describe(item, layout) for item in plan.items}
    write_secret_file(
        layout.supervisor_configuration, supervisor_configuration(layout, plan.programs, commands)
    )
    process = start_supervisor(layout)
    supervisor = Supervisor(layout)
    _wait_for_supervisor(process, supervisor, plan)
    with ThreadPoolExecutor(max_workers=len(plan.items)) as executor:
        _Start(plan, commands, supervisor, executor, say).to_the_end()


class _Start:
    """One start in progress: what is ready, what was started, and what waits for it."""

    def __init__(
        self,
        plan: Plan,
        commands: dict[str, tuple[str, ...]],
        supervisor: Supervisor,
        executor: ThreadPoolExecutor,
        say: Say,
    ) -> None:
        self._plan = plan
        self._commands = commands
        self._supervisor = supervisor
        self._executor = executor
        self._say = say
        self._ready: set[str] = set()
        self._started: dict[str, float] = {}
        self._steps: dict[str, subprocess.Popen[bytes]] = {}
        self._checks: dict[str, Future[str | None]] = {}

    def to_the_end(self) -> None:
        """Go on until everything is ready."""
        while len(self._ready) < len(self._plan.items):
            states = self._supervisor.states()
            for item in self._plan.items:
                if item.name in self._ready:
                    continue
                if item.name not in self._started:
                    if self._ready.issuperset(item.after):
                        self._start(item)
                elif self._is_ready(item, states):
                    self._ready.add(item.name)
                    self._say(f"{item.name} ready after {self._seconds(item):.1f} s")
            time.sleep(POLL_SECONDS)

    def _seconds(self, item: Program | Step) -> float:
        return time.monotonic() - self._started[item.name]

    def _start(self, item: Program | Step) -> None:
        self._started[item.name] = time.monotonic()
        if isinstance(item, Program):
            self._supervisor.start(item.name)
            return
        with item.log_file.open("ab") as log:
            self._steps[item.name] = subprocess.Popen(
                self._commands[item.name],
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _is_ready(self, item: Program | Step, states: dict[str, ProcessState]) -> bool:
        if isinstance(item, Step):
            return self._has_succeeded(item)
        if states[item.name].state == "FATAL":
            raise _failed(item, "it ended again and again")
        check = self._checks.pop(item.name, None)
        if check is None:
            self._checks[item.name] = self._executor.submit(_not_ready, item)
            return False
        if not check.done():
            self._checks[item.name] = check
            return False
        wrong = check.result()
        if wrong is not None and self._seconds(item) > item.ready_deadline_seconds:
            raise _failed(item, f"not healthy after {item.ready_deadline_seconds:.0f} s: {wrong}")
        return wrong is None and states[item.name].state == "RUNNING"

    def _has_succeeded(self, step: Step) -> bool:
        process = self._steps[step.name]
        code = process.poll()
        if code is None:
            if self._seconds(step) > step.deadline_seconds:
                raise _failed(step, f"not done after {step.deadline_seconds:.0f} s")
            return False
        if code != 0:
            raise _failed(step, f"it ended with exit code {code}")
        return True


def take_down(layout: Layout, say: Say) -> None:
    """Stop everything, each program after those that need it, then supervisord, then whatever is left.

    Works on what runs, whatever it was started with, and also when supervisord was killed.
    """
    with suppress(SupervisorAway, psutil.NoSuchProcess):
        supervisor = Supervisor(layout)
        _stop_programs(supervisor, _needs_of_last_start(layout), say)
        process = psutil.Process(supervisor.pid())
        supervisor.shut_down()
        living_after([process], STOP_DEADLINE_SECONDS)
    left = end(find(layout.root), grace_seconds=LEFTOVERS_GRACE_SECONDS)
    if left:
        say(f"ended {left} processes that were left behind")


def needs_of(plan: Plan) -> dict[str, list[str]]:
    """For each program, those that have to outlive it: what it needs, through steps and other programs."""
    direct = {item.name: item.after for item in plan.items}
    programs = {program.name for program in plan.programs}
    needs: dict[str, list[str]] = {}
    for program in programs:
        reached: set[str] = set()
        waiting = list(direct[program])
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting.extend(direct[name])
        needs[program] = sorted(reached & programs)
    return needs


def _needs_of_last_start(layout: Layout) -> dict[str, list[str]]:
    if not layout.needs_file.is_file():
        return {}
    needs: dict[str, list[str]] = json.loads(layout.needs_file.read_text(encoding="utf-8"))
    return needs


def _stop_programs(supervisor: Supervisor, needs: Mapping[str, list[str]], say: Say) -> None:
    stopping: set[str] = set()
    ends = time.monotonic() + STOP_DEADLINE_SECONDS
    while time.monotonic() < ends:
        states = supervisor.states()
        alive = {name for name, state in states.items() if not state.is_over}
        if not alive:
            return
        for name in sorted(alive - stopping):
            if not any(name in needs.get(other, ()) for other in alive):
                say(f"stopping {name}")
                supervisor.stop(name)
                stopping.add(name)
        time.sleep(POLL_SECONDS)


def _wait_for_supervisor(process: subprocess.Popen[bytes], supervisor: Supervisor, plan: Plan) -> None:
    ends = time.monotonic() + SUPERVISOR_DEADLINE_SECONDS
    while not supervisor.is_there():
        if process.poll() is not None or time.monotonic() > ends:
            raise StartFailed(f"supervisord did not start: see {plan.layout.logs / 'supervisord.log'}")
        time.sleep(POLL_SECONDS)


def _not_ready(program: Program) -> str | None:
    """None when `program` is healthy and ready, else what is wrong."""
    wrong = wrong_with(program)
    if wrong is not None or program.check_ready is None:
        return wrong
    try:
        program.check_ready()
    except Unhealthy as answer:
        return str(answer)
    return None


def _failed(item: Program | Step, reason: str) -> StartFailed:
    lines: list[str] = []
    if item.log_file.is_file():
        lines = item.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    shown = "".join(f"\n    {line[:LOG_LINE_MAX_CHARACTERS]}" for line in lines)
    return StartFailed(f"{item.name} did not start: {reason}. The end of {item.log_file}:{shown}")
