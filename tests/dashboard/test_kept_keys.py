"""Which keys are kept: those with most pings, by date, channel, metric and process; nothing is lost."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from lake_testing.cube_sets import GivenAggregates
from lake_testing.sample_rows import sample_rows
from telemetry_lake.dashboard.format import KEYS_KEPT_MAX, View
from telemetry_lake.dashboard.making.build import make_date
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES

DAY = date(2026, 11, 23)
VERSION = "20261123T120000Z-" + 32 * "0"


def keyed(key: str | None, pings: int, **values: Any) -> dict[str, Any]:
    return {
        "submission_date": DAY,
        "build_date": DAY,
        "name": "KEYED",
        "process": "parent",
        "key": key,
        "pings": pings,
        "app_update_channel": "nightly",
        "histogram_type": 2,
        "bucket_count": 3,
        "range_low": 1,
        "range_high": 2,
        "buckets": [0, 1, 2],
        "counts": [pings, 0, 1],
        "normalized": [1.0, 0.0, 0.0],
        **values,
    }


def cube(rows: list[dict[str, Any]], folder: Path, view: View = View.BUILD) -> pl.DataFrame:
    source = GivenAggregates({DAY: sample_rows(HISTOGRAM_AGGREGATES, rows)})
    files = [file for file in make_date(source, DAY, VERSION, folder) if file.view is view]
    return pl.read_parquet(files[0].path)


def test_as_many_keys_as_are_kept_have_no_rest(tmp_path):
    rows = cube([keyed(f"k{number}", 1) for number in range(KEYS_KEPT_MAX)], tmp_path)
    assert rows["key"].n_unique() == KEYS_KEPT_MAX
    assert not rows["is_rest"].any()
    assert rows["rest_keys"].null_count() == rows.height


def test_the_keys_with_most_pings_are_kept_and_the_others_added_up_and_said(tmp_path):
    popular = [keyed(f"a{number:03}", 2) for number in range(KEYS_KEPT_MAX - 1)]
    # As many pings in two builds as the popular ones in one; of the two the one is kept that sorts first.
    both = [keyed(key, 1, build_date=day) for key in ("z1", "z2") for day in (DAY, date(2026, 11, 1))]
    rare = [keyed(f"r{number}", 1) for number in range(10)]
    rows = cube([*rare, *both, *popular], tmp_path)
    kept = set(rows.filter(~pl.col("is_rest"))["key"].to_list())
    assert kept == {row["key"] for row in popular} | {"z1"}
    rest = rows.filter("is_rest")
    assert rest["rest_keys"].unique().to_list() == [11]
    assert rest["key"].to_list() == [None, None]
    assert dict(rest.select("date", "pings").iter_rows()) == {DAY: 11, date(2026, 11, 1): 1}
    assert rows["pings"].sum() == 2 * len(popular) + 4 + 10


def test_other_channels_processes_and_metrics_and_plain_rows_are_not_counted_together(tmp_path):
    many = [keyed(f"k{number}", 1) for number in range(KEYS_KEPT_MAX + 1)]
    others = [
        *(keyed("k0", 1, app_update_channel="beta"), keyed("k0", 1, process="gpu"), keyed("k0", 1, name="B")),
        keyed(None, 5),
    ]
    rows = cube([*many, *others], tmp_path, View.SUBMISSION)
    rest = rows.filter("is_rest")
    assert rest.select("channel", "metric", "process", "pings", "rest_keys").rows() == [
        ("nightly", "KEYED", "parent", 1, 1)
    ]
    plain = rows.filter(pl.col("key").is_null() & ~pl.col("is_rest"))
    assert plain["pings"].to_list() == [5]  # beside the rest of the same name, and never added to it
    assert rows["pings"].sum() == len(many) + 3 + 5


def test_a_date_in_many_pieces_is_the_same_date(tmp_path, monkeypatch):
    from telemetry_lake.dashboard import segment_files
    from telemetry_lake.dashboard.making import build

    rows = [
        keyed(f"k{number % 250}", 1 + number % 7, app_version=f"{number % 3}.0", name=f"M{number % 4}")
        for number in range(3_000)
    ]
    (tmp_path / "whole").mkdir()
    (tmp_path / "pieces").mkdir()
    whole = cube(rows, tmp_path / "whole")
    monkeypatch.setattr(build, "RUN_ROWS", 100)
    monkeypatch.setattr(segment_files, "STRETCH_ROWS", 50)
    monkeypatch.setattr(segment_files, "READ_ROWS", 7)
    monkeypatch.setattr(segment_files, "ROW_GROUP_MAX_ROWS", 300)
    monkeypatch.setattr(GivenAggregates, "rows_at_once", 64)
    assert cube(rows, tmp_path / "pieces").equals(whole)


def test_a_date_without_rows_has_no_file(tmp_path):
    assert (
        make_date(GivenAggregates({DAY: sample_rows(HISTOGRAM_AGGREGATES, [])}), DAY, VERSION, tmp_path) == []
    )
