"""Distributions of Glean as rows of the nested column `histograms`.

`metrics` of a ping has an object for each kind of distribution, by the name of the metric, in the labeled
kinds then by label, and in the dual-labeled ones by two labels. A distribution says nothing of its buckets
but the lower bounds of those with samples; which ones there are follows from Glean's algorithm
(`histograms.bucket_ranges`). Where it does not, as in custom distributions, the bounds that were sent are
the bounds.

The schema of Glean has validated the ping before, or one of others has. What is not a distribution, or
cannot be told apart when the document is put together again, stays where it is.
"""

from typing import Final

from telemetry_lake.convert.plain_histograms import (
    COUNT_HIGHEST,
    HISTOGRAMS_MAX_COUNT,
    column_sum,
    too_many,
    value_at,
)
from telemetry_lake.documents.text import has_half
from telemetry_lake.failures import PingRejected
from telemetry_lake.histograms.bucket_ranges import (
    BUCKETS_MAX_COUNT,
    FUNCTIONAL_RANGES,
    BucketRange,
    HistogramType,
    bound_set,
    sent_buckets,
)
from telemetry_lake.histograms.stored import (
    ABSENT_SUM,
    DISTRIBUTION_CONTAINERS,
    LABELS_JOINT,
    PARENT_PROCESS,
    DistributionContainer,
    HistogramRow,
    Json,
)

_BOUND_MAX_DIGITS: Final = 19


def lift_distributions(document: Json, inside: str) -> tuple[list[HistogramRow], list[tuple[str, str]], int]:
    """Move every distribution that can be understood from the object at `inside` into rows.

    Returns them, the JSON Pointer of each object that was emptied with what was in it, and how many
    distributions stay. Raises PingRejected with `too_costly`.
    """
    rows: list[HistogramRow] = []
    emptied: list[tuple[str, str]] = []
    unknown = 0
    metrics = value_at(document, inside)
    if not isinstance(metrics, dict):
        return rows, emptied, unknown
    for name, container in DISTRIBUTION_CONTAINERS.items():
        by_metric = metrics.get(name)
        if not isinstance(by_metric, dict):
            continue
        before = len(rows)
        for metric in list(by_metric):
            unknown += _lift_labels(by_metric, metric, (metric,), container, rows)
        if len(rows) > before:
            emptied.append((f"{inside}/{name}", name))
    return rows, emptied, unknown


def _lift_labels(
    holder: Json,
    name: str,
    path: tuple[str, ...],
    container: DistributionContainer,
    rows: list[HistogramRow],
) -> int:
    """Lift what `holder` has under `name`: a distribution, or those of all labels below; how many stay.

    `path` is the name of the metric and the labels so far.
    """
    sent = holder[name]
    if len(path) <= container.labels:
        if not isinstance(sent, dict):
            return 0
        labels = list(sent)
        unknown = sum(_lift_labels(sent, label, (*path, label), container, rows) for label in labels)
        if labels and len(sent) == 0:
            del holder[name]
        return unknown
    lifted = _lift_distribution(path, container, sent)
    if lifted is None:
        return 1
    row, leftover = lifted
    rows.append(row)
    if len(rows) > HISTOGRAMS_MAX_COUNT:
        raise too_many(f"{HISTOGRAMS_MAX_COUNT} histograms")
    if leftover:
        holder[name] = leftover
    else:
        del holder[name]
    return 0


def _lift_distribution(
    path: tuple[str, ...], container: DistributionContainer, sent: object
) -> tuple[HistogramRow, Json] | None:
    """Return the row of a distribution and what remains of it; None when it has to stay as it is."""
    metric, *labels = path
    if not isinstance(sent, dict) or any(LABELS_JOINT in label for label in labels):
        return None
    if any(map(has_half, path)):
        return None
    values = sent.get("values")
    samples = _samples(values) if isinstance(values, dict) else None
    if samples is None:
        return None
    buckets, counts = samples
    remaining = {field: value for field, value in sent.items() if field != "values"}
    try:
        total = column_sum(remaining, "sum", metric)
    except PingRejected:  # what only the schemas of others let pass
        return None
    stored = _range_of(container.histogram_type, buckets)
    row = HistogramRow(
        PARENT_PROCESS,
        metric,
        LABELS_JOINT.join(labels) if labels else None,
        int(stored.histogram_type),
        stored.bucket_count,
        stored.low,
        stored.high,
        buckets,
        counts,
        total,
        *(ABSENT_SUM,) * 4,
    )
    return row, remaining


def _range_of(kind: HistogramType, buckets: list[int]) -> BucketRange:
    """Return the range of Glean's algorithm if all buckets are of it, else that of bounds as sent."""
    functional = FUNCTIONAL_RANGES.get(kind)
    if functional is not None and bound_set(functional).issuperset(buckets):
        return functional
    return sent_buckets(kind)


def _samples(values: Json) -> tuple[list[int], list[int]] | None:
    """Return the lower bounds, ascending, and their counts, or None.

    None when they are not what the column can hold and give back. Clients send them in any order.
    """
    if len(values) > BUCKETS_MAX_COUNT:
        return None
    samples = []
    for text, count in values.items():
        # A bucket is written as a number without sign and leading zeros; "01" would not come back.
        if not (text.isascii() and text.isdigit() and len(text) <= _BOUND_MAX_DIGITS):
            return None
        bound = int(text)
        if bound > COUNT_HIGHEST or str(bound) != text:
            return None
        if isinstance(count, float) and count.is_integer():
            count = int(count)  # noqa: PLW2901 - 1.0 is an integer by its value
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= COUNT_HIGHEST:
            return None
        samples.append((bound, count))
    samples.sort()
    return [bound for bound, _ in samples], [count for _, count in samples]
