"""What the stack runs: long-running programs and one-shot steps, as plain values.

Everything else in this package either makes these values (one module for each service) or acts on
them. Making one touches nothing; `write_files` is called before it is started. The tests start the same
definitions one by one.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

from local_stack.secret_files import write_secret_file
from telemetry_lake.failures import ConfigurationError

LOOPBACK: Final = "127.0.0.1"
STACK_MARKER: Final = "TELEMETRY_LAKE_STACK"
"""Variable that every process of a stack carries; its value is the stack's folder."""
PROGRAM_MARKER: Final = "TELEMETRY_LAKE_STACK_PROGRAM"
"""Variable that every process of one program carries; its value is the program's name."""
PROBE_TIMEOUT_SECONDS: Final = 10.0
_SYSTEM_DIRECTORIES: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian installs servers; not on the PATH of an ordinary user."""


class Unhealthy(Exception):
    """A program does not do its work; the message says what it answered."""


@dataclass(frozen=True, slots=True)
class Program:
    """One long-running process of the stack.

    `check_health` returns anything when the program does its work and raises Unhealthy when it does not.
    `check_ready`, where there is one, has to pass once after every start as well.
    `after` names the programs and steps that must be ready before this one is started.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    log_file: Path
    check_health: Callable[[], object]
    check_ready: Callable[[], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    """Its configuration files; written before every start, readable for the owner only."""
    after: tuple[str, ...] = ()
    user: str | None = None
    """The unprivileged user to become, where the program refuses to run as root."""
    ports: Mapping[int, str] = field(default_factory=dict)
    """Every port it listens on, and the variable that moves it."""
    ready_deadline_seconds: float = 60
    stop_signal: str = "TERM"
    stop_wait_seconds: int = 10
    """After the stop signal and this long, the process group gets SIGKILL."""
    restart_when_unhealthy: bool = True
    """Whether the watcher restarts it; what is wrong is shown in any case."""
    may_be_stopped: bool = False
    """Whether the stack is whole without it: a worker that is not needed."""
    health_reporter: str | None = None
    """The program that answers `check_health` for this one: while that is down, the health is unknown."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command that runs to its end at every start of the stack; running it again changes nothing."""

    name: str
    command: tuple[str, ...]
    directory: Path
    log_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    user: str | None = None
    deadline_seconds: float = 180


def write_files(item: Program | Step) -> None:
    """Create the folders of `item` and write its files."""
    item.directory.mkdir(parents=True, exist_ok=True)
    item.log_file.parent.mkdir(parents=True, exist_ok=True)
    for path, text in item.files.items():
        write_secret_file(path, text)
    if item.user is not None:
        shutil.chown(item.directory, item.user)
        for path in item.files:
            shutil.chown(path, item.user)


def probe(what: str, url: str, *, form: Mapping[str, str] | None = None) -> bytes:
    """Return the body that `url` answers with status 200; a `form` is posted.

    Raises Unhealthy, which names `what`, for any other answer and for none.
    """
    # Not httpx: each of its clients spends 30 ms of processor time on certificates, and probes are frequent.
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or LOOPBACK, parts.port, timeout=PROBE_TIMEOUT_SECONDS)
    try:
        connection.request(
            "GET" if form is None else "POST",
            f"{parts.path or '/'}?{parts.query}",
            body=None if form is None else urlencode(form),
            headers={} if form is None else {"Content-Type": "application/x-www-form-urlencoded"},
        )
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException) as error:
        raise Unhealthy(f"{what} at {url}: {error!r}") from error
    finally:
        connection.close()
    if answer.status != HTTPStatus.OK:
        raise Unhealthy(f"{what} at {url} answers {answer.status}")
    return body


def health_problem(program: Program) -> str | None:
    """Return what is wrong with `program`, None when it is healthy."""
    try:
        program.check_health()
    except Unhealthy as answer:
        return str(answer)
    return None


def find_server(name: str, *, more_directories: str = "") -> str | None:
    """Return the path of an installed server program, or None."""
    return (
        shutil.which(name)
        or shutil.which(name, path=_SYSTEM_DIRECTORIES)
        or (shutil.which(name, path=more_directories) if more_directories else None)
    )


def required(name: str, *, package: str) -> str:
    """Return the path of a program that the stack needs, or raise ConfigurationError with the remedy."""
    path = find_server(name)
    if path is None:
        raise ConfigurationError(f"{name} is not on PATH: install it with `apt-get install {package}`")
    return path
