"""Histograms as the column `histograms` of a table has them, small enough to add up in the head."""

from typing import Any

from telemetry_lake.histograms.bucket_ranges import BucketRange, HistogramType
from telemetry_lake.histograms.list_text import list_text

TO_TEN = BucketRange(HistogramType.LINEAR, 1, 10, 5)
"""The buckets 0, 1, 4, 7 and 10."""
TO_HUNDRED = BucketRange(HistogramType.EXPONENTIAL, 1, 100, 4)
"""The buckets 0, 1, 10 and 100."""


def histogram(name: str, counts: dict[int, int], of: BucketRange = TO_TEN, **more: Any) -> dict[str, Any]:
    """Return a histogram of the parent process with these counts by bucket; `more` replaces fields."""
    return {
        "process": "parent",
        "name": name,
        "key": None,
        "histogram_type": int(of.histogram_type),
        "bucket_count": of.bucket_count,
        "range_low": of.low,
        "range_high": of.high,
        "buckets": list_text(counts),
        "counts": list_text(counts.values()),
        "sum": float(sum(bound * count for bound, count in counts.items())),
        **dict.fromkeys(("log_sum", "log_sum_squares", "sum_squares_lo", "sum_squares_hi"), -1.0),
        **more,
    }
