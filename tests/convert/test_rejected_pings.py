"""Every error type: what brings it about, what the row says, and what it must not say."""

import bz2
import gzip
import json
import zlib
from datetime import timedelta

import pytest

from lake_testing.ping_builders import (
    ADDRESS,
    DOCUMENT_ID,
    RAW_KEY,
    REVISION,
    as_body,
    classic_document,
    convert,
    generic_path,
    glean_document,
    gzipped,
    linear,
    live_row,
    ping,
    rejected_row,
    rows_of,
    settings,
    telemetry_path,
    unified_document,
)
from telemetry_lake.convert.converter import Converter, Origin
from telemetry_lake.convert.decompress import EXPANSION_FREE_BYTES, MEMBERS_MAX_COUNT
from telemetry_lake.convert.histogram_readers import READERS
from telemetry_lake.convert.plain_histograms import HISTOGRAMS_MAX_COUNT, RANGES_MAX_COUNT
from telemetry_lake.failures import ErrorType

MAIN = telemetry_path("main")
GREETING = generic_path("lake-demo", "greeting")


def with_histogram(histogram):
    return unified_document(histograms={"GC_MS": histogram})


def classic_with(histogram, name="CYCLE_COLLECTOR_FULL"):
    return classic_document(histograms={name: histogram})


UNDEFINED = classic_with(linear({"1": 1}))
UNDEFINED["info"]["revision"] = REVISION.replace("a55c", "b55c")
NOT_HEXADECIMAL = classic_with(linear({"1": 1}))
NOT_HEXADECIMAL["info"]["revision"] = REVISION.replace("a55c55edf302", "../../etc")
NAMELESS = classic_with(linear({"1": 1}))
del NAMELESS["info"]["revision"]

MANY_RANGES = {f"H{number}": linear({}, range=[1, 10 + number]) for number in range(RANGES_MAX_COUNT + 1)}
SHORT = {**classic_with([1, 2, 0, 0, 0, 0, 0], "STARTUP_CRASH_DETECTED"), "ver": 2}

REJECTIONS = [
    ("invalid_path", "path", "/submit/lake-demo/greeting/one/" + DOCUMENT_ID, b"{}"),
    ("invalid_path", "path", "/submit/telemetry/" + DOCUMENT_ID + "/main", b"{}"),
    ("bare_document_id", "path", "/submit/telemetry/" + DOCUMENT_ID, b"{}"),
    ("invalid_document_id", "path", "/submit/lake-demo/greeting/1/no-uuid", b"{}"),
    ("empty_body", "decompress", MAIN, b""),
    ("invalid_gzip", "decompress", MAIN, gzipped({})[:-3]),
    ("invalid_gzip", "decompress", MAIN, gzipped({}) + b"more"),
    ("invalid_gzip", "decompress", MAIN, gzipped({}) + b"\x1f\x8b"),
    ("invalid_gzip", "decompress", MAIN, b"\x1f\x8b" + bytes(40)),
    ("invalid_compression", "decompress", MAIN, zlib.compress(b"{}")[:-3]),
    ("unsupported_encoding", "decompress", MAIN, bz2.compress(b"{}")),
    ("unsupported_encoding", "decompress", MAIN, gzipped(gzipped({}))),
    ("too_large", "decompress", MAIN, gzipped(b" " * 2_000_000)),
    ("invalid_json", "decode", MAIN, b"{"),
    ("invalid_json", "decode", MAIN, b'{"a":"\xff"}'),
    ("invalid_json", "decode", MAIN, b'{"a":NaN}'),
    ("invalid_json", "decode", MAIN, gzipped(b"\x00")),
    ("not_an_object", "decode", MAIN, b"[]"),
    ("not_an_object", "decode", MAIN, b"null"),
    ("unknown_document_type", "identify", generic_path("nobody", "nothing"), b"{}"),
    ("unknown_document_type", "identify", generic_path("lake-demo", "farewell"), b"{}"),
    ("unknown_document_version", "identify", generic_path("lake-demo", "greeting", "2"), b"{}"),
    ("unknown_document_version", "identify", MAIN, b"{}"),
    ("unknown_document_version", "identify", MAIN, b'{"ver":7}'),
    ("unknown_document_version", "identify", MAIN, b'{"ver":1.5}'),
    ("schema_violation", "validate", GREETING, b"{}"),
    ("schema_violation", "validate", MAIN, {**unified_document(), "clientId": 3}),
    ("schema_violation", "validate", MAIN, with_histogram({"range": [1, 10]})),
    ("schema_violation", "validate", MAIN, with_histogram(linear({}, sum="many"))),
    ("schema_violation", "validate", generic_path("a-b", "events"), glean_document(ping_info={})),
    ("unknown_histogram_revision", "convert", telemetry_path("idle-daily"), UNDEFINED),
    ("unknown_histogram_revision", "convert", telemetry_path("idle-daily"), NOT_HEXADECIMAL),
    ("unknown_histogram_revision", "convert", telemetry_path("idle-daily"), NAMELESS),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"2": 1}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"01": 1}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"-1": 1}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"": 1}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"1": 1.5}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"1": -1}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"1": 2.0**63}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"1": "1"}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"1": True}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"1": None}))),
    ("invalid_histogram", "convert", MAIN, with_histogram(linear({"1": 2**63}))),
    ("invalid_histogram", "convert", telemetry_path("idle-daily"), classic_with(linear({"2": 1}))),
    ("invalid_histogram", "convert", telemetry_path("idle-daily"), SHORT),
    ("too_costly", "decompress", MAIN, gzipped({}) * 17),
    ("too_costly", "decode", MAIN, b"{},{}," * 100_000),
    ("too_costly", "convert", MAIN, unified_document(histograms=MANY_RANGES)),
]


