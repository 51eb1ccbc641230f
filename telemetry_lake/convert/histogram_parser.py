"""A parser of the histograms in a document, compiled to machine code (numba).

Nine tenths of a Firefox ping are histograms: some 300 of them with 2,600 buckets. Turning their numbers
into Python objects costs more than everything else together, so this parser goes over the bytes of the
document once, finds the objects that hold histograms, and writes what it reads into arrays. It is strict:
it takes exactly the histograms that `histograms.lift_histogram` would turn into a row with nothing left
over, and gives up on a document (`UNUSUAL`) at anything else, be it wrong or merely rare: escaped or
non-ASCII names, fields nobody knows, sums that are no ordinary numbers, buckets out of order or out of
range. Such a document goes the slow way, where wrong and rare are told apart.

Everything outside the histograms is skipped here, and validated elsewhere with the histograms cut out.
Every loop stops at a zero byte, and every document ends with one, so nothing is read beyond it.

Two guesses make it fast: pings of one build have the same histograms in the same order, with fields in
the same order. So the label that followed last time is compared first, many bytes at once, and only when
it is another one is it looked up.

Positions are unsigned, so that no code is made for negative indexes, and nothing is allocated (`_nrt`),
so that no references are counted: together that makes it three times as fast.
"""

# Written for a compiler: `in` and `all` would build tuples and generators.
# ruff: noqa: PLR1714, SIM109, SIM110

from typing import Final

import numpy as np

from telemetry_lake.compiled import Array, Arrays, Integer, Position, Text, compiled

FINE: Final = 0
UNUSUAL: Final = 1
NEW_RANGES: Final = 2
"""The document has ranges that are not in the table yet; they are listed, to be added."""
FULL_ROWS: Final = 3
FULL_BUCKETS: Final = 4
FULL_LABELS: Final = 5
FULL_PLACES: Final = 6
"""Some array is too small; it has to grow, and the document to be parsed again."""

# Columns of the array with one row for each histogram.
(
    NAME,
    TYPE,
    BUCKET_COUNT,
    LOW,
    HIGH,
    RANGE,
    BUCKETS_END,
    KEY_START,
    KEY_LENGTH,
    LABEL_START,
    LABEL_LENGTH,
    TEXT_START,
    TEXT_END,
    CONTAINER,
    PROCESS,
) = range(15)
HISTOGRAM_COLUMNS: Final = 15
NO_KEY: Final = -1

# Labels that every table of labels begins with. A guess that has not been made yet is the first.
EMPTY_LABEL: Final = 0
PARENT_LABEL: Final = 1

# Columns of the array with one row for each object that holds histograms.
KIND, LEVEL, CONTAINER_PROCESS, INSIDE_START, INSIDE_END = range(5)
CONTAINER_COLUMNS: Final = 5
PLAIN_KIND: Final = 0
KEYED_KIND: Final = 1
# Where such an object is.
IN_DOCUMENT, IN_PAYLOAD, IN_PROCESSES, IN_PROCESS = range(4)

# Columns of the array with one row for each keyed histogram without keys.
EMPTY_CONTAINER, EMPTY_START, EMPTY_LENGTH = range(3)
EMPTY_COLUMNS: Final = 3

# Columns of the table of ranges, and of the array with the ranges to be added (the first four).
RANGE_TYPE, RANGE_LOW, RANGE_HIGH, RANGE_BUCKET_COUNT, BOUNDS_START, BOUNDS_END = range(6)
RANGE_COLUMNS: Final = 6

# Columns of the array with one row for each sum that has to be read again.
INEXACT_ROW, INEXACT_FIELD, INEXACT_START, INEXACT_END = range(4)
INEXACT_COLUMNS: Final = 4

# What the array of totals counts; the first three go on from document to document.
HISTOGRAMS, BUCKETS, KEY_BYTES, CONTAINERS, EMPTIES, PENDING_RANGES, INEXACT = range(7)
TOTALS: Final = 7

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
FIELD_COUNT: Final = len(_FIELDS)
FIELD_TEXTS: Final = np.zeros((FIELD_COUNT, 16), np.uint8)
FIELD_LENGTHS: Final = np.array([len(field) + 1 for field in _FIELDS], np.uint64)
for _number, _field in enumerate(_FIELDS):
    FIELD_TEXTS[_number, : len(_field) + 1] = np.frombuffer(_field + b'"', np.uint8)

