"""The nested column `histograms` of a chunk of pings while it is filled.

It is filled by the compiled parser where a document allows it (`read`), else row by row (`append`).
Nothing in it is ever wrong for long: `mark` and `roll_back` take a ping's rows out again when the rest
of its document turns out not to be what the parser took it for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from telemetry_lake import columns
from telemetry_lake.convert import histogram_parser as parser
from telemetry_lake.convert.arrays import Array, of_filled_texts, of_lists, of_numbers
from telemetry_lake.convert.bucket_ranges import BucketRange, HistogramType, bucket_bounds
from telemetry_lake.convert.document_text import parse_json
from telemetry_lake.convert.histogram_definitions import HistogramDefinitions
from telemetry_lake.convert.histograms import (
    HISTOGRAMS_MAX_COUNT,
    KEYED,
    PARENT_PROCESS,
    PLAIN,
    HistogramRow,
    Json,
    pointer_part,
    source_of,
)
from telemetry_lake.convert.text_words import PADDING_BYTES
from telemetry_lake.number_lists import list_text
from telemetry_lake.tables import LIVE_PINGS, table_definition

COLUMN_TYPE: Final = table_definition(LIVE_PINGS).arrow_schema().field(columns.HISTOGRAMS).type
_STRUCT: Final = COLUMN_TYPE.value_type

LABELS_MAX_COUNT: Final = 32_768
"""Between chunks the table of names starts anew when it has more: clients can make names up."""
RANGES_MAX_COUNT: Final = 4_096
BOUNDS_MAX_COUNT: Final = 1_048_576
"""Likewise the table of ranges."""
EXPECTED_MAX_COUNT: Final = 64
"""For so many revisions it is remembered what their definitions say; half a megabyte each."""

_PADDING: Final = bytes(PADDING_BYTES)
_FIRST_ROWS: Final = 32_768 + 72
"""A power of two would put all columns of a row into one set of the processor's cache."""
_FIRST_BUCKETS: Final = 16_384
_FIRST_TEXT_BYTES: Final = 1_048_576
_FIRST_PLACES: Final = 256
_FIRST_PENDING: Final = 1_024

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


