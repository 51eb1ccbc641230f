"""What a command in a box sees, and what ends it. Without bubblewrap only the limits are tested."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
import pytest

from lake_testing.stack import wait_until
from telemetry_lake.analysis_jobs.sandbox.box import Box, Ended, Limits, new_box, sandbox_state
from telemetry_lake.failures import FatalError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.units import MIB

LIMITS: Final = Limits(memory_bytes=512 * MIB, disk_bytes=32 * MIB, processes=48, seconds=60)
IN_A_BOX: Final = pytest.mark.skipif(
    not sandbox_state().is_apart, reason="bubblewrap is not installed: there is no box"
)
FORKS: Final = """
import os, sys, time
try:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(600)
except OSError as error:
    sys.exit(str(error))
"""
GROWS_TOGETHER: Final = """
import subprocess, sys
grow = "held = bytearray(b'x') * (200 << 20); input()"
children = [subprocess.Popen([sys.executable, "-c", grow], stdin=subprocess.PIPE) for _ in range(4)]
for child in children:
    child.wait()
"""


def run(box: Box, code: str, limits: Limits = LIMITS, **variables: str) -> tuple[Ended, str]:
    """Run Python code in a box; returns what came of it, and what it printed."""
    box.put("code.py", code.encode())
    printed: list[bytes] = []
    command = [sys.executable, box.inside("code.py")]
    ended = box.run(command, limits, environment=variables, on_output=printed.append)
    return ended, b"".join(printed).decode()


def runs(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "code, limits, status, stopped, said",
    [
        pytest.param(
            "while True: pass", replace(LIMITS, seconds=0.5), -9, "stopped after 0.5 seconds", "", id="time"
        ),
        pytest.param("bytearray(600 << 20)", LIMITS, 1, None, "MemoryError", id="memory"),
        pytest.param(GROWS_TOGETHER, LIMITS, -9, "more than 512 MiB of memory", "", id="memory of several"),
        pytest.param(
            "open('FOLDER/a', 'wb').write(b'x' * (33 << 20))", LIMITS, 1, None, "File too large", id="a file"
        ),
        pytest.param(
            "for n in range(99): open(f'FOLDER/{n}', 'wb').write(b'x' * (8 << 20))",
            LIMITS,
            -9,
            "wrote more than 32 MiB",
            "",
            id="files",
        ),
    ],
)
def test_a_limit_ends_what_reaches_it_and_says_which(
    code: str, limits: Limits, status: int, stopped: str | None, said: str
) -> None:
    with new_box() as box:
        ended, printed = run(box, code.replace("FOLDER", box.inside("out")), limits)
        folder = box.folder
    assert ended.exit_status == status, printed
    assert (ended.stopped is None) == (stopped is None), ended
    assert stopped is None or stopped in str(ended.stopped)
    assert said in printed
    assert not folder.exists()


def test_a_command_that_stays_within_its_limits_ends_by_itself() -> None:
    code = "open('FOLDER/a', 'wb').write(b'x' * (31 << 20)); held = bytearray(300 << 20)"
    with new_box() as box:
        ended, printed = run(box, code.replace("FOLDER", box.inside("out")))
        assert (ended.exit_status, ended.stopped, printed) == (0, None, "")
        with pytest.raises(FatalError, match="has 32,505,856 bytes; 1,000 are allowed"):
            box.open_result("a", max_bytes=1_000)


@IN_A_BOX
def test_processes_are_counted_for_each_box() -> None:
    with new_box() as box:
        ended, printed = run(box, FORKS)
    assert ended.stopped is None
    assert "Resource temporarily unavailable" in printed


@IN_A_BOX
def test_a_box_shows_its_own_files_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_LAKE_S3__SECRET_ACCESS_KEY", "hush")
    hidden = tmp_path / "hidden"
    hidden.write_text("hush")
    code = f"""
import os
for place in ({str(hidden)!r}, "/etc/shadow", "/root/.profile", "/proc/1/environ"):
    try:
        print(place, open(place).read())
    except OSError as error:
        print(type(error).__name__)
print(dict(os.environ), sorted(os.listdir({str(PROJECT_ROOT)!r})))
refused = "/a", "/box/a", "/box/code.py", "/usr/a", "/dev/shm/a", "/proc/sys/vm/swappiness"
for place in (*refused, "/tmp/a", "/box/out/a"):
    try:
        open(place, "w").close()
        print("wrote", place)
    except OSError:
        pass
print(len([name for name in os.listdir("/proc") if name.isdecimal()]), os.getuid(), os.getgroups())
"""
    with new_box() as box:
        ended, printed = run(box, code, GREETING="hello")
    assert ended.exit_status == 0, printed
    assert "hush" not in printed
    assert "'GREETING': 'hello'" in printed
    assert ".local" not in printed
    wrote = [line.removeprefix("wrote ") for line in printed.splitlines() if line.startswith("wrote")]
    assert wrote == ["/tmp/a", "/box/out/a"]
    processes, user, groups = printed.splitlines()[-1].split(maxsplit=2)
    assert int(processes) <= 3
    assert (user == "0", groups) == (False, "[]")


@pytest.mark.parametrize(
    "make",
    ["os.symlink('/etc/shadow', place)", "os.mkfifo(place)", "os.mkdir(place)"],
)
def test_only_an_ordinary_file_is_a_result(make: str) -> None:
    with new_box() as box:
        place = box.inside("out/result")
        ended, printed = run(box, f"import os; place = {place!r}; {make}")
        assert ended.exit_status == 0, printed
        with pytest.raises(FatalError, match="the result result is not an ordinary file"):
            box.open_result("result", max_bytes=MIB)
        assert box.open_result("missing", max_bytes=MIB) is None


def test_without_a_box_a_stopped_command_takes_its_children_along(tmp_path: Path) -> None:
    code = "import os, time; os.fork(); open(f'FOLDER/{os.getpid()}', 'w'); time.sleep(600)"
    box = Box(tmp_path, apart=False)
    ended, _ = run(box, code.replace("FOLDER", box.inside("out")), replace(LIMITS, seconds=1))
    assert ended.stopped == "it was stopped after 1 seconds"
    pids = [int(file.name) for file in (tmp_path / "out").iterdir()]
    assert len(pids) == 2
    for pid in pids:
        wait_until(lambda: not runs(pid), deadline_seconds=10, what="its end")  # noqa: B023 (called at once)


def test_a_bubblewrap_that_makes_no_boxes_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("setpriv", "prlimit", "choom"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    state = sandbox_state()
    assert not state.is_apart
    assert "bubblewrap makes no sandbox there (No permissions to create new namespace)" in state.sentence


def test_without_bubblewrap_the_state_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("setpriv", "prlimit", "choom"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    state = sandbox_state()
    assert not state.is_apart
    assert state.sentence.startswith("Scripts run with the rights of the stack: bubblewrap is not installed")
    with new_box() as box:
        assert box.inside("out") == str(box.folder / "out")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(FatalError, match=r"util-linux is not installed \(setpriv, prlimit, choom\)"):
        sandbox_state()
