"""Histograms of a DataFrame of pings, added up bucket by bucket."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from telemetry_lake.columns import (
    HISTOGRAMS,
)
from telemetry_lake.histograms.bucket_ranges import (
    BucketRange,
    HistogramType,
    bucket_bounds,
    has_sent_buckets,
)
from telemetry_lake.histograms.stored import ABSENT_SUM

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame


COLLECTED_MAX_ROWS: Final = 200_000
"""The most filled buckets over all groups; they fit easily into the memory of the caller."""

_DEFINITION: Final = ("histogram_type", "bucket_count", "range_low", "range_high")
_NAMED: Final = ("process", "key")
_FIELDS: Final = ("name", *_NAMED, *_DEFINITION, "buckets", "counts", "sum")
_OWN_COLUMNS: Final = ("name", *_NAMED, *_DEFINITION, "bucket_from", "bucket_to", "samples", "share", "pings")
NOT_MEASURED: Final = (HistogramType.BOOLEAN, HistogramType.FLAG, HistogramType.CATEGORICAL)
"""The buckets of these are names for answers: nothing lies between two of them."""


@dataclass(frozen=True, slots=True)
class HistogramSum:
    """All histograms of one name, process, key and definition, added up bucket by bucket."""

    name: str
    process: str
    key: str | None
    """The key of a keyed histogram; None for a plain histogram."""
    definition: BucketRange
    counts: tuple[int, ...]
    """How many samples fell into each bucket, empty ones included, in the order of `bounds`."""
    sum: float | None
    """The sum of all samples; None when not every client sent it."""
    pings: int
    """How many pings had this histogram."""
    group: Mapping[str, object] = field(default_factory=dict)
    """What the pings have in common: the value of each column of `by`."""
    sent_bounds: tuple[int, ...] = ()
    """The bounds that clients sent, where those are the buckets, as in custom distributions of Glean."""

    @property
    def bounds(self) -> tuple[int, ...]:
        """The lower bound of each bucket, ascending from 0; the last bucket has no upper bound."""
        return self.sent_bounds or bucket_bounds(self.definition)

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
        """Return the value below which `percent` percent of the samples lie; NaN without samples.

        With n samples, and n(i) of them in the bucket i that begins at b(i), t = percent / 100 * n is looked
        for in the first bucket where n(0) + … + n(i) >= t; there the samples are taken to lie evenly:
        b(i) + (b(i + 1) - b(i)) * (t - n(0) - … - n(i - 1)) / n(i). In the last bucket, which has no end, the
        answer is its beginning.

        Raises ValueError when `percent` is not between 0 and 100, or the buckets are names, not numbers
        (boolean, flag and categorical histograms).
        """
        if not 0 < percent < 100:
            raise ValueError(f"{percent} is not a percentile: it lies between 0 and 100")
        if self.definition.histogram_type in NOT_MEASURED:
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

    rows = bucket_sums(pings, name, by).limit(COLLECTED_MAX_ROWS + 1).collect()
    if len(rows) > COLLECTED_MAX_ROWS:
        raise ValueError(f"by={by} makes more than {COLLECTED_MAX_ROWS} sums of buckets: group by less")

    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        found.setdefault(tuple(row[: len(by) + len(_NAMED) + len(_DEFINITION)]), []).append(row)
    return [
        _histogram_sum(name, by, identity, found[identity])
        for identity in sorted(found, key=lambda identity: [(part is not None, part) for part in identity])
    ]


def bucket_sums(pings: "DataFrame", name: str, by: list[str]) -> "DataFrame":
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
                    split("histogram.buckets", ",").cast("array<bigint>").alias("bucket"),
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
    sent_bounds = tuple(sorted({0, *counts})) if has_sent_buckets(definition) else ()
    return HistogramSum(
        name,
        process,
        key,
        definition,
        tuple(counts.get(bound, 0) for bound in sent_bounds or bucket_bounds(definition)),
        math.fsum(row["sum"] for row in rows) if complete else None,
        sum(row["pings"] for row in rows),
        dict(zip(by, identity, strict=False)),
        sent_bounds,
    )


def add_up(sums: Iterable[HistogramSum]) -> HistogramSum:
    """Return one sum of several, for example of all processes; it does not name what differs among them.

    Raises ValueError when there are no sums, or their names or definitions differ: such buckets mean
    different things.
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
    sent_bounds = tuple(sorted({bound for part in parts for bound in part.sent_bounds}))
    counts: Counter[int] = Counter()
    for part in parts:
        counts.update(dict(zip(part.bounds, part.counts, strict=True)))
    sent = [part.sum for part in parts if part.sum is not None]
    return HistogramSum(
        first.name,
        "+".join(dict.fromkeys(part.process for part in parts)),
        first.key if len({part.key for part in parts}) == 1 else None,
        first.definition,
        tuple(counts[bound] for bound in sent_bounds or first.bounds),
        math.fsum(sent) if len(sent) == len(parts) else None,
        sum(part.pings for part in parts),
        {
            column: value
            for column, value in first.group.items()
            if all(part.group.get(column) == value for part in parts)
        },
        sent_bounds,
    )


def histograms_to_pandas(sums: Iterable[HistogramSum]) -> "pd.DataFrame":
    """Return a frame with one row for each bucket of each sum.

    Columns: those of `by`; name, process, key; histogram_type, bucket_count, range_low, range_high; pings
    (the number that had the histogram); bucket_from and bucket_to (a sample of the bucket is at least the
    first and less than the second, which is infinite for the last bucket); samples; share (of the sum's
    samples, 0 to 1; NaN without samples).
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


def _described(definition: BucketRange) -> str:
    kind = definition.histogram_type.name.lower()
    return f"{definition.bucket_count} {kind} buckets from {definition.low} to {definition.high}"
