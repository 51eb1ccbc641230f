"""Damaged documents without end, and what each way of reading histograms makes of them.

Documents are also given to a process with the checked variant of compiled code (`checked_process`): which
variant a process has is decided when it starts.
"""

import hashlib
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import IO, Final

import orjson
import pyarrow as pa

from lake_testing import ping_builders as build
from lake_testing.realistic_pings import jittered_documents
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.fast_histograms.column import HistogramColumn, Settled
from telemetry_lake.convert.histogram_readers import read_fast, read_plainly
from telemetry_lake.histograms.definitions import HistogramDefinitions, parse_definitions
from telemetry_lake.numba_options import CHECKED, CHECKED_VARIABLE
from telemetry_lake.project_files import PROJECT_ROOT

BATCH_DOCUMENTS: Final = 500
WHOLE_EVERY: Final = 200
"""One document in 200 begins as a ping of the usual size; the others are short, so that there are more."""
_DAMAGES: Final = (1, 1, 1, 1, 2, 3)
_SPAN_MAX_BYTES: Final = 40

_TOKENS: Final = (
    *(b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b" ", b"\n", b"\0", b"-", b".", b"e", b"0", b"1"),
    *(b'\\"', b"\\u0041", b"\xc3\xa9", b"\xff", b"{}", b'"":', b'"0":1,', b'"1":2', b"null", b"1e400", b"-0"),
    *(b"9" * 8, b"9" * 10, b"9" * 11, b"9" * 20, b"9" * 400, b"2147483647", b"2147483648", b"0." + b"3" * 18),
    *(
        b'"histograms":{',
        b'"keyedHistograms":{',
        b'"payload":{',
        b'"processes":{',
        b'"values":{',
        b'"sum":-1,',
    ),
    *(
        b'"range":[1,2],',
        b'"bucket_count":3,',
        b'"histogram_type":2,',
        b'"log_sum":1.5,',
        b'"keyedHistograms":{"A":{}},',
    ),
)


class Work(Enum):
    """What is done with the documents of a batch."""

    READ = auto()
    """The compiled parser reads them, and takes out again what definitions do not know."""
    CONVERT = auto()
    """They are converted."""
    CONVERT_PLAINLY = auto()
    """They are converted in plain Python."""


def damaged_documents(seed: int) -> Iterator[bytes]:
    """Documents with up to three damages each; the same ones for the same seed."""
    chance = random.Random(seed)
    short, whole = _short_documents(), list(jittered_documents(4))
    number = 0
    while True:
        document = chance.choice(whole if number % WHOLE_EVERY == 0 else short)
        for _ in range(chance.choice(_DAMAGES)):
            document = chance.choice(_WAYS_TO_DAMAGE)(document, chance)
        yield document
        number += 1


def batches(seed: int, documents: int) -> Iterator[list[bytes]]:
    """That many damaged documents, in batches."""
    damaged = damaged_documents(seed)
    for first in range(0, documents, BATCH_DOCUMENTS):
        yield [next(damaged) for _ in range(min(BATCH_DOCUMENTS, documents - first))]


def _short_documents() -> list[bytes]:
    """Documents of every form that the parser knows, each with a few histograms."""
    long = build.linear(
        {"0": 1, "1": 12345678, "4": 1234567890, "7": 3}, sum=12.5, log_sum=1.25, sum_squares_lo=3
    )
    flag = {"range": [1, 2], "bucket_count": 3, "histogram_type": 3, "values": {"0": 1, "1": 0}, "sum": 0}
    steps = {
        "range": [1, 3000],
        "bucket_count": 10,
        "histogram_type": 0,
        "values": {"0": 7, "21": 2},
        "sum": 43,
    }
    plain = {"A": long, "GC_MS": steps, "A11Y_INSTANTIATED_FLAG": flag, "B": {**build.linear({}), "sum": 2}}
    keyed = {
        "SEARCH": {"google.urlbar": long, "ddg": flag, "": steps},
        "NONE": {},
        "ONE": {"k": build.linear({})},
    }
    documents = [
        build.unified_document(histograms=plain),
        build.unified_document(keyedHistograms=keyed),
        build.unified_document(
            histograms={"A": long},
            processes={
                "content": {"histograms": plain, "keyedHistograms": keyed},
                "gpu": {"scalars": {"x": 1}},
            },
        ),
        build.classic_document(histograms=plain, keyedHistograms=keyed),
        build.unified_document(
            histograms={f"H{bound}": build.linear({"1": bound}, range=[1, 9 + bound]) for bound in range(12)}
        ),
        {"histograms": {}, "keyedHistograms": {}},
    ]
    texts = [orjson.dumps(document) for document in documents]
    texts += [orjson.dumps(document, option=orjson.OPT_INDENT_2) for document in documents[:3]]
    real = orjson.loads(next(iter(jittered_documents(1))))
    names = list(real["histograms"])
    for first in range(0, len(names), 25):
        some = {name: real["histograms"][name] for name in names[first : first + 5]}
        texts.append(orjson.dumps({**build.classic_document(), "histograms": some}))
    return texts


def _cut(document: bytes, chance: random.Random) -> bytes:
    return document[: chance.randint(0, len(document))]


def _cut_in_token(document: bytes, chance: random.Random) -> bytes:
    """Cut behind a byte that something has to follow, or one byte further."""
    place = _find(b'["\\\\:,{[0-9.-]', document, chance)
    return document if place is None else document[: place + chance.randint(0, 2)]


def _flip(document: bytes, chance: random.Random) -> bytes:
    if not document:
        return document
    place = chance.randrange(len(document))
    return document[:place] + bytes([document[place] ^ 1 << chance.randrange(8)]) + document[place + 1 :]


