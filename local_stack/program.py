"""What the stack runs: long-running programs and one-shot steps, as plain values.

Everything else in this package either makes these values (one module for each service) or acts on
them (`supervision`, `bring_up`). The tests start the same definitions one by one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
STACK_MARKER: Final = "TELEMETRY_LAKE_STACK"
"""Variable that every process of a stack carries; its value is the stack's folder."""
PROGRAM_MARKER: Final = "TELEMETRY_LAKE_STACK_PROGRAM"
"""Variable that every process of one program carries; its value is the program's name."""


class Unhealthy(Exception):
    """A program is not able to do its work; the message says what it answered."""


@dataclass(frozen=True, slots=True)
class Program:
    """One long-running process of the stack.

    `check_health` returns when the program does its work and raises Unhealthy when it does not.
    `check_ready`, where there is one, has to pass once after every start as well.
    `after` names the programs and steps that must be ready before this one is started.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    log_file: Path
    check_health: Callable[[], None]
    check_ready: Callable[[], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    user: str | None = None
    """The unprivileged user to become, where the program refuses to run as root."""
    ready_deadline_seconds: float = 60
    stop_wait_seconds: int = 10
    """After SIGTERM and this long, the process group gets SIGKILL."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command that runs to its end at every start of the stack, and may run again at any time."""

    name: str
    command: tuple[str, ...]
    directory: Path
    log_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    user: str | None = None
    deadline_seconds: float = 180
