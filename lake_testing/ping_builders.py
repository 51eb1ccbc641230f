"""Pings to convert, and the results of converting them."""

import gzip
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from telemetry_lake.convert.converter import Conversion, Converter
from telemetry_lake.raw.raw_object import Promise, RawObject, RawPing, write_raw_object
from telemetry_lake.settings import ConversionSettings

DATA = Path(__file__).parent / "data"
DEFINITIONS = DATA / "definitions"
REVISION = "http://hg.mozilla.org/releases/mozilla-release/rev/a55c55edf302"
RAW_KEY = "raw/v1/2026-11-23/14/node-1/segment-1.arrows"
TIME = datetime(2026, 11, 23, 14, 0, 0, 123456, UTC)
ADDRESS = "198.51.100.23"
DOCUMENT_ID = "17caa68c-25f5-450a-9cce-7d31318846d8"

Row = dict[str, Any]


def settings(**changes: Any) -> ConversionSettings:
    return ConversionSettings(**{"histogram_definitions_directory": DEFINITIONS, **changes})


def telemetry_path(document_type: str, document_id: str = DOCUMENT_ID) -> str:
    return f"/submit/telemetry/{document_id}/{document_type}/Firefox/120.0/release/20231116134553"


def generic_path(namespace: str, document_type: str, version: str = "1") -> str:
    return f"/submit/{namespace}/{document_type}/{version}/{DOCUMENT_ID}"


def as_body(document: object) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def ping(
    path: str,
    document: object,
    *,
    headers: Sequence[tuple[str, bytes]] = (),
    remote_address: str = "192.0.2.1",
    later: timedelta = timedelta(),
) -> RawPing:
    return RawPing(
        TIME + later,
        "POST",
        path.encode(),
        b"v=4",
        "HTTP/1.1",
        remote_address,
        b"incoming.example",
        tuple(headers),
        as_body(document),
    )


def raw_object(pings: Sequence[RawPing], key: str = RAW_KEY) -> RawObject:
    times = [one.submission_timestamp for one in pings]
    return RawObject(key, write_raw_object(pings, Promise(len(pings), min(times), max(times), "node-1", "1")))


def convert(pings: Sequence[RawPing], converter: Converter | None = None) -> list[Conversion]:
    converter = converter or Converter(settings())
    conversions = list(converter.convert(raw_object(pings)))
    for conversion in conversions:
        conversion.pings.validate(full=True)
        conversion.rejected.validate(full=True)
    return conversions


def rows_of(conversions: Iterable[Conversion]) -> tuple[list[Row], list[Row]]:
    """Live and rejected rows, each in the order of their raw object."""
    live: list[Row] = []
    rejected: list[Row] = []
    for conversion in conversions:
        live += conversion.pings.to_pylist()
        rejected += conversion.rejected.to_pylist()
    for rows in (live, rejected):
        rows.sort(key=lambda row: row["raw_object_position"])
    return live, rejected


def live_row(path: str, document: object, converter: Converter | None = None) -> Row:
    """Return the row of a ping that must be converted."""
    live, rejected = rows_of(convert([ping(path, document)], converter))
    assert rejected == []
    (row,) = live
    return row


def rejected_row(path: str, document: object, converter: Converter | None = None) -> Row:
    """Return the row of a ping that must be rejected."""
    live, rejected = rows_of(convert([ping(path, document)], converter))
    assert live == []
    (row,) = rejected
    return row


def histogram(row: Row, name: str, *, key: str | None = None, process: str = "parent") -> Row:
    (found,) = (
        one for one in row["histograms"] if (one["name"], one["key"], one["process"]) == (name, key, process)
    )
    assert isinstance(found, dict)
    return found


def gzipped(document: object) -> bytes:
    return gzip.compress(as_body(document), mtime=0)


