"""Whether the samples of new builds, or of new days, are distributed as those of the days before.

The method is that of Mozilla's alarm on histograms (cerberus, `alert/alert.py`). The distance of two
distributions p and q over the same buckets is

    d(p, q) = sqrt(1 - sum_i sqrt(p_i q_i))

which OpenCV calls Bhattacharyya's and statistics Hellinger's (Bhattacharyya 1943, Bulletin of the Calcutta
Mathematical Society 35:99; Hellinger 1909): 0 for equal ones, 1 for ones that share no bucket, and 0.12 for
two normal distributions of the same width whose means are a third of that width apart.

A date is a *shift* when its distribution is farther than `DISTANCE_MIN` from that of the last of its
`REFERENCE_DAYS`, and its distances to all of them scatter by no more than `SCATTER_MAX`: then they are like
each other, and it is like none. The same has to hold for the `DAYS_AFTER` that follow, compared with the same
reference days; so a shift is found two days late, and one bad day is none. A date needs `SAMPLES_MIN`
samples, and as the original had it, so many in its fullest bucket; and of the reference days, more than half.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

DISTANCE_MIN: Final = 0.12
SCATTER_MAX: Final = 0.01
"""The standard deviation of the distances."""
SAMPLES_MIN: Final = 1_000
REFERENCE_DAYS: Final = 7
DAYS_AFTER: Final = 2


class Shift(NamedTuple):
    """From a date on, samples are distributed otherwise."""

    day: date
    distance: float
    reference: date
    """The last of the days that it was compared with."""


def distance(one: Counts, other: Counts) -> float:
    """Return the distance of two histograms over the same buckets; each has at least one sample."""
    shared = np.sqrt(one / one.sum()) @ np.sqrt(other / other.sum())
    return float(np.sqrt(max(0.0, 1.0 - float(shared))))


def has_enough(counts: Counts) -> bool:
    """Return whether a date has enough samples to be compared."""
    return bool(counts.sum() >= SAMPLES_MIN and counts.max() >= SAMPLES_MIN)


def shift_at(days: Mapping[date, Counts], day: date) -> Shift | None:
    """Return the shift that begins with `day`, None when there is none or too little is known.

    `days` has histograms over the same buckets. Those of the reference days and of the days after are the
    nearest that there are: builds are not made every day.
    """
    order = sorted(days)
    place = order.index(day)
    after = order[place : place + DAYS_AFTER + 1]
    reference = [each for each in order[max(0, place - REFERENCE_DAYS) : place] if has_enough(days[each])]
    if len(after) <= DAYS_AFTER or len(reference) <= REFERENCE_DAYS // 2 or not has_enough(days[day]):
        return None
    if not all(_is_off(days[each], [days[other] for other in reference]) for each in after):
        return None
    return Shift(day, distance(days[day], days[reference[-1]]), reference[-1])


def recent_shift(days: Mapping[date, Counts]) -> Shift | None:
    """Return the newest shift of the last `REFERENCE_DAYS` dates that have days after them, or None."""
    order = sorted(days)[:-DAYS_AFTER]
    found = (shift_at(days, day) for day in reversed(order[-REFERENCE_DAYS:]))
    return next((shift for shift in found if shift is not None), None)


def _is_off(counts: Counts, reference: Sequence[Counts]) -> bool:
    if not counts.sum():
        return False
    distances = [distance(counts, each) for each in reference]
    return distances[-1] > DISTANCE_MIN and float(np.std(distances)) <= SCATTER_MAX
