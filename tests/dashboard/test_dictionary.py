"""The dictionary: what the definitions say of metrics, and what is known from their data alone."""

import json
import os
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake_testing.cube_sets import make_cubes
from lake_testing.sample_rows import sample_rows
from telemetry_lake.dashboard.making.descriptions import DESCRIPTION_MAX_CHARACTERS, known_definitions
from telemetry_lake.dashboard.making.dictionary import MetricDefinition
from telemetry_lake.dashboard.making.versions import CubeVersions
from telemetry_lake.settings import ConversionSettings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES

FIRST = date(2026, 8, 30)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
GC_MS = {"kind": "exponential", "description": "Time spent collecting", "expires_in_version": "never"}
LABELLED = {"kind": "categorical", "labels": ["a", "b"], "description": "Which"}


def aggregate(day: date, **values: Any) -> dict[str, Any]:
    return {
        "submission_date": day,
        "app_update_channel": "nightly",
        "name": "GC_MS",
        "process": "parent",
        "histogram_type": 0,
        "bucket_count": 3,
        "range_low": 1,
        "range_high": 10,
        "pings": 2,
        "buckets": [0, 1, 10],
        "counts": [1, 1, 0],
        "normalized": [0.5, 0.5, 0.0],
        "key": None,
        **values,
    }


def dictionary(lake_settings: Any, rows: dict[date, list[dict[str, Any]]], **more: Any) -> dict[str, Any]:
    tables = {day: sample_rows(HISTOGRAM_AGGREGATES, of_day) for day, of_day in rows.items()}
    manifest = make_cubes(lake_settings, tables, now=NOW, **more)
    assert manifest is not None
    versions = CubeVersions(ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket)
    found = pl.read_parquet(BytesIO(versions.get(manifest.dictionary)))
    return {row["metric"]: row for row in found.to_dicts()}


def test_a_metric_is_described_by_its_definition_and_its_data(lake_settings):
    days = [FIRST, FIRST + timedelta(days=1), FIRST + timedelta(days=80)]
    rows = {
        days[0]: [aggregate(days[0]), aggregate(days[0], range_high=20, process="gpu")],
        days[1]: [aggregate(days[1], app_update_channel="beta"), aggregate(days[1], name="KEYED", key="k")],
        days[2]: [
            aggregate(days[2], name="KEYED", key=None),
            aggregate(days[2], name="NEW", histogram_type=2),
        ],
    }
    known = {"GC_MS": MetricDefinition("enumerated", "Time spent", ("x",), "40")}
    metrics = dictionary(lake_settings, rows, definitions=lambda names: known)
    assert metrics["GC_MS"] == {
        "metric": "GC_MS",
        "family": "histogram",
        "kind": "enumerated",
        "keyed": False,
        "description": "Time spent",
        "labels": ["x"],
        "expires": "40",
        "definitions": 2,
        "pings": 6,
        "processes": ["gpu", "parent"],
        "channels": ["beta", "nightly"],
        "first_date": days[0],
        "last_date": days[1],
    }
    assert metrics["KEYED"]["keyed"]
    assert (metrics["KEYED"]["first_date"], metrics["KEYED"]["last_date"]) == (days[1], days[2])
    assert (metrics["NEW"]["kind"], metrics["NEW"]["description"]) == ("boolean", "")

    # A date that is made again without a metric takes its share along, and August is merged by now.
    rows[days[2]] = [aggregate(days[2], name="NEW")]
    metrics = dictionary(lake_settings, rows, made_at={days[2]: NOW})
    assert (metrics["KEYED"]["last_date"], metrics["KEYED"]["pings"]) == (days[1], 2)
    assert metrics["GC_MS"]["pings"] == 6
    assert metrics["NEW"]["kind"] == "exponential"


def test_a_measure_is_of_its_family_and_of_the_kind_of_its_buckets(lake_settings):
    kinds = {
        16: "scalar",
        17: "simple measurement",
        18: "counter",
        19: "quantity",
        20: "timespan",
        21: "rate",
    }
    rows = [aggregate(FIRST, name=family, histogram_type=kind) for kind, family in kinds.items()]
    rows.append(aggregate(FIRST, name="boolean", histogram_type=22, key="k"))
    known = {"scalar": MetricDefinition("uint", "How many tabs"), "boolean": MetricDefinition("boolean", "")}
    metrics = dictionary(lake_settings, {FIRST: rows}, definitions=lambda names: known)
    assert {name: metric["family"] for name, metric in metrics.items()} == {name: name for name in metrics}
    assert {name: metric["kind"] for name, metric in metrics.items()} == {
        **dict.fromkeys(kinds.values(), "exponential"),
        "rate": "linear",
        "boolean": "boolean",
    }
    assert metrics["scalar"]["description"] == "How many tabs"
    assert [name for name, metric in metrics.items() if metric["keyed"]] == ["boolean"]


@pytest.fixture
def settings(tmp_path: Path) -> ConversionSettings:
    return ConversionSettings(histogram_definitions_directory=tmp_path)


def place(folder: Path, name: str, text: str, *, seconds: int) -> None:
    file = folder / name / "Histograms.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    os.utime(file, (seconds, seconds))


def test_the_newest_file_that_has_a_metric_describes_it(tmp_path, settings):
    place(
        tmp_path, "m-c/aaaaaa", json.dumps({"GC_MS": {**GC_MS, "kind": "linear"}, "OLD": GC_MS}), seconds=10
    )
    place(tmp_path, ".fetched/m-c/bbbbbb", json.dumps({"GC_MS": GC_MS, "WHICH": LABELLED}), seconds=20)
    place(tmp_path, "m-c/cccccc", "not JSON", seconds=30)
    place(tmp_path, "m-c/dddddd", "[]", seconds=40)
    found = known_definitions(settings, None, ["GC_MS", "STARTUP_GC_MS", "OLD", "WHICH", "UNKNOWN"])
    described = MetricDefinition("exponential", "Time spent collecting", expires="never")
    assert found == {
        "GC_MS": described,
        "STARTUP_GC_MS": described,
        "OLD": described,
        "WHICH": MetricDefinition("categorical", "Which", ("a", "b")),
    }


def test_definitions_in_s3_count_as_those_in_the_folder_do(settings, lake_settings):
    store, bucket = ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket
    store.put(bucket, "definitions/m-c/aaaaaa/Histograms.json", json.dumps({"GC_MS": GC_MS}).encode())
    store.put(bucket, "definitions/m-c/aaaaaa/README", b"text")
    with_prefix = settings.model_copy(
        update={"histogram_definitions_s3_prefix": f"s3://{bucket}/definitions"}
    )
    assert set(known_definitions(with_prefix, store, ["GC_MS", "UNKNOWN"])) == {"GC_MS"}


def test_what_a_definition_says_has_limits_and_nothing_has_to_be_there(tmp_path, settings):
    odd = {"kind": "linear", "description": "x" * 3_000, "labels": "none", "expires_in_version": None}
    place(tmp_path, "m-c/aaaaaa", json.dumps({"ODD": odd, "WRONG": {"kind": 3}, "TEXT": "x"}), seconds=10)
    found = known_definitions(settings, None, ["ODD", "WRONG", "TEXT"])
    assert found == {"ODD": MetricDefinition("linear", "x" * DESCRIPTION_MAX_CHARACTERS)}
