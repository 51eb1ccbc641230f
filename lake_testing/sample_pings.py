"""Converted pings of every kind: with compact, sparse, keyed and unknown histograms, of several processes."""

import random
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

import pyarrow as pa

from lake_testing.ping_builders import (
    classic_document,
    convert,
    glean_document,
    glean_metrics,
    linear,
    ping,
    unified_document,
)

DAYS = 3
PINGS_PER_DAY = 24
CHANNELS = ("release", "beta", "nightly")


@cache
def sample_pings() -> pa.Table:
    """Return the rows of `DAYS` times `PINGS_PER_DAY` pings from 2026-11-23 on, the same ones each time."""
    chance = random.Random(6)
    pings = []
    for number in range(DAYS * PINGS_PER_DAY):
        document_id = UUID(int=chance.getrandbits(128), version=4)
        later = timedelta(days=number // PINGS_PER_DAY, seconds=number)
        channel = chance.choice(CHANNELS)
        path, document = _document(chance, number, channel)
        pings.append(ping(path.format(document_id), document, later=later))
    conversions = convert(pings)
    assert sum(conversion.rejected.num_rows for conversion in conversions) == 0
    return pa.concat_tables([conversion.pings for conversion in conversions])


def _document(chance: random.Random, number: int, channel: str) -> tuple[str, dict[str, object]]:
    version = chance.choice(("23.0", "24.0", "130.0"))
    if number % 4 == 0:
        document = classic_document(name="zoë \u2028")
        document["info"] |= {"appUpdateChannel": channel, "appVersion": version}
        return f"/submit/telemetry/{{}}/saved-session/Firefox/{version}/{channel}/20130814063812", document
    if number % 4 == 1:
        return "/submit/org-app/baseline/1/{}", glean_document(metrics=glean_metrics(number))
    # No two alike, so that one in the place of another is noticed.
    first, second, third, fourth = (_histogram(chance) for _ in range(4))
    document = unified_document(
        histograms={
            "A_MS": first,
            "UNKNOWN": {"values": {"0": 1}},
            "B": linear({}, extra="kept"),
            "C": second,
            "D_FLAG": {"range": [1, 2], "bucket_count": 3, "histogram_type": 3, "values": {"0": 0, "1": 1}},
            "E": {"range": [1, 3000], "bucket_count": 10, "histogram_type": 0, "values": {"8": 2, "414": 9}},
        },
        keyedHistograms={"KEYED": {"key/1": third, "é": second}, "EMPTY": {}},
        processes={"content": {"histograms": {"A_MS": fourth}}},
    )
    document["clientId"] = str(UUID(int=chance.randrange(12), version=4))
    document["application"] |= {"channel": channel, "version": version}
    return f"/submit/telemetry/{{}}/main/Firefox/{version}/{channel}/20251103141854", document


def _histogram(chance: random.Random) -> dict[str, Any]:
    counts = {str(bound): chance.randrange(1, 10**6) for bound in (0, 1, 4, 7, 10) if chance.random() < 0.6}
    return linear(counts, sum=chance.randrange(10**6), log_sum=chance.random())
