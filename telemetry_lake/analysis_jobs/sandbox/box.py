"""The box: a process for an analyst's code, which sees its own files and nothing else of this machine.

Where bubblewrap is installed, the code has a file system, processes, a user and a network of its own. Of the
machine it sees the programs, the interpreter and the code of this project; not the settings, the keys and the
data of the stack, and no other process. There is no network: if the code has to read tables, it does so
through a Unix socket (`door`), and holds no key.

Without bubblewrap the same command runs with the rights of the process that starts it; the limits hold, and
`sandbox_state` says so in a sentence.

The limits are looked after in two ways: the kernel limits each process (memory, size of a file, number of
processes), and this process measures all of them together, and ends them.
"""

import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Final

import psutil

from telemetry_lake.analysis_jobs.sandbox.folders import new_folder, remove_folder
from telemetry_lake.failures import ConfigurationError, FatalError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.units import MIB

BUBBLEWRAP: Final = "bwrap"
_NEEDED: Final = ("setpriv", "prlimit", "choom")
"""Programs of util-linux, which is part of every Debian."""
_USERS: Final = range(61_184, 65_520)
"""The ids that systemd's dynamic users have: those of no account. A box takes one, so that limits of a user's
processes count one box."""
_HOME: Final = "/tmp"  # noqa: S108 (of the box, not of this machine)
_HOST_NAME: Final = "box"
_INSIDE: Final = Path("/box")
"""Where the folder of a box is seen from inside of it."""
_PROJECT_FOLDERS: Final = ("telemetry_lake", "jobs", "sql", "schemas", "java/lib/spark")
"""What is seen of the project: its code. The folder `.local` beside them holds the keys of the stack."""
_KERNELS: Final = ("telemetry_lake/histograms",)
"""Folders of the project whose compiled functions scripts call. Machine code is found only where it could be
written, and to compile takes seconds: a box has a copy."""
_ETC: Final = ("ld.so.cache", "alternatives", "java-17-openjdk", "localtime")
_WRITABLE: Final = ("out", "tmp")
_POLL_SECONDS: Final = 0.2
_END_MAX_SECONDS: Final = 10.0
_ENTRIES_MAX: Final = 100_000
_FREE_MIN_BYTES: Final = 256 * MIB
"""Files that were removed while they are open are in no folder: the disk's free space counts them as well."""
_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class SandboxState:
    """Whether analysts' code is kept apart from the lake on this machine, and what to tell analysts of it."""

    is_apart: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What the processes of a box may use together; without `seconds`, its caller ends it."""

    memory_bytes: int
    disk_bytes: int
    """Of the files in its folder, and so of one file."""
    processes: int
    """Processes and threads."""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command in a box ended; `stopped` says in a sentence which limit it was stopped for, if any."""

    exit_status: int
    seconds: float
    stopped: str | None


