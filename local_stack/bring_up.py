"""Starts the programs and steps of a plan, each when what it needs is ready, and stops them in reverse."""

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
from local_stack.program import Program, Step, Unhealthy, health_problem
from local_stack.secret_files import write_secret_file
from local_stack.supervision import (
    SUPERVISOR,
    ProcessState,
    Supervisor,
    SupervisorUnavailable,
    start_supervisor,
    supervisor_configuration,
)
from telemetry_lake.failures import FatalError
from telemetry_lake.project_files import PROJECT_ROOT

POLL_SECONDS: Final = 0.2
SUPERVISOR_DEADLINE_SECONDS: Final = 20.0
STOP_DEADLINE_SECONDS: Final = 90.0
LEFTOVERS_GRACE_SECONDS: Final = 15.0
LOG_LINES_SHOWN: Final = 15
LOG_LINE_MAX_CHARACTERS: Final = 300
START_ATTEMPTS: Final = 3
"""In a row, when supervisord ends during a start: one that is killed starts again, a broken one does not."""

Say = Callable[[str], None]


class StartFailed(FatalError):
    """Something of the stack did not start; the message holds the end of its log."""


def bring_up(plan: Plan, say: Say) -> None:
    """End what an earlier start left behind, start everything, and return when all of it is healthy.

    When supervisord ends meanwhile, start again, up to START_ATTEMPTS times in all. Raises ConfigurationError
    when a port is taken, and StartFailed when a program does not become healthy or supervisord does not stay.
    What was started until then goes on running: the caller takes it down.
    """
    for attempt in range(1, START_ATTEMPTS + 1):
        take_down(plan.layout, say)
        try:
            _start_all(plan, say)
            return
        except SupervisorUnavailable as error:
            if attempt == START_ATTEMPTS:
                raise StartFailed(
                    f"supervisord ended {attempt} times while the stack was starting: "
                    f"see {plan.layout.log(SUPERVISOR)}"
                ) from error
            say("supervisord ended while the stack was starting: starting the stack again")


def _start_all(plan: Plan, say: Say) -> None:
    """Start everything once; raises what `bring_up` raises, and SupervisorUnavailable."""
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
        _Start(plan, commands, supervisor, executor, say).run()


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

    def run(self) -> None:
        """Start each item when what it needs is ready, until everything is ready."""
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
            raise _failed(item, "it ended at each of its starts")
        check = self._checks.pop(item.name, None)
        if check is None:
            self._checks[item.name] = self._executor.submit(_start_problem, item)
            return False
        if not check.done():
            self._checks[item.name] = check
            return False
        problem = check.result()
        if problem is not None and self._seconds(item) > item.ready_deadline_seconds:
            raise _failed(item, f"not healthy after {item.ready_deadline_seconds:.0f} s: {problem}")
        return problem is None and states[item.name].state == "RUNNING"

    def _has_succeeded(self, step: Step) -> bool:
        process = self._steps[step.name]
        exit_code = process.poll()
        if exit_code is None:
            if self._seconds(step) > step.deadline_seconds:
                raise _failed(step, f"not finished after {step.deadline_seconds:.0f} s")
            return False
        if exit_code != 0:
            raise _failed(step, f"it ended with exit code {exit_code}")
        return True


def take_down(layout: Layout, say: Say) -> None:
    """Stop everything, each program after those that need it, then supervisord, then what is left.

    Works on the running processes, whatever they were started with, and also when supervisord was killed.
    """
    with suppress(SupervisorUnavailable, psutil.NoSuchProcess):
        supervisor = Supervisor(layout)
        _stop_programs(supervisor, _needs_of_last_start(layout), say)
        process = psutil.Process(supervisor.pid())
        supervisor.shut_down()
        living_after([process], STOP_DEADLINE_SECONDS)
    left = end(find(layout.root), grace_seconds=LEFTOVERS_GRACE_SECONDS)
    if left:
        say(f"ended {left} left-over processes")


def needs_of(plan: Plan) -> dict[str, list[str]]:
    """Return the programs that each program needs, through steps and others: those that outlive it."""
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
    while not supervisor.is_available():
        if process.poll() is not None:
            raise SupervisorUnavailable(f"supervisord ended with exit code {process.returncode}")
        if time.monotonic() > ends:
            raise StartFailed(
                f"supervisord does not answer after {SUPERVISOR_DEADLINE_SECONDS:.0f} s: "
                f"see {plan.layout.log(SUPERVISOR)}"
            )
        time.sleep(POLL_SECONDS)


def _start_problem(program: Program) -> str | None:
    """Return why `program` is not healthy and ready yet, None when it is."""
    problem = health_problem(program)
    if problem is not None or program.check_ready is None:
        return problem
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
