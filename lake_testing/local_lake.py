"""Start a local stack for one measurement or test run: on free ports, in a temporary folder."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import psutil

from local_stack.configuration import StackConfiguration, StackVariables
from local_stack.layout import Layout
from local_stack.leftovers import end, find
from local_stack.plan import Plan, make_plan
from local_stack.program import LOOPBACK, health_problem
from local_stack.seaweedfs import INTERNAL_PORTS
from local_stack.supervision import Supervisor, SupervisorUnavailable
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role, Settings, load_settings

PORT_OFFSETS: Final = range(11_000, 22_000, 100)
"""Above the default ports, and below those that the kernel assigns to outgoing connections."""
POLL_SECONDS: Final = 0.2
START_MAX_SECONDS: Final = 600.0
STOP_MAX_SECONDS: Final = 120.0
UP_LINE: Final = "everything is up"
"""The stack prints it when every program answers."""
END_WITH_US: Final = ("setpriv", "--pdeathsig", "TERM")
"""The beginning of a command whose process the kernel ends when this process is killed."""

T = TypeVar("T")


class NotInTime(AssertionError):
    """A condition did not become true before its deadline."""


def wait_for(condition: Callable[[], T | None], *, deadline_seconds: float, what: str) -> T:
    """Wait until `condition` returns a true value, and return that. Raises NotInTime, naming `what`."""
    ends = time.monotonic() + deadline_seconds
    while not (result := condition()):
        if time.monotonic() > ends:
            raise NotInTime(f"not within {deadline_seconds:.0f} seconds: {what}")
        time.sleep(POLL_SECONDS)
    return result


@dataclass(frozen=True, slots=True)
class LocalLake:
    """A running local stack."""

    layout: Layout
    plan: Plan
    settings: Settings
    """Those of an analyst, who reads the tables."""

    @property
    def url(self) -> str:
        """The URL that takes pings."""
        return self.plan.ingest_url

    def processes(self, program: str) -> list[psutil.Process]:
        """Return the running processes of one program, its main process first."""
        leader = self.leader(program)
        return sorted(find(self.layout.root, program), key=lambda process: process.pid != leader)

    def processor_seconds(self, program: str) -> float:
        """Return the processor seconds of one program so far, with those of children that have ended."""
        total = 0.0
        for process in find(self.layout.root, program):
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def is_up(self, program: str) -> bool:
        """Return whether one program runs and answers."""
        definition = next(item for item in self.plan.programs if item.name == program)
        return self.leader(program) > 0 and health_problem(definition) is None

    def leader(self, program: str) -> int:
        """Return the id of one program's main process; 0 when it does not run."""
        with suppress(SupervisorUnavailable):
            return Supervisor(self.layout).states()[program].pid
        return 0


@contextmanager
def local_lake(variables: Mapping[str, str], *, only: Iterable[str] = ()) -> Iterator[LocalLake]:
    """Start a local stack without a fleet, with `variables` added to the environment of all its programs.

    Only the programs named `only` are started, with what they need; by default all.
    Yields the running stack. It stops when the block ends, and also when this process is killed.
    """
    # Not pytest's folder: a socket's path must be short, and PostgreSQL's user must have access.
    directory = Path(tempfile.mkdtemp(prefix="lake-"))
    directory.chmod(0o755)
    layout = Layout(directory.resolve())
    output = directory / "output"
    chosen = [part for name in only for part in ("--only", name)]
    arguments = (*chosen, "--no-fleet", "--directory", str(layout.root), "--port-offset", str(_free_offset()))
    with output.open("wb") as log:
        stack = subprocess.Popen(
            (*END_WITH_US, sys.executable, "-m", "local_stack", "run", *arguments),
            cwd=PROJECT_ROOT,
            env={**os.environ, **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(
            lambda: UP_LINE in output.read_text() or stack.poll() is not None,
            deadline_seconds=START_MAX_SECONDS,
            what=f"the local stack in {directory} is up",
        )
        configuration = StackConfiguration.of_last_start(layout)
        if stack.poll() is not None or configuration is None:
            raise RuntimeError(f"the local stack did not start:\n{output.read_text()}")
        yield LocalLake(
            layout, make_plan(layout, configuration), load_settings(layout.env_file, role=Role.ANALYST)
        )
    finally:
        stack.terminate()
        with suppress(subprocess.TimeoutExpired):
            stack.wait(STOP_MAX_SECONDS)
        stack.kill()
        stack.wait()
        end(find(layout.root), grace_seconds=0)
        shutil.rmtree(directory, ignore_errors=True)


def _free_offset() -> int:
    defaults = StackVariables.model_construct()
    ports = [port for name, port in defaults.model_dump().items() if name.endswith("_port")]
    ports += [defaults.seaweedfs_internal_port + number for number in range(INTERNAL_PORTS)]
    offsets = random.sample(PORT_OFFSETS, len(PORT_OFFSETS))
    for offset in offsets:
        if all(_is_free(port + offset) for port in ports):
            return offset
    raise RuntimeError("no free ports for a local stack between 20,000 and 32,000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


@dataclass(slots=True)
class RunningFleet:
    """A client fleet that posts until it is stopped, and the file that it writes its proof to."""

    process: subprocess.Popen[bytes]
    proof: Path
    _lines: int = 0
    _read_bytes: int = 0

    def acknowledged(self) -> int:
        """Return how many pings were acknowledged so far; reads only the lines since the last call."""
        if self.proof.exists():
            with self.proof.open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
            self._lines += new.count(b"\n")
            self._read_bytes += len(new)
        return self._lines

    def stop(self) -> None:
        """Stop the fleet, and wait until it has written its tally."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_MAX_SECONDS)


@contextmanager
def running_fleet(url: str, proof: Path, *arguments: str) -> Iterator[RunningFleet]:
    """Start a fleet, whose output goes to the terminal or to pytest. Yields it, and kills it at the end."""
    process = subprocess.Popen(
        (
            *(*END_WITH_US, sys.executable, "-m", "client_fleet", "--target", url, "--duration", "0"),
            *("--acknowledged", str(proof), *arguments),
        ),
        cwd=PROJECT_ROOT,
    )
    try:
        yield RunningFleet(process, proof)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
