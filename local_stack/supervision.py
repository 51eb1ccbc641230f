"""supervisord: its configuration, its start, and the conversation with it over a Unix socket."""

import os
import subprocess
import sys
import xmlrpc.client
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final

from supervisor.xmlrpc import SupervisorTransport

from local_stack.layout import Layout
from local_stack.program import PROGRAM_MARKER, STACK_MARKER, Program
from telemetry_lake.project_files import PROJECT_ROOT

LOG_MAX_MEGABYTES: Final = 10
LOG_BACKUPS: Final = 2
START_RETRIES: Final = 20
"""supervisord waits a second longer before each; then the watcher starts the program again."""
MUST_LIVE_SECONDS: Final = 1
SUPERVISOR: Final = "supervisord"

_FAULT_SHUTTING_DOWN: Final = 6
_FAULT_ALREADY_STARTED: Final = 60
_FAULT_NOT_RUNNING: Final = 70


class SupervisorUnavailable(Exception):
    """supervisord does not answer: it is not running, not yet, or shutting down."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process as supervisord reports it; `uptime_seconds` and `pid` are 0 when it does not run."""

    name: str
    state: str
    """One of supervisord's: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL, UNKNOWN."""
    pid: int
    uptime_seconds: int

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self.pid > 0

    @property
    def is_over(self) -> bool:
        """Whether there is no process, and supervisord will not start one by itself."""
        return self.state in {"STOPPED", "EXITED", "FATAL", "UNKNOWN"}


def supervisor_configuration(
    layout: Layout, programs: Iterable[Program], commands: Mapping[str, tuple[str, ...]]
) -> str:
    """Return supervisord's configuration file. It holds no secret: those are in the launch files."""
    sections = [
        _section(
            "supervisord",
            nodaemon="true",
            logfile=str(layout.log(SUPERVISOR)),
            logfile_maxbytes=f"{LOG_MAX_MEGABYTES}MB",
            logfile_backups=str(LOG_BACKUPS),
            pidfile=str(layout.run / "supervisord.pid"),
            childlogdir=str(layout.logs),
            nocleanup="true",
        ),
        _section("unix_http_server", file=str(layout.supervisor_socket), chmod="0700"),
        _section(
            "rpcinterface:supervisor",
            **{"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
    ]
    sections += [
        _section(
            f"program:{program.name}",
            command=" ".join(f'"{part}"' for part in commands[program.name]),
            directory=str(PROJECT_ROOT),
            # In order: `bring_up` starts each when what it needs is healthy.
            autostart="false",
            autorestart="true",
            startsecs=str(MUST_LIVE_SECONDS),
            startretries=str(START_RETRIES),
            stopsignal=program.stop_signal,
            stopwaitsecs=str(program.stop_wait_seconds),
            # The leader stops its workers by itself. SIGKILL goes to the whole group.
            stopasgroup="false",
            killasgroup="true",
            priority=str(priority),
            redirect_stderr="true",
            stdout_logfile=str(program.log_file),
            stdout_logfile_maxbytes=f"{LOG_MAX_MEGABYTES}MB",
            stdout_logfile_backups=str(LOG_BACKUPS),
        )
        for priority, program in enumerate(programs, start=1)
    ]
    return "\n".join(sections)


def start_supervisor(layout: Layout) -> subprocess.Popen[bytes]:
    """Start supervisord in a session of its own, out of reach of the terminal's Ctrl-C."""
    layout.logs.mkdir(parents=True, exist_ok=True)
    with layout.log(SUPERVISOR).open("ab") as log:
        return subprocess.Popen(
            (sys.executable, "-m", "supervisor.supervisord", "-c", str(layout.supervisor_configuration)),
            cwd=PROJECT_ROOT,
            env={**os.environ, STACK_MARKER: str(layout.root), PROGRAM_MARKER: SUPERVISOR},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


class Supervisor:
    """The conversation with one stack's supervisord; raises SupervisorUnavailable when it does not answer."""

    def __init__(self, layout: Layout) -> None:
        self._socket = layout.supervisor_socket

    def is_available(self) -> bool:
        """Return whether it answers."""
        try:
            self._call("supervisor.getState")
        except SupervisorUnavailable:
            return False
        return True

    def pid(self) -> int:
        """Return the id of its process."""
        return int(self._call("supervisor.getPID"))

    def states(self) -> dict[str, ProcessState]:
        """Return the state of every process, by its name."""
        return {
            info["name"]: ProcessState(
                info["name"],
                info["statename"],
                info["pid"],
                info["now"] - info["start"] if info["pid"] else 0,
            )
            for info in self._call("supervisor.getAllProcessInfo")
        }

    def start(self, name: str) -> None:
        """Have the process started, and do not wait for it; a process that runs goes on."""
        with _ignoring(_FAULT_ALREADY_STARTED):
            self._call("supervisor.startProcess", name, False)

    def stop(self, name: str) -> None:
        """Have the process stopped, and do not wait for it."""
        with _ignoring(_FAULT_NOT_RUNNING):
            self._call("supervisor.stopProcess", name, False)

    def restart(self, name: str) -> None:
        """Have the process stopped, wait until it is gone, and have it started again."""
        with _ignoring(_FAULT_NOT_RUNNING):
            self._call("supervisor.stopProcess", name, True)
        self.start(name)

    def shut_down(self) -> None:
        """Have supervisord stop what still runs, in reverse order, and end."""
        self._call("supervisor.shutdown")

    def _call(self, method: str, *arguments: str | bool) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
            return getattr(proxy, method)(*arguments)
        except (OSError, HTTPException, xmlrpc.client.ProtocolError) as error:
            raise SupervisorUnavailable(f"supervisord does not answer at {self._socket}: {error}") from error
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _FAULT_SHUTTING_DOWN:
                raise SupervisorUnavailable("supervisord is shutting down") from fault
            raise
        finally:
            transport.close()


@contextmanager
def _ignoring(code: int) -> Iterator[None]:
    """Ignore supervisord's refusal `code`: the process is already in the wanted state."""
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != code:
            raise


def _section(title: str, **options: str) -> str:
    # supervisord expands %(name)s everywhere.
    lines = (f"{name} = {value.replace('%', '%%')}" for name, value in options.items())
    return f"[{title}]\n" + "\n".join(lines) + "\n"
