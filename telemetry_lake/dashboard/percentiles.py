"""Percentiles of binned samples, inside the limits of the bucket in which each falls.

Samples are taken as spread evenly over their bucket, from its lower bound to the lower bound of the next.
The last bucket has no upper limit: a percentile that falls in it is at least its lower bound, and that is
what is returned. So a higher percentile is never below a lower one, and none is outside of its bucket.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def percentiles(
    bounds: Sequence[int], counts: NDArray[np.int64], percents: Sequence[float]
) -> NDArray[np.float64]:
    """Return the percentiles of many histograms with the same buckets.

    `bounds` are the lower bounds of the buckets, ascending; `counts` has one row for each histogram and one
    column for each bucket; `percents` are above 0 and at most 100. Returns one row for each histogram and one
    column for each of `percents`; NaN where a histogram has no samples.
    """
    lower = np.asarray(bounds, np.float64)
    width = np.append(np.diff(lower), 0.0)
    sums = np.cumsum(counts, axis=1)
    totals = sums[:, -1]
    rows = np.arange(len(counts))
    answer = np.full((len(counts), len(percents)), np.nan)
    filled = totals > 0
    for column, percent in enumerate(percents):
        target = totals * (percent / 100.0)
        # The first bucket up to which there are that many samples; it is not an empty one.
        bucket: NDArray[Any] = np.minimum((sums < target[:, None]).sum(axis=1), len(lower) - 1)
        inside = counts[rows, bucket]
        before = sums[rows, bucket] - inside
        share = np.clip((target - before) / np.maximum(inside, 1), 0.0, 1.0)
        answer[:, column] = np.where(filled, lower[bucket] + width[bucket] * share, np.nan)
    return answer
