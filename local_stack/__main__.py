"""The command line of the local stack: run, start, stop, status, scale, clean."""

import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.live import Live

from local_stack.bring_up import Say, bring_up, take_down
from local_stack.celery_workers import WORKERS_MAX
from local_stack.configuration import StackConfiguration, StackVariables
from local_stack.display import places_to_go, status_line, status_screen
from local_stack.layout import Layout
from local_stack.leftovers import find
from local_stack.occupancy import Occupied, occupied
from local_stack.plan import Plan, detect, make_plan
from local_stack.supervision import Supervisor, SupervisorUnavailable
from local_stack.watch import watch as keep_watching
from telemetry_lake.failures import FatalError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role, load_settings

LIVE_INTERVAL_SECONDS: Final = 3.0
LINE_INTERVAL_SECONDS: Final = 10.0
STOP_DEADLINE_SECONDS: Final = 120.0
LOOKS_FOR_RATES: Final = 5
POLL_SECONDS: Final = 0.1

app = typer.Typer(
    help="The whole lake on this machine: real services on loopback, under one supervisor.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_errors = Console(stderr=True, soft_wrap=True, highlight=False)

Directory = Annotated[
    Path, typer.Option(help="Where data, logs and credentials are kept.", envvar="LOCAL_STACK_DIRECTORY")
]
PortOffset = Annotated[
    int,
    typer.Option(help="Added to every port, for a second stack or a machine whose ports are taken."),
]
Fleet = Annotated[bool, typer.Option(help="Send pings all the time, at a small rate.")]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Start only this process and what it needs; can be given more than once."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=WORKERS_MAX,
        help="Run Airflow's tasks on this many Celery workers, with Redis; 0 for the scheduler itself.",
    ),
]
_VARIABLES: Final = "Also read from the environment: " + ", ".join(
    f"{name} ({'detected' if default is None else default})"
    for name, default in StackVariables.defaults().items()
)
DEFAULT_DIRECTORY: Final = PROJECT_ROOT / ".local"


