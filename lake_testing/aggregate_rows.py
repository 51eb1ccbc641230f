"""Rows of `derived.histogram_aggregates` as a fleet would make them, always the same ones: for pages and
answers."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from typing import Any, Final

import duckdb
import pyarrow as pa

from lake_testing.sample_rows import sample_rows
from telemetry_lake.dashboard.format import WEIGHT_UNIT
from telemetry_lake.dashboard.making.dictionary import MetricDefinition
from telemetry_lake.histograms.bucket_ranges import (
    FUNCTIONAL_RANGES,
    MEASURE_RANGES,
    BucketRange,
    HistogramType,
    bucket_bounds,
    has_sent_buckets,
    sent_buckets,
)
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES

FIRST: Final = date(2026, 9, 28)
LAST: Final = date(2026, 10, 9)
KEYS: Final = ("google", "duckduckgo", "bing", "ecosia", "", "=formula", "o'key & co")
DEFINITIONS: Final = {
    "GC_MS": MetricDefinition("exponential", "Time spent running JavaScript garbage collection (ms)"),
    "CYCLE_COLLECTOR": MetricDefinition("exponential", "Time spent on one cycle collection (ms)"),
    "GC_REASON": MetricDefinition(
        "categorical", "Why a garbage collection was started", ("API", "EAGER", "LAST_DITCH")
    ),
    "E10S_STATUS": MetricDefinition("boolean", "Whether content has a process of its own"),
    "SEARCH_LATENCY_MS": MetricDefinition("exponential", "Time to the first suggestion, by engine (ms)"),
}


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    bucket_range: BucketRange
    keys: Sequence[str | None] = (None,)
    before: BucketRange | None = None
    """The buckets that it had on the first dates."""


_METRICS: Final = (
    _Metric("GC_MS", BucketRange(HistogramType.EXPONENTIAL, 1, 10_000, 20)),
    _Metric(
        "CYCLE_COLLECTOR",
        BucketRange(HistogramType.EXPONENTIAL, 1, 5_000, 15),
        before=BucketRange(HistogramType.EXPONENTIAL, 1, 10_000, 20),
    ),
    _Metric("GC_REASON", BucketRange(HistogramType.CATEGORICAL, 1, 50, 51)),
    _Metric("E10S_STATUS", BucketRange(HistogramType.BOOLEAN, 1, 2, 3)),
    _Metric("SEARCH_LATENCY_MS", BucketRange(HistogramType.EXPONENTIAL, 1, 2_000, 12), KEYS),
)
_DISTRIBUTIONS: Final = (
    _Metric("page.load", FUNCTIONAL_RANGES[HistogramType.TIMING_DISTRIBUTION]),
    _Metric("page.images", sent_buckets(HistogramType.CUSTOM_DISTRIBUTION)),
)
_MEASURES: Final = (
    _Metric("SCALARS_BROWSER.TABS", MEASURE_RANGES[HistogramType.SCALAR]),
    _Metric("tabs.restored", MEASURE_RANGES[HistogramType.TRUTH]),
)
_SENT: Final = (0, 1, 12, 87, 100, 2**40)
_FILLED_MAX: Final = 2**42
"""Sums of samples of larger buckets would not fit into 64 bits."""


def aggregate_rows(*, last: date = LAST, many_keys: int = 0) -> dict[date, list[dict[str, Any]]]:
    """Return rows of some metrics for each submission date from `FIRST` to `last`.

    `many_keys` adds as many rare keys to the keyed metric on the last date.
    """
    chosen, chosen_of_glean = random.Random(4711), random.Random(4712)
    rows: dict[date, list[dict[str, Any]]] = {}
    for number in range((last - FIRST).days + 1):
        day = FIRST + timedelta(days=number)
        rows[day] = [
            row
            for metric in _METRICS
            for channel, system in product(("nightly", "beta", "release"), ("Windows", "Mac", "Linux"))
            for key in metric.keys
            if key is None or chosen.random() < 0.6
            for row in [_row(chosen, metric, day, number, channel, system, key)]
        ]
        rows[day] += [
            _row(chosen_of_glean, metric, day, number, channel, system, None)
            for metric in (*_DISTRIBUTIONS, *_MEASURES)
            for channel, system in product(("nightly", "beta"), ("Windows", "Linux"))
        ]
    for number in range(many_keys):
        metric = _METRICS[-1]
        row = _row(chosen, metric, last, 0, "nightly", "Windows", f"rare-{number:04d}")
        rows[last].append({**row, "pings": 1, "process": "parent"})
    return rows


def aggregate_tables(rows: Mapping[date, list[dict[str, Any]]]) -> dict[date, pa.Table]:
    """Return rows as they are read from the table."""
    return {day: sample_rows(HISTOGRAM_AGGREGATES, of_day) for day, of_day in rows.items()}


def definitions_of(names: Any) -> dict[str, MetricDefinition]:
    """Return the definitions of the metrics of these names that have one."""
    return {name: DEFINITIONS[name] for name in names if name in DEFINITIONS}


def queried(rows: Mapping[date, list[dict[str, Any]]]) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB in which `derived.histogram_aggregates` has these rows."""
    connection = duckdb.connect()
    table = pa.concat_tables(aggregate_tables(rows).values())
    connection.register("given", table)
    connection.execute("CREATE SCHEMA derived")
    connection.execute(f"CREATE TABLE {HISTOGRAM_AGGREGATES} AS SELECT * FROM given")
    return connection


def _row(
    chosen: random.Random,
    metric: _Metric,
    day: date,
    number: int,
    channel: str,
    system: str,
    key: str | None,
) -> dict[str, Any]:
    bucket_range = metric.before if metric.before is not None and number < 4 else metric.bucket_range
    bounds = _SENT if has_sent_buckets(bucket_range) else bucket_bounds(bucket_range)
    filled = 3 if bucket_range.histogram_type is HistogramType.CATEGORICAL else len(bounds)
    counts = [
        chosen.randrange(40) if place < filled and bound < _FILLED_MAX and chosen.random() < 0.7 else 0
        for place, bound in enumerate(bounds)
    ]
    if has_sent_buckets(bucket_range):
        # Rows of such a histogram have the bounds with samples, each its own.
        bounds = tuple(bound for bound, count in zip(bounds, counts, strict=True) if count)
        counts = [count for count in counts if count]
    clients = chosen.randrange(2, 9)
    total = max(sum(counts), 1)
    major = {"nightly": 121, "beta": 120, "release": 119}[channel] + number // 7
    return {
        "submission_date": day,
        "build_date": None if chosen.random() < 0.05 else day - timedelta(days=chosen.randrange(2)),
        "namespace": "telemetry",
        "document_type": "main" if chosen.random() < 0.9 else "saved-session",
        "app_update_channel": channel,
        "app_name": "Firefox",
        "app_version": f"{major}.0" + {"nightly": "a1", "beta": f"b{1 + number % 9}", "release": ""}[channel],
        "normalized_os": system,
        "architecture": None if system == "Linux" else "x86-64",
        "process": chosen.choice(("parent", "content")),
        "name": metric.name,
        "key": key,
        "histogram_type": int(bucket_range.histogram_type),
        "bucket_count": bucket_range.bucket_count,
        "range_low": bucket_range.low,
        "range_high": bucket_range.high,
        "pings": clients + chosen.randrange(1, 20),
        "clients": clients,
        "sum": sum(low * count for low, count in zip(bounds, counts, strict=True)),
        "buckets": list(bounds),
        "counts": counts,
        "normalized": [round(count / total * clients * WEIGHT_UNIT) / WEIGHT_UNIT for count in counts],
    }