_HISTOGRAMS: Final = np.frombuffer(b'histograms"', np.uint8)
_KEYED_HISTOGRAMS: Final = np.frombuffer(b'keyedHistograms"', np.uint8)
_PAYLOAD: Final = np.frombuffer(b'payload"', np.uint8)
_PROCESSES: Final = np.frombuffer(b'processes"', np.uint8)

_0 = np.uint64(0)
_1 = np.uint64(1)
_9 = np.uint64(9)
_TEN_DIGITS = np.uint64(10)
_NINETEEN_DIGITS = np.uint64(19)
_EXACT_INTEGERS = np.uint64(2**53)
_54_BITS = np.uint64(2**54)
_FRACTION_MAX_DIGITS = np.uint64(FRACTION_MAX_DIGITS)
_DIGIT_ZERO = np.uint64(48)
_TEN = np.uint64(10)
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
    at += _1
    while text[at] != _QUOTE:
        if text[at] == _BACKSLASH:
            at += _1
        if text[at] == 0:
            return _0
        at += _1
    return at + _1


@compiled
def _past_value(text: Text, at: Position) -> Position:
    """Behind any value, in text that need not be JSON; 0 when it ends inside the value."""
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
def _whole_number(text: Text, at: Position) -> tuple[Position, Position]:
    """A number of at most ten digits without sign, fraction and leading zeros, and its end; end 0 if none."""
    start = at
    value = _0
    digit = np.uint64(text[at]) - _DIGIT_ZERO
    while digit <= _9:
        value = value * _TEN + digit
        at += _1
        digit = np.uint64(text[at]) - _DIGIT_ZERO
    if at == start or at - start > _TEN_DIGITS or (text[start] == _ZERO and at - start > _1):
        return value, _0
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
    # Long division, bit by bit, until there are the 53 bits of a double and one to round by.
    divisor = powers_of_ten[fraction]
    quotient = mantissa // divisor
    remainder = mantissa % divisor
    if quotient >= _54_BITS:
        return 0.0, False
    scale = 2.0
    while quotient < _EXACT_INTEGERS:
        quotient <<= _1
        remainder <<= _1
        if remainder >= divisor:
            remainder -= divisor
            quotient |= _1
        scale *= 0.5
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
        begin = label_ends[known]
        if label_ends[known + 1] - begin == length:
            index: Position = _0
            while index < length and label_text[begin + index] == text[start + index]:
                index += _1
            if index == length:
                return known
        slot = (slot + _1) & mask
    number = label_count[0]
    begin = label_ends[number]
    if number + 1 >= label_ends.size or 2 * number >= slots.size or begin + length > label_text.size:
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

    `text` ends with a zero byte. Histograms are looked for in `histograms` and `keyedHistograms` of the
    document, of its `payload`, and of the members of `payload.processes`. Gives FINE, or what is the
    matter; then the first totals are as before, whatever was written behind them.
    """
    totals = out[6]
    histograms = totals[HISTOGRAMS]
    buckets = totals[BUCKETS]
    key_bytes = totals[KEY_BYTES]
    totals[CONTAINERS] = 0
    totals[EMPTIES] = 0
    totals[PENDING_RANGES] = 0
    totals[INEXACT] = 0
    status = _members(text, labels, tables, out, places)
    if status == FINE and totals[PENDING_RANGES]:
        status = NEW_RANGES
    if status != FINE:
        totals[HISTOGRAMS] = histograms
        totals[BUCKETS] = buckets
        totals[KEY_BYTES] = key_bytes
    return status


@compiled
def _members(text: Text, labels: Arrays, tables: Arrays, out: Arrays, places: Arrays) -> Integer:
    """The members of the document, down to the objects that hold histograms."""
    containers = places[0]
    totals = out[6]
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
                at = _past_value(text, at)
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
                at, status = _container(text, at, kind, process, place, labels, tables, out, places)
                if status != FINE:
                    return status
                containers[place, INSIDE_END] = at
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
    totals = out[6]
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
                difference = np.uint8(1)
                if start + length < np.uint64(text.size):
                    difference = text[start + length] ^ np.uint8(_QUOTE)
                    for index in range(length):
                        difference |= text[start + index] ^ label_text[begin + index]
                if difference != 0:
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
            first_bucket = totals[BUCKETS]
            text_start = at
            at, status = _histogram(text, at, tables, out)
            if status != FINE:
                return _0, status
            histograms = out[0]
            histograms[row, NAME] = label
            histograms[row, LABEL_START] = label_start
            histograms[row, LABEL_LENGTH] = label_length
            histograms[row, TEXT_START] = text_start
            histograms[row, TEXT_END] = at
            histograms[row, CONTAINER] = container
            histograms[row, PROCESS] = process
            histograms[row, KEY_START] = totals[KEY_BYTES]
            histograms[row, KEY_LENGTH] = key_length
            if key_length > 0:
                keys = out[4]
                place = totals[KEY_BYTES]
                if place + key_length > keys.size:
                    return _0, FULL_PLACES
                for index in range(np.uint64(key_length)):
                    keys[np.uint64(place) + index] = text[key_start + index]
                totals[KEY_BYTES] = place + key_length
            range_slots, ranges, bounds, pending, _, _, _ = tables
            of = last_ranges[label]
            if (
                ranges[of, RANGE_TYPE] != histograms[row, TYPE]
                or ranges[of, RANGE_LOW] != histograms[row, LOW]
                or ranges[of, RANGE_HIGH] != histograms[row, HIGH]
                or ranges[of, RANGE_BUCKET_COUNT] != histograms[row, BUCKET_COUNT]
            ):
                of, _ = find_range(
                    histograms[row, TYPE],
                    histograms[row, LOW],
                    histograms[row, HIGH],
                    histograms[row, BUCKET_COUNT],
                    range_slots,
                    ranges,
                )
            if of < 0:
                place = totals[PENDING_RANGES]
                if place < pending.shape[0]:
                    pending[place, RANGE_TYPE] = histograms[row, TYPE]
                    pending[place, RANGE_LOW] = histograms[row, LOW]
                    pending[place, RANGE_HIGH] = histograms[row, HIGH]
                    pending[place, RANGE_BUCKET_COUNT] = histograms[row, BUCKET_COUNT]
                    totals[PENDING_RANGES] = place + 1
            else:
                last_ranges[label] = of
                bucket_bounds = out[2]
                bound = np.uint64(ranges[of, BOUNDS_START])
                last = np.uint64(ranges[of, BOUNDS_END])
                if bound == last:
                    return _0, UNUSUAL
                for index in range(np.uint64(first_bucket), np.uint64(totals[BUCKETS])):
                    value = bucket_bounds[index]
                    while bound < last and bounds[bound] < value:
                        bound += _1
                    if bound == last or bounds[bound] != value:
                        return _0, UNUSUAL
            histograms[row, RANGE] = of
        else:
            return _0, UNUSUAL
        fresh = False
        at = _past_space(text, at)
        after_comma = text[at] == _COMMA
        if after_comma:
            at = _past_space(text, at + _1)


@compiled
def _histogram(text: Text, at: Position, tables: Arrays, out: Arrays) -> tuple[Position, Integer]:
    """One histogram, from its brace; its end, and whether all is FINE."""
    _, _, _, _, following_fields, field_texts, powers_of_ten = tables
    histograms, sums, buckets, counts, _, inexact, totals = out
    row = totals[HISTOGRAMS]
    bucket = np.uint64(totals[BUCKETS])
    room = np.uint64(buckets.size)
    if row >= histograms.shape[0]:
        return _0, FULL_ROWS
    for index in range(SUMS):
        sums[row, index] = -1.0
    seen = 0
    before = np.int64(_BEFORE_FIRST_FIELD)
    while True:
        at = _past_space(text, at + _1)
        if text[at] != _QUOTE:
            return _0, UNUSUAL
        start = at + _1
        # The field that came behind the one before, last time; then every field.
        field = following_fields[before]
        tried = -1
        while True:
            length = FIELD_LENGTHS[field]
            difference = np.uint8(1)
            if start + length < np.uint64(text.size):
                difference = np.uint8(0)
                for index in range(length):
                    difference |= text[start + index] ^ field_texts[field, index]
            if difference == 0:
                break
            tried += 1
            if tried == FIELD_COUNT:
                return _0, UNUSUAL
            field = np.int64(tried)
        following_fields[before] = field
        before = field
        if seen & (1 << field):
            return _0, UNUSUAL
        seen |= 1 << field
        at = _past_space(text, start + length)
        if text[at] != _COLON:
            return _0, UNUSUAL
        at = _past_space(text, at + _1)
        if field == _VALUES_FIELD:
            if text[at] != _OPEN:
                return _0, UNUSUAL
            at = _past_space(text, at + _1)
            below = np.int64(-1)
            if text[at] != _CLOSE:
                while True:
                    if bucket >= room or text[at] != _QUOTE:
                        return _0, UNUSUAL if bucket < room else FULL_BUCKETS
                    value, at = _whole_number(text, at + _1)
                    if at == _0 or text[at] != _QUOTE or np.int64(value) <= below:
                        return _0, UNUSUAL
                    below = np.int64(value)
                    buckets[bucket] = below
                    at += _1
                    if text[at] != _COLON:
                        at = _past_space(text, at)
                        if text[at] != _COLON:
                            return _0, UNUSUAL
                    at += _1
                    if text[at] <= _SPACE:
                        at = _past_space(text, at)
                    value, at = _whole_number(text, at)
                    if at == _0:
                        return _0, UNUSUAL
                    counts[bucket] = np.int64(value)
                    bucket += _1
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
            histograms[row, LOW] = low
            histograms[row, HIGH] = high
        elif field < _FIRST_SUM_FIELD:
            value, at = _whole_number(text, at)
            if at == _0:
                return _0, UNUSUAL
            histograms[row, BUCKET_COUNT if field == _BUCKET_COUNT_FIELD else TYPE] = value
        else:
            start = at
            negative = text[at] == _MINUS
            if negative:
                at += _1
            first = at
            mantissa = _0
            digit = np.uint64(text[at]) - _DIGIT_ZERO
            while digit <= _9:
                mantissa = mantissa * _TEN + digit
                at += _1
                digit = np.uint64(text[at]) - _DIGIT_ZERO
            digits = at - first
            if digits == _0 or (text[first] == _ZERO and digits > _1):
                return _0, UNUSUAL
            fraction = _0
            if text[at] == _DOT:
                at += _1
                first = at
                digit = np.uint64(text[at]) - _DIGIT_ZERO
                while digit <= _9:
                    mantissa = mantissa * _TEN + digit
                    at += _1
                    digit = np.uint64(text[at]) - _DIGIT_ZERO
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
        at = _past_space(text, at)
        if text[at] == _CLOSE:
            break
        # Also ends numbers that go on in an unusual way.
        if text[at] != _COMMA:
            return _0, UNUSUAL
    if seen & 15 != 15:
        return _0, UNUSUAL
    histograms[row, BUCKETS_END] = np.int64(bucket)
    totals[HISTOGRAMS] = row + 1
    totals[BUCKETS] = np.int64(bucket)
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
def settle(first: Integer, expected: Array, out: Arrays, put_back: Array) -> Integer:
    """Compare the histograms from row `first` on with what `expected` says about their labels.

    Those that are undefined are taken out and listed in `put_back`. Gives their number, or minus what is
    the matter: NEW_RANGES when a label has yet to be looked up.
    """
    histograms, sums, buckets, counts, _, _, totals = out
    end = totals[HISTOGRAMS]
    undefined = 0
    for row in range(first, end):
        wanted = expected[histograms[row, NAME]]
        if wanted == UNRESOLVED:
            return -NEW_RANGES
        if wanted == UNDEFINED:
            undefined += 1
        elif wanted != ANY_RANGE and wanted != histograms[row, RANGE]:
            return -UNUSUAL
    if undefined == 0:
        return 0
    if undefined > put_back.shape[0]:
        return -FULL_PLACES
    place = 0
    row = first
    bucket = histograms[first - 1, BUCKETS_END] if first else 0
    read_bucket = bucket
    for read in range(first, end):
        bucket_end = histograms[read, BUCKETS_END]
        if expected[histograms[read, NAME]] == UNDEFINED:
            put_back[place, BACK_CONTAINER] = histograms[read, CONTAINER]
            put_back[place, BACK_LABEL_START] = histograms[read, LABEL_START]
            put_back[place, BACK_LABEL_LENGTH] = histograms[read, LABEL_LENGTH]
            put_back[place, BACK_TEXT_START] = histograms[read, TEXT_START]
            put_back[place, BACK_TEXT_END] = histograms[read, TEXT_END]
            put_back[place, BACK_KEY] = histograms[read, KEY_START]
            put_back[place, BACK_KEY_LENGTH] = histograms[read, KEY_LENGTH]
            place += 1
        else:
            for index in range(bucket_end - read_bucket):
                buckets[bucket + index] = buckets[read_bucket + index]
                counts[bucket + index] = counts[read_bucket + index]
            bucket += bucket_end - read_bucket
            for column in range(HISTOGRAM_COLUMNS):
                histograms[row, column] = histograms[read, column]
            histograms[row, BUCKETS_END] = bucket
            for column in range(SUMS):
                sums[row, column] = sums[read, column]
            row += 1
        read_bucket = bucket_end
    totals[HISTOGRAMS] = row
    totals[BUCKETS] = bucket
    return undefined


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
