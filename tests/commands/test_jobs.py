"""The commands for jobs, as somebody types them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lake_testing.stack import Lake
from telemetry_lake.__main__ import app
from telemetry_lake.analysis_jobs.documents import RunState
from telemetry_lake.analysis_jobs.runs import Runs
from telemetry_lake.analysis_jobs.schedule import next_times
from telemetry_lake.analysis_jobs.store import EditedMeanwhile, JobNotFound, JobStore
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import ENV_FILE_VARIABLE

SCRIPT = "import words\n\ndef map(key, dimensions, value, context):\n    context.write(words.OS, 1)\n"


@pytest.fixture
def here(lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lake:
    """A lake that commands find by themselves, and a script in this folder."""
    monkeypatch.setenv(ENV_FILE_VARIABLE, str(lake.env_file))
    monkeypatch.chdir(tmp_path)
    Path("os.py").write_text(SCRIPT)
    Path("words.py").write_text("OS = 2\n")
    return lake


def command(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["jobs", "--as", "ann", *arguments], input=typed)


def test_a_job_from_its_first_line_to_its_result_on_the_command_line(here):
    created = command("new", "os", "--script", "os.py", "--every", "weekly", "--day", "0", "--hour", "5")
    assert created.exit_code == 0, created.output
    jobs = JobStore.of(here.settings)
    job = jobs.get("os")
    assert sorted(jobs.code_files(job.code.digest)) == ["os.py", "words.py"]
    shown = command("show", "os").stdout
    (time, *_) = next_times(job.schedule, job.created_at)
    assert f"next\t{time:%Y-%m-%d} 05:00 UTC" in shown

    document, _, _ = shown.partition("\nnext")
    edited = json.dumps({**json.loads(document), "description": "operating systems"})
    assert "version 2 now" in command("edit", "os", typed=edited).stdout
    assert isinstance(command("edit", "os", typed=edited).exception, EditedMeanwhile)
    assert jobs.get("os").description == "operating systems"
    assert "give the job as JSON" in str(command("edit", "os", typed="{}").exception)

    runs = Runs(jobs, here.settings, None)
    (written,) = runs.due(time)
    jobs.objects.put(jobs.bucket, written.output.removeprefix(f"s3://{jobs.bucket}/"), b"Linux\t1\n")
    runs.record_end(written.run_id, RunState.SUCCESS, now=time, started_at=time)
    assert "success" in command("list").stdout
    assert written.run_id in command("show", "os").stdout
    assert command("result", "os").stdout_bytes == b"Linux\t1\n"
    assert command("result", written.run_id, "--to", "os.txt").exit_code == 0
    assert Path("os.txt").read_bytes() == b"Linux\t1\n"
    assert command("log", written.run_id).exit_code == 0

    assert "paused" in command("pause", "os").stdout
    assert jobs.get("os").paused
    command("resume", "os")
    command("delete", "os")
    assert isinstance(command("show", "os").exception, JobNotFound)


def test_who_may_not_is_told_and_nothing_is_late(here):
    command("new", "os", "--script", "os.py")
    others = CliRunner().invoke(app, ["jobs", "--as", "bob", "delete", "os"])
    assert isinstance(others.exception, JobNotFound)
    assert CliRunner().invoke(app, ["jobs", "--as", "bob", "--admin", "pause", "os"]).exit_code == 0
    wrong = command("new", "../os", "--script", "os.py")
    assert "name: use 1 to 64 small letters" in str(wrong.exception)
    assert isinstance(command("run", "os").exception, ConfigurationError)
    late = command("late")
    assert (late.exit_code, late.stdout) == (0, "")
