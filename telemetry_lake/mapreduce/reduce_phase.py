"""The reduce side: rows of the map side, sorted by key, become calls of `reduce` and output.

However many values a key has, memory stays bounded: up to `LIST_MAX_VALUES` of them are a list, as scripts
know it; more wait in a temporary file behind a sequence that can be iterated any number of times.
"""

import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, overload

import pyarrow as pa

from telemetry_lake.mapreduce.pairs import as_written, values_of_row
from telemetry_lake.mapreduce.pickles import pickled, unpickled
from telemetry_lake.mapreduce.records import OutputContext, OutputFormat
from telemetry_lake.mapreduce.script.script import (
    SCRIPT_FAILURES,
    ScriptError,
    ScriptSource,
    described,
    place_of,
    shown,
    unpack_script,
)
from telemetry_lake.mapreduce.summaries import CallSummary

LIST_MAX_VALUES: Final = 500_000
LIST_MAX_BYTES: Final = 64 * 1024 * 1024
"""The size as sent; in memory values take several times as much."""

REDUCED: Final = pa.schema([pa.field("content", pa.binary()), pa.field("summary", pa.binary())])
"""What the reduce side yields: `content`, output in the order of keys, or `summary`, one of each reducer."""


@dataclass(frozen=True, slots=True)
class ReduceTask:
    """Everything the reduce side has to know; it can be pickled."""

    source: ScriptSource
    output_format: OutputFormat
    max_failures: int


class ManyValues(Sequence[Any]):
    """The values of a key that has too many for a list: they can be iterated, counted and indexed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with the key)
        self._places: list[int] = []
        self._ends: list[int] = []
        self._part: tuple[int, list[Any]] = (-1, [])

    def append_part(self, content: bytes, count: int) -> None:
        """Add a row of `count` values in the form in which it was sent."""
        self._places.append(self._file.tell())
        self._ends.append(len(self) + count)
        self._file.write(len(content).to_bytes(8, "big") + content)

    def close(self) -> None:
        """Remove the temporary file, and the values with it."""
        self._file.close()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self._places)):
            yield from self._read(number)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError("list index out of range")
        number = bisect_right(self._ends, position)
        return self._read(number)[position - (self._ends[number - 1] if number else 0)]

    def _read(self, number: int) -> list[Any]:
        if self._part[0] != number:
            self._file.seek(self._places[number])
            size = int.from_bytes(self._file.read(8), "big")
            _, values = values_of_row(self._file.read(size))
            self._part = (number, as_written(values))
        return self._part[1]


def reduce_rows(task: ReduceTask, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Reduce rows of the schema `MAPPED`, sorted by key, unit and number; yield batches of `REDUCED`.

    Never raises for what goes wrong in the script: that is in the summary, which comes last.
    """
    summary = CallSummary()
    context = OutputContext(task.output_format)
    try:
        script = unpack_script(task.source)
        if script.setup_reduce is not None:
            _guarded(task.source, "setup_reduce", script.setup_reduce, context)
        for key, values in _grouped(batches):
            context.begin_key()
            try:
                script.reduce(key, values, context)  # type: ignore[misc]
            except SCRIPT_FAILURES as error:
                _failed(task, summary, error, key)
                context.forget_key()
                if summary.failures > task.max_failures:
                    break
            for payload in context.take_payloads(finish=False):
                yield _reduced(payload, None)
        for payload in context.take_payloads(finish=True):
            yield _reduced(payload, None)
    except ScriptError as error:
        summary.fatal = str(error)
    summary.written, summary.layout = context.records, context.layout
    yield _reduced(None, pickled(summary))


def _guarded(source: ScriptSource, name: str, function: Any, *arguments: Any) -> None:
    try:
        function(*arguments)
    except SCRIPT_FAILURES as error:
        raise ScriptError(f"{place_of(error, source)}: {described(error)}: {name}") from error


def _failed(task: ReduceTask, summary: CallSummary, error: BaseException, key: Any) -> None:
    place = place_of(error, task.source)
    summary.add_failure(lambda: f"{place}: {described(error)}: reduce of the key {shown(key)}")


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Yield each key with all its values."""
    current: bytes | None = None
    gathering: _Gathering | None = None
    for batch in batches:
        keys: list[Any] = batch.column("key").to_pylist()
        contents: list[Any] = batch.column("content").to_pylist()
        for order, content in zip(keys, contents, strict=True):
            if gathering is None or order != current:
                if gathering is not None:
                    yield from gathering.finish()
                current, gathering = order, _Gathering()
            gathering.add(content)
    if gathering is not None:
        yield from gathering.finish()


class _Gathering:
    """The rows of one key."""

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._bytes = 0
        self._values: list[Any] = []
        self._many: ManyValues | None = None
        self._key: Any = None

    def add(self, content: bytes) -> None:
        key, values = values_of_row(content)
        if not self._rows:
            self._key = unpickled(key)
        if self._many is None:
            self._bytes += len(content)
            self._values += as_written(values)
            self._rows.append(content)
            if len(self._values) > LIST_MAX_VALUES or self._bytes > LIST_MAX_BYTES:
                self._many = ManyValues()
                for row in self._rows:
                    self._many.append_part(row, len(values_of_row(row)[1]))
                self._values, self._rows = [], self._rows[:1]
        else:
            self._many.append_part(content, len(values))

    def finish(self) -> Iterator[tuple[Any, Sequence[Any]]]:
        if self._many is None:
            yield self._key, self._values
        else:
            try:
                yield self._key, self._many
            finally:
                self._many.close()


def _reduced(content: bytes | None, summary: bytes | None) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"content": content, "summary": summary}], schema=REDUCED)
