"""Histograms.json: the definitions of all histograms of one revision of Firefox.

Format: https://firefox-source-docs.mozilla.org/toolkit/components/telemetry/collection/histograms.html
"""

from collections.abc import Mapping
from typing import Final

import orjson

from telemetry_lake.histograms.bucket_ranges import (
    CATEGORICAL_MIN_VALUES,
    BucketRange,
    HistogramType,
    NoBuckets,
    bucket_bounds,
    evaluate_parameter,
)

STARTUP_PREFIX: Final = "STARTUP_"
"""Firefox repeats some histograms as they were at the end of its start, under this prefix."""

_TYPES: Final = {
    "exponential": HistogramType.EXPONENTIAL,
    "linear": HistogramType.LINEAR,
    "enumerated": HistogramType.LINEAR,
    "boolean": HistogramType.BOOLEAN,
    "flag": HistogramType.FLAG,
    "count": HistogramType.COUNT,
    "categorical": HistogramType.CATEGORICAL,
}


class HistogramDefinitions:
    """The definitions of one revision, by name."""

    def __init__(self, ranges: Mapping[str, BucketRange | None]) -> None:
        self._ranges = ranges

    def __contains__(self, name: str) -> bool:
        return self._defined_as(name) is not None

    def __len__(self) -> int:
        return len(self._ranges)

    def range_of(self, name: str) -> BucketRange | None:
        """Return the range of the histogram `name`.

        None when the definition gives no range that can be computed: one that names a constant of the
        source code. Raises KeyError when there is no definition.
        """
        definition = self._defined_as(name)
        if definition is None:
            raise KeyError(name)
        return self._ranges[definition]

    def _defined_as(self, name: str) -> str | None:
        if name in self._ranges:
            return name
        plain_name = name.removeprefix(STARTUP_PREFIX)
        return plain_name if plain_name in self._ranges else None


def parse_definitions(text: bytes) -> HistogramDefinitions:
    """Return the definitions in the text of a Histograms.json; raises ValueError when it is not one."""
    document = orjson.loads(text)
    if not isinstance(document, dict):
        raise ValueError("the top level is not an object")  # noqa: TRY004 (one error for all that is wrong)
    return HistogramDefinitions(
        {name: _range(definition) for name, definition in document.items() if isinstance(definition, dict)}
    )


def _range(definition: Mapping[str, object]) -> BucketRange | None:
    """Return the parameters by kind (`compute_bucket_parameters` of Firefox's parse_histograms.py)."""
    kind = _TYPES.get(str(definition.get("kind")))
    try:
        if kind is None:
            return None
        if kind in (HistogramType.BOOLEAN, HistogramType.FLAG, HistogramType.COUNT):
            return BucketRange(kind, 1, 2, 3)
        if definition.get("kind") == "enumerated":
            values = evaluate_parameter(definition.get("n_values"))
            bucket_range = BucketRange(kind, 1, values, values + 1)
        elif kind is HistogramType.CATEGORICAL:
            labels = definition.get("labels")
            values = max(
                len(labels) if isinstance(labels, list) else 0,
                evaluate_parameter(definition.get("n_values", 0)),
                CATEGORICAL_MIN_VALUES,
            )
            bucket_range = BucketRange(kind, 1, values, values + 1)
        else:
            bucket_range = BucketRange(
                kind,
                evaluate_parameter(definition.get("low", 1)),
                evaluate_parameter(definition.get("high")),
                evaluate_parameter(definition.get("n_buckets")),
            )
        # Firefox sends the lower end that it uses, which is at least 1.
        bucket_range = bucket_range._replace(low=max(1, bucket_range.low))
        bucket_bounds(bucket_range)
    except NoBuckets:
        return None
    return bucket_range
