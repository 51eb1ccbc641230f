"""The rows of a ping in the column, and both ways of reading a document, behind one interface."""

import json

import pytest

from lake_testing.ping_builders import linear, unified_document
from telemetry_lake.convert.extraction import HistogramPlaces
from telemetry_lake.convert.fast_histograms.column import HistogramColumn
from telemetry_lake.convert.histogram_readers import READERS, UnusualHistogramsError, read_fast
from telemetry_lake.documents.text import parse_document

PLACES = HistogramPlaces(inside="/payload", processes=True)


def text_of(**histograms):
    return json.dumps(unified_document(histograms=histograms)).encode()


def lifted(reading, places=PLACES):
    document = parse_document(reading.text, 250_000, has_long_numbers=reading.has_long_numbers)
    return reading.lift(document, places, lambda has_histograms: None), document


def names(column):
    return [[histogram["name"] for histogram in ping or ()] for ping in column.take().to_pylist()]


@pytest.mark.parametrize("read", READERS)
def test_the_first_reading_of_an_ordinary_document_converts_it(read):
    column = HistogramColumn()
    with column.ping() as rows:
        reading = next(read(text_of(A=linear({"1": 1}), B=linear({})), rows))
        found, document = lifted(reading)
        assert len(rows) == 2
    assert (found.containers, found.unknown) == ([("/payload/histograms", "histograms")], 0)
    assert document["payload"]["histograms"] == {}
    assert names(column) == [["A", "B"]]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("sent", [{"A": linear({}, more=1)}, {"A": {"values": {}}}, {}])
def test_the_last_reading_is_final_and_finds_the_column_empty(read, sent):
    column = HistogramColumn()
    with column.ping() as rows:
        for reading in read(text_of(**sent), rows):
            last = reading
        assert len(rows) == 0
        assert last.is_final
        assert last.text == text_of(**sent)


def test_a_document_whose_histograms_are_elsewhere_goes_the_plain_way():
    column = HistogramColumn()
    with column.ping() as rows:
        readings = read_fast(text_of(A=linear({})), rows)
        fast = next(readings)
        assert not fast.is_final
        for places in (None, HistogramPlaces()):
            with pytest.raises(UnusualHistogramsError):
                lifted(fast, places)
        found, document = lifted(next(readings), None)
    assert found.containers == []
    assert document["payload"]["histograms"] == {"A": linear({})}
    assert names(column) == [[]]


@pytest.mark.parametrize("read", READERS)
def test_an_exception_takes_the_rows_of_its_ping_out_of_the_column(read):
    column = HistogramColumn()

    def fill(name):
        with column.ping() as rows:
            lifted(next(read(text_of(**{name: linear({"1": 1})}), rows)))
            if name == "B":
                raise ValueError(name)

    fill("A")
    with pytest.raises(ValueError, match="B"):
        fill("B")
    fill("C")
    assert names(column) == [["A"], ["C"]]


def test_a_sum_that_no_double_holds_goes_the_plain_way():
    text = text_of(A=linear({"1": 1}, sum=0)).replace(b'"sum": 0', b'"sum": ' + b"9" * 309 + b".2")
    column = HistogramColumn()
    with column.ping() as rows:
        assert next(read_fast(text, rows)).is_final
