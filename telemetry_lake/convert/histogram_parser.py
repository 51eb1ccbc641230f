"""A parser of the histograms in a document, compiled to machine code (numba).

Nine tenths of a Firefox ping are histograms: some 300 of them with 2,600 buckets. Turning their numbers
into Python objects costs more than everything else together, so this parser goes over the bytes of the
document once, finds the objects that hold histograms, and writes what it reads into arrays. It is strict:
it takes exactly the histograms that `histograms.lift_histogram` would turn into a row with nothing left
over, and gives up on a document (`UNUSUAL`) at anything else, be it wrong or merely rare: escaped or
non-ASCII names, fields nobody knows, sums that are no ordinary numbers, buckets out of order or out of
range. Such a document goes the slow way, where wrong and rare are told apart.

Everything outside the histograms is skipped here, and validated elsewhere with the histograms cut out.
Every loop stops at a zero byte, and `PADDING_BYTES` of them are behind every document, so nothing is read
beyond them.

Guesses make it fast: pings of one build have the same histograms in the same order, with the same ranges,
and with fields in the same order. So the label that followed last time is compared first, then all the text
up to the values as it was for the range that this label had last time; only where they differ is the label
looked up, and the text read field by field.

Positions are unsigned, so that no code is made for negative indexes, and nothing is allocated (`_nrt`),
so that no references are counted: together that makes it three times as fast.
"""

# Written for a compiler: `in` and `all` would build tuples and generators.
# ruff: noqa: PLR1714, SIM109, SIM110

from typing import Final

import numpy as np

from telemetry_lake.compiled import Array, Arrays, Integer, Position, Text, compiled, compiled_in_place
from telemetry_lake.convert.text_words import (
    PADDING_BYTES,
    digit_count,
    digits_at,
    leading_zeros,
    number_of,
    past_plain,
    put_word,
    same_text,
    word_at,
)

FINE: Final = 0
UNUSUAL: Final = 1
NEW_RANGES: Final = 2
"""The document has ranges that are not in the table yet; they are listed, to be added."""
FULL_ROWS: Final = 3
FULL_LABELS: Final = 4
FULL_PLACES: Final = 5
"""Some array is too small; it has to grow, and the document to be parsed again."""

# Columns of the two arrays with one row for each histogram, of 32 and of 64 bits. What is written here is
# not in the processor's cache, so it is as narrow as what is stored.
NAME, PROCESS, TYPE, BUCKET_COUNT, BUCKETS_END, COUNTS_END, KEY_START, KEY_LENGTH = range(8)
HISTOGRAM_COLUMNS: Final = 8
LOW, HIGH = range(2)
LIMIT_COLUMNS: Final = 2
NO_KEY: Final = -1

# Columns of the array with one row for each histogram of the document that is read, written anew for each.
RANGE, LABEL_START, LABEL_LENGTH, TEXT_START, TEXT_END, CONTAINER = range(6)
SOURCE_COLUMNS: Final = 6

# Labels that every table of labels begins with. A guess that has not been made yet is the first.
EMPTY_LABEL: Final = 0
PARENT_LABEL: Final = 1

# Columns of the array with one row for each object that holds histograms.
KIND, LEVEL, CONTAINER_PROCESS, INSIDE_START, INSIDE_END, READ_COUNT = range(6)
CONTAINER_COLUMNS: Final = 6
PLAIN_KIND: Final = 0
KEYED_KIND: Final = 1
# Where such an object is.
IN_DOCUMENT, IN_PAYLOAD, IN_PROCESSES, IN_PROCESS = range(4)

# Columns of the array with one row for each keyed histogram without keys.
EMPTY_CONTAINER, EMPTY_START, EMPTY_LENGTH = range(3)
EMPTY_COLUMNS: Final = 3

# Columns of the table of ranges, and of the array with the ranges to be added (the first four).
(
    RANGE_TYPE,
    RANGE_LOW,
    RANGE_HIGH,
    RANGE_BUCKET_COUNT,
    BOUNDS_START,
    BOUNDS_END,
    HEAD_LENGTH,
    TAIL_LENGTH,
) = range(8)
RANGE_COLUMNS: Final = 8
RANGE_TEXT_BYTES: Final = 128
"""For each range the text is remembered that a histogram of it began with, from its brace to its values."""

# Columns of the array with one row for each sum that has to be read again.
INEXACT_ROW, INEXACT_FIELD, INEXACT_START, INEXACT_END = range(4)
INEXACT_COLUMNS: Final = 4

# What the array of totals counts; the first four go on from document to document.
HISTOGRAMS, BUCKET_BYTES, COUNT_BYTES, KEY_BYTES, CONTAINERS, EMPTIES, PENDING_RANGES, INEXACT = range(8)
# Of the histogram that was read last, where its text can be remembered: where its sum is, if that comes
# before its values, and where its values begin; else 0.
HEAD_END, TAIL_START, VALUES_START = range(8, 11)
# How many buckets it has.
BUCKETS = 11
# The document's first histogram, and how many of its other numbers have digits enough to be a large integer.
FIRST, LONG_NUMBERS = range(12, 14)
TOTALS: Final = 14

