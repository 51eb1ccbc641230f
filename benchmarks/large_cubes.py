"""Cubes of the size that Mozilla's dashboard had in 2014, written as the job writes them but without it.

524 metrics in 4 channels, 180 builds of each, 3 systems, 2 architectures, and a keyed metric of 3,000 keys:
180 submission dates, of which the last 38 are segments of a day, the most that a version has of them. Each
date has pings of the builds of its last days. All numbers come from one seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from telemetry_lake.columns import (
    APP_NAME,
    APP_UPDATE_CHANNEL,
    APP_VERSION,
    ARCHITECTURE,
    BUILD_DATE,
    DOCUMENT_TYPE,
    NAMESPACE,
    NORMALIZED_OS,
)
from telemetry_lake.dashboard.cube_rows import as_segment
from telemetry_lake.dashboard.format import WEIGHT_UNIT, Manifest, Segment, View
from telemetry_lake.dashboard.making.build import DICTIONARY, SUMMARIES
from telemetry_lake.dashboard.making.dictionary import MetricDefinition, dictionary_of, parquet_bytes, summary
from telemetry_lake.dashboard.making.plan import month_of
from telemetry_lake.dashboard.making.source import SourceDate, end_of
from telemetry_lake.dashboard.making.versions import CubeVersions, new_version
from telemetry_lake.dashboard.segment_files import SegmentWriter
from telemetry_lake.histograms.bucket_ranges import BucketRange, HistogramType, bucket_bounds

METRICS = 524
DAYS = 180
LAST = date(2014, 11, 7)
"""A month that has not been over for a week, and a week: the most days that are segments of their own."""
CHANNELS = ("aurora", "beta", "nightly", "release")
SYSTEMS = ("Linux", "Mac", "Windows")
ARCHITECTURES = ("x86", "x86-64")
ACTIVE_BUILDS = 5
"""Of each channel, on each date."""
COMMON_KEYS = 100
"""Every day; the others of the 200 kept keys are different ones each day."""
RARE_KEYS = 2_900
RARE_KEYS_A_DAY = 100
KEYED_METRIC = "LARGEST_KEYED_METRIC"
LISTS_MIN, LISTS_MAX = 3, 25
"""How many buckets of a row are not empty."""

Whole = NDArray[np.int64]
SHAPES = (
    *(BucketRange(HistogramType.EXPONENTIAL, 1, 10_000, count) for count in (10, 20, 50, 50, 100, 100)),
    BucketRange(HistogramType.LINEAR, 1, 101, 102),
    BucketRange(HistogramType.BOOLEAN, 1, 2, 3),
    BucketRange(HistogramType.CATEGORICAL, 1, 50, 51),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A metric and its buckets."""

    name: str
    bucket_range: BucketRange


def shapes(count: int) -> list[Shape]:
    """Return `count` metrics, by their names; one of them is keyed."""
    names = sorted([*(f"METRIC_{number:04d}_MS" for number in range(count - 1)), KEYED_METRIC])
    return [
        Shape(name, SHAPES[2] if name == KEYED_METRIC else SHAPES[number % len(SHAPES)])
        for number, name in enumerate(names)
    ]


def definitions_of(names: Any) -> Mapping[str, MetricDefinition]:
    """Return definitions with descriptions of the usual length."""
    text = "The time that a part of the browser took for a thing that it does many times a day, in ms"
    return {name: MetricDefinition("exponential", text) for name in names if name == KEYED_METRIC}


def days_of(count: int) -> list[date]:
    """Return `count` submission dates, of which `LAST` is the last."""
    return [LAST - timedelta(days=number) for number in reversed(range(count))]


def write_cubes(versions: CubeVersions, folder: Path, metrics: int, days: int) -> Manifest:
    """Make cubes the current version."""
    chosen = np.random.default_rng(2014)
    of_metrics = shapes(metrics)
    version = new_version(datetime.now(UTC))
    segments: list[Segment] = []
    summaries: list[pl.DataFrame] = []
    for first, last in _ranges(days_of(days)):
        for view in View:
            path = folder / f"{view}-{first}.parquet"
            with SegmentWriter(path, version) as writer:
                for rows in segment_rows(chosen, of_metrics, view, first, last):
                    writer.write(rows)
            segments.append(versions.put_segment(view, (first, last), path, writer.rows))
            if view is View.SUBMISSION:
                summaries.append(summary(path, first, last))
            path.unlink()
    known = pl.concat(summaries)
    manifest = Manifest(
        version=version,
        built_at=datetime.now(UTC),
        data_until=datetime.now(UTC),
        preliminary_date=None,
        segments=tuple(sorted(segments, key=lambda segment: (segment.view, segment.first_date))),
        dictionary=versions.put_file(
            version, DICTIONARY, parquet_bytes(dictionary_of(known, definitions_of))
        ),
        summaries=versions.put_file(version, SUMMARIES, parquet_bytes(known.to_arrow())),
        dates={day: source.identity for day, source in source_dates(days_of(days)).items()},
    )
    if not versions.make_current(manifest, versions.current()):
        raise RuntimeError("another run has made cubes in this bucket: give the benchmark one of its own")
    return manifest