@pytest.mark.parametrize("read_histograms", READERS)
@pytest.mark.parametrize(
    "error_type,stage,path,document",
    [pytest.param(*rejection, id=f"{rejection[0]}-{number}") for number, rejection in enumerate(REJECTIONS)],
)
def test_rejection(error_type, stage, path, document, read_histograms):
    converter = Converter(settings(document_max_bytes=1_000_000), read_histograms=read_histograms)
    row = rejected_row(path, document, converter)
    assert (row["error_type"], row["stage"]) == (error_type, stage)
    assert row["error_message"]
    assert row["body"] == as_body(document)
    assert (row["raw_object"], row["raw_object_position"]) == (RAW_KEY, 0)
    assert row["request"]["path"] == path
    assert (row["schema_path"] is not None) == (error_type == "schema_violation")
    if stage != "path":
        assert row["document_id"] == DOCUMENT_ID


def test_column_that_cannot_hold_its_field():
    converter = Converter(settings(accept_unknown_types_of={"startup"}))
    row = rejected_row(generic_path("startup", "thing"), {"client_id": ["me"]}, converter)
    assert (row["error_type"], row["stage"]) == ("invalid_value", "convert")
    assert row["error_message"] == "/client_id: the value is not of type string"


def test_a_record_of_the_archive_that_meets_a_defect_costs_no_other():
    def read_wrongly(text, rows):
        if b"unlucky" in text:
            raise IndexError("list index out of range")
        return READERS[0](text, rows)

    pings = [ping(GREETING, {"text": text}) for text in ("good", "unlucky", "good, too")]
    converter = Converter(settings(), read_histograms=read_wrongly, origin=Origin.BACKFILL)
    live, (rejected,) = rows_of(convert(pings, converter))
    assert len(live) == 2
    assert (rejected["error_type"], rejected["body"]) == ("conversion_failed", pings[1].body)
    assert rejected["error_message"].endswith("failed with IndexError: list index out of range")
    with pytest.raises(IndexError):
        convert(pings, Converter(settings(), read_histograms=read_wrongly))


def test_every_error_type_is_tested():
    elsewhere = {"invalid_value", "conversion_failed"}  # below, and in `test_isolated.py`
    assert {error_type for error_type, *_ in REJECTIONS} | elsewhere == set(ErrorType)