BUCKET_MIN_BYTES: Final = 6
"""A bucket in a document is at least `"0":1,`."""

SUMS: Final = 5
KEYS_MAX_COUNT: Final = 1_024
"""A keyed histogram with more keys goes the slow way: here they are compared each with each."""

FRACTION_MAX_DIGITS: Final = 18
POWERS_OF_TEN: Final = np.array([10**power for power in range(FRACTION_MAX_DIGITS + 1)], np.uint64)

_FIELDS: Final = (
    b"values",
    b"range",
    b"bucket_count",
    b"histogram_type",
    b"sum",
    b"log_sum",
    b"log_sum_squares",
    b"sum_squares_lo",
    b"sum_squares_hi",
)
_VALUES_FIELD, _RANGE_FIELD, _BUCKET_COUNT_FIELD, _TYPE_FIELD, _FIRST_SUM_FIELD = range(5)
_BEFORE_FIRST_FIELD = len(_FIELDS)
# The fields that every histogram has, as bits, and these and the sum.
_WITHOUT_SUMS = 1 << _VALUES_FIELD | 1 << _RANGE_FIELD | 1 << _BUCKET_COUNT_FIELD | 1 << _TYPE_FIELD
_WITH_SUM = _WITHOUT_SUMS | 1 << _FIRST_SUM_FIELD
FIELD_COUNT: Final = len(_FIELDS)
FIELD_LENGTHS: Final = np.array([len(field) + 1 for field in _FIELDS], np.uint64)
FIELD_WORDS: Final = np.array(
    [
        np.frombuffer(
            (field + b'"').ljust(16, b"\0") + (b"\xff" * (len(field) + 1)).ljust(16, b"\0"), np.uint64
        )
        for field in _FIELDS
    ]
)
"""Each field's two words, its closing quote included, and which of their bits count."""

_HISTOGRAMS: Final = np.frombuffer(b'histograms"', np.uint8)
_KEYED_HISTOGRAMS: Final = np.frombuffer(b'keyedHistograms"', np.uint8)
_PAYLOAD: Final = np.frombuffer(b'payload"', np.uint8)
_PROCESSES: Final = np.frombuffer(b'processes"', np.uint8)

_0 = np.uint64(0)
_1 = np.uint64(1)
_2 = np.uint64(2)
_9 = np.uint64(9)
_WORD_DIGITS = np.uint64(8)
_TEN_DIGITS = np.uint64(10)
_SPARE_BITS = np.uint64(64 - 54)
_NINETEEN_DIGITS = np.uint64(19)
_NARROW_MAX = np.uint64(2**31 - 1)
_EXACT_INTEGERS = np.uint64(2**53)
_54_BITS = np.uint64(2**54)
_FRACTION_MAX_DIGITS = np.uint64(FRACTION_MAX_DIGITS)
_DIGIT_ZERO = np.uint64(48)
_PADDING = np.uint64(PADDING_BYTES)
_HASH_BASIS = np.uint64(14695981039346656037)
_HASH_PRIME = np.uint64(1099511628211)
_HASH_FOLD = np.uint64(29)
_RANGE_FOLD = np.uint64(40)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

_SPACE = 32
_QUOTE = 34
_COMMA = 44
_MINUS = 45
_DOT = 46
_ZERO = 48
_COLON = 58
_UPPER_E = 69
_OPEN_LIST = 91
_BACKSLASH = 92
_CLOSE_LIST = 93
_LOWER_E = 101
_OPEN = 123
_LAST_PRINTABLE = 126
_CLOSE = 125


@compiled
def _past_space(text: Text, at: Position) -> Position:
    while text[at] == _SPACE or text[at] == 10 or text[at] == 13 or text[at] == 9:
        at += _1
    return at


@compiled
def _says(text: Text, at: Position, word: Text) -> bool:
    """Whether `word` begins at `at`."""
    for index in range(np.uint64(word.size)):
        if text[at + index] != word[index]:
            return False
    return True


@compiled
def _past_string(text: Text, at: Position) -> Position:
    """Behind the string whose opening quote is at `at`; 0 when the text ends inside."""
    at = past_plain(text, at + _1)
    while text[at] == _BACKSLASH:
        if text[at + _1] == 0:
            return _0
        at = past_plain(text, at + _2)
    return at + _1 if text[at] == _QUOTE else _0


@compiled
def _past_value(text: Text, at: Position, totals: Array) -> Position:
    """Behind any value, in text that need not be JSON; 0 when it ends inside the value.

    Numbers of many digits are counted.
    """
    depth = 0
    while True:
        byte = text[at]
        if byte == 0:
            return _0
        if byte == _QUOTE:
            at = _past_string(text, at)
            if at == _0 or depth == 0:
                return at
            continue
        if np.uint64(byte) - _DIGIT_ZERO <= _9:
            start = at
            count = _WORD_DIGITS
            while count == _WORD_DIGITS:
                count = digit_count(digits_at(text, at))
                at += count
            if at - start >= _NINETEEN_DIGITS:
                totals[LONG_NUMBERS] += 1
            continue
        if byte == _OPEN or byte == _OPEN_LIST:
            depth += 1
        elif byte == _CLOSE or byte == _CLOSE_LIST:
            if depth == 0:
                return at
            depth -= 1
            if depth == 0:
                return at + _1
        elif depth == 0 and (byte == _COMMA or byte <= _SPACE):
            return at
        at += _1


