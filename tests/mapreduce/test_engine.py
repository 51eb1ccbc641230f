"""The engine gives with Spark what the reference gives without, whatever the script does."""

import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.mapreduce import Run, Table, run_script
from telemetry_lake.columns import DIMENSIONS
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.row_filter import RowFilter
from telemetry_lake.mapreduce.script import load_script
from telemetry_lake.settings import Settings
from tests.mapreduce import reference
from tests.mapreduce.compact_documents import value_of

Pings = list[dict[str, Any]]
RunText = Callable[..., str]


@pytest.fixture
def run_text(spark: SparkSession, settings: Settings, tmp_path: Path) -> RunText:
    """Runs the script with this text over all pings; its output. Changes of the `Run` are given by name."""

    def run(text: str, **changes: Any) -> str:
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(text))
        output = tmp_path / "output"
        a_run = Run(load_script(script), Table.STABLE, RowFilter(), str(output), OutputFormat.TEXT, None, 0)
        run.summary = run_script(spark, settings, replace(a_run, **changes))  # type: ignore[attr-defined]
        return output.read_text()

    return run


def dimensions_of(row: dict[str, Any]) -> list[str]:
    return [*(row[name] for name in DIMENSIONS[:-1]), row["submission_date"].strftime("%Y%m%d")]


def expected(script: Path, rows: Pings) -> str:
    loaded = load_script(script)
    return reference.run(loaded, [(row["document_id"], dimensions_of(row), value_of(row)) for row in rows])


SCRIPT = """
    import json

    def map(key, dimensions, value, context):
        document = json.loads(value)
        payload = document.get("payload", {})
        context.write((dimensions[2], dimensions[5]), len(payload.get("histograms", {})))

    def reduce(key, values, context):
        context.write(key, sorted(values))
"""


def test_a_script(run_text: RunText, pings: Pings, tmp_path: Path) -> None:
    assert run_text(SCRIPT) == expected(tmp_path / "script.py", pings)
