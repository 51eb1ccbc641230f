"""Make pings for benchmarks: the real Firefox 23 ping of the tests, jittered with a seed.

The ping becomes the one for which the targets are stated: 72 KB with 302 histograms and 2,600 buckets, 17
KB with gzip. Jitter changes every count, sum and measured time, and never a name, a bucket or the order:
pings of one build differ in the same way.
"""

import json
import random
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from telemetry_lake.raw.raw_object import Promise, RawPing, write_raw_object

DATA: Final = Path(__file__).resolve().parent / "data"
DEFINITIONS: Final = DATA / "definitions"
HISTOGRAM_COUNT: Final = 302
FIRST_SUBMISSION: Final = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
CHANNELS: Final = ("release", "release", "release", "beta", "nightly", "aurora")
_RECORD_HEADER: Final = struct.Struct("<BHIQ")


def real_ping() -> tuple[str, bytes]:
    """Return the path (without its prefix) and the gzip body of the ping that a Firefox 23 sent in 2013.

    The file has the form of Mozilla's first telemetry server: a byte 0x1e, the lengths of path and data,
    the time in milliseconds, then path and data.
    """
    record = (DATA / "ping.v1.record").read_bytes()
    _, path_bytes, data_bytes, _ = _RECORD_HEADER.unpack_from(record)
    start = _RECORD_HEADER.size
    path = record[start : start + path_bytes].decode()
    return path, record[start + path_bytes : start + path_bytes + data_bytes]


def jittered_documents(count: int, seed: int = 23) -> Iterator[bytes]:
    """Yield `count` documents as JSON text."""
    chance = random.Random(seed)
    document: dict[str, Any] = json.loads(zlib.decompress(real_ping()[1], wbits=31))
    histograms = document["histograms"]
    document["histograms"] = {name: histograms[name] for name in list(histograms)[:HISTOGRAM_COUNT]}
    for _ in range(count):
        yield json.dumps(_jittered(document, chance), separators=(",", ":")).encode()


def jittered_pings(count: int, seed: int = 23) -> Iterator[tuple[RawPing, int]]:
    """Yield `count` pings as received, a millisecond apart, with the size of each document in bytes."""
    chance = random.Random(seed + 1)
    for number, document in enumerate(jittered_documents(count, seed)):
        document_id = UUID(int=chance.getrandbits(128), version=4)
        channel = CHANNELS[chance.randrange(len(CHANNELS))]
        text = document.replace(b'"appUpdateChannel":"release"', f'"appUpdateChannel":"{channel}"'.encode())
        ping = RawPing(
            FIRST_SUBMISSION + timedelta(milliseconds=number),
            "POST",
            f"/submit/telemetry/{document_id}/idle-daily/Firefox/23.0.1/{channel}/20130814063812".encode(),
            b"",
            "HTTP/1.1",
            "192.0.2.7",
            b"incoming.telemetry.example",
            (
                ("content-length", b"17000"),
                ("content-encoding", b"gzip"),
                ("date", b"Mon, 23 Nov 2026 14:00:00 GMT"),
                ("user-agent", b"Mozilla/5.0 (Windows NT 5.1; rv:23.0) Gecko/20100101 Firefox/23.0"),
                ("x-forwarded-for", b"198.51.100.23"),
            ),
            zlib.compress(text, level=6, wbits=31),
        )
        yield ping, len(text)


def raw_object_of(pings: list[RawPing]) -> bytes:
    """Return the bytes of the raw object of these pings."""
    times = [ping.submission_timestamp for ping in pings]
    return write_raw_object(pings, Promise(len(pings), min(times), max(times), "benchmark", "0"))


def _jittered(document: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return a copy with other counts and sums; small counts stay small, zeros stay zeros."""
    copy = dict(document)
    copy["simpleMeasurements"] = {
        name: _near(value, chance) if isinstance(value, int) else value
        for name, value in document["simpleMeasurements"].items()
    }
    copy["histograms"] = {}
    for name, histogram in document["histograms"].items():
        changed = dict(histogram)
        changed["values"] = {bucket: _near(count, chance) for bucket, count in histogram["values"].items()}
        for field in ("sum", "sum_squares_lo"):
            if field in histogram:
                changed[field] = _near(histogram[field], chance)
        for field in ("log_sum", "log_sum_squares"):
            if field in histogram:
                value = histogram[field]
                changed[field] = round(value * chance.uniform(0.8, 1.2), 13) if value else value
        copy["histograms"][name] = changed
    return copy


def _near(value: int, chance: random.Random) -> int:
    return value if value <= 0 else max(1, round(value * chance.uniform(0.7, 1.3)))