@compiled
def _more_digits(
    text: Text, at: Position, number: Position, powers_of_ten: Array
) -> tuple[Position, Position]:
    """`number` with the digits that follow behind it, and their end; more than 19 make it overflow."""
    while True:
        digits = digits_at(text, at)
        count = digit_count(digits)
        if count == _0:
            return number, at
        number = number * powers_of_ten[count] + number_of(digits, count)
        at += count
        if count < _WORD_DIGITS:
            return number, at


@compiled
def _whole_number(text: Text, at: Position) -> tuple[Position, Position]:
    """A number of at most ten digits without sign, fraction and leading zeros, and its end; end 0 if none."""
    start = at
    digits = digits_at(text, at)
    count = digit_count(digits)
    if count == _0 or (text[at] == _ZERO and count > _1):
        return _0, _0
    value = number_of(digits, count)
    at += count
    if count == _WORD_DIGITS:
        value, at = _more_digits(text, at, value, POWERS_OF_TEN)
        if at - start > _TEN_DIGITS:
            return _0, _0
    return value, at


@compiled
def _divided(mantissa: Position, fraction: Position, powers_of_ten: Array) -> tuple[float, bool]:
    """`mantissa` divided by 10 to the power of `fraction`, rounded to the nearest double, ties to even.

    The second value says whether that could be done here.
    """
    if mantissa <= _EXACT_INTEGERS and fraction <= _FRACTION_MAX_DIGITS:
        # Both are doubles without loss, so the division is rounded once (Clinger, How to Read Floating
        # Point Numbers Accurately, 1990).
        return np.float64(mantissa) / np.float64(powers_of_ten[fraction]), True
    if fraction == _0 or fraction > _FRACTION_MAX_DIGITS:
        return 0.0, False
    # Long division until there are the 53 bits of a double and one to round by, so many bits at a time as
    # there is room for above the remainder.
    divisor = powers_of_ten[fraction]
    quotient = mantissa // divisor
    remainder = mantissa % divisor
    if quotient >= _54_BITS:
        return 0.0, False
    scale = 2.0
    room = leading_zeros(divisor)
    while quotient < _EXACT_INTEGERS:
        bits = min(room, leading_zeros(quotient) - _SPARE_BITS)
        remainder <<= bits
        quotient = quotient << bits | remainder // divisor
        remainder %= divisor
        scale /= np.float64(_1 << bits)
    half = quotient & _1
    quotient >>= _1
    if half and (remainder or quotient & _1):
        quotient += _1
    return np.float64(quotient) * scale, True


@compiled
def find_range(
    kind: Integer, low: Integer, high: Integer, bucket_count: Integer, range_slots: Array, ranges: Array
) -> tuple[Integer, Position]:
    """The number of a range in the table of ranges, -1 when it is not there, and its place in the slots."""
    code = (np.uint64(kind) * _HASH_PRIME) ^ np.uint64(low)
    code = (code * _HASH_PRIME) ^ np.uint64(high)
    code = ((code * _HASH_PRIME) ^ np.uint64(bucket_count)) * _GOLDEN
    mask = np.uint64(range_slots.size) - _1
    slot = (code >> _RANGE_FOLD) & mask
    while True:
        known = range_slots[slot]
        if known < 0 or (
            ranges[known, RANGE_TYPE] == kind
            and ranges[known, RANGE_LOW] == low
            and ranges[known, RANGE_HIGH] == high
            and ranges[known, RANGE_BUCKET_COUNT] == bucket_count
        ):
            return known, slot
        slot = (slot + _1) & mask


@compiled
def intern(
    text: Text,
    start: Position,
    length: Position,
    slots: Array,
    label_text: Text,
    label_ends: Array,
    label_count: Array,
) -> Integer:
    """The number of a name in the table of names, where it is put if it is new; -1 when the table is full."""
    code: Position = _HASH_BASIS
    for place in range(length):
        code = (code ^ np.uint64(text[start + place])) * _HASH_PRIME
    mask = np.uint64(slots.size) - _1
    slot = (code ^ (code >> _HASH_FOLD)) & mask
    while True:
        known = slots[slot]
        if known < 0:
            break
        begin = np.uint64(label_ends[known])
        if np.uint64(label_ends[known + 1]) - begin == length:
            index: Position = _0
            while index < length and label_text[begin + index] == text[start + index]:
                index += _1
            if index == length:
                return known
        slot = (slot + _1) & mask
    number = label_count[0]
    begin = np.uint64(label_ends[number])
    if (
        number + 1 >= label_ends.size
        or 2 * number >= slots.size
        or begin + length + _PADDING > np.uint64(label_text.size)
    ):
        return np.int64(-1)
    for place in range(length):
        label_text[begin + place] = text[start + place]
    label_ends[number + 1] = begin + length
    label_count[0] = number + 1
    slots[slot] = number
    return number


