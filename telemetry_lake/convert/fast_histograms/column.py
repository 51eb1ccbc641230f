"""Fill the nested column `histograms` of a chunk of pings.

The compiled parser fills it where a document allows it (`read`), else it is filled row by row (`append`). The
rows of a ping are taken out again (`mark`, `roll_back`) when the rest of its document turns out not to be
what the parser took it for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from telemetry_lake import columns
from telemetry_lake.convert.arrays import Array, of_filled_texts, of_lists, of_numbers
from telemetry_lake.convert.fast_histograms.document import parse
from telemetry_lake.convert.fast_histograms.histogram import NAME_COUNT
from telemetry_lake.convert.fast_histograms.layout import (
    BUCKET_MIN_BYTES,
    KEYS_MAX_COUNT,
    NEW_RANGE_COLUMNS,
    NO_KEY,
    RANGE_TEXT_BYTES,
    SUMS,
    ContainerField,
    EmptyField,
    Expected,
    Field,
    InexactField,
    Kind,
    Label,
    Labels,
    Level,
    Limit,
    Places,
    PutBackField,
    RangeField,
    Ranges,
    Rows,
    Scratch,
    Source,
    Status,
    Total,
)
from telemetry_lake.convert.fast_histograms.lookup import find_range, intern
from telemetry_lake.convert.fast_histograms.settle import gather_keys, settle
from telemetry_lake.convert.fast_histograms.swar import PADDING_BYTES
from telemetry_lake.convert.plain_histograms import (
    HISTOGRAMS_MAX_COUNT,
    RANGES_MAX_COUNT,
    pointer_part,
)
from telemetry_lake.documents.nesting import is_nested_too_deep
from telemetry_lake.documents.text import parse_json
from telemetry_lake.histograms.bucket_ranges import BucketRange, bucket_bounds, sent_type
from telemetry_lake.histograms.definitions import HistogramDefinitions
from telemetry_lake.histograms.list_text import list_text
from telemetry_lake.histograms.stored import KEYED, PARENT_PROCESS, PLAIN, HistogramRow, Json, source_of
from telemetry_lake.numba_options import Integer
from telemetry_lake.tables.definitions import LIVE_PINGS, table_definition

COLUMN_TYPE: Final = table_definition(LIVE_PINGS).arrow_schema().field(columns.HISTOGRAMS).type
_STRUCT: Final = COLUMN_TYPE.value_type

LABELS_MAX_COUNT: Final = 32_768
"""With more, the table of names starts again from nothing after a chunk: clients can make names up."""
RANGES_REMEMBERED: Final = 4_096
BOUNDS_MAX_COUNT: Final = 1_048_576
"""Likewise the table of ranges."""
EXPECTED_MAX_COUNT: Final = 64
"""Revisions whose definitions are remembered by label; half a megabyte each."""

_PADDING: Final = bytes(PADDING_BYTES)
_FIRST_ROWS: Final = 32_768 + 72
"""A power of two would put all columns of a row into one set of the processor's cache."""
_FIRST_BUCKETS: Final = 16_384
_FIRST_TEXT_BYTES: Final = 1_048_576
CONTAINERS_MAX_COUNT: Final = 1_024
"""A document with more is read in plain Python: in a few kilobytes it can name a million."""
LABEL_TEXT_MAX_BYTES: Final = 4_194_304
"""With more, the table of names starts again as well: one name can have the length of a document."""

_Ints = NDArray[np.int64]
_Scalar = TypeVar("_Scalar", bound=np.generic)


class Mark(NamedTuple):
    """How far the column is filled."""

    rows: int
    bucket_bytes: int
    count_bytes: int
    key_bytes: int


class Container(NamedTuple):
    """An object of the document that holds histograms: where, which ones, and its extent in the text."""

    pointer: str
    source: str
    start: int
    end: int


class PutBack(NamedTuple):
    """A member of a container that stays in the document."""

    container: int
    start: int
    label: str
    key: str | None
    value: object


@dataclass(frozen=True, slots=True)
class Reading:
    """What `read` found in a document."""

    containers: list[Container]
    rest: bytes
    """The document with those objects emptied."""
    has_members: bool
    """Whether any of them was not empty."""
    has_long_numbers: bool
    """Whether the rest may have integers of more than 64 bits."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the histograms of a document that was read."""

    put_back: list[PutBack]
    filled: frozenset[int]
    """Numbers of the containers that had histograms which are in the column now."""
    unknown: int


