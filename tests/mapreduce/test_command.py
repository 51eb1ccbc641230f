"""The command: what it prints, how it fails, and that a killed run is no trouble for the next one."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from typer.testing import CliRunner

from jobs.mapreduce import main
from lake_testing import mapreduce_reference
from lake_testing.compact_documents import value_of
from lake_testing.sample_pings import DAYS, PINGS_PER_DAY
from lake_testing.stack import Lake, wait_until
from telemetry_lake.mapreduce.script.script import load_script
from telemetry_lake.project_files import PROJECT_ROOT

Pings = list[dict[str, Any]]
JOB = PROJECT_ROOT / "jobs" / "mapreduce.py"
SCRIPT = """
import json
import helper

def map(key, dimensions, value, context):
    helper.begun()
    context.write((dimensions[2], json.loads(value).get("version")), 1)

def reduce(key, values, context):
    context.write(key, sum(values))

combine = reduce
"""
DEADLINE_SECONDS = 120.0


def command(lake: Lake, *arguments: object) -> tuple[list[str], dict[str, Any]]:
    """The command and how to start it: in another folder than the project's, with the lake's settings."""
    environment = {**os.environ, **lake.environment, "COLUMNS": "200"}
    return [sys.executable, str(JOB), *map(str, arguments)], {"cwd": "/", "env": environment, "text": True}


def run(lake: Lake, *arguments: object) -> subprocess.CompletedProcess[str]:
    line, how = command(lake, *arguments)
    return subprocess.run(line, capture_output=True, check=False, timeout=DEADLINE_SECONDS, **how)


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.long
def test_a_killed_run_leaves_no_output_and_the_next_one_gives_it(
    lake_of_pings: Lake, pings: Pings, tmp_path: Path
) -> None:
    script, output, mark = tmp_path / "script.py", tmp_path / "results" / "by_channel.txt", tmp_path / "mark"
    script.write_text(SCRIPT)
    waiting = (
        f"import pathlib, time\ndef begun():\n    pathlib.Path({str(mark)!r}).touch()\n    time.sleep(600)\n"
    )
    (tmp_path / "helper.py").write_text(waiting)
    arguments = ("--script", script, "--output", output)
    line, how = command(lake_of_pings, *arguments)
    process = subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **how
    )
    try:
        wait_until(mark.exists, deadline_seconds=DEADLINE_SECONDS, what="the script is being run")
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE_SECONDS)
    # The Python workers have groups of their own and end with their JVM.
    wait_until(lambda: not any(map(lives, children)), deadline_seconds=DEADLINE_SECONDS, what="its end")
    assert not output.exists()

    (tmp_path / "helper.py").write_text("def begun(): pass\n")
    done = run(lake_of_pings, *arguments)
    assert done.returncode == 0, done.stderr
    rows = [(row["document_id"], ["", "", row["app_update_channel"]], value_of(row)) for row in pings]
    assert output.read_text() == mapreduce_reference.run(load_script(script), rows)
    assert [file.name for file in output.parent.iterdir()] == [output.name]
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["records", "filtered", "failures", "seconds", "output"]
    assert lines[0].startswith(f"records   {DAYS * PINGS_PER_DAY} mapped")
    assert str(output) in lines[-1]


@pytest.mark.slow
def test_a_failing_script_is_told_without_java(lake_of_pings: Lake, pings: Pings, tmp_path: Path) -> None:
    script, output = tmp_path / "script.py", tmp_path / "output"
    script.write_text("def map(key, dimensions, value, context):\n    value['no text has this']\n")
    failed = run(lake_of_pings, "--script", script, "--output", output)
    assert failed.returncode == 1
    assert "script.py:2 (value['no text has this']): TypeError" in failed.stderr
    assert pings[0]["document_id"] in failed.stderr
    for java in ("Exception in thread", "at org.apache", "py4j", "Traceback", "Caused by"):
        assert java not in failed.stderr
    assert len(failed.stderr.splitlines()) < 12
    assert not output.exists()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--script", "nowhere.py"), "error: the script nowhere.py cannot be read"),
        (
            ("--script", "{script}", "--filter", "nowhere.json"),
            "error: the filter nowhere.json cannot be read",
        ),
        (("--script", "{script}", "--dates", "yesterdays"), "'yesterdays' is not a date"),
        (("--script", "s3://no-such-bucket/a.py"), "error: listing s3://no-such-bucket/"),
    ],
)
def test_what_is_wrong_is_said_before_spark_starts(
    lake_of_pings: Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    script = tmp_path / "script.py"
    script.write_text("def map(k, d, v, cx): pass\n")
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(lake_of_pings.env_file))
    app = typer.Typer()
    app.command()(main)
    line = [*(one.format(script=script) for one in arguments), "--output", str(tmp_path / "output")]
    failed = CliRunner().invoke(app, line, env={"COLUMNS": "200"})
    assert failed.exit_code != 0
    assert said in failed.output
    assert "starting Spark" not in failed.output