@compiled
def parse(text: Text, labels: Arrays, tables: Arrays, out: Arrays, places: Arrays) -> Integer:
    """Read the histograms of the document in `text` into `out`, behind what is there.

    `text` ends with `PADDING_BYTES` zeros. Histograms are looked for in `histograms` and `keyedHistograms`
    of the document, of its `payload`, and of the members of `payload.processes`. Gives FINE, or what is the
    matter; then the first totals are as before, whatever was written behind them. The texts of buckets and
    counts must each have room for the whole document.
    """
    totals = out[7]
    histograms = totals[HISTOGRAMS]
    bucket_bytes = totals[BUCKET_BYTES]
    count_bytes = totals[COUNT_BYTES]
    key_bytes = totals[KEY_BYTES]
    totals[CONTAINERS] = 0
    totals[EMPTIES] = 0
    totals[PENDING_RANGES] = 0
    totals[INEXACT] = 0
    totals[FIRST] = histograms
    totals[LONG_NUMBERS] = 0
    status = _members(text, labels, tables, out, places)
    if status == FINE and totals[PENDING_RANGES]:
        status = NEW_RANGES
    if status != FINE:
        totals[HISTOGRAMS] = histograms
        totals[BUCKET_BYTES] = bucket_bytes
        totals[COUNT_BYTES] = count_bytes
        totals[KEY_BYTES] = key_bytes
    return status


@compiled
def _members(text: Text, labels: Arrays, tables: Arrays, out: Arrays, places: Arrays) -> Integer:
    """The members of the document, down to the objects that hold histograms."""
    containers = places[0]
    totals = out[7]
    at = _past_space(text, _0)
    if text[at] != _OPEN:
        return UNUSUAL
    level = IN_DOCUMENT
    process = np.int64(PARENT_LABEL)
    while True:
        at = _past_space(text, at + _1)
        if text[at] != _CLOSE:
            if text[at] != _QUOTE:
                return UNUSUAL
            start = at + _1
            at = _past_string(text, at)
            if at == _0:
                return UNUSUAL
            length = at - _1 - start
            at = _past_space(text, at)
            if text[at] != _COLON:
                return UNUSUAL
            at = _past_space(text, at + _1)
            kind = -1
            if text[at] == _OPEN:
                if level == IN_PROCESSES:
                    for index in range(length):
                        byte = text[start + index]
                        if byte < _SPACE or byte > _LAST_PRINTABLE or byte == _BACKSLASH:
                            return UNUSUAL
                    process = np.int64(intern(text, start, length, *labels[:4]))
                    if process < 0:
                        return FULL_LABELS
                    level = IN_PROCESS
                    continue
                if _says(text, start, _HISTOGRAMS):
                    kind = PLAIN_KIND
                elif _says(text, start, _KEYED_HISTOGRAMS):
                    kind = KEYED_KIND
                elif level == IN_DOCUMENT and _says(text, start, _PAYLOAD):
                    level = IN_PAYLOAD
                    continue
                elif level == IN_PAYLOAD and _says(text, start, _PROCESSES):
                    level = IN_PROCESSES
                    continue
            if kind < 0:
                at = _past_value(text, at, totals)
                if at == _0:
                    return UNUSUAL
            else:
                place = totals[CONTAINERS]
                if place >= containers.shape[0]:
                    return FULL_PLACES
                containers[place, KIND] = kind
                containers[place, LEVEL] = level
                containers[place, CONTAINER_PROCESS] = process
                containers[place, INSIDE_START] = at
                before = totals[HISTOGRAMS]
                at, status = _container(text, at, kind, process, place, labels, tables, out, places)
                if status != FINE:
                    return status
                containers[place, INSIDE_END] = at
                containers[place, READ_COUNT] = totals[HISTOGRAMS] - before
                totals[CONTAINERS] = place + 1
            at = _past_space(text, at)
        while text[at] == _CLOSE:
            if level == IN_DOCUMENT:
                return FINE
            level -= 1
            process = np.int64(PARENT_LABEL)
            at = _past_space(text, at + _1)
        if text[at] != _COMMA:
            return UNUSUAL