class PingRows:
    """The rows of one ping in the column, as a context in which they are filled in.

    An exception takes them out again; otherwise the ping ends with them.
    """

    __slots__ = ("_column", "_mark")

    def __init__(self, column: "HistogramColumn") -> None:
        self._column = column
        self._mark = column.mark()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._column.end_ping()
        else:
            self.clear()

    def __len__(self) -> int:
        return self._column.mark().rows - self._mark.rows

    def read(self, document: bytes) -> Reading | None:
        """Fill in every histogram of `document`; None, and nothing, when it has to be read plainly."""
        return self._column.read(document)

    def settle(self, document: bytes, definitions: HistogramDefinitions | None) -> Settled | None:
        """Take out what definitions do not know, and list it with all else that stays in the document.

        To be called after `read` of the same document. None when a histogram was not sent with the range of
        its definition: the document has to be read plainly.
        """
        return self._column.settle(self._mark, document, definitions)

    def append(self, rows: Sequence[HistogramRow]) -> None:
        """Fill in rows one by one."""
        self._column.append(rows)

    def clear(self) -> None:
        """Take the ping's rows out of the column."""
        self._column.roll_back(self._mark)


class HistogramColumn:
    """The column, and what the parser remembers from chunk to chunk."""

    def __init__(self) -> None:
        # Column by column, as Arrow takes them: that costs the parser nothing, and halves what `take` does.
        self._rows = Rows(
            histograms=np.zeros((_FIRST_ROWS, len(Field)), np.int32, order="F"),
            limits=np.zeros((_FIRST_ROWS, len(Limit)), np.int64, order="F"),
            sums=np.zeros((_FIRST_ROWS, SUMS), np.float64, order="F"),
            bucket_text=np.zeros(_FIRST_TEXT_BYTES, np.uint8),
            count_text=np.zeros(_FIRST_TEXT_BYTES, np.uint8),
            keys=np.zeros(_FIRST_TEXT_BYTES, np.uint8),
        )
        self._scratch = Scratch(
            totals=np.zeros(len(Total), np.int64),
            sources=np.zeros((HISTOGRAMS_MAX_COUNT, len(Source)), np.int64),
            buckets=np.zeros(_FIRST_BUCKETS, np.int32),
            inexact=np.zeros((HISTOGRAMS_MAX_COUNT * SUMS, len(InexactField)), np.int64),
            new_ranges=np.zeros((RANGES_MAX_COUNT, NEW_RANGE_COLUMNS), np.int64),
            following_fields=np.arange(1, NAME_COUNT + 2, dtype=np.int64) % NAME_COUNT,
        )
        self._places = Places(
            containers=np.zeros((CONTAINERS_MAX_COUNT, len(ContainerField)), np.int64),
            empties=np.zeros((HISTOGRAMS_MAX_COUNT, len(EmptyField)), np.int64),
            put_back=np.zeros((HISTOGRAMS_MAX_COUNT, len(PutBackField)), np.int64),
            key_codes=np.zeros(KEYS_MAX_COUNT, np.uint64),
        )
        self._ping_ends: list[int] = []
        self._new_tables()

    # --- filling ---------------------------------------------------------------------------------

    def ping(self) -> PingRows:
        """Return the rows of the next ping, as a context in which they are filled in."""
        return PingRows(self)

    def mark(self) -> Mark:
        """Where the next ping's rows begin."""
        return Mark(*self._scratch.totals[: len(Mark._fields)].tolist())

    def roll_back(self, mark: Mark) -> None:
        """Forget the rows behind `mark`."""
        self._scratch.totals[: len(mark)] = mark

    def read(self, document: bytes) -> Reading | None:
        """Fill in every histogram of `document`; None, and nothing, when it has to be read plainly.

        A document of a few kilobytes does not make the arrays grow, however many containers, ranges or
        histograms it names: there is a limit to each, above which it is read plainly.
        """
        text = np.frombuffer(document + _PADDING, np.uint8)
        mark = self.mark()
        self._make_room(mark, text.size)
        ranges_before = self._range_count
        while True:
            status = parse(
                text,
                tuple(self._rows),
                tuple(self._labels),
                tuple(self._ranges),
                tuple(self._scratch),
                tuple(self._places),
            )
            if status == Status.FINE:
                break
            if status == Status.UNUSUAL:
                return None
            self._help(status)
            if self._range_count - ranges_before > RANGES_MAX_COUNT:
                return None
        if self._has_too_many_ranges(mark):
            return None
        totals = self._scratch.totals.tolist()
        for row, field, start, end in self._scratch.inexact[: totals[Total.INEXACT]].tolist():
            number = float(document[start:end])
            if math.isinf(number):  # a number of hundreds of digits, which is not JSON for the plain way
                return None
            self._rows.sums[row, field] = number
        found, rest, rest_start = [], [], 0
        containers = self._places.containers[: totals[Total.CONTAINERS]].tolist()
        for kind, level, process, start, end, _ in containers:
            pointer, source = self._place(kind, level, process)
            found.append(Container(pointer, source, start, end))
            rest += [document[rest_start:start], b"{}"]
            rest_start = end
        rest.append(document[rest_start:])
        return Reading(
            found,
            b"".join(rest) if found else document,
            totals[Total.HISTOGRAMS] > mark.rows or totals[Total.EMPTIES] > 0,
            totals[Total.LONG_NUMBERS] > 0,
        )

    def _has_too_many_ranges(self, mark: Mark) -> bool:
        """Return whether the document that was read has too many ranges; then its rows are taken out."""
        rows = int(self._scratch.totals[Total.HISTOGRAMS]) - mark.rows
        if rows <= RANGES_MAX_COUNT:
            return False
        ranges = self._scratch.sources[:rows, Source.RANGE]
        if np.unique(ranges).size <= RANGES_MAX_COUNT:
            return False
        self.roll_back(mark)
        return True

    def settle(self, mark: Mark, document: bytes, definitions: HistogramDefinitions | None) -> Settled | None:
        """Take out what definitions do not know, and list it with all else that stays in the document.

        To be called after `read` of the same document, for the rows behind `mark`. None when a histogram
        is not sent with the range of its definition: the document has to be read plainly.
        """
        put_back: list[PutBack] = []
        if definitions is not None:
            expected = self._expected_by(definitions)
            while (status := self._settle(mark, expected)) != Status.FINE:
                if status == Status.UNUSUAL:
                    return None
                self._resolve(mark, expected, definitions)
            put_back = self._undefined(document)
        unknown = len(put_back)
        totals = self._scratch.totals.tolist()
        if empties := totals[Total.EMPTIES]:
            for container, start, length in self._places.empties[:empties].tolist():
                put_back.append(
                    PutBack(container, start, document[start : start + length].decode(), None, {})
                )
        put_back.sort(key=_start)
        containers = self._places.containers[: totals[Total.CONTAINERS]]
        read = containers[:, ContainerField.READ_COUNT].tolist()
        filled = frozenset(container for container, count in enumerate(read) if count)
        return Settled(put_back, filled, unknown)

    def _settle(self, mark: Mark, expected: _Ints) -> Integer:
        return settle(mark.rows, expected, tuple(self._rows), tuple(self._scratch), tuple(self._places))

    def _undefined(self, document: bytes) -> list[PutBack]:
        """Return the histograms that have been taken out of the rows as members of the document."""
        put_back = []
        taken_out = self._places.put_back[: self._scratch.totals[Total.PUT_BACK]].tolist()
        for container, start, length, text_start, text_end, key_start, key_length in taken_out:
            label = document[start : start + length].decode()
            key = (
                None
                if key_length == NO_KEY
                else self._rows.keys[key_start : key_start + key_length].tobytes().decode()
            )
            put_back.append(PutBack(container, start, label, key, parse_json(document[text_start:text_end])))
        return put_back

    def append(self, rows: Sequence[HistogramRow]) -> None:
        """Fill in rows one by one."""
        for row in rows:
            key = None if row.key is None else row.key.encode()
            buckets, counts = ((list_text(numbers) or "").encode() for numbers in (row.buckets, row.counts))
            mark = self.mark()
            number, bucket_start, count_start, key_start = mark
            while number == len(self._rows.histograms):
                self._grow_rows()
            self._make_room(mark, max(len(buckets), len(counts)))
            while key is not None and key_start + len(key) > len(self._rows.keys):
                self._grow_keys()
            target = self._rows.histograms[number]
            target[Field.NAME] = self._label(row.name)
            target[Field.PROCESS] = self._label(row.process)
            target[Field.TYPE] = row.histogram_type
            target[Field.BUCKET_COUNT] = row.bucket_count
            self._rows.limits[number] = row.range_low, row.range_high
            buckets_end, counts_end = bucket_start + len(buckets), count_start + len(counts)
            self._rows.bucket_text[bucket_start:buckets_end] = np.frombuffer(buckets, np.uint8)
            self._rows.count_text[count_start:counts_end] = np.frombuffer(counts, np.uint8)
            target[Field.BUCKETS_END], target[Field.COUNTS_END] = buckets_end, counts_end
            target[Field.KEY_START] = key_start
            target[Field.KEY_LENGTH] = NO_KEY if key is None else len(key)
            if key:
                self._rows.keys[key_start : key_start + len(key)] = np.frombuffer(key, np.uint8)
            self._rows.sums[number] = row[-SUMS:]
            self.roll_back(Mark(number + 1, buckets_end, counts_end, key_start + len(key or b"")))

    def end_ping(self) -> None:
        """All rows so far belong to this ping and those before it."""
        self._ping_ends.append(int(self._scratch.totals[Total.HISTOGRAMS]))

    # --- emptying --------------------------------------------------------------------------------

    def take(self) -> Array:
        """The column for the pings that were ended; afterwards it is empty."""
        rows = self.mark().rows
        if (self._ping_ends[-1] if self._ping_ends else 0) != rows:
            raise AssertionError(f"{rows} histograms, of which {self._ping_ends[-1:]} belong to a ping")
        histograms = self._rows.histograms[:rows]
        labels = self._label_array()
        limits = self._rows.limits[:rows]
        fields = [
            labels.take(of_numbers(histograms[:, Field.PROCESS], pa.int32())),
            labels.take(of_numbers(histograms[:, Field.NAME], pa.int32())),
            self._key_array(rows),
            of_numbers(histograms[:, Field.TYPE], pa.int32()),
            of_numbers(histograms[:, Field.BUCKET_COUNT], pa.int32()),
            of_numbers(limits[:, Limit.LOW], pa.int64()),
            of_numbers(limits[:, Limit.HIGH], pa.int64()),
            of_filled_texts(histograms[:, Field.BUCKETS_END], self._rows.bucket_text),
            of_filled_texts(histograms[:, Field.COUNTS_END], self._rows.count_text),
            *(of_numbers(self._rows.sums[:rows, column], pa.float64()) for column in range(SUMS)),
        ]
        structs = pa.StructArray.from_arrays(fields, fields=list(_STRUCT))
        ping_ends = np.array(self._ping_ends, np.int32)
        self._ping_ends = []
        self.roll_back(Mark(0, 0, 0, 0))
        if (
            self._labels.total[0] > LABELS_MAX_COUNT
            or self._labels.text.size > LABEL_TEXT_MAX_BYTES
            or self._range_count > RANGES_REMEMBERED
            or self._bound_count > BOUNDS_MAX_COUNT
        ):
            self._new_tables()
        return of_lists(ping_ends, structs, COLUMN_TYPE)

    def compile(self) -> None:
        """Lead through everything that is compiled. The column must be empty, and is empty afterwards."""
        mark = self.mark()
        self.read(_EVERY_STEP)
        expected = np.full(self._labels.ends.size, Expected.ANY_RANGE, np.int64)
        self._settle(mark, expected)
        self.end_ping()
        self.take()

    def _label_array(self) -> Array:
        count = int(self._labels.total[0])
        offsets = self._labels.ends[: count + 1].astype(np.int32)
        text = self._labels.text[: offsets[-1]].tobytes()
        return pa.StringArray.from_buffers(count, pa.py_buffer(offsets.tobytes()), pa.py_buffer(text))

    def _key_array(self, rows: int) -> Array:
        lengths = self._rows.histograms[:rows, Field.KEY_LENGTH]
        if not (lengths != NO_KEY).any():
            return pa.nulls(rows, pa.string())
        offsets = np.zeros(rows + 1, np.int32)
        text = np.zeros(int(lengths.clip(min=0).sum()), np.uint8)
        gather_keys(self._rows.histograms, rows, self._rows.keys, offsets, text)
        validity = np.packbits(lengths != NO_KEY, bitorder="little")
        return pa.Array.from_buffers(
            pa.string(), rows, [pa.py_buffer(part.tobytes()) for part in (validity, offsets, text)]
        )

    # --- tables ----------------------------------------------------------------------------------

    def _new_tables(self) -> None:
        self._labels = _empty_labels(2 * LABELS_MAX_COUNT, _FIRST_TEXT_BYTES)
        table = np.zeros((2 * RANGES_REMEMBERED, len(RangeField)), np.int64)
        self._ranges = Ranges(
            slots=np.full(8 * RANGES_REMEMBERED, -1, np.int64),
            table=table,
            bounds=np.zeros(65_536, np.int64),
            texts=_room_for_texts(table),
        )
        self._range_count = 0
        self._bound_count = 0
        self._expected: dict[HistogramDefinitions, _Ints] = {}
        self._place_cache: dict[tuple[int, int, int], tuple[str, str]] = {}
        # The parser knows these two by number.
        if (self._label(""), self._label(PARENT_PROCESS)) != (Label.EMPTY, Label.PARENT):
            raise AssertionError("the table of labels does not begin as the parser expects")
        # So that a guess that has not been made yet is a range that nothing has.
        table[0, : RangeField.HEAD_LENGTH] = -1
        self._range_count = 1

    def _label(self, label: str) -> int:
        text = np.frombuffer(label.encode(), np.uint8)
        while (number := intern(text, np.uint64(0), np.uint64(text.size), self._labels)) < 0:
            self._grow_labels()
        return int(number)

    def _name_of(self, label: int) -> str:
        ends = self._labels.ends
        return self._labels.text[ends[label] : ends[label + 1]].tobytes().decode()

    def _help(self, status: Integer) -> None:
        """Do what the parser needs before it can read a document."""
        match status:
            case Status.NEW_RANGES:
                for new in self._scratch.new_ranges[: self._scratch.totals[Total.NEW_RANGES]].tolist():
                    self._range_number(*new)
            case Status.FULL_ROWS:
                self._grow_rows()
            case Status.FULL_LABELS:
                self._grow_labels()
            case Status.FULL_KEYS:
                self._grow_keys()
            case _:
                raise AssertionError(f"the parser does not end with {status}")

    def _grow_keys(self) -> None:
        self._rows = self._rows._replace(keys=_doubled(self._rows.keys))

    def _grow_rows(self) -> None:
        self._rows = self._rows._replace(
            histograms=_doubled(self._rows.histograms),
            limits=_doubled(self._rows.limits),
            sums=_doubled(self._rows.sums),
        )

    def _make_room(self, mark: Mark, text_bytes: int) -> None:
        """Make room behind `mark` for the buckets and counts of `text_bytes` bytes of a document.

        The parser also overwrites what is behind them.
        """
        room = max(mark.bucket_bytes, mark.count_bytes) + text_bytes + PADDING_BYTES
        while room > len(self._rows.bucket_text):
            self._rows = self._rows._replace(
                bucket_text=_doubled(self._rows.bucket_text), count_text=_doubled(self._rows.count_text)
            )
        while text_bytes > BUCKET_MIN_BYTES * len(self._scratch.buckets):
            self._scratch = self._scratch._replace(buckets=_doubled(self._scratch.buckets))

    def _grow_labels(self) -> None:
        """Make a table with the same numbers and twice the room for what is full; what is remembered is lost.

        One long name takes room for text and not for thousands of names.
        """
        before = self._labels
        count = int(before.total[0])
        if count + 1 < before.ends.size:
            self._labels = _empty_labels(before.ends.size, 2 * before.text.size)
        else:
            self._labels = _empty_labels(2 * before.ends.size, before.text.size)
        self._expected.clear()
        for number in range(count):
            self._label(before.text[before.ends[number] : before.ends[number + 1]].tobytes().decode())

    def _place(self, kind: int, level: int, process: int) -> tuple[str, str]:
        """Return the JSON Pointer of a container, and how `lifted` names what was in it."""
        known = self._place_cache.get((kind, level, process))
        if known is None:
            name = self._name_of(process)
            member = KEYED if kind == Kind.KEYED else PLAIN
            holder = {
                Level.DOCUMENT: "",
                Level.PAYLOAD: "/payload",
                Level.PROCESS: f"/payload/processes/{pointer_part(name)}",
            }[Level(level)]
            known = f"{holder}/{member}", source_of(member, name)
            self._place_cache[kind, level, process] = known
        return known

    def _range_number(self, kind: int, low: int, high: int, bucket_count: int) -> int:
        """Return the number of a range, which is added to the table if it is new.

        One that makes no buckets has no bounds.
        """
        number, slot = find_range(kind, low, high, bucket_count, self._ranges.slots, self._ranges.table)
        if number >= 0:
            return int(number)
        try:
            bounds: Sequence[int] = bucket_bounds(BucketRange(sent_type(kind), low, high, bucket_count))
        except ValueError:
            bounds = ()
        end = self._bound_count + len(bounds)
        while end > len(self._ranges.bounds):
            self._ranges = self._ranges._replace(bounds=_doubled(self._ranges.bounds))
        if self._range_count == len(self._ranges.table):
            self._grow_ranges()
            _, slot = find_range(kind, low, high, bucket_count, self._ranges.slots, self._ranges.table)
        self._ranges.bounds[self._bound_count : end] = bounds
        number = self._range_count
        self._ranges.table[number] = (kind, low, high, bucket_count, self._bound_count, end, 0, 0)
        self._ranges.slots[slot] = number
        self._bound_count = end
        self._range_count += 1
        return number

    def _grow_ranges(self) -> None:
        """Make a table of twice the size with the same numbers; what is remembered of their texts is lost."""
        table = _doubled(self._ranges.table)
        table[:, (RangeField.HEAD_LENGTH, RangeField.TAIL_LENGTH)] = 0
        slots = np.full(2 * self._ranges.slots.size, -1, np.int64)
        for number in range(1, self._range_count):
            kind, low, high, bucket_count = table[number, :NEW_RANGE_COLUMNS].tolist()
            _, slot = find_range(kind, low, high, bucket_count, slots, table)
            slots[slot] = number
        self._ranges = self._ranges._replace(slots=slots, table=table, texts=_room_for_texts(table))

    def _expected_by(self, definitions: HistogramDefinitions) -> _Ints:
        """Return what the definitions say about each label, as far as it has been looked up."""
        expected = self._expected.get(definitions)
        if expected is None:
            if len(self._expected) >= EXPECTED_MAX_COUNT:
                self._expected.clear()
            expected = np.full(self._labels.ends.size, Expected.UNRESOLVED, np.int64)
            self._expected[definitions] = expected
        return expected

    def _resolve(self, mark: Mark, expected: _Ints, definitions: HistogramDefinitions) -> None:
        rows = slice(mark.rows, int(self._scratch.totals[Total.HISTOGRAMS]))
        for label in np.unique(self._rows.histograms[rows, Field.NAME]).tolist():
            name = self._name_of(label)
            if name not in definitions:
                expected[label] = Expected.UNDEFINED
            elif (defined := definitions.range_of(name)) is None:
                expected[label] = Expected.ANY_RANGE
            else:
                expected[label] = self._range_number(
                    int(defined.histogram_type), defined.low, defined.high, defined.bucket_count
                )


