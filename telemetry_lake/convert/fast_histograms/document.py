"""A parser of the histograms in a document, compiled to machine code (numba).

Nine tenths of a Firefox ping are histograms: some 300 of them with 2,600 buckets. Turning their numbers into
Python objects costs more than everything else together, so this parser goes over the bytes of the document
once, finds the objects that hold histograms, and writes what it reads into arrays. It is strict: it takes
exactly the histograms that `plain_histograms.lift_histogram` would turn into a row with nothing left over,
and gives up on a document (`UNUSUAL`) at anything else, be it wrong or merely rare: escaped or non-ASCII
names, unknown fields, sums that are not ordinary numbers, buckets out of order or out of range. Such a
document is read in plain Python, where wrong and rare are told apart.

Everything outside the histograms is skipped here, and validated elsewhere with the histograms cut out.

Positions are unsigned, so that no code is made for negative indexes, and nothing is allocated (`_nrt`), so
that no references are counted: together that makes it three times as fast.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.convert.fast_histograms.histogram import read_histogram, remember
from telemetry_lake.convert.fast_histograms.layout import (
    NO_KEY,
    Arrays,
    ContainerField,
    EmptyField,
    Field,
    Kind,
    Label,
    Labels,
    Level,
    Limit,
    Places,
    RangeField,
    Ranges,
    Rows,
    Scratch,
    Source,
    Status,
    Text,
    Total,
)
from telemetry_lake.convert.fast_histograms.lookup import HASH_BASIS, HASH_PRIME, find_range, intern
from telemetry_lake.convert.fast_histograms.scanner import (
    CLOSE,
    COMMA,
    OPEN,
    QUOTE,
    is_plain,
    past_colon,
    past_space,
    past_value,
    says,
)
from telemetry_lake.convert.fast_histograms.swar import PADDING_BYTES, past_plain, same_text
from telemetry_lake.numba_options import Integer, compiled, compiled_in_place

_HISTOGRAMS: Final = np.frombuffer(b'histograms"', np.uint8)
_KEYED_HISTOGRAMS: Final = np.frombuffer(b'keyedHistograms"', np.uint8)
_PAYLOAD: Final = np.frombuffer(b'payload"', np.uint8)
_PROCESSES: Final = np.frombuffer(b'processes"', np.uint8)

_0 = np.uint64(0)
_1 = np.uint64(1)
_PADDING = np.uint64(PADDING_BYTES)
_NOT_A_CONTAINER = -1
_UNUSUAL_LABEL = -2


class _Container(NamedTuple):
    """The object of histograms that is read."""

    number: Integer
    kind: Integer
    process: Integer
    """A label."""


class _Name(NamedTuple):
    """What a histogram is called, and where that is in the text."""

    label: Integer
    start: np.uint64
    length: np.uint64
    key_start: np.uint64
    key_length: Integer
    """NO_KEY when it is not a keyed one."""


@compiled
def parse(
    text: Text, rows: Arrays, labels: Arrays, ranges: Arrays, scratch: Arrays, places: Arrays
) -> Integer:
    """Read the histograms of the document in `text` into `rows`, behind what is there.

    `text` ends with `PADDING_BYTES` zeros. Histograms are looked for in `histograms` and `keyedHistograms` of
    the document, of its `payload`, and of the members of `payload.processes`. Returns a Status; when it is
    not FINE, the first four totals are as before, whatever was written behind them. The texts of buckets and
    counts must each have room for the whole document.
    """
    return np.int64(
        _parse(text, Rows(*rows), Labels(*labels), Ranges(*ranges), Scratch(*scratch), Places(*places))
    )


@compiled_in_place
def _parse(
    text: Text, rows: Rows, labels: Labels, ranges: Ranges, scratch: Scratch, places: Places
) -> Status:
    totals = scratch.totals
    histograms = totals[Total.HISTOGRAMS]
    bucket_bytes = totals[Total.BUCKET_BYTES]
    count_bytes = totals[Total.COUNT_BYTES]
    key_bytes = totals[Total.KEY_BYTES]
    totals[Total.CONTAINERS] = 0
    totals[Total.EMPTIES] = 0
    totals[Total.NEW_RANGES] = 0
    totals[Total.INEXACT] = 0
    totals[Total.FIRST] = histograms
    totals[Total.LONG_NUMBERS] = 0
    status = _read_members(text, rows, labels, ranges, scratch, places)
    if status == Status.FINE and totals[Total.NEW_RANGES]:
        status = Status.NEW_RANGES
    if status != Status.FINE:
        totals[Total.HISTOGRAMS] = histograms
        totals[Total.BUCKET_BYTES] = bucket_bytes
        totals[Total.COUNT_BYTES] = count_bytes
        totals[Total.KEY_BYTES] = key_bytes
    return status


@compiled
def _read_members(
    text: Text, rows: Rows, labels: Labels, ranges: Ranges, scratch: Scratch, places: Places
) -> Status:
    """Go through the members of the document, down to the objects that hold histograms."""
    at = past_space(text, _0)
    if text[at] != OPEN:
        return Status.UNUSUAL
    level: Integer = np.int64(Level.DOCUMENT)
    process: Integer = np.int64(Label.PARENT)
    while True:
        at = past_space(text, at + _1)
        if text[at] != CLOSE:
            if text[at] != QUOTE:
                return Status.UNUSUAL
            start = at + _1
            at = past_plain(text, start)
            # A name with an escape may be any other name, also one of those that lead to histograms.
            if text[at] != QUOTE:
                return Status.UNUSUAL
            length = at - start
            at = past_colon(text, at + _1)
            if at == _0:
                return Status.UNUSUAL
            kind: Integer = np.int64(_NOT_A_CONTAINER)
            if text[at] == OPEN:
                if level == Level.PROCESSES:
                    process = _process(text, start, length, labels)
                    if process < 0:
                        return Status.UNUSUAL if process == _UNUSUAL_LABEL else Status.FULL_LABELS
                inside = _level_inside(text, start, level)
                if inside != level:
                    level = inside
                    continue
                kind = _kind_of(text, start)
            if kind == _NOT_A_CONTAINER:
                at = past_value(text, at, scratch.totals)
                if at == _0:
                    return Status.UNUSUAL
            else:
                at, status = _note_container(
                    text, at, kind, level, process, rows, labels, ranges, scratch, places
                )
                if status != Status.FINE:
                    return status
            at = past_space(text, at)
        while text[at] == CLOSE:
            if level == Level.DOCUMENT:
                return Status.FINE
            level -= 1
            process = np.int64(Label.PARENT)
            at = past_space(text, at + _1)
        if text[at] != COMMA:
            return Status.UNUSUAL


@compiled_in_place
def _process(text: Text, start: np.uint64, length: np.uint64, labels: Labels) -> Integer:
    """Return the label of a process, TABLE_FULL, or _UNUSUAL_LABEL."""
    for index in range(length):
        if not is_plain(text[start + index]):
            return np.int64(_UNUSUAL_LABEL)
    return np.int64(intern(text, start, length, labels))


@compiled_in_place
def _level_inside(text: Text, start: np.uint64, level: Integer) -> Integer:
    """Return the level of the members of an object, by its name at `start` and the level that this is at.

    It is the same level when histograms are not looked for in there.
    """
    if level == Level.PROCESSES:
        return np.int64(Level.PROCESS)
    if level == Level.DOCUMENT and says(text, start, _PAYLOAD):
        return np.int64(Level.PAYLOAD)
    if level == Level.PAYLOAD and says(text, start, _PROCESSES):
        return np.int64(Level.PROCESSES)
    return level


@compiled_in_place
def _kind_of(text: Text, start: np.uint64) -> Integer:
    """Return which histograms the object holds whose name is at `start`; it may be _NOT_A_CONTAINER."""
    if says(text, start, _HISTOGRAMS):
        return np.int64(Kind.PLAIN)
    if says(text, start, _KEYED_HISTOGRAMS):
        return np.int64(Kind.KEYED)
    return np.int64(_NOT_A_CONTAINER)


@compiled_in_place
def _note_container(
    text: Text,
    at: np.uint64,
    kind: Integer,
    level: Integer,
    process: Integer,
    rows: Rows,
    labels: Labels,
    ranges: Ranges,
    scratch: Scratch,
    places: Places,
) -> tuple[np.uint64, Status]:
    """Read the container whose brace is at `at`; return what is behind it, and whether all is FINE."""
    containers, totals = places.containers, scratch.totals
    number = totals[Total.CONTAINERS]
    if number >= containers.shape[0]:
        return _0, Status.UNUSUAL
    containers[number, ContainerField.KIND] = kind
    containers[number, ContainerField.LEVEL] = level
    containers[number, ContainerField.PROCESS] = process
    containers[number, ContainerField.START] = at
    before = totals[Total.HISTOGRAMS]
    container = _Container(number, kind, process)
    at, status = _read_container(text, at, container, rows, labels, ranges, scratch, places)
    containers[number, ContainerField.END] = at
    containers[number, ContainerField.READ_COUNT] = totals[Total.HISTOGRAMS] - before
    totals[Total.CONTAINERS] = number + 1
    return at, status


@compiled
def _read_container(
    text: Text,
    at: np.uint64,
    container: _Container,
    rows: Rows,
    labels: Labels,
    ranges: Ranges,
    scratch: Scratch,
    places: Places,
) -> tuple[np.uint64, Status]:
    """Read an object of histograms, or of keyed ones, from its brace; its end, and whether all is FINE."""
    labels.stamps[0] += 1
    before: Integer = np.int64(labels.ends.size - 1)
    label: Integer = np.int64(0)
    label_start = _0
    label_length = _0
    key_start = _0
    key_length = np.int64(NO_KEY)
    key_count = 0
    inside_label = False
    fresh = True
    after_comma = False
    at = past_space(text, at + _1)
    while True:
        if text[at] == CLOSE and not after_comma:
            at += _1
            if not inside_label:
                return at, Status.FINE
            if key_count == 0 and not _note_empty(
                container.number, label_start, label_length, scratch, places
            ):
                return _0, Status.UNUSUAL
            inside_label = False
        elif text[at] == QUOTE and (fresh or after_comma):
            start = at + _1
            if inside_label:
                at = _read_key(text, start, key_count, places.key_codes)
                if at == _0:
                    return _0, Status.UNUSUAL
                key_count += 1
                key_start = start
                key_length = np.int64(at - start)
            else:
                label, label_length = _read_label(text, start, before, labels)
                if label < 0:
                    return _0, Status.UNUSUAL if label == _UNUSUAL_LABEL else Status.FULL_LABELS
                before = label
                label_start = start
                at = start + label_length
            at = past_colon(text, at + _1)
            if at == _0 or text[at] != OPEN:
                return _0, Status.UNUSUAL
            if container.kind == Kind.KEYED and not inside_label:
                inside_label = True
                key_count = 0
                fresh = True
                after_comma = False
                at = past_space(text, at + _1)
                continue
            name = _Name(label, label_start, label_length, key_start, key_length)
            at, status = _read_row(text, at, container, name, rows, labels, ranges, scratch)
            if status != Status.FINE:
                return _0, status
        else:
            return _0, Status.UNUSUAL
        fresh = False
        at = past_space(text, at)
        after_comma = text[at] == COMMA
        if after_comma:
            at = past_space(text, at + _1)


@compiled_in_place
def _note_empty(
    container: Integer, start: np.uint64, length: np.uint64, scratch: Scratch, places: Places
) -> bool:
    """Note a keyed histogram without keys; return whether there was room for it."""
    place = scratch.totals[Total.EMPTIES]
    if place >= places.empties.shape[0]:
        return False
    places.empties[place, EmptyField.CONTAINER] = container
    places.empties[place, EmptyField.START] = start
    places.empties[place, EmptyField.LENGTH] = length
    scratch.totals[Total.EMPTIES] = place + 1
    return True


@compiled_in_place
def _read_key(text: Text, start: np.uint64, count: Integer, codes: NDArray[np.uint64]) -> np.uint64:
    """Return where the closing quote of a key is; 0 when it is unusual or one of the `count` before it."""
    end = start
    code = HASH_BASIS
    while text[end] != QUOTE:
        byte = text[end]
        if not is_plain(byte):
            return _0
        code = (code ^ np.uint64(byte)) * HASH_PRIME
        end += _1
    if count == codes.size:
        return _0
    for index in range(count):
        if codes[index] == code:
            return _0
    codes[count] = code
    return end


@compiled_in_place
def _read_label(text: Text, start: np.uint64, before: Integer, labels: Labels) -> tuple[Integer, np.uint64]:
    """Return the label at `start` and its length; `before` is the label in front of it.

    The label is _UNUSUAL_LABEL when it is there twice or not plain, and TABLE_FULL when there is no room for
    it.
    """
    # The label that came behind the one before, last time.
    label: Integer = labels.following[before]
    begin = np.uint64(labels.ends[label])
    length = np.uint64(labels.ends[label + 1]) - begin
    if (
        start + length + _PADDING > np.uint64(text.size)
        or text[start + length] != QUOTE
        or not same_text(text, start, labels.text, begin, length)
    ):
        end = start
        while text[end] != QUOTE:
            if not is_plain(text[end]):
                return np.int64(_UNUSUAL_LABEL), _0
            end += _1
        length = end - start
        label = np.int64(intern(text, start, length, labels))
        if label < 0:
            return label, _0
        labels.following[before] = label
    if labels.stamps[label + 1] == labels.stamps[0]:
        return np.int64(_UNUSUAL_LABEL), _0
    labels.stamps[label + 1] = labels.stamps[0]
    return label, length


@compiled_in_place
def _read_row(
    text: Text,
    at: np.uint64,
    container: _Container,
    name: _Name,
    rows: Rows,
    labels: Labels,
    ranges: Ranges,
    scratch: Scratch,
) -> tuple[np.uint64, Status]:
    """Read the histogram whose brace is at `at`; return what is behind it, and whether all is FINE."""
    totals, histograms = scratch.totals, rows.histograms
    row = totals[Total.HISTOGRAMS]
    source = row - totals[Total.FIRST]
    if source >= scratch.sources.shape[0]:
        return _0, Status.UNUSUAL
    start = at
    at, status = read_histogram(text, at, labels.last_ranges[name.label], rows, ranges, scratch)
    if status != Status.FINE:
        return _0, status
    scratch.sources[source, Source.LABEL_START] = name.start
    scratch.sources[source, Source.LABEL_LENGTH] = name.length
    scratch.sources[source, Source.TEXT_START] = start
    scratch.sources[source, Source.TEXT_END] = at
    scratch.sources[source, Source.CONTAINER] = container.number
    histograms[row, Field.NAME] = name.label
    histograms[row, Field.PROCESS] = container.process
    histograms[row, Field.KEY_START] = totals[Total.KEY_BYTES]
    histograms[row, Field.KEY_LENGTH] = name.key_length
    if name.key_length > 0 and not _copy_key(text, name, rows.keys, totals):
        return _0, Status.FULL_KEYS
    number = _range_of(row, labels.last_ranges[name.label], rows, ranges)
    scratch.sources[source, Source.RANGE] = number
    if number < 0:
        return (at, Status.FINE) if _note_range(row, rows, scratch) else (_0, Status.NEW_RANGES)
    labels.last_ranges[name.label] = number
    if totals[Total.VALUES_START]:
        remember(text, start, number, ranges, totals)
    if not _has_buckets(number, ranges, scratch):
        return _0, Status.UNUSUAL
    return at, Status.FINE


@compiled_in_place
def _copy_key(text: Text, name: _Name, keys: Text, totals: NDArray[np.int64]) -> bool:
    """Copy a key behind the others; return whether there was room for it."""
    place = totals[Total.KEY_BYTES]
    if place + name.key_length > keys.size:
        return False
    for index in range(np.uint64(name.key_length)):
        keys[np.uint64(place) + index] = text[name.key_start + index]
    totals[Total.KEY_BYTES] = place + name.key_length
    return True


@compiled_in_place
def _range_of(row: Integer, likely: Integer, rows: Rows, ranges: Ranges) -> Integer:
    """Return the number of the range of a row, -1 when it is a new one; `likely` is compared first."""
    kind = rows.histograms[row, Field.TYPE]
    low = rows.limits[row, Limit.LOW]
    high = rows.limits[row, Limit.HIGH]
    bucket_count = rows.histograms[row, Field.BUCKET_COUNT]
    table = ranges.table
    number: Integer = likely
    if (
        table[likely, RangeField.TYPE] != kind
        or table[likely, RangeField.LOW] != low
        or table[likely, RangeField.HIGH] != high
        or table[likely, RangeField.BUCKET_COUNT] != bucket_count
    ):
        number, _ = find_range(kind, low, high, bucket_count, ranges.slots, table)
    return number


@compiled_in_place
def _note_range(row: Integer, rows: Rows, scratch: Scratch) -> bool:
    """Note the range of a row as a new one; return whether there was room for it."""
    new_ranges = scratch.new_ranges
    place = scratch.totals[Total.NEW_RANGES]
    if place >= new_ranges.shape[0]:
        return False
    new_ranges[place, RangeField.TYPE] = rows.histograms[row, Field.TYPE]
    new_ranges[place, RangeField.LOW] = rows.limits[row, Limit.LOW]
    new_ranges[place, RangeField.HIGH] = rows.limits[row, Limit.HIGH]
    new_ranges[place, RangeField.BUCKET_COUNT] = rows.histograms[row, Field.BUCKET_COUNT]
    scratch.totals[Total.NEW_RANGES] = place + 1
    return True


@compiled_in_place
def _has_buckets(number: Integer, ranges: Ranges, scratch: Scratch) -> bool:
    """Return whether all buckets of the histogram that was read are among those of the range."""
    bound = np.uint64(ranges.table[number, RangeField.BOUNDS_START])
    last = np.uint64(ranges.table[number, RangeField.BOUNDS_END])
    if bound == last:
        return False
    for index in range(np.uint64(scratch.totals[Total.BUCKETS])):
        value = scratch.buckets[index]
        while bound < last and ranges.bounds[bound] < value:
            bound += _1
        if bound == last or ranges.bounds[bound] != value:
            return False
    return True
