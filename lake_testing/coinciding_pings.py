"""Rows of live.pings in which everything that can coincide does: few clients, document ids and builds."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from telemetry_lake.histograms.bucket_ranges import BucketRange, HistogramType, bucket_bounds
from telemetry_lake.histograms.list_text import list_text

FIRST = date(2026, 11, 20)
DAYS = 3
PINGS = 600
RANGES = [(0, 1, 1000, 10), (0, 1, 1000, 20), (1, 1, 50, 8), (2, 1, 2, 3), (4, 1, 2, 3)]


def coinciding_pings(seed: int) -> list[dict[str, Any]]:
    """Return `PINGS` rows, the same for the same seed."""
    chance = random.Random(seed)
    rows = []
    for number in range(PINGS):
        day = FIRST + timedelta(days=chance.randrange(DAYS))
        tags = chance.choice([None, None, None, "perf", " Automation ,perf"])
        rows.append(
            {
                "document_id": f"document {chance.randrange(PINGS // 2)}",
                "document_type": chance.choice(["main", "event ü"]),
                "submission_date": day,
                "submission_timestamp": datetime(
                    day.year, day.month, day.day, chance.randrange(3), tzinfo=UTC
                ),
                "raw_object": f"raw {chance.randrange(12)}",
                "raw_object_position": number,
                "app_update_channel": chance.choice(["release", "beta"]),
                "app_build_id": chance.choice(
                    ["20261101120000", "20261101999999", "20261302000000", "OTHER"]
                ),
                "architecture": chance.choice([None, "x86"]),
                "client_id": chance.choice([None, *(f"client {client}" for client in range(20))]),
                "headers": {} if tags is None else {"x-source-tags": tags},
                "histograms": list(histograms(chance)),
                "document": json.dumps(document(chance)),
            }
        )
    return rows


def histograms(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Return up to three histograms, plain and keyed, of few names, ranges and counts."""
    for name in chance.sample(["GC_MS", "FRÜH", "KEYED"], chance.randrange(4)):
        kind, low, high, size = chance.choice(RANGES)
        bounds = bucket_bounds(BucketRange(HistogramType(kind), low, high, size))
        buckets = chance.sample(bounds, chance.randrange(len(bounds)))
        yield {
            "process": chance.choice(["parent", "content"]),
            "name": name,
            "key": chance.choice(["a", "b"]) if name == "KEYED" else None,
            "histogram_type": kind,
            "bucket_count": size,
            "range_low": low,
            "range_high": high,
            "buckets": list_text(buckets),
            "counts": list_text(chance.choice([0, 1, 3, 1000, 2**31 - 1]) for _ in buckets),
            "sum": chance.choice([-1.0, 0.5, 7.0, 2.0**44]),
            **dict.fromkeys(("log_sum", "log_sum_squares", "sum_squares_lo", "sum_squares_hi"), -1.0),
        }


def document(chance: random.Random) -> dict[str, Any]:
    """Return a document with measures, some of which are named like a histogram or like each other."""
    values = [0, 1, 1, 40, 10**6, -1, True, False, 2.5, "text"]
    names = ["GC_MS", "gc_ms", "a.b"]
    scalars = {name: chance.choice(values) for name in chance.sample(names, chance.randrange(4))}
    keyed = {"KEYED": {key: chance.choice(values) for key in chance.sample(["a", "b"], chance.randrange(3))}}
    unified = {
        "simpleMeasurements": {"uptime": chance.choice(values)},
        "processes": {"parent": {"scalars": scalars}, "content": {"keyedScalars": keyed}},
    }
    glean = {"counter": scalars, "labeled_boolean": keyed, "rate": {"r": {"numerator": 1, "denominator": 3}}}
    return chance.choice([{"payload": unified}, {"metrics": glean}, {}])