_EVERY_STEP: Final = (
    b'{"histograms":{"A":{"values":{"0":1},"range":[1,9],"bucket_count":4,"histogram_type":1,"sum":1}},'
    b'"keyedHistograms":{"B":{"key":{"values":{"0":1},"range":[1,9],"bucket_count":4,"histogram_type":0}}}}'
)
"""A document that needs everything that is compiled."""


def compile_parser() -> None:
    """Compile the parser, or load it if that was done before: processes forked afterwards have it at once.

    After an install or a change compiling takes half a minute, and each process that needs the parser at that
    time would do it for itself.
    """
    column = HistogramColumn()
    column.compile()
    is_nested_too_deep(_EVERY_STEP)


def put_back_members(containers: Sequence[Json], members: Sequence[PutBack]) -> None:
    """Put what stays in the document back into the containers it was cut out of."""
    for member in members:
        container = containers[member.container]
        if member.key is None:
            container[member.label] = member.value
        else:
            by_key = container.setdefault(member.label, {})
            if isinstance(by_key, dict):
                by_key[member.key] = member.value


def _start(member: PutBack) -> int:
    return member.start


def _room_for_texts(ranges: _Ints) -> NDArray[np.uint8]:
    """Return room for the texts that are remembered of ranges; words are read across the last one's end."""
    return np.zeros(len(ranges) * RANGE_TEXT_BYTES + PADDING_BYTES, np.uint8)


def _empty_labels(size: int, text_bytes: int) -> Labels:
    """Return a table with room for that many labels."""
    return Labels(
        slots=np.full(2 * size, -1, np.int64),
        text=np.zeros(text_bytes, np.uint8),
        ends=np.zeros(size, np.int64),
        total=np.zeros(1, np.int64),
        stamps=np.zeros(size + 1, np.int64),
        following=np.zeros(size, np.int64),
        last_ranges=np.zeros(size, np.int64),
    )


def _doubled(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    grown = np.zeros((2 * array.shape[0], *array.shape[1:]), array.dtype, order=order)
    grown[: array.shape[0]] = array
    return grown