@compiled
def _container(
    text: Text,
    at: Position,
    kind: Integer,
    process: Integer,
    container: Integer,
    labels: Arrays,
    tables: Arrays,
    out: Arrays,
    places: Arrays,
) -> tuple[Position, Integer]:
    """An object of histograms, or of keyed ones, from its brace; its end, and whether all is FINE."""
    slots, label_text, label_ends, label_count, stamps, following, last_ranges = labels
    _, empties, key_codes = places
    totals = out[7]
    stamps[0] += 1
    stamp = stamps[0]
    before = np.int64(label_ends.size - 1)
    label = np.int64(0)
    label_start = _0
    label_length = _0
    key_start = _0
    key_length = np.int64(NO_KEY)
    key_count = 0
    inside_name = False
    fresh = True
    after_comma = False
    at = _past_space(text, at + _1)
    while True:
        if text[at] == _CLOSE and not after_comma:
            at += _1
            if not inside_name:
                return at, FINE
            if key_count == 0:
                place = totals[EMPTIES]
                if place >= empties.shape[0]:
                    return _0, FULL_PLACES
                empties[place, EMPTY_CONTAINER] = container
                empties[place, EMPTY_START] = label_start
                empties[place, EMPTY_LENGTH] = label_length
                totals[EMPTIES] = place + 1
            inside_name = False
        elif text[at] == _QUOTE and (fresh or after_comma):
            start = at + _1
            if not inside_name:
                # The label that came behind the one before, last time.
                label = following[before]
                begin = np.uint64(label_ends[label])
                length = np.uint64(label_ends[label + 1]) - begin
                if (
                    start + length + _PADDING > np.uint64(text.size)
                    or text[start + length] != _QUOTE
                    or not same_text(text, start, label_text, begin, length)
                ):
                    end = start
                    while text[end] != _QUOTE:
                        byte = text[end]
                        if byte < _SPACE or byte > _LAST_PRINTABLE or byte == _BACKSLASH:
                            return _0, UNUSUAL
                        end += _1
                    length = end - start
                    label = np.int64(intern(text, start, length, slots, label_text, label_ends, label_count))
                    if label < 0:
                        return _0, FULL_LABELS
                    following[before] = label
                before = label
                if stamps[label + 1] == stamp:
                    return _0, UNUSUAL
                stamps[label + 1] = stamp
                label_start = start
                label_length = length
                at = start + length + _1
            else:
                end = start
                code = _HASH_BASIS
                while text[end] != _QUOTE:
                    byte = text[end]
                    if byte < _SPACE or byte > _LAST_PRINTABLE or byte == _BACKSLASH:
                        return _0, UNUSUAL
                    code = (code ^ np.uint64(byte)) * _HASH_PRIME
                    end += _1
                if key_count == key_codes.size:
                    return _0, UNUSUAL
                for index in range(key_count):
                    if key_codes[index] == code:
                        return _0, UNUSUAL
                key_codes[key_count] = code
                key_count += 1
                key_start = start
                key_length = np.int64(end - start)
                at = end + _1
            at = _past_space(text, at)
            if text[at] != _COLON:
                return _0, UNUSUAL
            at = _past_space(text, at + _1)
            if text[at] != _OPEN:
                return _0, UNUSUAL
            if kind == KEYED_KIND and not inside_name:
                inside_name = True
                key_count = 0
                fresh = True
                after_comma = False
                at = _past_space(text, at + _1)
                continue
            row = totals[HISTOGRAMS]
            text_start = at
            at, status = _histogram(text, at, last_ranges[label], tables, out)
            if status != FINE:
                return _0, status
            histograms, limits = out[0], out[1]
            source = out[8][row - totals[FIRST]]
            source[LABEL_START] = label_start
            source[LABEL_LENGTH] = label_length
            source[TEXT_START] = text_start
            source[TEXT_END] = at
            source[CONTAINER] = container
            histograms[row, NAME] = label
            histograms[row, PROCESS] = process
            histograms[row, KEY_START] = totals[KEY_BYTES]
            histograms[row, KEY_LENGTH] = key_length
            if key_length > 0:
                keys = out[5]
                place = totals[KEY_BYTES]
                if place + key_length > keys.size:
                    return _0, FULL_PLACES
                for index in range(np.uint64(key_length)):
                    keys[np.uint64(place) + index] = text[key_start + index]
                totals[KEY_BYTES] = place + key_length
            range_slots, ranges, bounds, pending, _, range_texts, _ = tables
            of = last_ranges[label]
            if (
                ranges[of, RANGE_TYPE] != histograms[row, TYPE]
                or ranges[of, RANGE_LOW] != limits[row, LOW]
                or ranges[of, RANGE_HIGH] != limits[row, HIGH]
                or ranges[of, RANGE_BUCKET_COUNT] != histograms[row, BUCKET_COUNT]
            ):
                of, _ = find_range(
                    histograms[row, TYPE],
                    limits[row, LOW],
                    limits[row, HIGH],
                    histograms[row, BUCKET_COUNT],
                    range_slots,
                    ranges,
                )
            if of < 0:
                place = totals[PENDING_RANGES]
                if place < pending.shape[0]:
                    pending[place, RANGE_TYPE] = histograms[row, TYPE]
                    pending[place, RANGE_LOW] = limits[row, LOW]
                    pending[place, RANGE_HIGH] = limits[row, HIGH]
                    pending[place, RANGE_BUCKET_COUNT] = histograms[row, BUCKET_COUNT]
                    totals[PENDING_RANGES] = place + 1
            else:
                last_ranges[label] = of
                if totals[VALUES_START]:
                    _remember(text, text_start, of, ranges, range_texts, totals)
                buckets = out[9]
                bound = np.uint64(ranges[of, BOUNDS_START])
                last = np.uint64(ranges[of, BOUNDS_END])
                if bound == last:
                    return _0, UNUSUAL
                for index in range(np.uint64(totals[BUCKETS])):
                    value = buckets[index]
                    while bound < last and bounds[bound] < value:
                        bound += _1
                    if bound == last or bounds[bound] != value:
                        return _0, UNUSUAL
            source[RANGE] = of
        else:
            return _0, UNUSUAL
        fresh = False
        at = _past_space(text, at)
        after_comma = text[at] == _COMMA
        if after_comma:
            at = _past_space(text, at + _1)