def _insert(document: bytes, chance: random.Random) -> bytes:
    place = chance.randint(0, len(document))
    return document[:place] + chance.choice(_TOKENS) + document[place:]


def _overwrite(document: bytes, chance: random.Random) -> bytes:
    place, token = chance.randint(0, len(document)), chance.choice(_TOKENS)
    return document[:place] + token + document[place + len(token) :]


def _remove(document: bytes, chance: random.Random) -> bytes:
    start, end = _span(document, chance)
    return document[:start] + document[end:]


def _repeat(document: bytes, chance: random.Random) -> bytes:
    start, end = _span(document, chance)
    return document[:end] + document[start:end] * chance.choice((1, 1, 1, 2, 20)) + document[end:]


def _move(document: bytes, chance: random.Random) -> bytes:
    start, end = _span(document, chance)
    place = chance.randint(0, len(document))
    return document[:place] + document[start:end] + document[place:]


def _change_digit(document: bytes, chance: random.Random) -> bytes:
    place = _find(b"[0-9]", document, chance)
    if place is None:
        return document
    return (
        document[:place]
        + chance.choice((b"0", b"9", b"77777777", b"1" * 19, b"-1", b"1.5"))
        + document[place + 1 :]
    )


def _repeat_member(document: bytes, chance: random.Random) -> bytes:
    """Repeat what is between two braces, inside of itself or behind it: nested and duplicated containers."""
    opening, closing = _find(b"{", document, chance), _find(b"}", document, chance)
    if opening is None or closing is None:
        return document
    start, end = sorted((opening, closing + 1))
    place = chance.choice((start + 1, end))
    return document[:place] + document[start:end][:4_000] + chance.choice((b"", b",")) + document[place:]


def _find(pattern: bytes, document: bytes, chance: random.Random) -> int | None:
    """Return where a byte of a pattern is, the first one behind a place that chance decides."""
    found = re.compile(pattern).search(document, chance.randint(0, len(document)))
    return None if found is None else found.start()


def _span(document: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randint(0, len(document))
    return start, min(len(document), start + chance.randint(1, _SPAN_MAX_BYTES))


_WAYS_TO_DAMAGE: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    _cut,
    _cut_in_token,
    _flip,
    _insert,
    _insert,
    _overwrite,
    _remove,
    _repeat,
    _move,
    _change_digit,
    _change_digit,
    _change_digit,
    _repeat_member,
)


def outcome_of(work: Work, documents: Sequence[bytes]) -> str:
    """A digest of all that becomes of a batch of documents, by a process that knows nothing before it."""
    return (
        _read(documents) if work is Work.READ else _converted(documents, plainly=work is Work.CONVERT_PLAINLY)
    )


def _read(documents: Sequence[bytes]) -> str:
    digest = hashlib.blake2b()
    column, definitions = HistogramColumn(), _definitions()
    for number, document in enumerate(documents):
        mark = column.mark()
        reading = column.read(document)
        settled: Settled | str | None = None
        if reading is not None:
            try:
                settled = column.settle(mark, document, definitions if number % 2 else None)
            except ValueError as error:  # a histogram that is taken out is not JSON
                settled = type(error).__name__
        if settled is None or isinstance(settled, str):
            column.roll_back(mark)
        column.end_ping()
        digest.update(b"-" if reading is None else repr((reading, settled)).encode())
    digest.update(_bytes_of(pa.table({"histograms": column.take()})))
    return digest.hexdigest()


def _converted(documents: Sequence[bytes], *, plainly: bool) -> str:
    digest = hashlib.blake2b()
    converter = Converter(build.settings(), read_histograms=read_plainly if plainly else read_fast)
    paths = [build.telemetry_path(kind) for kind in ("main", "idle-daily")]
    pings = [build.ping(paths[b'"ver":1,"info"' in document], document) for document in documents]
    for conversion in converter.convert(build.raw_object(pings)):
        digest.update(_bytes_of(conversion.pings))
        digest.update(_bytes_of(conversion.rejected))
    return digest.hexdigest()


def _bytes_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@cache
def _definitions() -> HistogramDefinitions:
    (file,) = build.DEFINITIONS.rglob("*.json")
    return parse_definitions(file.read_bytes())


@dataclass
class CheckedProcess:
    """A process with the checked variant of compiled code, which does the same work as this one."""

    _requests: IO[bytes]
    _answers: IO[bytes]

    def send(self, work: Work, documents: Sequence[bytes]) -> None:
        """Let it begin with a batch."""
        pickle.dump((work, list(documents)), self._requests)
        self._requests.flush()

    def outcome(self) -> str:
        """A digest of what became of the oldest batch that was sent; or the exception, in words."""
        answer = pickle.load(self._answers)
        assert isinstance(answer, str)
        return answer


@contextmanager
def checked_process() -> Iterator[CheckedProcess]:
    """Start it, and end it afterwards."""
    with subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import answer_requests; answer_requests()"],
        cwd=PROJECT_ROOT,
        env={**os.environ, CHECKED_VARIABLE: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield CheckedProcess(process.stdin, process.stdout)
            process.stdin.close()
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def shrunk(document: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """The document with all taken away that it does not need in order to fail."""
    size = len(document) // 2
    while size:
        start = 0
        while start < len(document):
            shorter = document[:start] + document[start + size :]
            if fails(shorter):
                document = shorter
            else:
                start += size
        size //= 2
    return document


def answer_requests() -> None:
    """Answer each batch on the standard input with what became of it, as long as there are some."""
    assert CHECKED
    while True:
        try:
            work, documents = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            outcome = outcome_of(work, documents)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the outcome)
            outcome = f"{type(error).__name__}: {error}"
        pickle.dump(outcome, sys.stdout.buffer)
        sys.stdout.buffer.flush()