class Box:
    """The folder of one box, before, while and after something runs in it.

    What is put into it is seen read-only from inside; there `out` and `tmp` can be written.
    """

    def __init__(self, folder: Path, *, apart: bool) -> None:
        self.folder = folder
        self._apart = apart
        own = os.geteuid()
        self._user = _USERS[secrets.randbelow(len(_USERS))] if apart and own == 0 else own
        folder.chmod(0o755)
        for name in _WRITABLE:
            (folder / name).mkdir()
            os.chown(folder / name, self._user, -1)
        for name, text in {
            "passwd": f"script:x:{self._user}:{self._user}::{_HOME}:/usr/sbin/nologin\n",
            # Java looks its own host name up.
            "hosts": f"127.0.0.1 localhost {_HOST_NAME}\n",
        }.items():
            self.put(name, text.encode())

        for number, place in enumerate(self._kernels()):
            copy = folder / f"kernels-{number}"
            shutil.copytree(place, copy)
            for file in (copy, *copy.rglob("*")):
                os.chown(file, self._user, -1)

    def put(self, name: str, content: bytes) -> None:
        """Write a file that can be read inside; `name` is relative to the box's folder."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o644)

    def inside(self, name: str) -> str:
        """Return the path that a file or folder of the box has inside of it."""
        return str((_INSIDE if self._apart else self.folder) / name)

    def open_result(self, name: str, *, max_bytes: int) -> IO[bytes] | None:
        """Open a file that was written below `out`, None when it is not there; `name` has no folders.

        The code that wrote it decided what is there: a link could lead to any file of this process. Raises
        FatalError when it is not an ordinary file, or is too large.
        """
        try:
            opened = os.open(self.folder / "out" / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FatalError(f"the result {name} is not an ordinary file: {error.strerror}") from error
        state = os.fstat(opened)
        if stat.S_ISREG(state.st_mode) and state.st_size <= max_bytes:
            return os.fdopen(opened, "rb")
        os.close(opened)
        if not stat.S_ISREG(state.st_mode):
            raise FatalError(f"the result {name} is not an ordinary file")
        raise FatalError(f"the result {name} has {state.st_size:,} bytes; {max_bytes:,} are allowed")

    def run(
        self,
        command: Sequence[str],
        limits: Limits,
        *,
        environment: Mapping[str, str] | None = None,
        standard_input: IO[bytes] | None = None,
        on_output: Callable[[bytes], object],
    ) -> Ended:
        """Run a command in the box until it ends or has reached a limit.

        `environment` is all that it gets besides what every program needs. What it prints, on standard error
        as well, is given to `on_output` in pieces, by another thread.
        """
        started = time.monotonic()
        process = subprocess.Popen(
            [*self._enclosed(limits), *command],
            env={**self._environment(), **(environment or {})},
            cwd="/" if self._apart else self.folder,
            stdin=standard_input or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout, on_output), daemon=True)
        reader.start()
        try:
            stopped = self._watch(process, limits, started)
        finally:
            _end(process)
        reader.join(_END_MAX_SECONDS)
        return Ended(process.returncode, time.monotonic() - started, stopped)

    def _kernels(self) -> list[Path]:
        """Return the folders with machine code; none where a box sees the project as it is."""
        places = [PROJECT_ROOT / name / "__pycache__" for name in _KERNELS]
        return [place for place in places if self._apart and place.is_dir()]

    def _watch(self, process: subprocess.Popen[bytes], limits: Limits, started: float) -> str | None:
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
                return None
            if limits.seconds is not None and time.monotonic() - started > limits.seconds:
                return f"it was stopped after {limits.seconds:g} seconds"
            if _memory_bytes(process.pid) > limits.memory_bytes:
                return f"it was stopped: it used more than {limits.memory_bytes // MIB:,} MiB of memory"
            if self._is_too_large(limits.disk_bytes):
                return (
                    f"it was stopped: it wrote more than {limits.disk_bytes // MIB:,} MiB, or more than "
                    f"{_ENTRIES_MAX:,} files"
                )
            if shutil.disk_usage(self.folder).free < _FREE_MIN_BYTES:
                return "it was stopped: the disk of the machine is full"

    def _is_too_large(self, disk_bytes: int) -> bool:
        total = entries = 0
        waiting = [self.folder / name for name in _WRITABLE]
        while waiting:
            try:
                found = os.scandir(waiting.pop())
            except OSError:  # removed meanwhile
                continue
            with found:
                for entry in found:
                    entries += 1
                    with suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(Path(entry.path))
                    if total > disk_bytes or entries > _ENTRIES_MAX:
                        return True
        return False

    def _environment(self) -> dict[str, str]:
        """Return what every program needs; nothing of this process's environment is passed on."""
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": _HOME if self._apart else self.inside("tmp"),
            "TMPDIR": _HOME if self._apart else self.inside("tmp"),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONPATH": str(PROJECT_ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def _enclosed(self, limits: Limits) -> list[str]:
        """Return the beginning of a command that runs in the box."""
        limited = [
            *("choom", "-n", "1000", "--", "prlimit", f"--data={limits.memory_bytes}"),
            *(f"--fsize={limits.disk_bytes}", f"--nproc={limits.processes}", "--nofile=4096", "--core=0"),
        ]
        if not self._apart:
            # The kernel ends the command when this process is killed.
            return ["setpriv", "--pdeathsig", "KILL", "--", *limited, "--"]
        whole = [
            *(BUBBLEWRAP, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *("--unshare-net", "--hostname", _HOST_NAME, "--die-with-parent", "--new-session"),
        ]
        as_root = os.geteuid() == 0
        if as_root:
            # A mapped root would still be root outside: it becomes another user, below.
            whole += ["--cap-drop", "ALL"]
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                whole += ["--cap-add", capability]
        else:
            whole += ["--unshare-user", "--disable-userns"]
        whole += self._mounts()
        whole += ["--chdir", str(PROJECT_ROOT), "--"]
        if as_root:
            user = str(self._user)
            whole += [
                *("setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all"),
                *("--bounding-set=-all", "--no-new-privs", "--"),
            ]
        return [*whole, *limited, "--"]

    def _mounts(self) -> list[str]:
        mounts = _Mounts()
        mounts.read_only(Path("/usr"), Path("/usr"))
        for name in ("bin", "sbin", "lib", "lib32", "lib64"):
            place = Path("/", name)
            if place.is_symlink():
                mounts.arguments += ["--symlink", str(place.readlink()), str(place)]
            elif place.is_dir():
                mounts.read_only(place, place)
        for name in _ETC:
            if (place := Path("/etc", name)).exists():
                mounts.read_only(place, place)
        for name in ("passwd", "hosts"):
            mounts.read_only(self.folder / name, Path("/etc", name))
        for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
            mounts.read_only(Path(prefix).resolve(), Path(prefix))
        for name in _PROJECT_FOLDERS:
            if (place := PROJECT_ROOT / name).exists():
                mounts.read_only(place.resolve(), place)
        for number, place in enumerate(self._kernels()):
            mounts.bind("--bind", self.folder / f"kernels-{number}", place)
        mounts.read_only(self.folder, _INSIDE)
        for name in _WRITABLE:
            mounts.bind("--bind", self.folder / name, _INSIDE / name)
        mounts.bind("--bind", self.folder / "tmp", Path(_HOME))
        return [
            *mounts.arguments,
            # As read-only, because what is written to /dev/shm would be memory that is not counted.
            *("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/"),
        ]


class _Mounts:
    """Mounts of a box. A parent that bubblewrap makes by itself could be entered by root only."""

    def __init__(self) -> None:
        self.arguments: list[str] = []
        self._known = {Path("/")}
        self._mounted: set[Path] = set()

    def read_only(self, source: Path, place: Path) -> None:
        self.bind("--ro-bind", source, place)

    def bind(self, option: str, source: Path, place: Path) -> None:
        if place != Path("/usr") and place.is_relative_to("/usr"):
            return
        for parent in reversed(place.parents):
            # What is inside of another mount is there already.
            if parent not in self._known and not self._mounted.intersection((parent, *parent.parents)):
                self.arguments += ["--perms", "0755", "--dir", str(parent)]
                self._known.add(parent)
        self.arguments += [option, str(source), str(place)]
        self._mounted.add(place)


def sandbox_state() -> SandboxState:
    """Return whether an analyst's code is kept apart from the lake here.

    Raises ConfigurationError when a program is missing without which it cannot be run at all.
    """
    if missing := [name for name in _NEEDED if shutil.which(name) is None]:
        raise ConfigurationError(f"scripts cannot be run: util-linux is not installed ({', '.join(missing)})")
    bubblewrap = shutil.which(BUBBLEWRAP)
    problem = "bubblewrap is not installed on its machine" if bubblewrap is None else _problem(bubblewrap)
    if problem is not None:
        return SandboxState(
            is_apart=False,
            sentence=f"Scripts run with the rights of the stack: {problem}. Let only those submit scripts "
            "who may see everything in the lake.",
        )
    return SandboxState(
        is_apart=True,
        sentence="Scripts run in a sandbox: they can read the stable and derived tables, and see no keys, "
        "no network and no files of this machine.",
    )


@cache
def _problem(bubblewrap: str) -> str | None:
    """Return why bubblewrap makes no boxes here, as in many containers; None when it does."""
    mounts = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
    tried = subprocess.run(
        (bubblewrap, "--unshare-pid", "--unshare-net", *mounts, "true"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode == 0:
        return None
    return f"bubblewrap makes no sandbox there ({tried.stderr.strip() or f'exit status {tried.returncode}'})"


@contextmanager
def new_box() -> Iterator[Box]:
    """Yield a box whose folder is removed at the end of the block."""
    folder = new_folder("box")
    try:
        yield Box(folder, apart=sandbox_state().is_apart)
    finally:
        remove_folder(folder)


def _read(source: IO[bytes], on_output: Callable[[bytes], object]) -> None:
    with source:
        while chunk := os.read(source.fileno(), _CHUNK_BYTES):
            on_output(chunk)


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _memory_bytes(pid: int) -> int:
    """Return the memory of a process and of all that it started, without what they share of files."""
    total = 0
    for process in _family(pid):
        with suppress(psutil.Error):
            memory = process.memory_info()
            total += max(0, memory.rss - memory.shared)
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started: with bubblewrap's first process all of its box ends."""
    for member in _family(process.pid):
        with suppress(psutil.Error):
            member.send_signal(signal.SIGKILL)
    process.wait(_END_MAX_SECONDS)