@compiled
def _remember(
    text: Text, start: Position, of: Integer, ranges: Array, range_texts: Text, totals: Array
) -> None:
    """Remember how the histogram at `start` says that its range is number `of`, unless that is too long."""
    head = np.uint64(totals[HEAD_END]) - start
    tail_start = np.uint64(totals[TAIL_START])
    tail = np.uint64(totals[VALUES_START]) - tail_start
    if head + tail > np.uint64(RANGE_TEXT_BYTES):
        return
    place = np.uint64(of) * np.uint64(RANGE_TEXT_BYTES)
    for index in range(head):
        range_texts[place + index] = text[start + index]
    for index in range(tail):
        range_texts[place + head + index] = text[tail_start + index]
    ranges[of, HEAD_LENGTH] = head
    ranges[of, TAIL_LENGTH] = tail


@compiled
def _past_remembered(text: Text, at: Position, of: Integer, tables: Arrays, out: Arrays) -> Position:
    """The values of the histogram at `at`, if it begins as one of the range number `of` did; 0 otherwise.

    What is said before the values is noted then.
    """
    _, ranges, _, _, _, range_texts, _ = tables
    histograms, limits, sums, _, _, _, _, totals, _, _ = out
    size = np.uint64(text.size)
    place = np.uint64(of) * np.uint64(RANGE_TEXT_BYTES)
    head = np.uint64(ranges[of, HEAD_LENGTH])
    if head == _0 or at + head + _PADDING > size or not same_text(text, at, range_texts, place, head):
        return _0
    at += head
    row = totals[HISTOGRAMS]
    tail = np.uint64(ranges[of, TAIL_LENGTH])
    if tail != _0:
        value, at = _whole_number(text, at)
        if (
            at == _0
            or at + tail + _PADDING > size
            or not same_text(text, at, range_texts, place + head, tail)
        ):
            return _0
        at += tail
        sums[row, 0] = np.float64(value)
    histograms[row, TYPE] = ranges[of, RANGE_TYPE]
    limits[row, LOW] = ranges[of, RANGE_LOW]
    limits[row, HIGH] = ranges[of, RANGE_HIGH]
    histograms[row, BUCKET_COUNT] = ranges[of, RANGE_BUCKET_COUNT]
    return at


@compiled
def _with_number(target: Text, end: Position, text: Text, start: Position, length: Position) -> Position:
    """Put the number of up to ten digits at `start` behind `target`, and a comma; the new end.

    What is behind the end, up to 16 bytes, is overwritten.
    """
    put_word(target, end, word_at(text, start))
    if length > _WORD_DIGITS:
        put_word(target, end + _WORD_DIGITS, word_at(text, start + _WORD_DIGITS))
    end += length
    target[end] = _COMMA
    return end + _1