def linear(values: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a linear histogram with the buckets 0, 1, 4, 7 and 10."""
    return {"range": [1, 10], "bucket_count": 5, "histogram_type": 1, "values": values, **more}


def classic_document(**more: Any) -> dict[str, Any]:
    """Return a document of version 1 of 2013, whose revision has definitions in the test data."""
    return {
        "ver": 1,
        "info": {
            "reason": "saved-session",
            "appName": "Firefox",
            "appVersion": "23.0.1",
            "appUpdateChannel": "release",
            "appBuildID": "20130814063812",
            "OS": "Darwin",
            "version": "12.4.0",
            "arch": "x86-64",
            "revision": REVISION,
            "locale": "en-US",
        },
        "simpleMeasurements": {"uptime": 3},
        **more,
    }


def unified_document(document_type: str = "main", **payload: Any) -> dict[str, Any]:
    """Return a document of the unified telemetry, version 4."""
    return {
        "type": document_type,
        "id": DOCUMENT_ID,
        "version": 4,
        "creationDate": "2026-11-23T13:59:58.123Z",
        "clientId": "5bf8dd85-7f2e-4cf9-8bb7-6cdfb3a6c8da",
        "application": {
            "name": "Firefox",
            "version": "140.5.0",
            "channel": "esr",
            "buildId": "20251103141854",
            "architecture": "x86-64",
            "vendor": "Mozilla",
        },
        "environment": {"system": {"os": {"name": "Linux", "version": "6.12"}, "memoryMB": 16000}},
        "payload": {"ver": 4, "info": {"reason": "shutdown", "subsessionCounter": 1}, **payload},
    }


def glean_metrics(number: int = 0) -> dict[str, Any]:
    """Return metrics of every type that Glean has; each `number` gives other distributions."""
    labels = {"one": number, "__other__": 2}
    timing = {"sum": 921_000_000 + number, "values": {"19951584": 1, "827968132": 1 + number, "961548": 1}}
    memory = {"sum": 2_200_576, "values": {"1023": 1 + number, "101070": 1, "2097151": 1}}
    custom = {"sum": 260 + number, "values": {"1": 3, "100": 1 + number, "87": 0}}
    return {
        "boolean": {"kinds.yes": True},
        "counter": {"kinds.count": 4},
        "quantity": {"kinds.quantity": 2**70},
        "string": {"kinds.string": "zoë"},
        "string_list": {"kinds.strings": ["c", "a"]},
        "text": {"kinds.text": "long ✓\nline"},
        "timespan": {"kinds.span": {"time_unit": "millisecond", "value": 1_500}},
        "datetime": {"kinds.moment": "2026-11-29T12:00:01.234+01:00"},
        "uuid": {"kinds.id": "501fc47d-f9e7-468d-b4ff-0b8a805bd6be"},
        "url": {"kinds.address": "https://example.org/path?x=1#f"},
        "jwe": {"kinds.secret": "a.b.c.d.e"},
        "rate": {"kinds.rate": {"numerator": 3, "denominator": 7}},
        "object": {"kinds.object": [{"n": 1.5, "deep": {"x": [None]}}], "kinds.other": {}},
        "labeled_boolean": {"kinds.labeled_yes": {"one": True}},
        "labeled_counter": {"kinds.labeled_count": labels, "glean.error.invalid_value": {"kinds.count": 1}},
        "labeled_quantity": {"kinds.labeled_quantity": labels},
        "labeled_string": {"kinds.labeled_string": {"two": "s"}},
        "labeled_rate": {"kinds.labeled_rate": {"one": {"numerator": 0, "denominator": 0}}},
        "dual_labeled_counter": {"kinds.dual": {"key": {"category": 3}}},
        "timing_distribution": {"kinds.timing": timing, "kinds.empty": {"sum": 0, "values": {}}},
        "memory_distribution": {"kinds.memory": {**memory, "count": 3 + number}},
        "custom_distribution": {"kinds.custom": custom},
        "labeled_timing_distribution": {
            "kinds.labeled_timing": {"one": timing, "two": timing},
            "kinds.none": {},
        },
        "labeled_memory_distribution": {"kinds.labeled_memory": {"": memory}},
        "labeled_custom_distribution": {"kinds.labeled_custom": {"two": custom, "with | in it": custom}},
        "dual_labeled_timing_distribution": {
            "kinds.dual_timing": {"key": {"category": timing, "other": timing}, "next": {"category": timing}}
        },
        "dual_labeled_memory_distribution": {"kinds.dual_memory": {"key": {"category": memory}}},
        "dual_labeled_custom_distribution": {"kinds.dual_custom": {"key": {"category": custom}, "none": {}}},
    }


def glean_document(**more: Any) -> dict[str, Any]:
    """Return a ping of the Glean SDK."""
    return {
        "ping_info": {
            "seq": 3,
            "start_time": "2026-11-23T13:00:00.000+00:00",
            "end_time": "2026-11-23T14:00:00.000+00:00",
            "reason": "inactive",
        },
        "client_info": {
            "telemetry_sdk_build": "71.0.0",
            "first_run_date": "2026-11-01+00:00",
            "os": "Android",
            "os_version": "16",
            "architecture": "arm64-v8a",
            "app_build": "2016123456",
            "app_display_version": "145.0",
            "app_channel": "nightly",
            "client_id": "c0ffeec0-ffee-4ff0-ffee-c0ffeec0ffee",
        },
        "metrics": {"counter": {"browser.tabs": 4}},
        **more,
    }