def source_dates(days: Sequence[date]) -> dict[date, SourceDate]:
    """Return these dates as a source of aggregates has them: each was made an hour after its end."""
    made = {day: end_of(day) + timedelta(hours=1) for day in days}
    return {day: SourceDate(at.isoformat(), at, end_of(day)) for day, at in made.items()}


class DayOfAggregates:
    """A `Source` that has the rows of one date; the others are as the cubes have them."""

    def __init__(self, days: Sequence[date], metrics: int) -> None:
        """Make the rows of the last of the `days`."""
        self._dates = source_dates(days)
        chosen = np.random.default_rng(2015)
        rows = segment_rows(chosen, shapes(metrics), View.BUILD, days[-1], days[-1], with_rest=False)
        self._rows = [_as_aggregates(part) for part in rows]
        self.row_count = sum(part.num_rows for part in self._rows)

    def dates(self) -> dict[date, SourceDate]:
        """Return all dates."""
        return self._dates

    def batches(self, day: date, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the last date."""
        assert day == max(self._dates), "only the last date is new"
        for part in self._rows:
            yield from part.select(list(columns)).to_batches(max_chunksize=4_096)


def segment_rows(
    chosen: np.random.Generator,
    metrics: Sequence[Shape],
    view: View,
    first: date,
    last: date,
    *,
    with_rest: bool = True,
) -> Iterator[pa.Table]:
    """Yield the rows of a segment in their order, a channel at a time.

    Without `with_rest`, all 3,000 keys are there, as the aggregates have them.
    """
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    cells = _cells(view, days)
    blocks: list[_Block] = []
    for number, shape in enumerate(metrics):
        every = np.arange(len(cells))
        if shape.name != KEYED_METRIC:
            blocks.append(_Block(number, None, False, every))
            continue
        if with_rest:
            blocks.append(_Block(number, None, True, every))
        blocks += [
            _Block(number, key, False, every if places is None else places)
            for key, places in _keys(days, cells, every=not with_rest)
        ]
    for channel in CHANNELS:
        yield _table(chosen, metrics, channel, cells, blocks)


@dataclass(frozen=True, slots=True)
class _Cell:
    """The dimensions below a metric's channel and key."""

    day: date
    version: str
    system: str
    architecture: str


@dataclass(frozen=True, slots=True)
class _Block:
    """The rows of a metric and key, one for each of some cells."""

    metric: int
    key: str | None
    is_rest: bool
    cells: Whole


def _cells(view: View, days: Sequence[date]) -> list[_Cell]:
    """Return all cells in the order of a segment."""
    dates = list(days)
    if view is View.BUILD:
        dates = [days[0] - timedelta(days=number) for number in range(ACTIVE_BUILDS - 1, 0, -1)] + dates
    return [
        _Cell(day, version_of(day), system, architecture)
        for day in dates
        for system in SYSTEMS
        for architecture in ARCHITECTURES
    ]


def version_of(day: date) -> str:
    """Return the version of the builds of a day."""
    return f"{28 + (day.toordinal() - date(2014, 5, 1).toordinal()) // 42}.0"


def _keys(days: Sequence[date], cells: Sequence[_Cell], *, every: bool) -> Iterator[tuple[str, Whole | None]]:
    """Yield the keys in their order and their cells, None for all of them.

    A rare key is on one system, in the builds of its own days.
    """
    yield from ((f"common-key-{number:04d}", None) for number in range(COMMON_KEYS))
    at = {cell.day: place for place, cell in reversed(list(enumerate(cells)))}
    rare: dict[int, list[int]] = {}
    for day in days:
        begin = day.toordinal() * RARE_KEYS_A_DAY
        for number in range(begin, begin + (RARE_KEYS if every else RARE_KEYS_A_DAY)):
            rare.setdefault(number % RARE_KEYS, []).append(at[day])
    yield from ((f"rare-key-{number:04d}", np.array(places)) for number, places in sorted(rare.items()))


def _table(
    chosen: np.random.Generator,
    metrics: Sequence[Shape],
    channel: str,
    cells: Sequence[_Cell],
    blocks: Sequence[_Block],
) -> pa.Table:
    """Return the rows of a channel."""
    sizes = [len(block.cells) for block in blocks]
    count = sum(sizes)
    cell = pa.array(np.concatenate([block.cells for block in blocks]))
    # The stubs take numbers for something else.
    of_block: Any = pa.array(np.repeat(np.arange(len(blocks)), sizes))
    of_metric = np.repeat([block.metric for block in blocks], sizes)
    is_rest = np.repeat([block.is_rest for block in blocks], sizes)
    ranges = [shape.bucket_range for shape in metrics]
    bounds = [np.asarray(bucket_bounds(each), np.int32) for each in ranges]
    widths = np.array([len(each) for each in bounds])
    lengths = np.minimum(chosen.integers(LISTS_MIN, LISTS_MAX + 1, count), widths[of_metric])
    firsts = (chosen.random(count) * (widths[of_metric] - lengths + 1)).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    begins = (np.cumsum(widths) - widths)[of_metric] + firsts
    places = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], lengths)
    samples = chosen.geometric(0.001, offsets[-1])
    clients = chosen.integers(100, 20_000, count)

    def constant(value: str) -> Any:
        return pa.repeat(pa.scalar(value), count)

    def of_cells(name: str) -> Any:
        return pa.array([getattr(each, name) for each in cells]).take(cell)

    def of_metrics(values: Sequence[Any]) -> Any:
        return pa.array(values).take(pa.array(of_metric.astype(np.int64)))

    lists = {
        "buckets": np.concatenate(bounds)[places],
        "counts": samples,
        "weights": chosen.integers(1, WEIGHT_UNIT, offsets[-1]),
    }
    return as_segment(
        {
            "channel": constant(channel),
            "metric": of_metrics([shape.name for shape in metrics]),
            "process": constant("parent"),
            "key": pa.array([block.key for block in blocks], pa.string()).take(of_block),
            "is_rest": pa.array(is_rest),
            "rest_keys": pa.array(np.full(count, RARE_KEYS - RARE_KEYS_A_DAY), mask=~is_rest),
            "application": constant("Firefox"),
            "version": of_cells("version"),
            "os": of_cells("system"),
            "architecture": of_cells("architecture"),
            "namespace": constant("telemetry"),
            "document_type": constant("main"),
            "date": of_cells("day"),
            "histogram_type": of_metrics([int(each.histogram_type) for each in ranges]),
            "bucket_count": of_metrics([each.bucket_count for each in ranges]),
            "range_low": of_metrics([each.low for each in ranges]),
            "range_high": of_metrics([each.high for each in ranges]),
            "pings": pa.array(clients * 2),
            "clients": pa.array(clients),
            "sum": pa.array(np.add.reduceat(samples, offsets[:-1]) * 10),
            **{
                name: pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
                for name, values in lists.items()
            },
        }
    )


