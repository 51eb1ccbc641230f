"""Histogram definitions that a fleet of browsers could share, and histograms filled in by one of them.

The definitions are made up, their shapes are not: kinds, ranges and bucket counts are drawn from the
values that Firefox's own Histograms.json uses again and again. Bucket bounds follow Firefox:
https://firefox-source-docs.mozilla.org/toolkit/components/telemetry/collection/histograms.html
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from random import Random
from typing import Final

DEFINITIONS_COUNT: Final = 460
_DEFINITIONS_SEED: Final = 2_014
"""Every fleet shares one set of definitions, whatever its own seed, as builds of one product do."""


class HistogramKind(IntEnum):
    """What `histogram_type` says in a document."""

    EXPONENTIAL = 0
    LINEAR = 1
    BOOLEAN = 2
    FLAG = 3
    COUNT = 4
    CATEGORICAL = 5


@dataclass(frozen=True, slots=True)
class HistogramDefinition:
    """A histogram's name and shape; `low` and `high` are its range as sent, `buckets` its lower bounds."""

    name: str
    kind: HistogramKind
    low: int
    high: int
    buckets: tuple[int, ...]


_SUBSYSTEMS: Final = (
    "A11Y", "ADDON_MANAGER", "APZ", "AUDIO", "BROWSER", "CACHE_DISK", "CANVAS", "CERT_VERIFY",
    "CHECKERBOARD", "CONTENT", "COOKIE", "CYCLE_COLLECTOR", "DEVTOOLS", "DNS_LOOKUP", "DOM_STORAGE",
    "DOWNLOAD", "EVENTLOOP", "FX_PAGE_LOAD", "FX_TAB_SWITCH", "GC", "GFX", "HTTP_TRANSACTION",
    "IMAGE_DECODE", "IPC_MESSAGE", "JS_PARSE", "LOCALSTORAGE", "MEDIA", "MEMORY", "NETWORK_CACHE", "PAINT",
    "PLACES", "PREDICTOR", "PUSH_API", "SAFE_BROWSING", "SEARCH_SERVICE", "SESSION_RESTORE", "SPDY_STREAM",
    "SSL_HANDSHAKE", "STARTUP_CACHE", "SYNC_ENGINE", "THUMBNAILS", "TRACKING_PROTECTION", "URLCLASSIFIER",
    "VIDEO", "WEBRTC", "WEBGL", "WEBSOCKETS", "XHR",
)  # fmt: skip
_MEASURES: Final = (
    "MAX_PAUSE", "QUEUE_DEPTH", "TOTAL_TIME", "HIT_RATE", "FAILURE", "RESULT", "OPEN", "SHUTDOWN_COMPLETED",
    "SIZE", "LATENCY", "READ_ENTRIES", "RETRIES", "FIRST_RESPONSE", "WORKER_COUNT", "SLICE_OVERRUN",
    "FALLBACK_REASON", "COMPOSITE", "INPUT_DELAY", "UPDATE_CHECK", "EVICTED_ENTRIES",
)  # fmt: skip
_SUFFIXES: Final = {
    HistogramKind.EXPONENTIAL: ("_MS", "_TIME_MS_V2", "_KB", "_CONTENT_MS"),
    HistogramKind.LINEAR: ("_PERCENT", "_BY_REASON_ENUM", "_STATE_V3"),
    HistogramKind.BOOLEAN: ("_SUCCEEDED", "_WAS_ENABLED"),
    HistogramKind.FLAG: ("_USED_FLAG", "_SEEN"),
    HistogramKind.COUNT: ("_TOTAL_COUNT", "_PER_SESSION_COUNT"),
    HistogramKind.CATEGORICAL: ("_CATEGORY", "_OUTCOME_LABELS"),
}
_EXPONENTIAL_SHAPES: Final = (
    (1, 10_000, 50), (1, 10_000, 100), (1, 1_000, 20), (1, 5_000, 10), (1, 30_000, 50), (1, 60_000, 50),
    (1_024, 1_048_576, 50), (1, 2_000, 10), (50, 5_000, 50), (32, 8_192, 100),
)  # fmt: skip
_LINEAR_SHAPES: Final = ((1, 100, 10), (1, 50, 49), (1, 1_000, 21), (1, 256, 64))
_ENUMERATED_VALUES: Final = (3, 5, 8, 10, 16, 20, 32, 64)
_CATEGORICAL_LABELS_MAX: Final = 50


def linear_bounds(low: int, high: int, count: int) -> tuple[int, ...]:
    """Return the lower bounds of a linear histogram with `count` buckets between `low` and `high`."""
    steps = count - 2
    return 0, *(int((low * (steps - index) + high * index) / steps + 0.5) for index in range(count - 1))