@compiled_in_place
def _histogram(
    text: Text, at: Position, of: Integer, tables: Arrays, out: Arrays
) -> tuple[Position, Integer]:
    """One histogram, from its brace; its end, and whether all is FINE. Number `of` is likely its range."""
    _, ranges, _, _, following_fields, _, powers_of_ten = tables
    histograms, limits, sums, bucket_text, count_text, _, inexact, totals, _, buckets = out
    row = totals[HISTOGRAMS]
    bucket = _0
    bucket_end = np.uint64(totals[BUCKET_BYTES])
    count_end = np.uint64(totals[COUNT_BYTES])
    if row >= histograms.shape[0]:
        return _0, FULL_ROWS
    for index in range(SUMS):
        sums[row, index] = -1.0
    seen = 0
    before = np.int64(_BEFORE_FIRST_FIELD)
    sum_start = _0
    sum_end = _0
    totals[VALUES_START] = 0
    values_start = _past_remembered(text, at, of, tables, out)
    while True:
        if values_start != _0:
            at = _past_space(text, values_start)
            values_start = _0
            field: Integer = np.int64(_VALUES_FIELD)
            seen = _WITH_SUM if ranges[of, TAIL_LENGTH] else _WITHOUT_SUMS
        else:
            at = _past_space(text, at + _1)
            if text[at] != _QUOTE:
                return _0, UNUSUAL
            start = at + _1
            first_word = word_at(text, start)
            second_word = word_at(text, start + _WORD_DIGITS)
            # The field that came behind the one before, last time; then every field.
            field = following_fields[before]
            tried = -1
            while (
                (first_word ^ FIELD_WORDS[field, 0]) & FIELD_WORDS[field, 2]
                | (second_word ^ FIELD_WORDS[field, 1]) & FIELD_WORDS[field, 3]
            ) != _0:
                tried += 1
                if tried == FIELD_COUNT:
                    return _0, UNUSUAL
                field = np.int64(tried)
            following_fields[before] = field
            if seen & (1 << field):
                return _0, UNUSUAL
            seen |= 1 << field
            at = _past_space(text, start + FIELD_LENGTHS[field])
            if text[at] != _COLON:
                return _0, UNUSUAL
            at = _past_space(text, at + _1)
            if field == _VALUES_FIELD and (seen == _WITHOUT_SUMS or seen == _WITH_SUM):
                if seen == _WITHOUT_SUMS:
                    sum_start = at
                    sum_end = at
                totals[HEAD_END] = sum_start
                totals[TAIL_START] = sum_end
                totals[VALUES_START] = at
        before = field
        if field == _VALUES_FIELD:
            if text[at] != _OPEN:
                return _0, UNUSUAL
            at = _past_space(text, at + _1)
            below = np.int64(-1)
            if text[at] != _CLOSE:
                while True:
                    if text[at] != _QUOTE:
                        return _0, UNUSUAL
                    start = at + _1
                    value, at = _whole_number(text, start)
                    if at == _0 or text[at] != _QUOTE or np.int64(value) <= below or value > _NARROW_MAX:
                        return _0, UNUSUAL
                    below = np.int64(value)
                    buckets[bucket] = below
                    bucket += _1
                    bucket_end = _with_number(bucket_text, bucket_end, text, start, at - start)
                    at += _1
                    if text[at] != _COLON:
                        at = _past_space(text, at)
                        if text[at] != _COLON:
                            return _0, UNUSUAL
                    at += _1
                    if text[at] <= _SPACE:
                        at = _past_space(text, at)
                    start = at
                    value, at = _whole_number(text, start)
                    if at == _0:
                        return _0, UNUSUAL
                    count_end = _with_number(count_text, count_end, text, start, at - start)
                    if text[at] <= _SPACE:
                        at = _past_space(text, at)
                    if text[at] == _COMMA:
                        at += _1
                        if text[at] <= _SPACE:
                            at = _past_space(text, at)
                    elif text[at] == _CLOSE:
                        break
                    else:
                        return _0, UNUSUAL
                # No comma behind the last ones.
                bucket_end -= _1
                count_end -= _1
            at += _1
        elif field == _RANGE_FIELD:
            if text[at] != _OPEN_LIST:
                return _0, UNUSUAL
            low, at = _whole_number(text, _past_space(text, at + _1))
            if at == _0:
                return _0, UNUSUAL
            at = _past_space(text, at)
            if text[at] != _COMMA:
                return _0, UNUSUAL
            high, at = _whole_number(text, _past_space(text, at + _1))
            if at == _0:
                return _0, UNUSUAL
            at = _past_space(text, at)
            if text[at] != _CLOSE_LIST:
                return _0, UNUSUAL
            at += _1
            limits[row, LOW] = low
            limits[row, HIGH] = high
        elif field < _FIRST_SUM_FIELD:
            value, at = _whole_number(text, at)
            if at == _0 or value > _NARROW_MAX:
                return _0, UNUSUAL
            histograms[row, BUCKET_COUNT if field == _BUCKET_COUNT_FIELD else TYPE] = value
        else:
            start = at
            negative = text[at] == _MINUS
            if negative:
                at += _1
            first = at
            mantissa, at = _more_digits(text, at, _0, powers_of_ten)
            digits = at - first
            if digits == _0 or (text[first] == _ZERO and digits > _1):
                return _0, UNUSUAL
            fraction = _0
            if text[at] == _DOT:
                first = at + _1
                mantissa, at = _more_digits(text, first, mantissa, powers_of_ten)
                fraction = at - first
                digits += fraction
                if fraction == _0:
                    return _0, UNUSUAL
            if text[at] == _LOWER_E or text[at] == _UPPER_E:
                return _0, UNUSUAL
            number, exact = _divided(mantissa, fraction, powers_of_ten)
            if digits > _NINETEEN_DIGITS or not exact:
                # An integer that a double may not hold stays in the document.
                if fraction == _0:
                    return _0, UNUSUAL
                place = totals[INEXACT]
                if place >= inexact.shape[0]:
                    return _0, FULL_ROWS
                inexact[place, INEXACT_ROW] = row
                inexact[place, INEXACT_FIELD] = field - _FIRST_SUM_FIELD
                inexact[place, INEXACT_START] = start
                inexact[place, INEXACT_END] = at
                totals[INEXACT] = place + 1
            elif negative:
                # -1 stands for absent, and a negative zero would not survive.
                if number == 1.0 or number == 0.0:
                    return _0, UNUSUAL
                sums[row, field - _FIRST_SUM_FIELD] = -number
            else:
                sums[row, field - _FIRST_SUM_FIELD] = number
            if field == _FIRST_SUM_FIELD:
                sum_start = start
                sum_end = at
        at = _past_space(text, at)
        if text[at] == _CLOSE:
            break
        # Also ends numbers that go on in an unusual way.
        if text[at] != _COMMA:
            return _0, UNUSUAL
    if seen & _WITHOUT_SUMS != _WITHOUT_SUMS:
        return _0, UNUSUAL
    histograms[row, BUCKETS_END] = np.int64(bucket_end)
    histograms[row, COUNTS_END] = np.int64(count_end)
    totals[HISTOGRAMS] = row + 1
    totals[BUCKETS] = np.int64(bucket)
    totals[BUCKET_BYTES] = np.int64(bucket_end)
    totals[COUNT_BYTES] = np.int64(count_end)
    return at + _1, FINE