class HistogramColumn:
    """The column, and what the parser remembers from chunk to chunk."""

    def __init__(self) -> None:
        self._following_fields = np.arange(1, parser.FIELD_COUNT + 2, dtype=np.int64) % parser.FIELD_COUNT
        # Column by column, as Arrow takes them: that costs the parser nothing, and halves what `take` does.
        self._histograms = np.zeros((_FIRST_ROWS, parser.HISTOGRAM_COLUMNS), np.int32, order="F")
        self._limits = np.zeros((_FIRST_ROWS, parser.LIMIT_COLUMNS), np.int64, order="F")
        self._sums = np.zeros((_FIRST_ROWS, parser.SUMS), np.float64, order="F")
        self._buckets = np.zeros(_FIRST_BUCKETS, np.int32)
        self._bucket_text = np.zeros(_FIRST_TEXT_BYTES, np.uint8)
        self._count_text = np.zeros(_FIRST_TEXT_BYTES, np.uint8)
        self._keys = np.zeros(_FIRST_TEXT_BYTES, np.uint8)
        self._inexact = np.zeros((_FIRST_ROWS, parser.INEXACT_COLUMNS), np.int64)
        self._totals = np.zeros(parser.TOTALS, np.int64)
        self._sources = np.zeros((_FIRST_ROWS, parser.SOURCE_COLUMNS), np.int64)
        self._containers = np.zeros((_FIRST_PLACES, parser.CONTAINER_COLUMNS), np.int64)
        self._empties = np.zeros((_FIRST_PLACES, parser.EMPTY_COLUMNS), np.int64)
        self._put_back = np.zeros((_FIRST_PLACES, parser.BACK_COLUMNS), np.int64)
        self._key_codes = np.zeros(parser.KEYS_MAX_COUNT, np.uint64)
        self._ping_ends: list[int] = []
        self._new_tables()

    # --- filling ---------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Where the next ping's rows begin."""
        return Mark(*self._totals[: len(Mark._fields)].tolist())

    def roll_back(self, mark: Mark) -> None:
        """Forget the rows behind `mark`."""
        self._totals[: len(mark)] = mark

    def read(self, document: bytes) -> Reading | None:
        """Fill in every histogram of `document`; None, and nothing, when it must go the slow way."""
        text = np.frombuffer(document + _PADDING, np.uint8)
        mark = self.mark()
        self._make_room(mark, text.size)
        while True:
            status = parser.parse(text, self._labels, self._tables, self._out, self._places)
            if status == parser.FINE:
                break
            if status == parser.UNUSUAL:
                return None
            self._help(status)
        rows, _, _, _, containers, empties, _, inexact, *_, long_numbers = self._totals.tolist()
        for row, field, start, end in self._inexact[:inexact].tolist():
            self._sums[row, field] = float(document[start:end])
        found, rest, rest_start = [], [], 0
        for kind, level, process, start, end, _ in self._containers[:containers].tolist():
            pointer, source = self._place(kind, level, process)
            found.append(Container(pointer, source, start, end))
            rest += [document[rest_start:start], b"{}"]
            rest_start = end
        if rows - mark.rows > HISTOGRAMS_MAX_COUNT:
            self.roll_back(mark)
            return None
        rest.append(document[rest_start:])
        return Reading(
            found, b"".join(rest) if found else document, rows > mark.rows or empties > 0, long_numbers > 0
        )

    def settle(self, mark: Mark, document: bytes, definitions: HistogramDefinitions | None) -> Settled | None:
        """Take out what definitions do not know, and list it with all else that stays in the document.

        To be called after `read` of the same document, for the rows behind `mark`. None when a histogram
        is not sent with the range of its definition: that has to go the slow way.
        """
        undefined = 0
        if definitions is not None:
            expected = self._expected_by(definitions)
            while (
                undefined := parser.settle(mark.rows, expected, self._out, self._containers, self._put_back)
            ) < 0:
                if undefined == -parser.UNUSUAL:
                    return None
                if undefined == -parser.FULL_PLACES:
                    self._put_back = _doubled(self._put_back)
                else:
                    self._resolve(mark, expected, definitions)
        put_back = []
        taken_out = self._put_back[:undefined].tolist() if undefined else ()
        for container, start, length, text_start, text_end, key_start, key_length in taken_out:
            label = document[start : start + length].decode()
            key = (
                None
                if key_length == parser.NO_KEY
                else self._keys[key_start : key_start + key_length].tobytes().decode()
            )
            put_back.append(PutBack(container, start, label, key, parse_json(document[text_start:text_end])))
        if empties := self._totals[parser.EMPTIES]:
            for container, start, length in self._empties[:empties].tolist():
                put_back.append(
                    PutBack(container, start, document[start : start + length].decode(), None, {})
                )
        put_back.sort(key=lambda member: member.start)
        read = self._containers[: self._totals[parser.CONTAINERS], parser.READ_COUNT].tolist()
        filled = frozenset(container for container, count in enumerate(read) if count)
        return Settled(put_back, filled, undefined)

    def append(self, rows: Sequence[HistogramRow]) -> None:
        """Fill in rows one by one."""
        for row in rows:
            key = None if row.key is None else row.key.encode()
            buckets, counts = ((list_text(numbers) or "").encode() for numbers in (row.buckets, row.counts))
            mark = self.mark()
            number, bucket_start, count_start, key_start = mark
            while number == len(self._histograms):
                self._grow_rows()
            self._make_room(mark, max(len(buckets), len(counts)))
            while key is not None and key_start + len(key) > len(self._keys):
                self._grow_places()
            target = self._histograms[number]
            target[parser.NAME] = self._label(row.name)
            target[parser.PROCESS] = self._label(row.process)
            target[parser.TYPE] = row.histogram_type
            target[parser.BUCKET_COUNT] = row.bucket_count
            self._limits[number] = row.range_low, row.range_high
            buckets_end, counts_end = bucket_start + len(buckets), count_start + len(counts)
            self._bucket_text[bucket_start:buckets_end] = np.frombuffer(buckets, np.uint8)
            self._count_text[count_start:counts_end] = np.frombuffer(counts, np.uint8)
            target[parser.BUCKETS_END], target[parser.COUNTS_END] = buckets_end, counts_end
            target[parser.KEY_START] = key_start
            target[parser.KEY_LENGTH] = parser.NO_KEY if key is None else len(key)
            if key:
                self._keys[key_start : key_start + len(key)] = np.frombuffer(key, np.uint8)
            self._sums[number] = row[-parser.SUMS :]
            self.roll_back(Mark(number + 1, buckets_end, counts_end, key_start + len(key or b"")))

    def end_ping(self) -> None:
        """All rows so far belong to this ping and those before it."""
        self._ping_ends.append(int(self._totals[parser.HISTOGRAMS]))

    # --- emptying --------------------------------------------------------------------------------

    def take(self) -> Array:
        """The column for the pings that were ended; afterwards it is empty."""
        rows = self.mark().rows
        if (self._ping_ends[-1] if self._ping_ends else 0) != rows:
            raise AssertionError(f"{rows} histograms, of which {self._ping_ends[-1:]} belong to a ping")
        histograms = self._histograms[:rows]
        labels = self._label_array()
        limits = self._limits[:rows]
        fields = [
            labels.take(of_numbers(histograms[:, parser.PROCESS], pa.int32())),
            labels.take(of_numbers(histograms[:, parser.NAME], pa.int32())),
            self._key_array(rows),
            of_numbers(histograms[:, parser.TYPE], pa.int32()),
            of_numbers(histograms[:, parser.BUCKET_COUNT], pa.int32()),
            of_numbers(limits[:, parser.LOW], pa.int64()),
            of_numbers(limits[:, parser.HIGH], pa.int64()),
            of_filled_texts(histograms[:, parser.BUCKETS_END], self._bucket_text),
            of_filled_texts(histograms[:, parser.COUNTS_END], self._count_text),
            *(of_numbers(self._sums[:rows, column], pa.float64()) for column in range(parser.SUMS)),
        ]
        structs = pa.StructArray.from_arrays(fields, fields=list(_STRUCT))
        ping_ends = np.array(self._ping_ends, np.int32)
        self._ping_ends = []
        self.roll_back(Mark(0, 0, 0, 0))
        if (
            self._label_count[0] > LABELS_MAX_COUNT
            or self._range_count > RANGES_MAX_COUNT
            or self._bound_count > BOUNDS_MAX_COUNT
        ):
            self._new_tables()
        return of_lists(ping_ends, structs, COLUMN_TYPE)

    def _label_array(self) -> Array:
        count = int(self._label_count[0])
        offsets = self._label_ends[: count + 1].astype(np.int32)
        text = self._label_text[: offsets[-1]].tobytes()
        return pa.StringArray.from_buffers(count, pa.py_buffer(offsets.tobytes()), pa.py_buffer(text))

    def _key_array(self, rows: int) -> Array:
        lengths = self._histograms[:rows, parser.KEY_LENGTH]
        if not (lengths != parser.NO_KEY).any():
            return pa.nulls(rows, pa.string())
        offsets = np.zeros(rows + 1, np.int32)
        text = np.zeros(int(lengths.clip(min=0).sum()), np.uint8)
        parser.gather_keys(self._histograms, 0, rows, self._keys, offsets, text)
        validity = np.packbits(lengths != parser.NO_KEY, bitorder="little")
        return pa.Array.from_buffers(
            pa.string(), rows, [pa.py_buffer(part.tobytes()) for part in (validity, offsets, text)]
        )

    # --- tables ----------------------------------------------------------------------------------

    def _new_tables(self) -> None:
        size = 2 * LABELS_MAX_COUNT
        self._label_slots = np.full(2 * size, -1, np.int64)
        self._label_text = np.zeros(_FIRST_TEXT_BYTES, np.uint8)
        self._label_ends = np.zeros(size, np.int64)
        self._label_count = np.zeros(1, np.int64)
        self._stamps = np.zeros(size + 1, np.int64)
        self._following = np.zeros(size, np.int64)
        self._last_ranges = np.zeros(size, np.int64)
        self._range_slots = np.full(8 * RANGES_MAX_COUNT, -1, np.int64)
        self._ranges = np.zeros((2 * RANGES_MAX_COUNT, parser.RANGE_COLUMNS), np.int64)
        self._range_texts = _room_for_texts(self._ranges)
        self._bounds = np.zeros(65_536, np.int64)
        self._range_count = 0
        self._bound_count = 0
        self._pending = np.zeros((_FIRST_PENDING, 4), np.int64)
        self._expected: dict[int, tuple[HistogramDefinitions, _Ints]] = {}
        self._place_cache: dict[tuple[int, int, int], tuple[str, str]] = {}
        self._gather_arrays()
        # The parser knows these two by number.
        if (self._label(""), self._label(PARENT_PROCESS)) != (parser.EMPTY_LABEL, parser.PARENT_LABEL):
            raise AssertionError("the table of labels does not begin as the parser expects")
        # So that a guess that has not been made yet is a range that nothing has.
        self._ranges[0, : parser.HEAD_LENGTH] = -1
        self._range_count = 1

    def _gather_arrays(self) -> None:
        """Hand the arrays to the parser in the groups it takes; after each that has grown."""
        self._labels = (
            self._label_slots,
            self._label_text,
            self._label_ends,
            self._label_count,
            self._stamps,
            self._following,
            self._last_ranges,
        )
        self._tables = (
            self._range_slots,
            self._ranges,
            self._bounds,
            self._pending,
            self._following_fields,
            self._range_texts,
            parser.POWERS_OF_TEN,
        )
        self._out = (
            self._histograms,
            self._limits,
            self._sums,
            self._bucket_text,
            self._count_text,
            self._keys,
            self._inexact,
            self._totals,
            self._sources,
            self._buckets,
        )
        self._places = (self._containers, self._empties, self._key_codes)

    def _label(self, label: str) -> int:
        text = np.frombuffer(label.encode(), np.uint8)
        while (
            number := parser.intern(
                text,
                np.uint64(0),
                np.uint64(text.size),
                self._label_slots,
                self._label_text,
                self._label_ends,
                self._label_count,
            )
        ) < 0:
            self._grow_labels()
        return int(number)

    def _help(self, status: int) -> None:
        """Do what the parser needs before it can read a document."""
        match status:
            case parser.NEW_RANGES:
                for pending in self._pending[: self._totals[parser.PENDING_RANGES]].tolist():
                    self._range_number(*pending)
            case parser.FULL_ROWS:
                self._grow_rows()
            case parser.FULL_LABELS:
                self._grow_labels()
            case _:
                self._grow_places()

    def _grow_places(self) -> None:
        self._keys = _doubled(self._keys)
        self._containers = _doubled(self._containers)
        self._empties = _doubled(self._empties)
        self._gather_arrays()

    def _grow_rows(self) -> None:
        self._histograms = _doubled(self._histograms)
        self._limits = _doubled(self._limits)
        self._sums = _doubled(self._sums)
        self._sources = _doubled(self._sources)
        self._inexact = _doubled(self._inexact)
        self._gather_arrays()

    def _make_room(self, mark: Mark, text_bytes: int) -> None:
        """Room behind `mark` for the buckets and counts of so much text, and what is overwritten there."""
        room = max(mark.bucket_bytes, mark.count_bytes) + text_bytes + PADDING_BYTES
        while room > len(self._bucket_text) or text_bytes > parser.BUCKET_MIN_BYTES * len(self._buckets):
            self._bucket_text = _doubled(self._bucket_text)
            self._count_text = _doubled(self._count_text)
            self._buckets = _doubled(self._buckets)
            self._gather_arrays()

    def _grow_labels(self) -> None:
        """A table of twice the size with the same numbers; guesses are made anew."""
        count = int(self._label_count[0])
        text, ends = self._label_text, self._label_ends
        size = 2 * ends.size
        self._label_slots = np.full(2 * size, -1, np.int64)
        self._label_text = np.zeros(2 * text.size, np.uint8)
        self._label_ends = np.zeros(size, np.int64)
        self._label_count = np.zeros(1, np.int64)
        self._stamps = np.zeros(size + 1, np.int64)
        self._following = np.zeros(size, np.int64)
        self._last_ranges = np.zeros(size, np.int64)
        self._expected.clear()
        self._gather_arrays()
        for number in range(count):
            self._label(text[ends[number] : ends[number + 1]].tobytes().decode())

    def _place(self, kind: int, level: int, process: int) -> tuple[str, str]:
        """The JSON Pointer of a container, and how `lifted` names what was in it."""
        known = self._place_cache.get((kind, level, process))
        if known is None:
            name = (
                self._label_text[self._label_ends[process] : self._label_ends[process + 1]].tobytes().decode()
            )
            member = KEYED if kind == parser.KEYED_KIND else PLAIN
            holder = {
                parser.IN_DOCUMENT: "",
                parser.IN_PAYLOAD: "/payload",
                parser.IN_PROCESS: f"/payload/processes/{pointer_part(name)}",
            }[level]
            known = f"{holder}/{member}", source_of(member, name)
            self._place_cache[kind, level, process] = known
        return known

    def _range_number(self, kind: int, low: int, high: int, bucket_count: int) -> int:
        """The number of a range, which is added to the table; one that makes no buckets has no bounds."""
        number, slot = parser.find_range(kind, low, high, bucket_count, self._range_slots, self._ranges)
        if number >= 0:
            return int(number)
        try:
            bounds: Sequence[int] = bucket_bounds(BucketRange(HistogramType(kind), low, high, bucket_count))
        except ValueError:
            bounds = ()
        while self._bound_count + len(bounds) > len(self._bounds):
            self._bounds = _doubled(self._bounds)
        if self._range_count == len(self._ranges):
            self._ranges = _doubled(self._ranges)
            self._range_texts = _room_for_texts(self._ranges)
            self._ranges[:, (parser.HEAD_LENGTH, parser.TAIL_LENGTH)] = 0
            slots = np.full(2 * self._range_slots.size, -1, np.int64)
            for known in range(1, self._range_count):
                of = self._ranges[known].tolist()
                _, slot = parser.find_range(of[0], of[1], of[2], of[3], slots, self._ranges)
                slots[slot] = known
            self._range_slots = slots
            _, slot = parser.find_range(kind, low, high, bucket_count, slots, self._ranges)
        end = self._bound_count + len(bounds)
        self._bounds[self._bound_count : end] = bounds
        number = self._range_count
        self._ranges[number] = (kind, low, high, bucket_count, self._bound_count, end, 0, 0)
        self._range_slots[slot] = number
        self._bound_count = end
        self._range_count += 1
        self._gather_arrays()
        return number

    def _expected_by(self, definitions: HistogramDefinitions) -> _Ints:
        """What the definitions say about each label, as far as it has been looked up."""
        known = self._expected.get(id(definitions))
        if known is None:
            if len(self._expected) >= EXPECTED_MAX_COUNT:
                self._expected.clear()
            # The definitions are kept beside it, so that their id cannot become another's.
            known = definitions, np.full(self._label_ends.size, parser.UNRESOLVED, np.int64)
            self._expected[id(definitions)] = known
        return known[1]

    def _resolve(self, mark: Mark, expected: _Ints, definitions: HistogramDefinitions) -> None:
        rows = slice(mark.rows, int(self._totals[parser.HISTOGRAMS]))
        for label in np.unique(self._histograms[rows, parser.NAME]).tolist():
            name = self._label_text[self._label_ends[label] : self._label_ends[label + 1]].tobytes().decode()
            if name not in definitions:
                expected[label] = parser.UNDEFINED
            elif (defined := definitions.range_of(name)) is None:
                expected[label] = parser.ANY_RANGE
            else:
                expected[label] = self._range_number(
                    int(defined.histogram_type), defined.low, defined.high, defined.bucket_count
                )


