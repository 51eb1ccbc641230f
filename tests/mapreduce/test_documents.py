"""A document that is parsed lazily is the document, and a lazy dict is a dict, whatever is done with it."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake_testing import ping_builders as build
from lake_testing.compact_documents import compact_document, value_of
from lake_testing.ping_builders import convert, ping
from lake_testing.sample_pings import sample_pings
from lake_testing.submissions import submissions
from telemetry_lake.columns import HISTOGRAMS
from telemetry_lake.convert.converter import Converter
from telemetry_lake.mapreduce.lazy.lazy_dict import LazyDict
from telemetry_lake.mapreduce.lazy.lazy_json import LazyJson, LazyText
from telemetry_lake.mapreduce.reading.documents import DOCUMENT_COLUMNS, Documents, python_values

CONVERTER = Converter(build.settings())


def documents_of(rows: pa.Table) -> Documents:
    (batch,) = rows.combine_chunks().to_batches()
    return Documents(batch.select(list(DOCUMENT_COLUMNS)), lambda: batch.column(HISTOGRAMS))


def in_order(value: Any) -> Any:
    """The same value with the order of its members as part of it."""
    if isinstance(value, dict):
        return [(name, in_order(member)) for name, member in value.items()]
    return [in_order(item) for item in value] if isinstance(value, list) else (type(value), value)


def assert_documents_are_right(rows: pa.Table) -> None:
    documents = documents_of(rows)
    for number, row in enumerate(rows.to_pylist()):
        text = documents.text(number)
        lazy = LazyText(documents, number)
        assert json.loads(text) == compact_document(row) == documents.parsed(number) == lazy.parsed()
        assert in_order(json.loads(text)) == in_order(documents.parsed(number)) == in_order(lazy.parsed())


@given(st.lists(submissions, min_size=1, max_size=4))
@settings(max_examples=100)
def test_the_text_and_what_is_parsed_of_it_are_the_converted_document(sent: list[tuple[str, Any]]) -> None:
    pings = [ping(path, json.dumps(document).encode()) for path, document in sent]
    for conversion in convert(pings, CONVERTER):
        if conversion.pings.num_rows:
            assert_documents_are_right(conversion.pings)


def test_documents_of_every_kind() -> None:
    rows = sample_pings()
    assert_documents_are_right(rows)
    assert_documents_are_right(rows.slice(5, 7))
    documents = documents_of(rows)
    assert [json.loads(documents.text(number)) for number in range(3)] == [
        json.loads(value_of(row)) for row in rows.slice(0, 3).to_pylist()
    ]


def test_histograms_are_read_when_one_is_looked_at() -> None:
    rows = sample_pings()
    (batch,) = rows.combine_chunks().to_batches()
    read = []

    def histograms() -> Any:
        read.append(True)
        return batch.column(HISTOGRAMS)

    documents = Documents(batch, histograms)
    parsed = [LazyText(documents, number).parsed() for number in range(rows.num_rows)]
    assert sum("histograms" in document.get("payload", ()) for document in parsed) > 10
    assert read == []
    (first, *_) = (document for document in parsed if "histograms" in document.get("payload", ()))
    assert len(first["payload"]["histograms"]["A_MS"]) == 5 + 5
    assert read == [True]


class Twelve:
    """Members for a lazy dict: twelve lists."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def names(self) -> list[str]:
        return [f"name {number}" for number in range(12)]

    def has(self, name: object) -> bool:
        return name in self.names()

    def make(self, name: str) -> list[int]:
        self.made.append(name)
        return [int(name.split()[1])]


