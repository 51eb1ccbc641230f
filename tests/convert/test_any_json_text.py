"""Whatever JSON text a ping is, both ways of reading it give one row, and the row what was sent.

Names are spelled with escapes and come twice, texts end in the middle of a pair, counts are written as other
programs write numbers, and documents are nested as deep as they may be, or deeper, or read by a caller that
has next to no stack left.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake_testing import ping_builders as build
from lake_testing.ping_builders import convert, generic_path, linear, ping, rows_of, telemetry_path
from telemetry_lake.backfill.units.digest import canonical_text
from telemetry_lake.backfill.units.row_texts import RowTexts
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.fast_histograms.layout import Level
from telemetry_lake.convert.fast_histograms.scanner import SKIPPED_MAX_DEPTH
from telemetry_lake.convert.histogram_readers import read_plainly
from telemetry_lake.documents.nesting import DOCUMENT_MAX_DEPTH
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.mapreduce.reading.documents import Documents

FAST = Converter(build.settings())
PLAIN = Converter(build.settings(), read_histograms=read_plainly)
MAIN = telemetry_path("main")
HALF = '"cut in the middle of an emoji \\ud83d"'

Pairs = list[tuple[str, str]]
"""Members of an object: the name and the value, both as text."""


def text_of(pairs: Pairs) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


@st.composite
def spelled(draw: st.DrawFn, *names: str) -> str:
    """Return one of the names as JSON text, now and then with a letter as its escape."""
    name = draw(st.sampled_from(names))
    text = json.dumps(name)
    place = draw(st.integers(0, 3 * len(name)))
    if name.isalpha() and place < len(name):
        text = f'"{name[:place]}\\u{ord(name[place]):04X}{name[place + 1 :]}"'
    return text


counts = st.sampled_from(
    [
        *("1", "0", "7", "1.0", "10e-1", "2E2", "-0", "-0.0", "-1", "0.5", "1e400", "null", '"1"', "9.3e18"),
        *("9223372036854775807", "9223372036854775808"),
    ]
)
usual_counts = st.sampled_from(["1", "3.0", "20e-1", "0"])
scalars = st.sampled_from(
    ["1", "{}", "[]", '"x"', HALF, "null", "123456789012345678901", '{"a":{"\\udc00":"\\ud83d"}}']
)


@st.composite
def histograms(draw: st.DrawFn) -> str:
    chosen = draw(usual_counts | counts)
    values = [('"0"', chosen), ('"1"', draw(usual_counts))][: draw(st.integers(0, 2))]
    head = '{"range":[1,2],"bucket_count":3,"histogram_type":2,"values":' + text_of(values)
    return head + draw(st.sampled_from(["}", ',"sum":1}', ',"sum":1.0}', ',"more":' + HALF + "}"]))


plain = st.lists(st.tuples(spelled("A", "B", "B\ud83d"), histograms()), max_size=3).map(text_of)
keyed = st.lists(st.tuples(spelled("K", "L\udc00"), plain), max_size=2).map(text_of)
holders = st.lists(
    st.tuples(spelled("histograms"), plain)
    | st.tuples(spelled("keyedHistograms"), keyed)
    | st.tuples(spelled("scalars", "histograms", "keyedHistograms"), scalars),
    max_size=3,
).map(text_of)
processes = st.lists(
    st.tuples(spelled("content", "gpu", "c\ud83d", "parent"), holders | scalars), max_size=3
).map(text_of)
payloads = st.lists(
    st.tuples(spelled("histograms"), plain)
    | st.tuples(spelled("keyedHistograms"), keyed)
    | st.tuples(spelled("processes"), processes)
    | st.tuples(spelled("x", "processes", "histograms"), scalars),
    max_size=4,
).map(
    lambda pairs: text_of([*pairs, ('"info"', '{"reason":"shut\\ud83ddown"}' if len(pairs) == 1 else "{}")])
)


@st.composite
def unified_texts(draw: st.DrawFn) -> str:
    envelope = build.unified_document()
    del envelope["payload"]
    pairs = [(json.dumps(name), json.dumps(value)) for name, value in envelope.items()]
    pairs += draw(st.lists(st.tuples(spelled("payload"), payloads), min_size=1, max_size=2))
    pairs += draw(
        st.lists(st.tuples(spelled("x", "payload", "application", "clientId"), scalars), max_size=1)
    )
    return text_of(draw(st.permutations(pairs)))


def rows_both_ways(path: str, text: bytes) -> tuple[list[Any], list[Any]]:
    fast, slow = (rows_of(convert([ping(path, text)], converter)) for converter in (FAST, PLAIN))
    assert fast == slow
    return fast


def row_texts(text: bytes, path: str = MAIN) -> tuple[bytes, str]:
    """Return the canonical text and the text for a script of the document of a row."""
    batch = (
        next(conversion for conversion in convert([ping(path, text)], FAST))
        .pings.combine_chunks()
        .to_batches()[0]
    )
    (row,) = batch.to_pylist()
    return RowTexts(batch).canonical_text(0, row), Documents(batch, lambda: batch.column("histograms")).text(
        0
    )


@given(st.lists(unified_texts(), min_size=1, max_size=8))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_both_ways_give_one_row_and_the_row_what_was_sent(texts):
    pings = [ping(MAIN, text.encode()) for text in texts]
    (conversion,) = convert(pings, FAST)
    live, rejected = rows_of([conversion])
    assert (live, rejected) == rows_of(convert(pings, PLAIN))
    assert len(live) + len(rejected) == len(texts)
    if live:
        canonical = RowTexts(conversion.pings.combine_chunks().to_batches()[0])
    for number, row in enumerate(live):
        sent = json.loads(texts[row["raw_object_position"]])
        assert restore_document(row) == sent
        assert canonical.canonical_text(number, row) == canonical_text(sent)


def test_the_last_of_two_payloads_counts_however_it_is_spelled():
    first, last = (
        json.dumps({"info": {}, "histograms": {name: linear({"1": 1})}}) for name in ("FIRST", "LAST")
    )
    envelope = json.dumps({**build.unified_document(), "payload": 0})
    text = envelope.replace('"payload": 0', f'"payload":{first},"payl\\u006fad":{last}')
    ((row,), _) = rows_both_ways(MAIN, text.encode())
    assert [histogram["name"] for histogram in row["histograms"]] == ["LAST"]
    assert restore_document(row) == json.loads(text)


def test_half_a_pair_is_kept_and_no_engine_sees_it():
    text = b'{"text":"caf\\u00e9 \\ud83d","\\udc00":"\\ufffd","n":123456789012345678901,"e":"\\ud83d\\ude00"}'
    ((row,), _) = rows_both_ways(generic_path("lake-demo", "greeting"), text)
    assert restore_document(row) == json.loads(text)
    assert row["document"] == (
        '{"text":"caf\u00e9 \ufffdd83d","\ufffddc00":"\ufffdfffd","n":123456789012345678901,"e":"\U0001f600"}'
    )
    canonical, for_scripts = row_texts(text, generic_path("lake-demo", "greeting"))
    assert canonical == canonical_text(json.loads(text))
    assert json.loads(for_scripts) == json.loads(text)


@pytest.mark.parametrize(
    "place,column,value",
    [
        ('"clientId": ', "client_id", None),
        ('"name": ', "app_name", "OTHER"),
        ('"reason": ', "reason", "OTHER"),
    ],
)
def test_a_column_has_no_half_of_a_pair(place, column, value):
    text = json.dumps(build.unified_document()).replace(place, f'{place}"\\ud83d", "was": ', 1)
    ((row,), _) = rows_both_ways(MAIN, text.encode())
    assert row[column] == value
    assert restore_document(row) == json.loads(text)


def test_a_message_about_half_a_pair_can_be_stored():
    text = json.dumps(build.unified_document(histograms={"A\ud83d": {}, "B": linear({"1": "\ud83d"})}))
    (_, (row,)) = rows_both_ways(MAIN, text.encode())
    assert row["body"] == text.encode()


# --- depth -----------------------------------------------------------------------------------------


def nested(depth: int, inside: str = "1") -> bytes:
    """Return a main ping of that depth in all."""
    text = json.dumps({**build.unified_document(histograms={"A": linear({"1": 1})}), "x": 0})
    return text.replace('"x": 0', '"x": ' + "[" * (depth - 1) + inside + "]" * (depth - 1)).encode()


def with_little_stack(work: Callable[[], None], frames: int) -> None:
    """Run `work` where so many calls inside each other are possible, and no more."""
    before = sys.getrecursionlimit()
    depth = 0
    frame: Any = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(depth + frames)
    try:
        work()
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("converter", [FAST, PLAIN])
def test_depth_at_its_limit_and_one_past_it(converter):
    def outcome(depth: int) -> list[str | None]:
        live, rejected = rows_of(convert([ping(MAIN, nested(depth))], converter))
        return [None for _ in live] + [row["error_type"] for row in rejected]

    assert [outcome(depth) for depth in (150, 200, 201, 900, 5_000)] == [
        [None],
        [None],
        *[["too_costly"]] * 3,
    ]
    assert DOCUMENT_MAX_DEPTH == 200
    assert SKIPPED_MAX_DEPTH + len(Level) <= DOCUMENT_MAX_DEPTH


@pytest.mark.parametrize("inside", ["1", "123456789012345678901", HALF, "[1e16,1.0,-0.0]"])
def test_nothing_depends_on_the_stack(inside):
    depth = DOCUMENT_MAX_DEPTH - 1 if inside.startswith("[") else DOCUMENT_MAX_DEPTH
    text = nested(depth, inside)
    document = json.loads(text)
    conversions = convert([ping(MAIN, text)], FAST)
    expected = rows_of(conversions)
    (row,) = expected[0]
    texts = row_texts(text)

    def work() -> None:
        for converter in (FAST, PLAIN):
            assert rows_of(convert([ping(MAIN, text)], converter)) == expected
            too_deep = rows_of(convert([ping(MAIN, nested(900, inside))], converter))
            assert [row["error_type"] for row in too_deep[1]] == ["too_costly"]
        found.append(restore_document(row))
        found.append(canonical_text(document))
        found.append(row_texts(text))

    found: list[Any] = []
    with_little_stack(work, 150)
    assert found == [document, canonical_text(document), texts]
