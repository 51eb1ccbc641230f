"""The notebook runs as a program: on a lake with known pings it prints and draws what it should."""

import json
import runpy
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from lake_testing.sample_rows import sample_rows
from lake_testing.stack import Lake
from lake_testing.stored_histograms import TO_HUNDRED, histogram
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import ENV_FILE_VARIABLE
from telemetry_lake.tables.definitions import STABLE_PINGS

NOTEBOOK = PROJECT_ROOT / "jobs" / "examples" / "startup_by_build.py"
HISTOGRAM = "GC_OPEN_MS"
OLD, NEW = "20261109174512", "20261117203001"


def main_ping(build: str, first_paint: Any, subsession: int = 1) -> dict[str, Any]:
    payload = {
        "info": {"subsessionCounter": subsession},
        "simpleMeasurements": {"firstPaint": first_paint},
    }
    return {
        "submission_date": date(2026, 11, 23),
        "document_type": "main",
        "app_update_channel": "release",
        "normalized_channel": "release",
        "app_build_id": build,
        "document": json.dumps({"payload": payload}),
        "histograms": [histogram(HISTOGRAM, {1: 3, 10: 1}, TO_HUNDRED)],
    }


@pytest.fixture
def filled(catalog: Catalog) -> None:
    rows = [
        main_ping(OLD, 1_000),
        main_ping(NEW, 2_000),
        main_ping(NEW, 4_000),
        main_ping(NEW, 5_000),
        main_ping(NEW, 2_000, subsession=2),
        main_ping(NEW, "soon"),
        main_ping("OTHER", 3_000),
    ]
    catalog.load_table(STABLE_PINGS).append(sample_rows(STABLE_PINGS, rows))


def test_the_notebook_prints_the_times_and_draws_two_pictures(
    filled: None,
    spark: SparkSession,
    own_lake: Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv(ENV_FILE_VARIABLE, str(own_lake.env_file))
    monkeypatch.setattr(sys, "path", [*sys.path])
    arguments = ("--dates", "2026-11-23", "--channel", "release", "--output", str(tmp_path / "plot"))
    monkeypatch.setattr(sys, "argv", [str(NOTEBOOK), *arguments])
    runpy.run_path(str(NOTEBOOK), run_name="__main__")

    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed == [
        ["channel", "build", "starts", "median_ms", "p95_ms"],
        ["release", OLD, "1", "1000", "1000"],
        ["release", NEW, "3", "4000", "5000"],
        [f"{tmp_path}/plot.png"],
        # 21 samples from 1 to 10 and 7 from 10 to 100: the 14th, and four fifths of the seven.
        ["release,", "parent:", "28", "samples,", "median", "7", "ms,", "95", "%", "82", "ms"],
        [f"{tmp_path}/plot_{HISTOGRAM}.png"],
    ]
    for picture in (tmp_path / "plot.png", tmp_path / f"plot_{HISTOGRAM}.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
