"""Rows give the canonical text of the documents that were sent, the fast way as the slow one."""

import json

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake_testing import ping_builders as build
from lake_testing.ping_builders import classic_document, convert, linear, ping, telemetry_path
from lake_testing.realistic_pings import jittered_documents
from lake_testing.submissions import submissions
from telemetry_lake.backfill.units.digest import canonical_text
from telemetry_lake.backfill.units.histogram_texts import SUMS_IN_ORDER, histogram_texts
from telemetry_lake.backfill.units.row_texts import RowTexts
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.fast_histograms.column import COLUMN_TYPE
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.documents.text import parse_json
from telemetry_lake.histograms.list_text import list_text
from telemetry_lake.histograms.stored import restored_histogram

CONVERTER = Converter(build.settings())
SCHEMA = pa.schema([("document", pa.string()), ("lifted", pa.string()), ("histograms", COLUMN_TYPE)])

Row = dict[str, object]


def texts_of(table: pa.Table) -> list[bytes]:
    return [
        texts.canonical_text(index, row)
        for batch in table.to_batches()
        for texts in [RowTexts(batch)]
        for index, row in enumerate(batch.drop_columns(["histograms"]).to_pylist())
    ]


def restored_texts(table: pa.Table) -> list[bytes]:
    return [canonical_text(restore_document(row)) for row in table.to_pylist()]


def histogram(name: str = "H", key: str | None = None, process: str = "parent", **more: object) -> Row:
    return {
        "process": process,
        "name": name,
        "key": key,
        "histogram_type": 1,
        "bucket_count": 5,
        "range_low": 1,
        "range_high": 10,
        "buckets": "0,1,4",
        "counts": "7,8,9",
        **dict.fromkeys(SUMS_IN_ORDER, -1.0),
        **more,
    }


def table_of(*rows: tuple[str, dict[str, str], list[Row]]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"document": document, "lifted": json.dumps(lifted), "histograms": found}
            for document, lifted, found in rows
        ],
        SCHEMA,
    )


@given(st.lists(submissions, min_size=1, max_size=6))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_row_gives_the_text_of_what_was_sent(sent):
    bodies = [json.dumps(document).encode() for _, document in sent]
    pings = [ping(path, body) for (path, _), body in zip(sent, bodies, strict=True)]
    for conversion in convert(pings, CONVERTER):
        rows = conversion.pings
        positions = rows.column("raw_object_position").to_numpy()
        expected = [canonical_text(parse_json(bodies[position])) for position in positions]
        assert texts_of(rows) == restored_texts(rows) == expected
        # A batch may begin in the middle of the arrays that are under it.
        assert texts_of(rows.slice(1)) == expected[1:]


def test_real_documents_take_the_fast_way(monkeypatch):
    bodies = list(jittered_documents(3))
    (conversion,) = convert([ping(telemetry_path("idle-daily"), body) for body in bodies])
    monkeypatch.setattr("telemetry_lake.backfill.units.row_texts.restore_document", pytest.fail)
    assert texts_of(conversion.pings) == [canonical_text(parse_json(body)) for body in bodies]


numbers = st.floats() | st.sampled_from([-1.0, -0.0, 0.0, 1e15, 1e16, -1e15, 999999999999999.0, 0.1, 1e-7])


@st.composite
def stored_histograms(draw):
    """What the columns can hold, be it a histogram or not."""
    integers = st.integers(-(2**31), 2**31 - 1)
    buckets = draw(st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 1_100), max_size=20))
    if draw(st.booleans()):
        buckets = sorted(set(buckets))
    return {
        **{name: draw(integers) for name in ("bucket_count", "histogram_type", "range_low", "range_high")},
        "buckets": buckets,
        "counts": [draw(st.integers(-(2**63), 2**63 - 1)) for _ in buckets],
        **{name: draw(numbers) for name in SUMS_IN_ORDER},
    }


