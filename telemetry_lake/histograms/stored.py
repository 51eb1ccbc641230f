"""A histogram as it is stored: a row of the nested column `histograms`, and back to what was sent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from telemetry_lake.histograms.bucket_ranges import (
    BucketRange,
    HistogramType,
    bucket_bounds,
    is_distribution,
)
from telemetry_lake.histograms.list_text import list_numbers

PARENT_PROCESS: Final = "parent"
SUM_FIELDS: Final = ("sum", "log_sum", "log_sum_squares", "sum_squares_lo", "sum_squares_hi")
ABSENT_SUM: Final = -1.0
PLAIN: Final = "histograms"
KEYED: Final = "keyedHistograms"
Json = dict[str, object]


class DistributionContainer(NamedTuple):
    """What an object in a ping of Glean holds: one kind of distribution, below so many labels."""

    histogram_type: HistogramType
    labels: int


LABELS_JOINT: Final = "|"
"""Stands between the two labels of a dual-labeled distribution, which are one key in the column."""
_DISTRIBUTIONS: Final = {
    "timing_distribution": HistogramType.TIMING_DISTRIBUTION,
    "memory_distribution": HistogramType.MEMORY_DISTRIBUTION,
    "custom_distribution": HistogramType.CUSTOM_DISTRIBUTION,
}
_LABELS: Final = ("", "labeled_", "dual_labeled_")
DISTRIBUTION_CONTAINERS: Final = {
    f"{prefix}{name}": DistributionContainer(kind, labels)
    for name, kind in _DISTRIBUTIONS.items()
    for labels, prefix in enumerate(_LABELS)
}
"""The objects in `metrics` that distributions are lifted from; `lifted` names them like this, too."""
CONTAINERS: Final = frozenset({PLAIN, KEYED, *DISTRIBUTION_CONTAINERS})
"""What `lifted` calls an object that histograms were lifted from."""
_CONTAINER_NAMES: Final = {container: name for name, container in DISTRIBUTION_CONTAINERS.items()}


def container_of(histogram_type: int, key: str | None) -> str:
    """Return what `lifted` calls the object that a histogram with this type and key was lifted from."""
    if not is_distribution(histogram_type):
        return PLAIN if key is None else KEYED
    labels = 0 if key is None else 1 + (LABELS_JOINT in key)
    return _CONTAINER_NAMES[DistributionContainer(HistogramType(histogram_type), labels)]


def path_in_container(container: str, name: str, key: str | None) -> list[str]:
    """Return the names that lead to a histogram inside of the object that it was lifted from."""
    if key is None:
        return [name]
    is_dual = container in DISTRIBUTION_CONTAINERS and DISTRIBUTION_CONTAINERS[container].labels > 1
    return [name, *(key.split(LABELS_JOINT) if is_dual else [key])]


class HistogramRow(NamedTuple):
    """One element of the column `histograms`, in the order of its fields; lists are text there."""

    process: str
    name: str
    key: str | None
    histogram_type: int
    bucket_count: int
    range_low: int
    range_high: int
    buckets: Sequence[int]
    counts: Sequence[int]
    sum: float
    log_sum: float
    log_sum_squares: float
    sum_squares_lo: float
    sum_squares_hi: float


def source_of(kind: str, process: str) -> str:
    """Return the name in `lifted` of a kind and process: `histograms`, `keyedHistograms:content`."""
    return kind if process == PARENT_PROCESS else f"{kind}:{process}"


DENSE: Final = ("dense",)


def restored_histogram(row: Mapping[str, Any], leftover: object) -> object:
    """Return the histogram as it was sent, from its row and from what remained of it in the document."""
    sums = {field: _number(row[field]) for field in SUM_FIELDS}
    if isinstance(leftover, list):
        tail = leftover[len(DENSE) :] or list(sums.values())
        return [*dense_counts(row), *tail]
    parameters: Json = {} if is_distribution(row["histogram_type"]) else _parameters(row)
    histogram: Json = {
        **parameters,
        "values": {str(bound): count for bound, count in _samples(row)},
        **{field: value for field, value in sums.items() if value != ABSENT_SUM},
    }
    if isinstance(leftover, dict):
        for field, value in leftover.items():
            if value is None and field in parameters:
                del histogram[field]
            else:
                histogram[field] = value
    return histogram


def _parameters(row: Mapping[str, Any]) -> Json:
    return {
        "range": [row["range_low"], row["range_high"]],
        "bucket_count": row["bucket_count"],
        "histogram_type": row["histogram_type"],
    }


def dense_counts(row: Mapping[str, Any]) -> list[int]:
    """Return the count of every bucket of a histogram's row, zeros included, in the order of the buckets."""
    by_bound = dict(_samples(row))
    kind = HistogramType(row["histogram_type"])
    bounds = bucket_bounds(BucketRange(kind, row["range_low"], row["range_high"], row["bucket_count"]))
    return [by_bound.get(bound, 0) for bound in bounds]


def _samples(row: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    return zip(list_numbers(row["buckets"]), list_numbers(row["counts"]), strict=True)


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value
