"""The measures of a document by the rules of docs/dashboard.md, value by value: to compare with.

`telemetry_lake.histograms.measures` skims documents and takes values in bulk; here nothing is fast.
"""

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from math import floor
from typing import Any, Final

from telemetry_lake.histograms.bucket_ranges import MEASURE_RANGES, HistogramType, bucket_bounds

VALUES_MAX_COUNT: Final = 2_000
MILLISECONDS: Final = {
    "nanosecond": Fraction(1, 10**6),
    "microsecond": Fraction(1, 1_000),
    "millisecond": 1,
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
}
Json = dict[str, Any]
_Sent = tuple[HistogramType, str, str, str, str | None, Any]
"""Kind, prefix of the name, process, name, key and value."""
_Measure = tuple[str, str, str | None, HistogramType]
_GLEAN: Final = {
    "boolean": HistogramType.TRUTH,
    "counter": HistogramType.COUNTER,
    "quantity": HistogramType.QUANTITY,
}


def plain_measures(document: str) -> list[Json]:
    """Return the measures of a document, each as a row of the column `histograms`."""
    found: dict[_Measure, int] = {}
    room = VALUES_MAX_COUNT
    for kind, prefix, process, name, key, value in _sent(json.loads(document)):
        is_number = isinstance(value, int | float) and 0 <= value <= 2**44
        is_named = re.fullmatch(r"[A-Za-z0-9_.-]{1,120}", name) and re.fullmatch("[A-Za-z_]{1,20}", process)
        if is_number and is_named and (key is None or len(key) <= 120) and room:
            room -= 1
            of_kind = HistogramType.TRUTH if isinstance(value, bool) else kind
            found.setdefault((process, prefix + (name.upper() if prefix else name), key, of_kind), int(value))
    return [_row(*measure, value) for measure, value in found.items()]


def _sent(document: Json) -> Iterator[_Sent]:
    payload = document.get("payload")
    if isinstance(payload, dict):
        for process, part in _object(payload, "processes").items():
            if isinstance(part, dict):
                yield from _plain(HistogramType.SCALAR, "SCALARS_", process, _object(part, "scalars"))
                yield from _keyed(HistogramType.SCALAR, "SCALARS_", process, _object(part, "keyedScalars"))
    measurements: Json = {}
    for name, value in _object(
        payload if isinstance(payload, dict) else document, "simpleMeasurements"
    ).items():
        if isinstance(value, dict):
            measurements |= {f"{name}_{part}": number for part, number in value.items()}
        else:
            measurements[name] = value
    yield from _plain(HistogramType.SIMPLE_MEASUREMENT, "SIMPLE_MEASURES_", "parent", measurements)
    metrics = _object(document, "metrics")
    for container, kind in _GLEAN.items():
        yield from _plain(kind, "", "parent", _object(metrics, container))
        yield from _keyed(kind, "", "parent", _object(metrics, f"labeled_{container}"))
        if kind is HistogramType.COUNTER:
            for name, keys in _object(metrics, "dual_labeled_counter").items():
                both = {
                    f"{key}|{category}": count
                    for key, counts in (keys.items() if isinstance(keys, dict) else ())
                    for category, count in (counts.items() if isinstance(counts, dict) else ())
                }
                yield from _keyed(kind, "", "parent", {name: both})
    for name, span in _object(metrics, "timespan").items():
        unit = span.get("time_unit") if isinstance(span, dict) else None
        if isinstance(unit, str) and unit in MILLISECONDS and _is_number(span.get("value")):
            milliseconds = floor(span["value"] * MILLISECONDS[unit])
            yield HistogramType.TIMESPAN, "", "parent", name, None, milliseconds
    for name, rate in _object(metrics, "rate").items():
        if not isinstance(rate, dict):
            continue
        parts: list[Any] = [rate.get(part) for part in ("numerator", "denominator")]
        if all(map(_is_number, parts)) and parts[1]:
            percent = floor(100 * Fraction(parts[0]) / Fraction(parts[1]))
            yield HistogramType.RATE, "", "parent", name, None, percent


def _object(value: Json, name: str) -> Json:
    part = value.get(name)
    return part if isinstance(part, dict) else {}


def _plain(kind: HistogramType, prefix: str, process: str, values: Json) -> Iterator[_Sent]:
    for name, value in values.items():
        yield kind, prefix, process, name, None, value


def _keyed(kind: HistogramType, prefix: str, process: str, values: Json) -> Iterator[_Sent]:
    for name, keys in values.items():
        if isinstance(keys, dict):
            for key, value in list(keys.items())[:100]:
                yield kind, prefix, process, name, key, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 2**63


def _row(process: str, name: str, key: str | None, kind: HistogramType, value: int) -> Json:
    bucket_range = MEASURE_RANGES[kind]
    return {
        "process": process,
        "name": name,
        "key": key,
        "histogram_type": int(kind),
        "bucket_count": bucket_range.bucket_count,
        "range_low": bucket_range.low,
        "range_high": bucket_range.high,
        "buckets": str(max(bound for bound in bucket_bounds(bucket_range) if bound <= value)),
        "counts": "1",
        "sum": float(value),
    }