def exponential_bounds(low: int, high: int, count: int) -> tuple[int, ...]:
    """Return the lower bounds of an exponential histogram: an equal share, in logarithms, of what is left."""
    bounds = [0, low]
    for index in range(2, count):
        step = (math.log(high) - math.log(bounds[-1])) / (count - index)
        bounds.append(max(math.floor(math.exp(math.log(bounds[-1]) + step) + 0.5), bounds[-1] + 1))
    return tuple(bounds)


@cache
def histogram_definitions() -> tuple[HistogramDefinition, ...]:
    """Return the definitions that the fleet's build knows, sorted by name; always the same ones."""
    rng = Random(_DEFINITIONS_SEED)  # noqa: S311
    names = rng.sample([f"{s}_{m}" for s in _SUBSYSTEMS for m in _MEASURES], DEFINITIONS_COUNT)
    return tuple(sorted((_definition(rng, name) for name in names), key=lambda definition: definition.name))


def histogram_entries(rng: Random, definitions: Sequence[HistogramDefinition], activity: float) -> bytes:
    """JSON members `"NAME":{…}` of those of `definitions` that a client with this `activity` (0 to 1) filled.

    A client that does more fills more of them, with more samples. At least one is filled.
    """
    present = [d for d in definitions if rng.random() < 0.45 + 0.5 * activity] or definitions[:1]
    return ",".join(f'"{d.name}":{histogram_text(rng, d, activity)}' for d in present).encode()


def histogram_text(rng: Random, definition: HistogramDefinition, activity: float) -> str:
    """Return a filled histogram as a unified ping sends it: empty buckets only at both of its ends."""
    buckets = definition.buckets
    if definition.kind is HistogramKind.FLAG:
        counts = {0: 1, 1: 0} if rng.random() < 0.8 else {0: 0, 1: 1, 2: 0}
    elif definition.kind is HistogramKind.COUNT:
        counts = {0: 1 + int(rng.expovariate(0.02)), 1: 0}
    else:
        counts = _counts(rng, len(buckets), activity)
    if definition.kind is HistogramKind.COUNT:
        total = counts[0]
    else:
        total = sum(count * buckets[index] for index, count in counts.items())
        if definition.kind in (HistogramKind.EXPONENTIAL, HistogramKind.LINEAR):
            total += int(rng.random() * 0.2 * total)
    values = ",".join(f'"{buckets[index]}":{count}' for index, count in counts.items())
    return (
        f'{{"bucket_count":{len(buckets)},"histogram_type":{int(definition.kind)},"sum":{total},'
        f'"range":[{definition.low},{definition.high}],"values":{{{values}}}}}'
    )


def _counts(rng: Random, bucket_count: int, activity: float) -> dict[int, int]:
    """Samples by index of bucket: a hump around a random mode, closed by an empty bucket at each end."""
    mode = int(rng.betavariate(1.3, 2.5) * bucket_count)
    width = 1 + int(rng.expovariate(1 / (1 + 0.12 * bucket_count * (0.5 + activity))))
    first, last = max(mode - width // 2, 0), min(mode + width, bucket_count - 1)
    peak = math.exp(rng.gauss(1 + 2.5 * activity, 1.3))
    counts = {
        index: int(peak * math.exp(-abs(index - mode) / width) * (0.3 + rng.random()))
        for index in range(first, last + 1)
    }
    counts[mode] = max(counts[mode], 1)
    filled = [index for index, count in counts.items() if count]
    start, end = max(filled[0] - 1, 0), min(filled[-1] + 1, bucket_count - 1)
    return {i: counts.get(i, 0) for i in range(start, end + 1) if counts.get(i) or i in (start, end)}


def _definition(rng: Random, name: str) -> HistogramDefinition:
    kind = rng.choices(list(HistogramKind), (52, 18, 13, 6, 7, 4))[0]
    name += rng.choice(_SUFFIXES[kind])
    if kind is HistogramKind.EXPONENTIAL:
        low, high, count = rng.choice(_EXPONENTIAL_SHAPES)
        return HistogramDefinition(name, kind, low, high, exponential_bounds(low, high, count))
    if kind is HistogramKind.LINEAR:
        if rng.random() < 0.4:
            low, high, count = rng.choice(_LINEAR_SHAPES)
        else:  # enumerated: one bucket for each value and one for what is beyond
            low, high = 1, rng.choice(_ENUMERATED_VALUES)
            count = high + 1
        return HistogramDefinition(name, kind, low, high, linear_bounds(low, high, count))
    if kind is HistogramKind.CATEGORICAL:
        high = _CATEGORICAL_LABELS_MAX
        return HistogramDefinition(name, kind, 1, high, linear_bounds(1, high, high + 1))
    return HistogramDefinition(name, kind, 1, 2, (0, 1, 2))
