"""Compute the bounds of buckets, compiled to machine code (numba).

A ping of 60 KB can name 10,000 new ranges, which is 4 seconds of Python's time. Apart
from `bucket_ranges`, because loading numba takes longer than most of what is asked there. Sources of the
formulas and the limits of the parameters are there.
"""

import math

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.numba_options import compiled_allocating


@compiled_allocating
def linear_bounds(low: int, high: int, bucket_count: int) -> NDArray[np.int64]:
    """Return the bounds of a linear histogram, (bucket_count,)."""
    bounds = np.zeros(bucket_count, np.int64)
    for index in range(1, bucket_count):
        weighted = float(low) * (bucket_count - 1 - index) + float(high) * (index - 1)
        bounds[index] = int(weighted / (bucket_count - 2) + 0.5)
    return bounds


@compiled_allocating
def exponential_bounds(low: int, high: int, bucket_count: int) -> NDArray[np.int64]:
    """Return the bounds of an exponential histogram, (bucket_count,)."""
    bounds = np.zeros(bucket_count, np.int64)
    bounds[1] = current = low
    log_high = math.log(high)
    for index in range(2, bucket_count):
        log_current = math.log(current)
        log_next = log_current + (log_high - log_current) / (bucket_count - index)
        current = max(current + 1, math.floor(math.exp(log_next) + 0.5))
        bounds[index] = current
    return bounds
