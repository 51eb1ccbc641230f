"""The dictionary of metrics: what each is, and where and when it has data.

What has data is summarised for each segment once, when it is made (`summary`). The dictionary is made of the
summaries of all segments of a version, so that a day costs a day here, too.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from telemetry_lake.dashboard.format import DEFINITION, DICTIONARY_SCHEMA
from telemetry_lake.histograms.bucket_ranges import MEASURE_RANGES, HistogramType

RANGE: Final = ["first_date", "last_date"]
"""The columns of a summary that name its segment."""
SUMMARY_SCHEMA: Final[dict[str, Any]] = {
    "first_date": pl.Date,
    "last_date": pl.Date,
    "metric": pl.String,
    "process": pl.String,
    "channel": pl.String,
    "keyed": pl.Boolean,
    "histogram_type": pl.Int8,
    "bucket_count": pl.Int32,
    "range_low": pl.Int64,
    "range_high": pl.Int64,
    "pings": pl.Int64,
    "first": pl.Date,
    "last": pl.Date,
}
HISTOGRAM: Final = "histogram"
"""The family of metrics that clients send as histograms; of a measure it is what kind of measure it is."""
_FAMILY_OF: Final = {kind: kind.name.lower().replace("_", " ") for kind in MEASURE_RANGES} | {
    HistogramType.TRUTH: "boolean"
}
_KIND_OF: Final = dict.fromkeys(MEASURE_RANGES, "exponential") | {
    HistogramType.RATE: "linear",
    HistogramType.TRUTH: "boolean",
}
"""The kind of histogram whose buckets each measure has: what Mozilla's aggregation service called it, too."""


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """What a definition says of a metric."""

    kind: str
    description: str
    labels: tuple[str, ...] = ()
    expires: str | None = None


Definitions = Callable[[Collection[str]], Mapping[str, MetricDefinition]]
"""Returns what is known of the metrics of these names; unknown ones are left out."""


def summary(file: Path, first: date, last: date) -> pl.DataFrame:
    """Return what a file of the view by submission date has of each metric, in the form `SUMMARY_SCHEMA`."""
    return (
        pl.scan_parquet(file)
        .group_by(
            "metric", "process", "channel", *DEFINITION, keyed=pl.col("key").is_not_null() | pl.col("is_rest")
        )
        .agg(pl.col("pings").sum(), first=pl.col("date").min(), last=pl.col("date").max())
        .with_columns(first_date=pl.lit(first), last_date=pl.lit(last))
        .select(pl.col(name).cast(type_) for name, type_ in SUMMARY_SCHEMA.items())
        .collect(engine="streaming")
    )


def dictionary_of(summaries: pl.DataFrame, definitions: Definitions) -> pa.Table:
    """Return the dictionary of all metrics that the summaries know, sorted by their names."""
    metrics = (
        summaries.group_by("metric")
        .agg(
            keyed=pl.col("keyed").any(),
            processes=pl.col("process").unique().sort(),
            channels=pl.col("channel").unique().sort(),
            first_date=pl.col("first").min(),
            last_date=pl.col("last").max(),
            pings=pl.col("pings").sum(),
            definitions=pl.struct(DEFINITION).n_unique().cast(pl.Int32),
            newest_type=pl.col("histogram_type").sort_by("last", "pings", "histogram_type").last(),
        )
        .sort("metric")
    )
    known = definitions(metrics["metric"].to_list())
    rows = []
    for row in metrics.iter_rows(named=True):
        newest = HistogramType(row.pop("newest_type"))
        kind = _KIND_OF.get(newest, newest.name.lower())
        definition = known.get(row["metric"]) or MetricDefinition(kind, "")
        rows.append(
            {
                **row,
                "family": _FAMILY_OF.get(newest, HISTOGRAM),
                # What a definition calls a measure, such as uint, is not a kind of buckets.
                "kind": kind if newest in MEASURE_RANGES else definition.kind,
                "description": definition.description,
                "labels": list(definition.labels),
                "expires": definition.expires,
            }
        )
    return pa.Table.from_pylist(rows, schema=DICTIONARY_SCHEMA)


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
