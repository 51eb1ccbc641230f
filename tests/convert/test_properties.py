"""What holds for every ping: nothing is lost, nothing depends on order or time, and both ways agree."""

import gzip
import json
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake_testing import ping_builders as build
from lake_testing.ping_builders import (
    convert,
    gzipped,
    ping,
    rows_of,
    telemetry_path,
    unified_document,
)
from lake_testing.realistic_pings import real_ping
from lake_testing.submissions import submissions
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.histogram_readers import read_plainly
from telemetry_lake.documents.restore import restore_document

FAST = Converter(build.settings())
SLOW = Converter(build.settings(), read_histograms=read_plainly)


def converted_alike(rows):
    """Rows without what belongs to the raw object that they came in."""
    return sorted(repr({**row, "raw_object_position": None, "submission_timestamp": None}) for row in rows)


@given(st.lists(submissions, min_size=1, max_size=4))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_conversion_loses_nothing_and_both_ways_agree(sent):
    pings = [ping(path, json.dumps(document).encode()) for path, document in sent]
    live, rejected = rows_of(convert(pings, FAST))
    assert len(live) + len(rejected) == len(pings)
    for row in live:
        assert restore_document(row) == sent[row["raw_object_position"]][1]
    for row in rejected:
        assert row["body"] == pings[row["raw_object_position"]].body
    slow_live, slow_rejected = rows_of(convert(pings, SLOW))
    assert live == slow_live
    assert rejected == slow_rejected


@given(st.lists(submissions, min_size=2, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_order_of_pings_does_not_matter(sent, chance):
    pings = [ping(path, gzipped(document)) for path, document in sent]
    shuffled = list(pings)
    chance.shuffle(shuffled)
    for before, after in zip(rows_of(convert(pings, FAST)), rows_of(convert(shuffled, FAST)), strict=True):
        assert converted_alike(before) == converted_alike(after)


@given(st.lists(submissions, min_size=1, max_size=3))
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_converting_twice_gives_the_same_tables(sent):
    pings = [
        ping(path, gzipped(document), later=timedelta(seconds=number))
        for number, (path, document) in enumerate(sent)
    ]
    first, second = convert(pings, FAST), convert(pings, Converter(build.settings()))
    assert [(one.pings, one.rejected) for one in first] == [(one.pings, one.rejected) for one in second]


@pytest.mark.parametrize("spaced", [False, True])
def test_real_ping_is_read_and_nothing_of_it_lost(spaced):
    path, body = real_ping()
    document = json.loads(gzip.decompress(body))
    sent = ping(f"/submit/telemetry/{path}", json.dumps(document, indent=1 if spaced else None).encode())
    (fast,), _ = rows_of(convert([sent], FAST))
    (slow,), _ = rows_of(convert([sent], SLOW))
    assert fast == slow
    assert restore_document(fast) == document


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode), st.integers(0, 2**32))
@settings(max_examples=60)
def test_damaged_documents_are_judged_alike(garbage, seed):
    text = json.dumps(unified_document(histograms={"A": build.linear({"1": 1}, sum=2.5)})).encode()
    start = seed % len(text)
    for damaged in (
        garbage,
        text[:start] + garbage + text[start:],
        text[:start] + text[start + len(garbage) :],
    ):
        sent = [ping(telemetry_path("main"), damaged)]
        fast, slow = rows_of(convert(sent, FAST)), rows_of(convert(sent, SLOW))
        assert fast == slow
