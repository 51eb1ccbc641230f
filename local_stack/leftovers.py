"""Finds and ends the processes of a stack, by the marker in their environment and whatever their parent."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from local_stack.program import PROGRAM_MARKER, STACK_MARKER

POLL_SECONDS: Final = 0.05


def find(root: Path, program: str | None = None) -> list[psutil.Process]:
    """Return the living processes of the stack in `root`, or of one program, but itself and its ancestors."""
    own = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        with suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(STACK_MARKER) != str(root):
                continue
            if program is not None and environment.get(PROGRAM_MARKER) != program:
                continue
            # A child may have an environment of its own.
            for member in (process, *process.children(recursive=True)):
                if member.pid not in own and member.status() != psutil.STATUS_ZOMBIE:
                    found[member.pid] = member
    return list(found.values())


def end(processes: Iterable[psutil.Process], *, grace_seconds: float) -> int:
    """Send SIGTERM, and SIGKILL to those that live after `grace_seconds`; return the number of processes."""
    processes = list(processes)
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    living = living_after(processes, grace_seconds)
    for process in living:
        with suppress(psutil.Error):
            process.kill()
    living_after(living, grace_seconds)
    return len(processes)


def living_after(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all have ended, at most `seconds`; return those of `processes` that still live."""
    # Not psutil.wait_procs: in a container that reaps no orphans, an ended process stays a zombie.
    ends = time.monotonic() + seconds
    while (living := [process for process in processes if _lives(process)]) and time.monotonic() < ends:
        time.sleep(POLL_SECONDS)
    return living


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