NAMES = st.integers(0, 13).map("name {}".format) | st.just("other")
DOINGS: dict[str, Callable[[Any, str], Any]] = {
    "get item": lambda one, name: one[name],
    "get": lambda one, name: one.get(name),
    "get or": lambda one, name: one.get(name, 5),
    "in": lambda one, name: name in one,
    "unhashable in": lambda one, _: [] in one,
    "length": lambda one, _: len(one),
    "truth": lambda one, _: bool(one),
    "iterate": lambda one, _: list(one),
    "reversed": lambda one, _: list(reversed(one)),
    "keys": lambda one, name: (list(one.keys()), one.keys() & {name}),
    "values": lambda one, _: list(one.values()),
    "items": lambda one, _: list(one.items()),
    "set": lambda one, name: one.__setitem__(name, ["set"]),
    "change": lambda one, name: one[name].append(7),
    "delete": lambda one, name: one.__delitem__(name),
    "pop": lambda one, name: one.pop(name),
    "pop or": lambda one, name: one.pop(name, None),
    "pop item": lambda one, _: one.popitem(),
    "set default": lambda one, name: one.setdefault(name, [1]),
    "update": lambda one, name: one.update({name: 1}, more=2),
    "or": lambda one, name: one | {name: 1},
    "reverse or": lambda one, name: {name: 1} | one,
    "in place or": lambda one, name: one.__ior__({name: 1}),
    "equal": lambda one, _: (one == Twelve().names(), one == {}, one == dict(one), one == {}),
    "not equal": lambda one, _: (one != {}, one != dict(one)),
    "representation": lambda one, _: (repr(one), str(one), f"{one}"),
    "json": lambda one, _: (json.dumps(one), json.dumps(one, indent=1, sort_keys=True), json.dumps([one])),
    "dict of it": lambda one, _: dict(one),
    "star star": lambda one, _: ({**one}, "{name 1}".format(**one)),
    "copies": lambda one, _: (one.copy(), copy.copy(one), copy.deepcopy(one)),
    "pickled": lambda one, _: (pickle.loads(pickle.dumps(one)), pickle.loads(pickle.dumps([one], 0))),
    "type": lambda one, _: (isinstance(one, dict), isinstance(one, object)),
    "hash": lambda one, _: hash(one),
    "sort": lambda one, _: (sorted(one), max(one), min(one, default=None)),
    "from keys": lambda one, name: type(one).fromkeys([name], 1),
    "format": lambda one, name: "{name 1}".format_map(one) + name,
    "clear": lambda one, _: one.clear(),
    "less": lambda one, _: one < {},
}


def answer(doing: str, one: Any, name: str) -> Any:
    try:
        return DOINGS[doing](one, name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return type(error), str(error).replace("LazyDict", "dict")


@given(st.lists(st.tuples(st.sampled_from(sorted(DOINGS)), NAMES), max_size=8))
@settings(max_examples=500)
def test_a_lazy_dict_is_a_dict_whatever_is_done_with_it(doings: list[tuple[str, str]]) -> None:
    members = Twelve()
    lazy, plain = LazyDict(members), {name: Twelve().make(name) for name in members.names()}
    for doing, name in doings:
        answers = answer(doing, lazy, name), answer(doing, plain, name)
        assert answers[0] == answers[1], doing
        assert in_order(answers[0]) == in_order(answers[1]), doing
    assert in_order(lazy) == in_order(plain)
    assert len(members.made) == len(set(members.made)), "made twice: a change of the first would be lost"


def test_a_lazy_dict_makes_what_is_looked_at() -> None:
    members = Twelve()
    lazy = LazyDict(members)
    assert lazy["name 3"] is lazy["name 3"]
    assert "name 4" in lazy
    assert "other" not in lazy
    assert len(lazy) == 12
    assert members.made == ["name 3"]
    assert lazy == {name: Twelve().make(name) for name in members.names()}
    assert len(members.made) == 12


def test_what_looks_into_the_memory_of_a_lazy_dict_is_refused() -> None:
    with pytest.raises(TypeError):
        orjson.dumps(LazyDict(Twelve()))
    assert orjson.loads(orjson.dumps(dict(LazyDict(Twelve())))) == dict(LazyDict(Twelve()))


def test_lazy_text_is_the_text_wherever_it_gets_to() -> None:
    documents = documents_of(sample_pings())
    lazy: Any = LazyText(documents, 2)
    text = documents.text(2)
    assert (str(lazy), len(lazy), lazy[:9], lazy == text, "ping_info" in lazy) == (
        text,
        len(text),
        text[:9],
        True,
        True,
    )
    module = LazyJson(json)
    assert module.loads(lazy) == json.loads(text) == module.loads(text)
    assert module.dumps is json.dumps
    with pytest.raises(json.JSONDecodeError):
        module.loads("{")


@pytest.mark.parametrize(
    "values",
    [["a", "b", "a"], ["é", "b"], ["a", None], [], ["", ""], [{"x": 1}], [None, None]],
)
def test_values_of_arrow_arrays(values: list[Any]) -> None:
    array = pa.array(values)
    assert python_values(array) == values
    assert python_values(pa.concat_arrays([array, array]).slice(1)) == (values + values)[1:]
    if pa.types.is_string(array.type):
        assert python_values(array.dictionary_encode()) == values


def test_maps_become_dicts() -> None:
    array = pa.array([[("a", "b")], None], pa.map_(pa.string(), pa.string()))
    assert python_values(array) == [{"a": "b"}, None]