_EVERY_STEP: Final = (
    b'{"histograms":{"A":{"values":{"0":1},"range":[1,9],"bucket_count":4,"histogram_type":1,"sum":1}},'
    b'"keyedHistograms":{"B":{"key":{"values":{"0":1},"range":[1,9],"bucket_count":4,"histogram_type":0}}}}'
)
"""A document that leads through everything that is compiled."""


def compile_parser() -> None:
    """Compile the parser, or load it if that was done before: processes forked afterwards have it at once.

    After an install or a change compiling takes some 10 seconds, and each process that needs the parser at
    that time would do it for itself.
    """
    column = HistogramColumn()
    mark = column.mark()
    column.read(_EVERY_STEP)
    parser.settle(
        mark.rows,
        np.full(RANGES_MAX_COUNT, parser.ANY_RANGE),
        column._out,
        column._containers,
        column._put_back,
    )
    column.end_ping()
    column.take()


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


def _room_for_texts(ranges: _Ints) -> NDArray[np.uint8]:
    """For what is remembered of each range; words are read across the end of the last one."""
    return np.zeros(len(ranges) * parser.RANGE_TEXT_BYTES + PADDING_BYTES, np.uint8)


def _doubled(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    grown = np.zeros((2 * array.shape[0], *array.shape[1:]), array.dtype, order=order)
    grown[: array.shape[0]] = array
    return grown