def test_first_step_that_says_no_is_the_one():
    assert rejected_row("/submit/telemetry/" + DOCUMENT_ID, b"")["error_type"] == "bare_document_id"
    assert rejected_row(generic_path("nobody", "nothing"), b"[")["error_type"] == "invalid_json"
    wrong_twice = {**with_histogram(linear({"2": 1})), "clientId": 3}
    assert rejected_row(MAIN, wrong_twice)["error_type"] == "schema_violation"


def test_message_and_schema_path_of_a_violation():
    row = rejected_row(MAIN, with_histogram(linear({}, range=[1, "x"])))
    assert row["error_message"] == ('/payload/histograms/GC_MS/range/1: the value is not of type "integer"')
    assert row["schema_path"] == "/$defs/histogram/properties/range/items/type"


def test_document_at_its_limit_and_one_past_it():
    text = json.dumps({"text": "x" * 100}).encode()
    converter = Converter(settings(document_max_bytes=len(text)))
    for body in (text, gzip.compress(text), gzip.compress(text[:50]) + gzip.compress(text[50:])):
        assert live_row(GREETING, body, converter)["document_bytes"] == len(text)
    longer = text + b" "
    for body in (longer, gzip.compress(longer), gzip.compress(longer[:50]) + gzip.compress(longer[50:])):
        assert rejected_row(GREETING, body, converter)["error_type"] == "too_large"


def test_bomb_is_not_decompressed():
    bomb = gzip.compress(gzip.compress(bytes(256 * 1024 * 1024), compresslevel=9, mtime=0), mtime=0)
    assert rejected_row(GREETING, gzip.decompress(bomb))["error_type"] == "too_large"


@pytest.mark.parametrize("read_histograms", READERS)
def test_number_of_histograms_at_its_limit_and_one_past_it(read_histograms):
    converter = Converter(settings(), read_histograms=read_histograms)
    many = {f"H{number}": linear({"1": 1}) for number in range(HISTOGRAMS_MAX_COUNT)}
    assert len(live_row(MAIN, unified_document(histograms=many), converter)["histograms"]) == len(many)
    many["ONE_MORE"] = linear({})
    row = rejected_row(MAIN, unified_document(histograms=many), converter)
    assert (row["error_type"], row["stage"]) == ("too_costly", "convert")
    assert row["error_message"] == "the document has more than 10000 histograms"


@pytest.mark.parametrize("knows_them", [False, True])
@pytest.mark.parametrize("read_histograms", READERS)
def test_number_of_ranges_at_its_limit_and_one_past_it(read_histograms, knows_them):
    converter = Converter(settings(), read_histograms=read_histograms)
    ranges = {f"H{number}": linear({}, range=[1, 10 + number]) for number in range(RANGES_MAX_COUNT)}
    others = {"ONE_MORE": linear({}, range=[1, 9])}
    if knows_them:
        assert live_row(MAIN, unified_document(histograms=others), converter)
    row = live_row(MAIN, unified_document(histograms={**ranges, "AGAIN": ranges["H0"]}), converter)
    assert len(row["histograms"]) == RANGES_MAX_COUNT + 1
    row = rejected_row(MAIN, unified_document(histograms=ranges | others), converter)
    assert (row["error_type"], row["stage"]) == ("too_costly", "convert")
    assert row["error_message"] == "the document has more than 1024 different ranges of histograms"


def test_number_of_gzip_members_at_its_limit_and_one_past_it():
    text = json.dumps({"text": "x" * 100}).encode()
    parts = [text[:20], *(text[at : at + 1] for at in range(20, 34)), text[34:]]
    body = b"".join(map(gzip.compress, parts))
    assert len(parts) == MEMBERS_MAX_COUNT
    assert live_row(GREETING, body)["document_bytes"] == len(text)
    row = rejected_row(GREETING, body + gzip.compress(b""))
    assert (row["error_type"], row["stage"]) == ("too_costly", "decompress")
    assert row["error_message"] == "the body has more than 16 gzip members"


