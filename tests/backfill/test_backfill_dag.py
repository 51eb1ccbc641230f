"""The DAG runs the four steps for what its form says, and goes on where a killed run stopped."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.backfill import app
from lake_testing.airflow_runs import run_dags
from lake_testing.ping_builders import DEFINITIONS
from lake_testing.small_archive import FIRST_DAY, SmallArchive, every_kind, rejects
from lake_testing.stack import Lake, wait_until
from telemetry_lake.backfill.backfill import Backfill, plan_backfill
from telemetry_lake.backfill.journal import Journal
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS

JOB_DEADLINE_SECONDS = 240
DATES = ("--dates", f"{FIRST_DAY}")


def environment(archive: SmallArchive) -> dict[str, str]:
    return {
        "TELEMETRY_LAKE_BACKFILL__SOURCE__FORMAT": "text_lines",
        "TELEMETRY_LAKE_BACKFILL__SOURCE__ROOT_URL": archive.root.as_uri(),
        "TELEMETRY_LAKE_CONVERSION__HISTOGRAM_DEFINITIONS_DIRECTORY": str(DEFINITIONS),
    }


def started(lake: Lake, archive: SmallArchive, *arguments: str) -> subprocess.Popen[str]:
    """A command of the job, as a process group of its own, started somewhere else than in the project."""
    return subprocess.Popen(
        [sys.executable, str(PROJECT_ROOT / "jobs" / "backfill.py"), *arguments],
        env={**os.environ, **lake.environment, **environment(archive)},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def done(*arguments: str, code: int = 0) -> str:
    """What a command of the job prints in this process, until its end, which has to be `code`."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_dag_goes_on_where_a_killed_run_stopped(lake: Lake, tmp_path: Path, monkeypatch):
    good, bad = [line for _ in range(4) for line in every_kind()], rejects()
    archive = SmallArchive(
        tmp_path / "archive",
        {f"2014/03/01/{number}.txt": good[5 * number : 5 * number + 5] for number in range(4)},
    )
    archive.lines["2014/03/01/0.txt"] += bad
    archive.write()
    settings = archive.settings(lake.settings)
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    journal = Journal(ObjectStore(settings.s3), settings.s3.lake_bucket)
    selection = archive.selection(settings, last=FIRST_DAY)
    backfill = Backfill(settings, selection, journal)

    for name, value in {**lake.environment, **environment(archive)}.items():
        monkeypatch.setenv(name, value)
    # Smaller units than the command line allows, so that there is something to be killed in the middle of.
    units = plan_backfill(backfill, unit_max_bytes=2_000).dates[0].units
    killed = started(lake, archive, "run", *DATES, "--parallel-units", "1", "--mib-per-second", "0.002")
    try:
        wait_until(
            lambda: killed.poll() is not None or len(journal.finished_units(backfill.id)) >= 2,
            deadline_seconds=JOB_DEADLINE_SECONDS,
            what="two units that are copied",
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(killed.pid, signal.SIGKILL)
        output, _ = killed.communicate(timeout=JOB_DEADLINE_SECONDS)
    assert killed.returncode == -signal.SIGKILL, output
    before = backfill.read_tallies()
    assert len(before) < units

    (run,), output = run_dags(tmp_path / "airflow", lake, ("backfill", {"dates": str(FIRST_DAY)}))
    assert run["tasks"] == {name: ["success"] for name in ("plan", "run", "verify", "publish")}, output
    assert "digest of converted records: " in output
    assert f"{units} of {units} units" in output
    assert {tally.unit: tally for tally in journal.tallies(backfill.id, before)} == before
    found = catalog.load_table(LIVE_PINGS).scan(selected_fields=("document_id",)).to_arrow()
    assert sorted(map(str, found.column("document_id").to_pylist())) == sorted(
        name.lower() for name, _ in good
    )
    assert catalog.load_table(LIVE_REJECTED_PINGS).scan().count() == len(bad)

    status = done("status")
    assert f"{FIRST_DAY}  {units} of {units} units, 25 records, published, 25 rows" in status
    assert "undone: 25 rows removed" in done("undo", *DATES, "--only", str(FIRST_DAY))
    assert "undone; verified" in done("status", *DATES)


@pytest.mark.parametrize("step", ["plan", "run", "verify", "publish", "undo", "status"])
def test_every_command_explains_itself(step: str):
    assert "--dates" in done(step, "--help")


@pytest.mark.parametrize(
    "arguments,complaint",
    [
        (("plan", "--dates", "someday"), "is not a date"),
        (("plan", *DATES, "--root", "ftp://old"), "String should match pattern"),
        (("publish", *DATES, "--accept-losses", "everything", "--because", "x"), "not a class of losses"),
        (("publish", *DATES, "--accept-losses", "truncated"), "say why"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], complaint: str):
    assert complaint in done(*arguments, code=2)


def test_an_archive_that_is_not_configured_is_said(lake: Lake, monkeypatch):
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(lake.env_file))
    assert "TELEMETRY_LAKE_BACKFILL__SOURCE__ROOT_URL" in done("plan", *DATES, code=1)
    assert "run `plan` first" in done("run", *DATES, "--root", "file:///nowhere", code=1)