def _as_aggregates(rows: pa.Table) -> pa.Table:
    """Return rows of a cube under the names that `derived.histogram_aggregates` has for them."""
    weights: Any = rows.column("weights").combine_chunks()
    normalized = pa.ListArray.from_arrays(weights.offsets, pa.array(np.asarray(weights.values) / WEIGHT_UNIT))
    names = {
        "channel": APP_UPDATE_CHANNEL,
        "metric": "name",
        "application": APP_NAME,
        "version": APP_VERSION,
        "os": NORMALIZED_OS,
        "architecture": ARCHITECTURE,
        "namespace": NAMESPACE,
        "document_type": DOCUMENT_TYPE,
        "date": BUILD_DATE,
    }
    renamed = rows.rename_columns([names.get(name, name) for name in rows.schema.names])
    return renamed.append_column("normalized", normalized)


def _ranges(days: Sequence[date]) -> Iterator[tuple[date, date]]:
    """Yield the submission dates of each segment: months that are over for a week, then days."""
    for month, group in groupby(days, key=month_of):
        of_month = list(group)
        is_over = month_of(month + timedelta(days=31)) + timedelta(days=7) <= LAST
        if is_over:
            yield of_month[0], of_month[-1]
        else:
            yield from ((day, day) for day in of_month)