def test_expansion_at_its_limit_and_one_past_it():
    text = b'{"text":""}'.ljust(2_000_000)
    body = gzip.compress(text, mtime=0)
    at_the_limit = -(-len(text) // len(body))
    converter = Converter(settings(document_max_expansion=at_the_limit))
    assert live_row(GREETING, body, converter)["document_bytes"] == len(text)
    row = rejected_row(GREETING, body, Converter(settings(document_max_expansion=at_the_limit - 1)))
    assert (row["error_type"], row["stage"]) == ("too_costly", "decompress")
    assert f"and than {at_the_limit - 1} times its body" in row["error_message"]


def test_a_small_document_may_be_any_number_of_times_as_large_as_its_body():
    converter = Converter(settings(document_max_expansion=1))
    text = b'{"text":""}'.ljust(EXPANSION_FREE_BYTES)
    assert live_row(GREETING, gzip.compress(text), converter)["document_bytes"] == EXPANSION_FREE_BYTES
    assert rejected_row(GREETING, gzip.compress(text + b" "), converter)["error_type"] == "too_costly"


@pytest.mark.parametrize("read_histograms", READERS)
def test_number_of_values_at_its_limit_and_one_past_it(read_histograms):
    text = b'{"text":"[,{", "more":[{},{},[1,2],{"a":1}]}'
    converter = Converter(settings(document_max_values=14), read_histograms=read_histograms)
    assert sum(text.count(mark) for mark in (b",", b"[", b"{")) == 14
    assert live_row(GREETING, text, converter)
    row = rejected_row(GREETING, text.replace(b"[1,2]", b"[1,2,3]"), converter)
    assert (row["error_type"], row["stage"]) == ("too_costly", "decode")
    assert row["error_message"].startswith("the document has more than 14 values")


def test_values_of_ordinary_histograms_do_not_count():
    many = {f"H{number}": linear({"1": 1}) for number in range(1_000)}
    assert (
        len(
            live_row(MAIN, unified_document(histograms=many), Converter(settings(document_max_values=100)))[
                "histograms"
            ]
        )
        == 1_000
    )


@pytest.mark.parametrize("read_histograms", READERS)
def test_number_of_invented_types_at_its_limit_and_one_past_it(read_histograms):
    converter = Converter(settings(invented_types_max_count=2), read_histograms=read_histograms)
    invented = [ping(telemetry_path(name), unified_document(name)) for name in ("a", "b", "b", "a")]
    named = [ping(GREETING, {"text": "hello"}), ping(telemetry_path("main"), unified_document())]
    live, rejected = rows_of(convert([*invented, *named], converter))
    assert (len(live), rejected) == (6, [])
    live, rejected = rows_of(
        convert([*invented, ping(telemetry_path("c"), unified_document("c")), *named], converter)
    )
    assert (len(live), [row["document_type"] for row in rejected]) == (6, ["c"])
    assert (rejected[0]["error_type"], rejected[0]["stage"]) == ("unknown_document_type", "identify")
    assert "no schema names the document type c" in rejected[0]["error_message"]
    live, rejected = rows_of(convert([ping(telemetry_path("c"), unified_document("c"))], converter))
    assert (len(live), rejected) == (1, [])


def test_address_is_nowhere():
    headers = [
        ("x-forwarded-for", f"{ADDRESS}, 10.0.0.1".encode()),
        ("x-real-ip", ADDRESS.encode()),
        ("forwarded", f"for={ADDRESS}".encode()),
        ("user-agent", b"Firefox"),
    ]
    pings = [
        ping(path, document, headers=headers, remote_address=ADDRESS, later=timedelta(milliseconds=number))
        for number, (_, _, path, document) in enumerate(REJECTIONS)
    ]
    pings.append(ping(MAIN, unified_document(), headers=headers, remote_address=ADDRESS))
    live, rejected = rows_of(convert(pings))
    assert len(live) + len(rejected) == len(pings)
    assert [dict(row["headers"]) for row in live] == [{"user-agent": "Firefox"}] * len(live)
    assert ADDRESS not in repr(live)
    assert ADDRESS not in repr(rejected)


@pytest.mark.parametrize("origin", list(Origin))
def test_a_rejected_row_says_which_way_the_ping_came(origin):
    assert rejected_row(MAIN, b"{", Converter(settings(), origin=origin))["origin"] == origin
    assert rejected_row(MAIN, b"{")["origin"] == "ingest"
