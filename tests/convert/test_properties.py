"""What holds for every ping: nothing is lost, nothing depends on order or time, and both ways agree."""

import gzip
import json
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.realistic_pings import real_ping
from telemetry_lake.convert import Converter, restore_document
from tests.convert import ping_builders as build
from tests.convert.ping_builders import (
    REVISION,
    classic_document,
    convert,
    generic_path,
    gzipped,
    ping,
    rows_of,
    telemetry_path,
    unified_document,
)

FAST = Converter(build.settings())
SLOW = Converter(build.settings(), one_by_one=True)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**52, 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
counts = st.integers(0, 2**40) | st.integers(0, 3)
sums = st.integers(-2, 10**6) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(2**53, 2**65)
decimals = st.decimals(0, 10**6, places=13, allow_nan=False).map(float)
sum_fields = st.dictionaries(
    st.sampled_from(["sum", "log_sum", "log_sum_squares", "sum_squares_lo", "sum_squares_hi"]),
    sums,
    max_size=5,
)
ranges = st.sampled_from(
    [
        ([1, 10], 5, 1, (0, 1, 4, 7, 10)),
        ([1, 2], 3, 2, (0, 1, 2)),
        ([1, 2], 3, 4, (0, 1, 2)),
        ([1, 50], 51, 5, (0, 1, 25, 50)),
        ([1, 3000], 10, 0, (0, 1, 3, 8, 21, 57, 154, 414, 1114, 3000)),
    ]
)


@st.composite
def histograms(draw):
    """Mostly ordinary ones, and now and then every way in which one can be unusual."""
    range_, bucket_count, kind, bounds = draw(ranges)
    chosen = draw(st.lists(st.sampled_from(bounds), unique=True, max_size=5).map(sorted))
    values_of = {str(bound): draw(counts) for bound in chosen}
    if draw(st.booleans()):
        histogram = {
            "range": range_,
            "bucket_count": bucket_count,
            "histogram_type": kind,
            "values": values_of,
            **draw(sum_fields),
        }
    else:
        histogram = {
            "bucket_count": bucket_count,
            "histogram_type": kind,
            "sum": draw(sums),
            "range": range_,
            "values": values_of,
        }
    match draw(st.integers(0, 40)):
        case 0:
            histogram["new field"] = draw(values)
        case 1:
            del histogram[draw(st.sampled_from(["range", "bucket_count", "histogram_type"]))]
        case 2:
            histogram["histogram_type"] = draw(st.sampled_from([6, 17, 1.0]))
        case 3:
            histogram["values"] = dict(reversed(list(histogram["values"].items())))
        case 4:
            histogram["range"] = draw(
                st.sampled_from([[0, 10], [10, 1], [1, 10.0], [-1, 10], [1, 2**31 - 1]])
            )
        case 5:
            histogram = dict(draw(st.permutations(list(histogram.items()))))
        case 6:
            histogram["values"][draw(st.sampled_from(["2", "01", "x", " 1", "1e1"]))] = 1
        case 7:
            histogram["values"]["1"] = draw(scalars)
    return histogram


names = st.sampled_from(
    [
        "CYCLE_COLLECTOR_FULL",
        "A11Y_INSTANTIATED_FLAG",
        "STARTUP_CRASH_DETECTED",
        "GC_REASON_2",
        "X",
        "É",
        'q"',
    ]
)
keys = st.text(max_size=4) | st.sampled_from(["google.urlbar", "ddg"])
plain = st.dictionaries(names, histograms(), max_size=4)
keyed = st.dictionaries(names, st.dictionaries(keys, histograms(), max_size=3), max_size=3)
extras = st.dictionaries(st.text(max_size=5), values, max_size=3)


@st.composite
def unified(draw):
    document = unified_document(
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "histograms": plain,
                    "keyedHistograms": keyed,
                    "processes": st.dictionaries(
                        st.sampled_from(["parent", "content", "gpu", "a/b~c", "é"]),
                        st.fixed_dictionaries(
                            {}, optional={"histograms": plain, "keyedHistograms": keyed, "scalars": values}
                        ),
                        max_size=3,
                    ),
                    "simpleMeasurements": values,
                },
            )
        )
    )
    if draw(st.booleans()):
        document["payload"]["info"]["revision"] = REVISION
    for name in draw(st.lists(st.sampled_from(["id", "clientId", "environment"]), unique=True)):
        del document[name]
    if draw(st.booleans()):
        document["application"]["channel"] = draw(st.sampled_from(["", "release", "mine", None]))
    return telemetry_path("main"), {**draw(extras), **document}


@st.composite
def classic(draw):
    document = classic_document(**{**draw(extras), "histograms": draw(plain)})
    document["ver"] = 1
    return telemetry_path("idle-daily"), document


@st.composite
def dense(draw):
    counted = st.lists(st.integers(0, 5), min_size=3, max_size=3)
    five = st.lists(st.integers(-1, 5) | st.floats(-2, 2) | st.just(2**60 + 1), min_size=5, max_size=5)
    one = st.tuples(counted, five).map(lambda parts: parts[0] + parts[1])
    chosen = draw(st.dictionaries(st.sampled_from(["A11Y_INSTANTIATED_FLAG", "X"]), one, max_size=2))
    return telemetry_path("idle-daily"), {**classic_document(histograms=chosen), "ver": 2}


generic = extras.map(lambda more: (generic_path("lake-demo", "greeting"), {**more, "text": "hello"}))
submissions = unified() | classic() | dense() | generic


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
