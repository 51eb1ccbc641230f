"""`python -m telemetry_lake`: what a person or a script sees."""

import csv
import io
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import telemetry_lake
from lake_testing.filled_lake import PINGS, FilledLake
from lake_testing.stack import Lake
from telemetry_lake.__main__ import run
from telemetry_lake.commands.query import DISPLAYED_ROWS
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.tables.definitions import table_names

ALL_PINGS = [ping for append in PINGS for ping in append]
Command = Callable[..., int]


@pytest.fixture
def command(filled_lake: FilledLake, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command line in this process, on the filled lake; its exit status."""
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(filled_lake.lake.env_file))

    def execute(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["telemetry_lake", *arguments])
        with pytest.raises(SystemExit) as end:
            run()
        return int(end.value.code or 0)

    return execute


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )


def test_help_is_quick_because_nothing_heavy_is_imported_for_it():
    heavy = "duckdb pyiceberg pyarrow pandas polars pydantic boto3"
    done = python(
        "-c",
        "import sys, telemetry_lake.__main__\n"
        f"print([name for name in {heavy.split()} if name in sys.modules])",
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_version_is_shown_and_stands_in_one_place(command: Command, capsys: pytest.CaptureFixture[str]):
    assert command("--version") == 0
    assert capsys.readouterr().out == f"telemetry_lake {telemetry_lake.__version__}\n"
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"] == {"version": {"attr": "telemetry_lake.__version__"}}


@pytest.mark.parametrize("command_name", ["query", "tables", "create-tables"])
def test_every_command_explains_itself(
    command_name: str, command: Command, capsys: pytest.CaptureFixture[str]
):
    assert command("--help") == 0
    assert command_name in capsys.readouterr().out
    assert command(command_name, "--help") == 0
    assert "Usage: python -m telemetry_lake " + command_name in capsys.readouterr().out


def test_a_query_as_a_program(filled_lake: FilledLake):
    done = subprocess.run(
        [sys.executable, "-m", "telemetry_lake", "query", "SELECT count(*) AS pings FROM live.pings"],
        cwd=PROJECT_ROOT,
        env=filled_lake.lake.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.strip("│ ") for line in done.stdout.splitlines() if "│" in line] == [str(len(ALL_PINGS))]
    assert done.stderr.startswith("1 rows in ")
    assert len(done.stderr.splitlines()) == 1


def test_csv_has_a_header_and_whole_values(command: Command, capsys: pytest.CaptureFixture[str]):
    sql = "SELECT document_id, headers, NULL AS nothing, body FROM live.rejected_pings"
    assert command("query", sql, "--format", "csv") == 0
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["document_id", "headers", "nothing", "body"],
        ["", "{}", "", "e/8="],
    ]


def test_json_has_one_object_a_line_with_nested_values(command: Command, capsys: pytest.CaptureFixture[str]):
    values = "document_type, request, submission_timestamp AS t, 0.5::DECIMAL(2, 1) AS d"
    sql = f"SELECT {values} FROM live.pings ORDER BY 1"
    assert command("query", sql, "--format", "json", "--limit", "1") == 0
    (line,) = capsys.readouterr().out.splitlines()
    something = dict.fromkeys(("method", "path", "query", "protocol", "host"), "something")
    assert json.loads(line) == {
        "document_type": "crash",
        "request": something,
        "t": "2026-11-22T12:00:00+00:00",
        "d": "0.5",
    }


def test_the_name_of_the_output_file_says_its_format(command: Command, tmp_path: Path):
    for suffix in ("csv", "json", "parquet"):
        assert command("query", "FROM live.pings", "-o", str(tmp_path / f"pings.{suffix}")) == 0
    assert len((tmp_path / "pings.csv").read_text().splitlines()) == 1 + len(ALL_PINGS)
    assert len((tmp_path / "pings.json").read_text().splitlines()) == len(ALL_PINGS)
    assert pq.read_metadata(tmp_path / "pings.parquet").num_rows == len(ALL_PINGS)


def test_a_table_shows_some_rows_and_says_that_there_are_more(
    command: Command, capsys: pytest.CaptureFixture[str]
):
    rows = DISPLAYED_ROWS + 1
    assert command("query", f"SELECT repeat('x', 100) AS wide FROM range({rows})") == 0
    shown = capsys.readouterr()
    assert shown.out.count("x…") == DISPLAYED_ROWS
    assert f"{DISPLAYED_ROWS} rows in " in shown.err
    assert "there are more: --limit 0 shows all" in shown.err

    assert command("query", f"SELECT repeat('x', 100) AS wide FROM range({rows})", "--limit", "0") == 0
    shown = capsys.readouterr()
    assert shown.out.count("x…") == rows
    assert "there are more" not in shown.err


def test_many_columns_are_written_below_each_other_in_a_narrow_terminal(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    assert command("query", "FROM live.pings LIMIT 1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("row 1")
    assert ["document_version", "null"] in [line.split() for line in lines]


def test_a_query_can_come_from_standard_input(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 41 + 1 AS answer;\n"))
    assert command("query", "-", "--format", "csv") == 0
    assert capsys.readouterr().out.split() == ["answer", "42"]


def test_tables_are_listed_with_rows_and_purpose(command: Command, capsys: pytest.CaptureFixture[str]):
    assert command("tables") == 0
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert set(table_names()) <= set(lines)
    assert lines["live.pings"].split("│")[2].strip() == str(len(ALL_PINGS))
    assert lines["derived.ping_counts"].split("│")[4].strip() == "never"
    assert "One row for each ping that could be converted" in lines["live.pings"]


def test_the_columns_of_a_table_are_listed_with_their_meaning(
    command: Command, capsys: pytest.CaptureFixture[str]
):
    assert command("tables", "live.pings") == 0
    out = capsys.readouterr().out
    assert "When the ingest server had received the ping" in out
    assert "the table is partitioned by it" in out


def test_missing_tables_are_created_and_it_can_be_done_again(
    lake: Lake, command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(lake.env_file))
    assert command("tables") == 0
    assert "create-tables" in capsys.readouterr().out
    for _ in range(2):
        assert command("create-tables") == 0
        assert capsys.readouterr().out.split() == table_names()


def test_a_failure_is_one_line_and_exit_status_1(command: Command, capsys: pytest.CaptureFixture[str]):
    assert command("query", "SELECT 1 FROM live.nothing") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: there is no table live.nothing; tables: ")
    assert len(shown.err.splitlines()) == 1


def test_debug_shows_where_a_failure_arose(filled_lake: FilledLake):
    done = subprocess.run(
        [sys.executable, "-m", "telemetry_lake", "--debug", "query", "SELECT 1 FROM live.nothing"],
        cwd=PROJECT_ROOT,
        env=filled_lake.lake.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "SELECT 1", "--format", "xml"),
        ("query", "SELECT 1", "--format", "parquet"),
        ("query", "SELECT 1", "--output", "answer.txt"),
        ("query", "SELECT 1", "--limit", "-1"),
        ("quary", "SELECT 1"),
    ],
)
def test_wrong_usage_is_exit_status_2(command: Command, arguments: tuple[str, ...]):
    assert command(*arguments) == 2
