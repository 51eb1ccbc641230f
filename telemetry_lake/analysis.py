"""For analysts: pings as a Spark DataFrame, and histograms added up, with percentiles and a picture.

::

    from telemetry_lake.analysis import pings, plot_histograms, sum_histograms

    week = pings(spark, document_type="main", channel="nightly", dates="2026-11-16..2026-11-22", sample=10)
    pauses = sum_histograms(week, "GC_MS", by=["normalized_os"])
    for one in pauses:
        print(one.label, one.percentile(50), one.percentile(95))
    plot_histograms(pauses, unit="ms").savefig("pauses.png")

`spark` is a session in which the tables of the lake are found; `jobs.spark_session.open_session` makes one.
This module imports Spark, pandas and matplotlib only inside the functions that need them.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from telemetry_lake.columns import (
    APP_UPDATE_CHANNEL,
    DOCUMENT_TYPE,
    HISTOGRAMS,
    SAMPLE_ID,
    SUBMISSION_DATE,
)
from telemetry_lake.convert.bucket_ranges import BucketRange, HistogramType, bucket_bounds
from telemetry_lake.convert.histograms import ABSENT_SUM

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pyspark.sql import DataFrame, SparkSession

TableName = Literal["stable", "live"]
Dates = date | str | tuple[date | str, date | str]
"""A day, or the first and the last of several; `date`s, `YYYY-MM-DD`, or `YYYY-MM-DD..YYYY-MM-DD`."""

SAMPLES_COUNT: Final = 100
"""`sample_id` divides the clients into this many parts."""
COLLECTED_MAX_ROWS: Final = 200_000
"""So many filled buckets, over all groups, fit easily into the memory of the program that asks."""
PLOTTED_MAX_COUNT: Final = 8
"""More lines than this cannot be told apart."""
PLOT_SIZE_INCHES: Final = (9.0, 5.0)
PLOT_TICKS_MAX_COUNT: Final = 20

_DEFINITION: Final = ("histogram_type", "bucket_count", "range_low", "range_high")
_NAMED: Final = ("process", "key")
_FIELDS: Final = ("name", *_NAMED, *_DEFINITION, "buckets", "counts", "sum")
_OWN_COLUMNS: Final = ("name", *_NAMED, *_DEFINITION, "bucket_from", "bucket_to", "samples", "share", "pings")
_NOT_MEASURED: Final = (HistogramType.BOOLEAN, HistogramType.FLAG, HistogramType.CATEGORICAL)
"""The buckets of these are names for answers: nothing lies between two of them."""


def pings(
    spark: "SparkSession",
    *,
    document_type: str | Collection[str],
    dates: Dates,
    channel: str | Collection[str] | None = None,
    sample: int | None = None,
    table: TableName = "stable",
) -> "DataFrame":
    """The pings of one or several document types and days, as a DataFrame with the columns of `live.pings`.

    Only what is asked for is read: `dates` (submission dates, UTC) and `document_type` leave whole partitions
    out, `channel` (values of app_update_channel) leaves out parts of the files, which are sorted by it, and
    Spark reads only the columns that are used afterwards. `sample` takes that many percent of the clients,
    all pings of each: the same clients every day, and below 100 none of the pings without a client id.
    `table` is `stable`, where each document id occurs once, or `live`, which is minutes fresh.

    Raises ValueError and TypeError, which say which argument is wrong and what is possible.
    """
    if table not in get_args(TableName):
        raise ValueError(f"table={table!r}: there are {' and '.join(get_args(TableName))}")
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int)):
        raise TypeError(f"sample={sample!r}: it is a whole number of percent")
    if sample is not None and not 1 <= sample <= SAMPLES_COUNT:
        raise ValueError(f"sample={sample}: it is a number of percent from 1 to {SAMPLES_COUNT}")
    types = _names(DOCUMENT_TYPE, document_type)
    channels = None if channel is None else _names("channel", channel)
    first, last = _first_and_last(dates)

    from pyspark.sql.functions import col

    chosen = spark.table(f"{table}.pings").where(
        col(SUBMISSION_DATE).between(first, last) & col(DOCUMENT_TYPE).isin(types)
    )
    if channels is not None:
        chosen = chosen.where(col(APP_UPDATE_CHANNEL).isin(channels))
    if sample is not None and sample < SAMPLES_COUNT:
        chosen = chosen.where(col(SAMPLE_ID) < sample)
    return chosen


@dataclass(frozen=True, slots=True)
class HistogramSum:
    """All histograms of one name, process, key and definition, added up bucket by bucket."""

    name: str
    process: str
    key: str | None
    """The key of a keyed histogram; None for a plain one."""
    definition: BucketRange
    counts: tuple[int, ...]
    """How many samples fell into each bucket, empty ones included, in the order of `bounds`."""
    sum: float | None
    """The sum of all samples; None when not every client sent it."""
    pings: int
    """How many pings had this histogram."""
    group: Mapping[str, object] = field(default_factory=dict)
    """What the pings have in common: the value of each column of `by`."""

    @property
    def bounds(self) -> tuple[int, ...]:
        """The lower bound of each bucket, ascending from 0; the last bucket has no upper one."""
        return bucket_bounds(self.definition)

    @property
    def samples(self) -> int:
        """How many samples there are in all buckets."""
        return sum(self.counts)

    @property
    def label(self) -> str:
        """Group, process and key in one line, as a legend says it."""
        own = [self.process] if self.key is None else [self.process, self.key]
        return ", ".join([str(value) for value in self.group.values()] + own)

    def percentile(self, percent: float) -> float:
        """The value below which `percent` percent of the samples lie; not a number without samples.

        With n samples, and n(i) of them in the bucket i that begins at b(i), t = percent / 100 * n is looked
        for in the first bucket where n(0) + … + n(i) >= t; there the samples are taken to lie evenly:
        b(i) + (b(i + 1) - b(i)) * (t - n(0) - … - n(i - 1)) / n(i). In the last bucket, which has no end, the
        answer is its beginning.

        Raises ValueError when `percent` is not between 0 and 100, or the buckets are names, not numbers
        (boolean, flag and categorical histograms).
        """
        if not 0 < percent < 100:
            raise ValueError(f"{percent} is no percentile: it lies between 0 and 100")
        if self.definition.histogram_type in _NOT_MEASURED:
            kind = self.definition.histogram_type.name.lower()
            raise ValueError(f"{self.name} is a {kind} histogram: its buckets are answers, not measurements")
        target = percent / 100 * self.samples
        if not target:
            return math.nan
        up_to = list(accumulate(self.counts))
        bucket = next(index for index, reached in enumerate(up_to) if reached >= target)
        begin = self.bounds[bucket]
        if bucket == len(self.bounds) - 1:
            return float(begin)
        before = up_to[bucket] - self.counts[bucket]
        return begin + (self.bounds[bucket + 1] - begin) * (target - before) / self.counts[bucket]


def sum_histograms(pings: "DataFrame", name: str, *, by: Sequence[str] = ()) -> list[HistogramSum]:
    """Add up the histogram `name` of all `pings`, for each process, each key and each value of `by`.

    `by` are columns of `pings`, also computed ones. Clients of different versions may send the same name with
    different buckets; these are never added: each definition gets a sum of its own. Counts below zero, which
    only broken clients send, count nothing. In order of `by`, process, key and definition; empty when no ping
    has the histogram.

    Raises ValueError when a column of `by` is not there or has a name that `histograms_to_pandas` needs, or
    when more than COLLECTED_MAX_ROWS buckets would come of it.
    """
    by = [by] if isinstance(by, str) else list(by)
    if missing := [column for column in by if column not in pings.columns]:
        raise ValueError(f"by={by}: the pings have no columns {missing}; they have {pings.columns}")
    if taken := [column for column in by if column in _OWN_COLUMNS]:
        raise ValueError(f"by={by}: rename {taken}, the result has columns of these names")

    rows = _bucket_sums(pings, name, by).limit(COLLECTED_MAX_ROWS + 1).collect()
    if len(rows) > COLLECTED_MAX_ROWS:
        raise ValueError(f"by={by} makes more than {COLLECTED_MAX_ROWS} sums of buckets: group by less")

    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        found.setdefault(tuple(row[: len(by) + len(_NAMED) + len(_DEFINITION)]), []).append(row)
    return [
        _histogram_sum(name, by, identity, found[identity])
        for identity in sorted(found, key=lambda identity: [(part is not None, part) for part in identity])
    ]


def _bucket_sums(pings: "DataFrame", name: str, by: list[str]) -> "DataFrame":
    """One row for each filled bucket of each group, process, key and definition, in this order of columns.

    Behind them: bucket (its lower bound; null stands for histograms without any), samples; and pings, sum and
    without_sum, which add up to those of the group.
    """
    from pyspark.sql.functions import arrays_zip, col, explode, greatest, lit, posexplode_outer, split, when
    from pyspark.sql.functions import sum as sum_of

    # Numbered, so that a column of the caller's cannot have the name of one of ours.
    groups = [f"group_{number}" for number in range(len(by))]
    # Zipped again from single fields: of a whole struct Spark would read every field, twice as many bytes.
    of_ping = arrays_zip(*(col(f"{HISTOGRAMS}.{part}").alias(part) for part in _FIELDS))
    of_name = (
        pings.select(
            *(col(f"`{column}`").alias(group) for column, group in zip(by, groups, strict=True)),
            explode(of_ping).alias("histogram"),
        )
        .where(col("histogram.name") == name)
        .select(
            *groups,
            *(col(f"histogram.{part}").alias(part) for part in (*_NAMED, *_DEFINITION, "sum")),
            posexplode_outer(
                arrays_zip(
                    split("histogram.buckets", ",").cast("array<int>").alias("bucket"),
                    split("histogram.counts", ",").cast("array<bigint>").alias("count"),
                )
            ).alias("position", "filled"),
        )
    )
    # Each histogram is counted at its first bucket, or at the one row that stands for one without any.
    is_first = (col("position") == 0) | col("position").isNull()
    return of_name.groupBy(*groups, *_NAMED, *_DEFINITION, col("filled.bucket").alias("bucket")).agg(
        # Added up as decimals: a client may send any count of 64 bits.
        sum_of(greatest(col("filled.count"), lit(0)).cast("decimal(38,0)")).alias("samples"),
        sum_of(when(is_first, 1).otherwise(0)).alias("pings"),
        sum_of(when(is_first, col("sum")).otherwise(0.0)).alias("sum"),
        sum_of(when(is_first & (col("sum") == ABSENT_SUM), 1).otherwise(0)).alias("without_sum"),
    )


def _histogram_sum(name: str, by: list[str], identity: tuple[Any, ...], rows: list[Any]) -> HistogramSum:
    process, key, kind, bucket_count, low, high = identity[len(by) :]
    definition = BucketRange(HistogramType(kind), low, high, bucket_count)
    counts = {row["bucket"]: int(row["samples"]) for row in rows if row["bucket"] is not None}
    complete = not any(row["without_sum"] for row in rows)
    return HistogramSum(
        name,
        process,
        key,
        definition,
        tuple(counts.get(bound, 0) for bound in bucket_bounds(definition)),
        math.fsum(row["sum"] for row in rows) if complete else None,
        sum(row["pings"] for row in rows),
        dict(zip(by, identity, strict=False)),
    )


def add_up(sums: Iterable[HistogramSum]) -> HistogramSum:
    """One sum of several, for example of all processes; what differs among them is not named in it.

    Raises ValueError when there are none, or their names or definitions differ: such buckets mean different
    things.
    """
    parts = list(sums)
    if not parts:
        raise ValueError("there are no histograms to add up")
    first = parts[0]
    for part in parts:
        if (part.name, part.definition) != (first.name, first.definition):
            raise ValueError(
                f"these cannot be added up: {first.name} with {_described(first.definition)}, and "
                f"{part.name} with {_described(part.definition)}"
            )
    sent = [part.sum for part in parts if part.sum is not None]
    return HistogramSum(
        first.name,
        "+".join(dict.fromkeys(part.process for part in parts)),
        first.key if len({part.key for part in parts}) == 1 else None,
        first.definition,
        tuple(map(sum, zip(*(part.counts for part in parts), strict=True))),
        math.fsum(sent) if len(sent) == len(parts) else None,
        sum(part.pings for part in parts),
        {
            column: value
            for column, value in first.group.items()
            if all(part.group.get(column) == value for part in parts)
        },
    )


def histograms_to_pandas(sums: Iterable[HistogramSum]) -> "pd.DataFrame":
    """One row for each bucket of each sum.

    Columns: those of `by`; name, process, key; histogram_type, bucket_count, range_low, range_high; pings
    (how many had the histogram); bucket_from and bucket_to (a bucket has what is at least the one and less
    than the other; infinite for the last bucket); samples; share (of the sum's samples, 0 to 1; not a number
    without any).
    """
    import pandas as pd

    rows = []
    for one in sums:
        ends = (*one.bounds[1:], math.inf)
        for begin, end, count in zip(one.bounds, ends, one.counts, strict=True):
            rows.append(
                {
                    **one.group,
                    "name": one.name,
                    "process": one.process,
                    "key": one.key,
                    "histogram_type": one.definition.histogram_type.name.lower(),
                    "bucket_count": one.definition.bucket_count,
                    "range_low": one.definition.low,
                    "range_high": one.definition.high,
                    "pings": one.pings,
                    "bucket_from": begin,
                    "bucket_to": end,
                    "samples": count,
                    "share": count / one.samples if one.samples else math.nan,
                }
            )
    return pd.DataFrame(rows)


def plot_histograms(sums: Sequence[HistogramSum], *, unit: str) -> "Figure":
    """A picture of one histogram, a line for each of `sums`: which share of its samples each bucket has.

    `unit` is what the histogram measures in, for example `ms`; no ping says it. The horizontal axis of an
    exponential histogram is logarithmic beyond its first bucket. `figure.savefig("name.png")` writes it.

    Raises ValueError when there is nothing to draw, more than PLOTTED_MAX_COUNT lines, or when names or
    definitions differ: the heights of different buckets cannot be compared.
    """
    drawn = [one for one in sums if one.samples]
    if not drawn:
        raise ValueError("there are no samples to draw")
    if len(drawn) > PLOTTED_MAX_COUNT:
        raise ValueError(
            f"{len(drawn)} lines cannot be told apart, only {PLOTTED_MAX_COUNT}: choose, or add some up"
        )
    whole = add_up(drawn)

    from matplotlib.figure import Figure

    figure = Figure(figsize=PLOT_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    last = max(index for index, count in enumerate(whole.counts) if count)
    edges = _edges(axes, whole.definition, last)
    for one in drawn:
        shares = [100 * count / one.samples for count in one.counts[: last + 1]]
        axes.stairs(
            shares,
            edges,
            label=f"{one.label} ({one.samples:,} samples of {one.pings:,} pings)",
            linewidth=1.5,
        )
    axes.set_title(whole.name)
    axes.set_xlabel(f"{whole.name} ({unit})")
    axes.set_ylabel("samples in the bucket (% of all)")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    axes.grid(visible=True, alpha=0.3)
    return figure


def _edges(axes: "Axes", definition: BucketRange, last: int) -> list[float]:
    """Where the buckets up to the one numbered `last` begin and end on the axis, which is set up for them."""
    bounds = bucket_bounds(definition)
    if definition.histogram_type in _NOT_MEASURED:
        every = math.ceil((last + 1) / PLOT_TICKS_MAX_COUNT)
        shown = range(0, last + 1, every)
        axes.set_xticks([index + 0.5 for index in shown], [str(bounds[index]) for index in shown])
        return [float(index) for index in range(last + 2)]
    if definition.histogram_type is HistogramType.EXPONENTIAL:
        axes.set_xscale("symlog", linthresh=bounds[1])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    # The last bucket has no end: it is drawn as wide as the one before it.
    ends = (*bounds[1:], 2 * bounds[-1] - bounds[-2])
    return [float(bound) for bound in (*bounds[: last + 1], ends[last])]


def _described(definition: BucketRange) -> str:
    kind = definition.histogram_type.name.lower()
    return f"{definition.bucket_count} {kind} buckets from {definition.low} to {definition.high}"


def _names(argument: str, given: str | Collection[str]) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{argument}={given!r}: it is a name or several")
    if not names or not all(names):
        raise ValueError(f"{argument}={given!r}: at least one name is needed, and none may be empty")
    return names


def _first_and_last(dates: Dates) -> tuple[date, date]:
    if isinstance(dates, str):
        begin, dots, end = dates.partition("..")
        pair: tuple[date | str, date | str] = (begin, end if dots else begin)
    else:
        pair = dates if isinstance(dates, tuple) else (dates, dates)
    if len(pair) != 2:
        raise ValueError(f"dates={dates!r}: a range has a first and a last date")
    first, last = (_day(day) for day in pair)
    if last < first:
        raise ValueError(f"dates={dates!r}: {last} is before {first}")
    return first, last


def _day(given: date | str) -> date:
    if isinstance(given, date) and not isinstance(given, datetime):
        return given
    if not isinstance(given, str):
        raise TypeError(f"dates: {given!r} is no date: expected a datetime.date or YYYY-MM-DD")
    try:
        return date.fromisoformat(given.strip())
    except ValueError:
        raise ValueError(f"dates: {given!r} is no date: expected YYYY-MM-DD") from None