@app.command(epilog=_VARIABLES)
def run(
    fleet: Fleet = True,
    only: Only = None,
    workers: Workers = None,
    port_offset: PortOffset = 0,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Start the stack, show how it is doing until Ctrl-C, then stop it."""
    layout = Layout(directory.resolve())
    with _plain_failures(), _hold(layout, "run"), _interrupted_by_signals():
        _refuse_if_in_background(layout)
        console = Console(highlight=False)
        say = _timed(console)
        variables = StackVariables.load(port_offset=port_offset, workers=workers)
        plan = _new_plan(layout, variables, fleet=fleet, only=only, foreground=True)
        try:
            bring_up(plan, say)
            say(f"everything is up. Send pings to {plan.ingest_url}; Ctrl-C stops the stack")
            _show_until_interrupted(plan, console, say)
        except KeyboardInterrupt:
            say("stopping")
        finally:
            _finish_undisturbed()
            take_down(layout, say)
            say("stopped; the data stays, and the next `run` goes on with it")


@app.command(epilog=_VARIABLES)
def start(
    fleet: Fleet = False,
    only: Only = None,
    workers: Workers = None,
    port_offset: PortOffset = 0,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Start the stack in the background."""
    layout = Layout(directory.resolve())
    console = Console(highlight=False)
    with _plain_failures(), _hold(layout, "start"), _interrupted_by_signals():
        if _runs_in_background(layout):
            console.print("The stack is running already; `status` shows it.")
            return
        say = _timed(console)
        variables = StackVariables.load(port_offset=port_offset, workers=workers)
        plan = _new_plan(layout, variables, fleet=fleet, only=only, foreground=False)
        try:
            bring_up(plan, say)
        except (FatalError, KeyboardInterrupt):
            _finish_undisturbed()
            take_down(layout, say)
            raise
        for name, value in places_to_go(plan):
            console.print(f"{name}: {value}", soft_wrap=True)


@app.command()
def stop(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Stop the stack, wherever it was started, and end what is left of it."""
    layout = Layout(directory.resolve())
    say = _timed(Console(highlight=False))
    deadline = time.monotonic() + STOP_DEADLINE_SECONDS
    stopping_pid: int | None = None
    while True:
        try:
            with _plain_failures(), occupied(layout, "stop"):
                is_running = bool(find(layout.root))
                take_down(layout, say)
                say("stopped" if is_running or stopping_pid else "the stack is not running")
                return
        except Occupied as other:
            if time.monotonic() > deadline:
                _fail(
                    f"`{other.command}` (process {other.pid}) did not end within "
                    f"{STOP_DEADLINE_SECONDS:.0f} s: end it yourself."
                )
            if other.command in {"run", "start"} and stopping_pid != other.pid:
                say(f"asking `{other.command}` (process {other.pid}) to stop")
                with suppress(ProcessLookupError):
                    os.kill(other.pid, signal.SIGTERM)
                stopping_pid = other.pid
        time.sleep(POLL_SECONDS)


@app.command()
def status(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Show every process and how far the pings have come. Exits with 1 when something is not healthy."""
    layout = Layout(directory.resolve())
    with _plain_failures():
        # It imports the catalog's client, which the other commands do without.
        from local_stack.observe import Observer

        configuration = StackConfiguration.of_last_start(layout)
        if configuration is None or not find(layout.root):
            _fail(f"The stack of {layout.root} is not running; `python -m local_stack run` starts it.")
        plan = make_plan(layout, configuration)
        with ThreadPoolExecutor(max_workers=len(plan.items) + 1) as executor:
            look = Observer(plan, executor).look()
        Console(highlight=False).print(status_screen(plan, look, None))
        if not look.is_healthy:
            raise typer.Exit(1)


@app.command()
def clean(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Delete the stack's data, logs and credentials. Refuses while it runs."""
    layout = Layout(directory.resolve())
    with _plain_failures(), _hold(layout, "clean"):
        processes = find(layout.root)
        if processes:
            _fail(
                f"The stack of {layout.root} is running ({len(processes)} processes): stop it first "
                "with `python -m local_stack stop`."
            )
        for path in sorted(layout.root.iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
            elif path != layout.lock_file:
                path.unlink()
    Console(highlight=False).print(f"Deleted what was in {layout.root}.")


@app.command()
def scale(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Start and stop the workers of a running stack by its backlog, until Ctrl-C or the stack's end."""
    layout = Layout(directory.resolve())
    with _plain_failures():
        from local_stack.scale_workers import Controller, Workers

        workers = Workers(layout)
        try:
            count = len(workers.names())
        except SupervisorUnavailable:
            _fail(f"The stack of {layout.root} is not running: start it with `python -m local_stack run`.")
        if not count:
            _fail(f"The stack of {layout.root} runs without workers: start it with --workers.")
        say = _timed(Console(highlight=False))
        say(f"1 to {count} workers run, by the backlog; Ctrl-C ends this, and leaves as many as there are")
        settings = load_settings(layout.env_file, role=Role.DRAIN)
        try:
            Controller(settings, workers, ceiling_workers=count, say=say).run()
        except SupervisorUnavailable:
            say("the stack has stopped")
        except KeyboardInterrupt:
            say("the workers stay as they are")


@app.command(hidden=True)
def watch(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Restart programs that run and do not answer; the stack starts this itself."""
    layout = Layout(directory.resolve())
    with _plain_failures():
        configuration = StackConfiguration.of_last_start(layout)
        if configuration is None:
            _fail(f"No stack was started in {layout.root}.")
        console = Console(highlight=False)
        keep_watching(layout, make_plan(layout, configuration).programs, console.print)


def _new_plan(
    layout: Layout, variables: StackVariables, *, fleet: bool, only: list[str] | None, foreground: bool
) -> Plan:
    return make_plan(
        layout, detect(layout, variables, fleet=fleet, foreground=foreground, only=tuple(only or ()))
    )


def _runs_in_background(layout: Layout) -> bool:
    configuration = StackConfiguration.of_last_start(layout)
    return configuration is not None and not configuration.foreground and Supervisor(layout).is_available()


def _refuse_if_in_background(layout: Layout) -> None:
    if _runs_in_background(layout):
        _fail("The stack is running in the background already: `status` shows it, `stop` ends it.")


@contextmanager
def _hold(layout: Layout, command: str) -> Iterator[None]:
    try:
        with occupied(layout, command):
            yield
    except Occupied as other:
        _fail(
            f"`{other.command}` (process {other.pid}) is working on the stack of {layout.root}: "
            "end it with Ctrl-C there, or with `python -m local_stack stop`."
        )


@contextmanager
def _plain_failures() -> Iterator[None]:
    """End with the message of a failure and exit code 1 instead of a traceback."""
    try:
        yield
    except FatalError as failure:
        _fail(str(failure))


def _fail(message: str) -> NoReturn:
    _errors.print(message, style="red", markup=False)
    raise typer.Exit(1)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """A closed terminal and `stop` end the stack as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    yield


def _finish_undisturbed() -> None:
    """Ignore further signals: a second Ctrl-C would only leave processes behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _timed(console: Console) -> Say:
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {text}", markup=False, soft_wrap=True)

    return say


def _show_until_interrupted(plan: Plan, console: Console, say: Say) -> None:
    """Show the live status, or a line now and then; start everything again when supervisord was killed."""
    from local_stack.observe import Look, Observer

    looks: deque[Look] = deque(maxlen=LOOKS_FOR_RATES)
    with ThreadPoolExecutor(max_workers=len(plan.items) + 1) as executor:
        observer = Observer(plan, executor)
        live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        with live or nullcontext():
            while True:
                look = observer.look()
                if live is not None:
                    live.update(status_screen(plan, look, looks[0] if looks else None), refresh=True)
                else:
                    say(status_line(look, looks[0] if looks else None))
                if not look.supervisor_runs:
                    say("supervisord is not running: starting the stack again")
                    bring_up(plan, say)
                looks.append(look)
                time.sleep(LINE_INTERVAL_SECONDS if live is None else LIVE_INTERVAL_SECONDS)


if __name__ == "__main__":
    app()
