"""Histograms.json: what each histogram of one revision of Firefox is.

Format: https://firefox-source-docs.mozilla.org/toolkit/components/telemetry/collection/histograms.html
"""

from collections.abc import Mapping
from typing import Final

import orjson

from telemetry_lake.convert.bucket_ranges import (
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
        """The range of the histogram `name`.

        None when the definition gives no range that can be computed: one that names a constant of the
        source code. Raises KeyError when there is no definition.
        """
        defined = self._defined_as(name)
        if defined is None:
            raise KeyError(name)
        return self._ranges[defined]

    def _defined_as(self, name: str) -> str | None:
        if name in self._ranges:
            return name
        without = name.removeprefix(STARTUP_PREFIX)
        return without if without in self._ranges else None


def parse_definitions(text: bytes) -> HistogramDefinitions:
    """The definitions in the text of a Histograms.json; raises ValueError when it is none."""
    document = orjson.loads(text)
    if not isinstance(document, dict):
        raise ValueError("the top level is not an object")  # noqa: TRY004 (one error for all that is wrong)
    return HistogramDefinitions(
        {name: _range(definition) for name, definition in document.items() if isinstance(definition, dict)}
    )


def _range(definition: Mapping[str, object]) -> BucketRange | None:
    """The parameters by kind (`compute_bucket_parameters` of Firefox's parse_histograms.py)."""
    kind = _TYPES.get(str(definition.get("kind")))
    try:
        if kind is None:
            return None
        if kind in (HistogramType.BOOLEAN, HistogramType.FLAG, HistogramType.COUNT):
            return BucketRange(kind, 1, 2, 3)
        if definition.get("kind") == "enumerated":
            values = evaluate_parameter(definition.get("n_values"))
            found = BucketRange(kind, 1, values, values + 1)
        elif kind is HistogramType.CATEGORICAL:
            labels = definition.get("labels")
            values = max(
                len(labels) if isinstance(labels, list) else 0,
                evaluate_parameter(definition.get("n_values", 0)),
                CATEGORICAL_MIN_VALUES,
            )
            found = BucketRange(kind, 1, values, values + 1)
        else:
            found = BucketRange(
                kind,
                evaluate_parameter(definition.get("low", 1)),
                evaluate_parameter(definition.get("high")),
                evaluate_parameter(definition.get("n_buckets")),
            )
        # Firefox sends the lower end that it uses, which is at least 1.
        found = found._replace(low=max(1, found.low))
        bucket_bounds(found)
    except NoBuckets:
        return None
    return found
