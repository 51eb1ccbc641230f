"""The compiled parser: what it takes, what it leaves to the slow way, and that its numbers are exact."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake_testing import ping_builders as build
from lake_testing.ping_builders import convert, linear, ping, rows_of, telemetry_path, unified_document
from lake_testing.realistic_pings import real_ping
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.fast_histograms import column as columns_module
from telemetry_lake.convert.fast_histograms.column import HistogramColumn
from telemetry_lake.convert.fast_histograms.scanner import divided
from telemetry_lake.convert.histogram_readers import read_plainly
from telemetry_lake.convert.plain_histograms import HISTOGRAMS_MAX_COUNT, RANGES_MAX_COUNT

REAL = gzip.decompress(real_ping()[1])


def reads(document):
    """Whether the parser takes it; if so, also how many histograms it found."""
    column = HistogramColumn()
    reading = column.read(document if isinstance(document, bytes) else json.dumps(document).encode())
    return reading is not None and column.mark().rows


def main(*histograms):
    return unified_document(histograms={f"H{number}": one for number, one in enumerate(histograms)})


def test_ordinary_documents_are_read():
    assert reads(REAL) == 328
    assert reads(json.dumps(json.loads(REAL), indent=2).encode()) == 328
    assert reads(main(linear({"1": 1}, sum=1.5), linear({}), {**linear({}), "values": {"10": 3}})) == 3
    assert reads(unified_document("event")) == 0
    keyed = {"A": {"x": linear({}), "y": linear({"1": 1})}, "B": {}}
    assert (
        reads(unified_document(keyedHistograms=keyed, processes={"gpu": {"histograms": {"A": linear({})}}}))
        == 3
    )


COMPILED = """
import gzip, sys
from lake_testing.realistic_pings import real_ping
from telemetry_lake.histograms import bounds_kernels
from telemetry_lake.convert.fast_histograms.column import HistogramColumn, compile_parser
from lake_testing import ping_builders as build

def compiled():
    return {
        (module.__name__, name): len(function.signatures)
        for module in list(sys.modules.values())
        if module.__name__.startswith("telemetry_lake.")
        for name, function in vars(module).items()
        if hasattr(function, "signatures")
    }

