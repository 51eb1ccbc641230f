"""Cubes against the rows that they are made of: every sum is the same, in days and in months."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import Any

import polars as pl
import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lake_testing.cube_sets import make_cubes
from lake_testing.sample_rows import sample_rows
from telemetry_lake.dashboard.cube_rows import COLUMN_OF
from telemetry_lake.dashboard.format import (
    DEFINITION,
    DIMENSIONS,
    SEGMENT_SCHEMA,
    Manifest,
    View,
)
from telemetry_lake.dashboard.making.versions import CubeVersions
from telemetry_lake.histograms.bucket_ranges import BucketRange, HistogramType, bucket_bounds
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES

UNIT = 2**32
RANGES = [
    BucketRange(HistogramType.EXPONENTIAL, 1, 100, 5),
    BucketRange(HistogramType.LINEAR, 1, 100, 5),
    BucketRange(HistogramType.LINEAR, 1, 90, 5),
    BucketRange(HistogramType.BOOLEAN, 1, 2, 3),
]
FIRST = date(2026, 8, 28)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def aggregate(day: date, bucket_range: BucketRange = RANGES[0], **values: Any) -> dict[str, Any]:
    """A row of the aggregates in which each bucket has some samples, unless `values` says otherwise."""
    bounds = bucket_bounds(bucket_range)
    return {
        "submission_date": day,
        "build_date": day,
        "app_update_channel": "nightly",
        "name": "GC_MS",
        "process": "parent",
        "key": None,
        "architecture": "x86-64",
        "histogram_type": int(bucket_range.histogram_type),
        "bucket_count": bucket_range.bucket_count,
        "range_low": bucket_range.low,
        "range_high": bucket_range.high,
        "pings": 3,
        "clients": 2,
        "sum": 100,
        "buckets": list(bounds),
        "counts": [1] * len(bounds),
        "normalized": [0.5] * len(bounds),
        **values,
    }


@st.composite
def aggregates(draw: st.DrawFn) -> dict[date, list[dict[str, Any]]]:
    """Rows of some dates around the end of a month and much later, with few different values."""
    days = draw(st.lists(st.sampled_from([*range(6), 40, 80]), min_size=1, max_size=5, unique=True))
    counts = st.integers(0, 2**31)
    rows: dict[date, dict[tuple[Any, ...], dict[str, Any]]] = {}
    for number in days:
        day = FIRST + timedelta(days=number)
        rows[day] = {}
        for _ in range(draw(st.integers(0, 12))):
            bucket_range = draw(st.sampled_from(RANGES))
            size = len(bucket_bounds(bucket_range))
            key: dict[str, Any] = {
                "build_date": draw(st.sampled_from([None, FIRST, FIRST + timedelta(days=1)])),
                "app_update_channel": draw(st.sampled_from(["nightly", "beta"])),
                "name": draw(st.sampled_from(["GC_MS", "CYCLE_COLLECTOR"])),
                "process": draw(st.sampled_from(["parent", "content"])),
                "key": draw(st.sampled_from([None, "", "a", "b", "ü"])),
                "architecture": draw(st.sampled_from([None, "x86", "x86-64"])),
                "app_version": draw(st.sampled_from(["9.0", "10.0"])),
            }
            values = {
                "pings": draw(st.integers(1, 2**40)),
                "clients": draw(st.integers(0, 2**20)),
                "sum": draw(st.integers(0, 2**50)),
                "counts": draw(st.lists(counts, min_size=size, max_size=size)),
                "normalized": [
                    weight / UNIT
                    for weight in draw(st.lists(st.integers(0, 2**40), min_size=size, max_size=size))
                ],
            }
            rows[day][*key.values(), bucket_range] = aggregate(day, bucket_range, **key, **values)
    return {day: list(of_day.values()) for day, of_day in rows.items()}


def tables(rows: dict[date, list[dict[str, Any]]]) -> dict[date, pa.Table]:
    return {day: sample_rows(HISTOGRAM_AGGREGATES, of_day) for day, of_day in rows.items()}


def versions(lake_settings: Any) -> CubeVersions:
    return CubeVersions(ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket)


def cube(lake_settings: Any, manifest: Manifest, view: View) -> list[dict[str, Any]]:
    """All rows of a view, after a look at each segment."""
    rows: list[dict[str, Any]] = []
    for segment in manifest.segments_of(view):
        table = pl.read_parquet(BytesIO(versions(lake_settings).get(segment)))
        assert table.to_arrow().cast(SEGMENT_SCHEMA).num_rows == segment.rows > 0
        sort_keys = table.select("channel", "metric", "process", "key", "date")
        assert sort_keys.equals(sort_keys.sort(*sort_keys.columns, nulls_last=False))
        rows += table.iter_rows(named=True)
    return rows


def sums_of_cube(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    sums: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        key = tuple(
            row[name] for name in ("channel", "metric", "process", "key", "date", *DIMENSIONS, *DEFINITION)
        )
        for name in ("pings", "clients", "sum"):
            sums[*key, name] += row[name]
        for bucket, count, weight in zip(row["buckets"], row["counts"], row["weights"], strict=True):
            assert count or weight
            sums[*key, "count", bucket] += count
            sums[*key, "weight", bucket] += weight
    return +sums


def sums_of_aggregates(rows: dict[date, list[dict[str, Any]]], view: View) -> Counter[tuple[Any, ...]]:
    sums: Counter[tuple[Any, ...]] = Counter()
    for day, of_day in rows.items():
        for row in sample_rows(HISTOGRAM_AGGREGATES, of_day).to_pylist():
            own = {name: row[COLUMN_OF[name]] for name in ("channel", "metric", *DIMENSIONS)}
            key = (
                *(own["channel"], own["metric"], row["process"], row["key"]),
                day if view is View.SUBMISSION else row["build_date"],
                *(own[name] for name in DIMENSIONS),
                *(row[name] for name in DEFINITION),
            )
            for name in ("pings", "clients", "sum"):
                sums[*key, name] += row[name]
            for bucket, count, weight in zip(row["buckets"], row["counts"], row["normalized"], strict=True):
                sums[*key, "count", bucket] += count
                sums[*key, "weight", bucket] += round(weight * UNIT)
    return +sums


@settings(
    max_examples=10,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(aggregates(), st.data())
def test_every_sum_is_that_of_the_rows_in_both_views_also_after_changes_and_merges(lake_settings, rows, data):
    ObjectStore(lake_settings.s3).delete(lake_settings.s3.lake_bucket, ["dashboard/current.json"])
    made_at = {day: datetime(day.year, day.month, day.day, 1, tzinfo=UTC) + timedelta(days=1) for day in rows}
    make_cubes(lake_settings, tables(rows), made_at=made_at, now=NOW)
    changed = data.draw(st.sampled_from(sorted(rows)))
    for moment in (NOW, NOW + timedelta(days=90)):  # as days at first, then as months
        manifest = make_cubes(lake_settings, tables(rows), made_at=made_at, now=moment)
        assert manifest is not None
        for view in View:
            assert sums_of_cube(cube(lake_settings, manifest, view)) == sums_of_aggregates(rows, view)
        rows[changed] = data.draw(aggregates()).get(changed, [aggregate(changed)])
        made_at[changed] = moment
