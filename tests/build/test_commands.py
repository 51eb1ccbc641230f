"""The list of commands, and the messages on a machine that lacks a program."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from telemetry_lake.project_files import PROJECT_ROOT

PREFLIGHT = PROJECT_ROOT / "build_tools" / "preflight.sh"
# The programs that preflight.sh runs, besides those that it looks for.
SHELL_PROGRAMS = ("sh", "sed", "head")


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A folder to use as the whole PATH: a shell, and neither Python nor Java nor Maven."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in SHELL_PROGRAMS:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def add_program(folder: Path, name: str, output: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{output}' >&2\n")
    program.chmod(0o755)


def preflight(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path / "sh", PREFLIGHT], env={"PATH": str(path)}, capture_output=True, text=True, check=False
    )


def test_help_lists_every_command() -> None:
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (\S+)$", makefile, flags=re.MULTILINE))
    assert {"run", "test", "stop", "status", "clean"} <= targets
    shown = subprocess.run(["make"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make (\S+) +\S", shown, flags=re.MULTILINE)) == targets


def test_this_machine_has_what_is_needed() -> None:
    answer = subprocess.run([PREFLIGHT], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_the_messages_on_a_bare_machine_say_what_is_missing_and_how_to_get_it(bare_machine: Path) -> None:
    answer = preflight(bare_machine)
    assert answer.returncode == 1
    lines = answer.stderr.splitlines()
    assert [line.split(" is missing")[0] for line in lines] == ["Python 3.11", "Java 17 or newer", "Maven"]
    assert all("apt-get install" in line for line in lines)


@pytest.mark.parametrize(
    "output", ['openjdk version "1.8.0_392"', 'openjdk version "11.0.2" 2019-01-15', "garbage"]
)
def test_an_old_java_does_not_count(bare_machine: Path, output: str) -> None:
    add_program(bare_machine, "java", output)
    assert "Java 17 or newer is needed but" in preflight(bare_machine).stderr


@pytest.mark.parametrize(
    "output", ['openjdk version "17.0.15" 2025-04-15', 'java version "21" 2023-09-19 LTS']
)
def test_a_new_java_counts(bare_machine: Path, output: str) -> None:
    add_program(bare_machine, "java", output)
    assert "Java 17" not in preflight(bare_machine).stderr


def test_a_jar_that_differs_from_its_checksum_is_refused(tmp_path: Path) -> None:
    shutil.copytree(PROJECT_ROOT / "build_tools", tmp_path / "build_tools")
    java = tmp_path / "java"
    java.mkdir()
    shutil.copy(PROJECT_ROOT / "java" / "pom.xml", java)
    checksums = (PROJECT_ROOT / "java" / "checksums.sha256").read_text().splitlines(keepends=True)
    wrong = checksums[0].split()[1]
    (java / "checksums.sha256").write_text("".join(["0" * 64 + f"  {wrong}\n", *checksums[1:]]))
    answer = subprocess.run(
        [tmp_path / "build_tools" / "fetch_jars.sh"],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert f"{wrong}: FAILED" in answer.stderr
    assert "make lock-java" in answer.stderr
    assert not (java / "lib").exists()