compile_parser()
before = compiled()
document = gzip.decompress(real_ping()[1])
assert build.live_row(build.telemetry_path("idle-daily"), document)["histograms"]
sys.exit(before != compiled() or not sum(before.values()))
"""


def test_after_compiling_nothing_is_left_to_compile():
    subprocess.run([sys.executable, "-c", COMPILED], check=True, timeout=300)


@pytest.mark.parametrize(
    "histogram",
    [
        linear({"2": 1}),
        linear({"4": 1, "1": 1}),
        linear({"1": -1}),
        linear({"1": 1.0}),
        linear({"1": 10**10}),
        linear({}, sum=-1),
        linear({}, sum=2**53 + 1),
        linear({}, sum=None),
        linear({}, sum=1e300),
        linear({}, more=1),
        linear({}, histogram_type=6),
        linear({}, bucket_count=2),
        linear({}, range=[10, 1]),
        linear({}, range=[1, 10, 20]),
        {"values": {}},
        [1, 2, 3],
    ],
)
def test_everything_unusual_is_left_alone(histogram):
    assert reads(main(linear({}), histogram)) is False


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"histograms":{"A"',
        b'{"histograms":{"A":{}}}',
        b'{"histograms":{,}}',
        b'{"histograms":{"\xc3\xa9":{"range":[1,2],"bucket_count":3,"histogram_type":2,"values":{}}}}',
        b'{"histograms":{"a\\u0062":{"range":[1,2],"bucket_count":3,"histogram_type":2,"values":{}}}}',
        b'{"histograms":{"A":{"range":[1,2],"bucket_count":3,"histogram_type":2,"values":{"1":1,}}}}',
        b'{"histograms":{"A":{"range":[1,2],"bucket_count":3,"histogram_type":2,"values":{},"values":{}}}}',
        b'{"histograms":{"A":{"range":[1,2],"bucket_count":03,"histogram_type":2,"values":{}}}}',
        b'{"a":"',
        b'{"a":"\\',
        b'{"a":[[',
    ],
)
def test_text_that_breaks_off_or_is_not_quite_json(text):
    assert reads(text) is False


def test_the_same_name_twice_is_left_alone():
    one = json.dumps(linear({"1": 1}))
    assert reads(f'{{"histograms":{{"A":{one},"B":{one}}}}}'.encode()) == 2
    assert reads(f'{{"histograms":{{"A":{one},"A":{one}}}}}'.encode()) is False
    assert reads(f'{{"keyedHistograms":{{"A":{{"x":{one},"x":{one}}}}}}}'.encode()) is False


def test_histograms_under_an_escaped_name_are_found_by_the_slow_way():
    text = json.dumps(main(linear({"1": 1}))).replace('"histograms"', '"hist\\u006fgrams"').encode()
    (row,), _ = rows_of(convert([ping(telemetry_path("main"), text)]))
    assert [one["name"] for one in row["histograms"]] == ["H0"]


def test_everything_grows(monkeypatch):
    monkeypatch.setattr(columns_module, "_FIRST_ROWS", 4)
    monkeypatch.setattr(columns_module, "_FIRST_BUCKETS", 8)
    monkeypatch.setattr(columns_module, "_FIRST_TEXT_BYTES", 64)
    monkeypatch.setattr(columns_module, "LABELS_MAX_COUNT", 8)
    monkeypatch.setattr(columns_module, "RANGES_REMEMBERED", 4)
    path, body = real_ping()
    document = unified_document(
        keyedHistograms={f"K{n}": {f"key {m}": linear({"1": 1}) for m in range(n)} for n in range(9)},
        processes={f"p{n}": {"histograms": {"A": linear({"1": n}, range=[1, 20 + n])}} for n in range(9)},
    )
    pings = [ping(f"/submit/telemetry/{path}", body), ping(telemetry_path("main"), document)] * 2
    fast = Converter(build.settings())
    expected = rows_of(convert(pings, Converter(build.settings(), read_histograms=read_plainly)))
    assert rows_of(convert(pings, fast)) == expected
    # Once more, with the tables that were begun anew after the first time.
    assert rows_of(convert(pings, fast)) == expected


def many_containers(count):
    return b"{" + b",".join([b'"histograms":{}'] * count) + b"}"


def many_empties(count):
    return {"keyedHistograms": {str(number): {} for number in range(count)}}


def many_ranges(count):
    return main(*(linear({}, range=[1, 10 + number]) for number in range(count)))


def many_histograms(count):
    return {
        "keyedHistograms": {str(n): {str(m): linear({}) for m in range(100)} for n in range(count // 100)}
    }


@pytest.mark.parametrize(
    "make, most, more",
    [
        (many_containers, columns_module.CONTAINERS_MAX_COUNT, 1),
        (many_empties, HISTOGRAMS_MAX_COUNT, 1),
        (many_ranges, RANGES_MAX_COUNT, 1),
        (many_histograms, HISTOGRAMS_MAX_COUNT, 100),
    ],
)
def test_a_document_with_too_many_of_anything_is_left_alone(make, most, more):
    assert reads(make(most)) is not False
    assert reads(make(most + more)) is False


beginnings = st.tuples(
    st.sampled_from(["", " ", "\n"]),
    st.sampled_from(
        [
            '"range":[1,10],"bucket_count":5,"histogram_type":1,',
            '"range":[1,10],"bucket_count":5,"histogram_type":1,"log_sum":2,',
            '"bucket_count":5,"histogram_type":1,"sum":SUM,"range":[1,10],',
            '"bucket_count":5,"histogram_type":1,"range":[1,10],"sum":SUM,',
            '"sum":SUM,"range":[1,10],"bucket_count":5,"histogram_type":1,',
            '"bucket_count":3,"histogram_type":2,"sum":SUM,"range":[1,2],',
            '"bucket_count":3,"histogram_type":2,"range":[1,2],',
            '"bucket_count":03,"histogram_type":2,"sum":SUM,"range":[1,2],',
            '"bucket_count":5,"sum":SUM,"range":[1,10],',
        ]
    ),
    st.sampled_from(
        ["0", "7", "1234567890", "12345678901", "1.5", "-1", "-7", "07", "1e3", '"7"', "null", ""]
    ),
    st.sampled_from(
        ['"values":{"0":1}', '"values":{"1":2} ,"sum":3', '"values": {}', '"values":[]', '"values":{']
    ),
).map(lambda parts: f"{{{parts[0]}{parts[1].replace('SUM', parts[2])}{parts[3]}}}")


@given(st.lists(st.lists(beginnings, min_size=1, max_size=3), min_size=2, max_size=6))
@settings(max_examples=300)
def test_what_is_remembered_of_earlier_documents_changes_nothing(documents):
    experienced = HistogramColumn()
    for histograms in documents:
        members = ",".join(f'"H{number}":{text}' for number, text in enumerate(histograms))
        document = f'{{"histograms":{{{members}}}}}'.encode()
        fresh = HistogramColumn()
        taken = []
        for column in (experienced, fresh):
            reading = column.read(document)
            column.end_ping()
            taken.append((reading, column.take().to_pylist()))
        assert taken[0] == taken[1]


numbers = (
    st.floats(min_value=0, max_value=1e15, allow_nan=False).map(repr)
    | st.decimals(0, 10**9, places=14, allow_nan=False).map(str)
    | st.tuples(st.integers(0, 10**18), st.integers(1, 17)).map(
        lambda parts: f"{parts[0] // 10 ** parts[1]}.{parts[0] % 10 ** parts[1]:0{parts[1]}d}"
    )
)


@given(st.lists(numbers.filter(lambda text: "e" not in text.lower()), min_size=1, max_size=20))
@settings(max_examples=100)
def test_sums_are_the_nearest_doubles(texts):
    histograms = ",".join(
        f'"H{number}":{{"range":[1,2],"bucket_count":3,"histogram_type":2,"values":{{}},"sum":{text}}}'
        for number, text in enumerate(texts)
    )
    column = HistogramColumn()
    assert column.read(f'{{"histograms":{{{histograms}}}}}'.encode()) is not None
    column.end_ping()
    (histograms_read,) = column.take().to_pylist()
    assert [one["sum"] for one in histograms_read or ()] == [float(text) for text in texts]


@given(st.integers(2**53 - 10, 2**63), st.integers(1, 18))
@settings(max_examples=100)
def test_division_rounds_to_even(mantissa, fraction):
    number, exact = divided(np.uint64(mantissa), np.uint64(fraction))
    assert not exact or number == float(f"{mantissa}e-{fraction}")