@given(st.lists(stored_histograms(), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_the_compiled_text_is_that_of_the_histogram_or_said_to_be_unusual(found):
    parameters = ("bucket_count", "histogram_type", "range_low", "range_high")
    text, ends, usual = histogram_texts(
        np.array([[row[name] for name in parameters] for row in found], np.int64),
        np.cumsum([0, *(len(row["buckets"]) for row in found)]).astype(np.int32),
        np.array([bucket for row in found for bucket in row["buckets"]], np.int64),
        np.array([count for row in found for count in row["counts"]], np.int64),
        np.array([[row[name] for name in SUMS_IN_ORDER] for row in found], np.float64),
    )
    assert len(text) == ends[-1]
    for row, start, end, is_usual in zip(found, [0, *ends], ends, usual, strict=False):
        ordinary = row["buckets"] == sorted(set(row["buckets"])) and all(
            abs(row[name]) < 1e15 for name in SUMS_IN_ORDER
        )
        assert is_usual == ordinary
        if ordinary:
            stored = {**row, **{name: list_text(row[name]) for name in ("buckets", "counts")}}
            assert text[start:end] == canonical_text(restored_histogram(stored, None))


CONTAINERS = {"/histograms": "histograms", "/keyedHistograms": "keyedHistograms"}
BOTH = '{"histograms": {}, "keyedHistograms": {}}'


@pytest.mark.parametrize(
    "document, lifted, found",
    [
        (BOTH, CONTAINERS, [histogram("B"), histogram("A", "k"), histogram("A"), histogram("A", "")]),
        (BOTH, CONTAINERS, [histogram("A", "k"), histogram("A")]),
        (
            '{"histograms": {"A": {"more": 1.0, "range": null}}}',
            {"/histograms": "histograms"},
            [histogram("A")],
        ),
        ('{"histograms": {"A": ["dense"]}}', {"/histograms": "histograms"}, [histogram("A")]),
        ('{"histograms": {"Z": 1}}', {"/histograms": "histograms"}, [histogram("A"), histogram("Z.0,")]),
        ('{"histograms": {}}', {"/histograms": "histograms"}, [histogram("A", sum=1e17), histogram("B")]),
        ('{"histograms": {}}', {"/histograms": "histograms"}, [histogram("A", buckets="4,1,0")]),
        ('{"histograms": {}}', {"/histograms": "histograms"}, [histogram("A"), histogram("A", sum=3.0)]),
        (
            '{"histograms": {}}',
            {"/histograms": "histograms"},
            [histogram("A"), histogram("B", process="gpu")],
        ),
        ('{"histograms": {}, "n": 36893488147419103232}', {"/histograms": "histograms"}, [histogram()]),
        ('{"histograms": {}, "n": 1e30, "m": -0.0}', {"/histograms": "histograms"}, [histogram()]),
        ('{"p": {"x/~": {}}}', {"/p/x~1~0": "histograms:gpu"}, [histogram("A", process="gpu")]),
        ('{"n": 5}', {}, []),
    ],
    ids=range(13),
)
def test_whatever_rows_hold_the_fast_way_and_the_slow_one_agree(document, lifted, found):
    other = (BOTH, CONTAINERS, [histogram("X", sum=2.5), histogram("Y", "k", log_sum=0.0)])
    table = table_of(other, (document, lifted, found), other)
    assert texts_of(table) == restored_texts(table)


def test_columns_that_do_not_fit_together_are_no_document():
    for document, lifted, found in [
        ("{}", {"/histograms": "histograms"}, [histogram()]),
        ("{", {}, []),
        ('{"histograms": []}', {"/histograms": "histograms"}, [histogram()]),
    ]:
        with pytest.raises((ValueError, LookupError, TypeError)):
            texts_of(table_of((document, lifted, found)))


def test_counts_are_written_as_they_are_and_names_in_their_order():
    document = classic_document(
        histograms={"CYCLE_COLLECTOR_FULL": linear({"10": 5, "0": 1, "1": 2}, sum=523.0, log_sum=0.25)}
    )
    (conversion,) = convert([ping(telemetry_path("idle-daily"), document)])
    (text,) = texts_of(conversion.pings)
    assert (
        b'"CYCLE_COLLECTOR_FULL":{"bucket_count":5,"histogram_type":1,"log_sum":0.25,"range":[1,10],"sum":523,'
        b'"values":{"0":1,"1":2,"10":5}}'
    ) in text
    assert orjson.loads(text) == document