# What the definitions of a revision say about a label, where it is not the number of a range.
UNRESOLVED: Final = -4
"""Nobody has looked yet."""
UNDEFINED: Final = -3
ANY_RANGE: Final = -2
"""It is defined, by parameters that nobody can compute."""

# Columns of the array with one row for each histogram that is put back into the document.
(
    BACK_CONTAINER,
    BACK_LABEL_START,
    BACK_LABEL_LENGTH,
    BACK_TEXT_START,
    BACK_TEXT_END,
    BACK_KEY,
    BACK_KEY_LENGTH,
) = range(7)
BACK_COLUMNS: Final = 7


@compiled
def settle(first: Integer, expected: Array, out: Arrays, containers: Array, put_back: Array) -> Integer:
    """Compare the histograms from row `first` on with what `expected` says about their labels.

    Those that are undefined are taken out and listed in `put_back`. Gives their number, or minus what is
    the matter: NEW_RANGES when a label has yet to be looked up.
    """
    histograms, limits, sums, bucket_text, count_text, _, _, totals, sources, _ = out
    end = totals[HISTOGRAMS]
    undefined = 0
    row = end
    for read in range(first, end):
        wanted = expected[histograms[read, NAME]]
        if wanted == UNRESOLVED:
            return -NEW_RANGES
        if wanted == UNDEFINED:
            undefined += 1
            row = min(row, read)
        elif wanted != ANY_RANGE and wanted != sources[read - first, RANGE]:
            return -UNUSUAL
    if undefined == 0:
        return 0
    if undefined > put_back.shape[0]:
        return -FULL_PLACES
    place = 0
    bucket = histograms[row - 1, BUCKETS_END] if row else 0
    count = histograms[row - 1, COUNTS_END] if row else 0
    read = row
    while read < end:
        if expected[histograms[read, NAME]] == UNDEFINED:
            source = sources[read - first]
            put_back[place, BACK_CONTAINER] = source[CONTAINER]
            put_back[place, BACK_LABEL_START] = source[LABEL_START]
            put_back[place, BACK_LABEL_LENGTH] = source[LABEL_LENGTH]
            put_back[place, BACK_TEXT_START] = source[TEXT_START]
            put_back[place, BACK_TEXT_END] = source[TEXT_END]
            put_back[place, BACK_KEY] = histograms[read, KEY_START]
            put_back[place, BACK_KEY_LENGTH] = histograms[read, KEY_LENGTH]
            containers[source[CONTAINER], READ_COUNT] -= 1
            place += 1
            read += 1
            continue
        # All rows up to the next one that is taken out move at once: column by column, as they are stored.
        until = read + 1
        while until < end and expected[histograms[until, NAME]] != UNDEFINED:
            until += 1
        # The row before them has not been overwritten: what moved before ends in front of it.
        read_bucket = histograms[read - 1, BUCKETS_END]
        read_count = histograms[read - 1, COUNTS_END]
        bucket_shift = read_bucket - bucket
        count_shift = read_count - count
        bucket = _moved(bucket_text, bucket, read_bucket, histograms[until - 1, BUCKETS_END])
        count = _moved(count_text, count, read_count, histograms[until - 1, COUNTS_END])
        _move_rows(histograms, row, read, until)
        _move_rows(limits, row, read, until)
        _move_rows(sums, row, read, until)
        for number in range(row, row + until - read):
            histograms[number, BUCKETS_END] -= bucket_shift
            histograms[number, COUNTS_END] -= count_shift
        row += until - read
        read = until
    totals[HISTOGRAMS] = row
    totals[BUCKET_BYTES] = bucket
    totals[COUNT_BYTES] = count
    return undefined


@compiled
def _move_rows(table: Array, to: Integer, start: Integer, end: Integer) -> None:
    """Move rows of a table to a place in front of them."""
    for column in range(table.shape[1]):
        for number in range(end - start):
            table[to + number, column] = table[start + number, column]


@compiled
def _moved(text: Text, to: Integer, start: Integer, end: Integer) -> Integer:
    """Move a stretch of `text` to a place not behind it; its new end.

    What is between its new and its old end is overwritten.
    """
    target, source, until = np.uint64(to), np.uint64(start), np.uint64(end)
    while source + _WORD_DIGITS <= until:
        put_word(text, target, word_at(text, source))
        target += _WORD_DIGITS
        source += _WORD_DIGITS
    while source < until:
        text[target] = text[source]
        target += _1
        source += _1
    return np.int64(target)


@compiled
def gather_keys(
    histograms: Array, first: Integer, end: Integer, keys: Text, offsets: Array, text: Text
) -> Integer:
    """Copy the keys of the rows behind each other into `text`, with where each ends in `offsets`."""
    at = 0
    for row in range(first, end):
        start = histograms[row, KEY_START]
        for index in range(histograms[row, KEY_LENGTH]):
            text[at] = keys[start + index]
            at += 1
        offsets[row - first + 1] = at
    return at
