"""The loops over the samples of many histograms, compiled to machine code (numba).

A ping of Firefox has 300 histograms with 2,600 buckets. Sorting and looking them up with numpy, step by step,
means that some twenty arrays of that length go through memory; here each sample is looked at once to count
it and twice to weigh it, while it is in the processor's cache. Who calls this is `histogram_aggregation`.

What a ping has to weigh is written as bytes, which are a tenth of its columns: for each histogram with
samples the number of its definition, how many of its buckets have some, and of those the place among the
bounds and the count. They are numbers in base 128, lowest digits first, as in Protocol Buffers.

Positions are unsigned, so that no code is made for negative indexes, and nothing is allocated (`_nrt`), so
that no references are counted: together that makes it four times as fast. Whoever calls brings all arrays.
"""

# Written for a compiler: nothing is in a structure, and everything is an argument.

from typing import Any, Final

import numpy as np

from telemetry_lake.compiled import Array, Arrays, Integer, Position, compiled

COUNT_MAX: Final = 2**31 - 1
"""Firefox counts in 32 bits: a larger count is damage."""
SUM_MAX: Final = float(2**44)
"""A larger sum of one ping is not believed: so large ones of 2^18 pings fit into 64 bits."""
WEIGHT_UNIT: Final = 2**32
"""What a client weighs, in the units in which weights are added."""

HISTOGRAM_MAX_BYTES: Final = 10
SAMPLE_MAX_BYTES: Final = 10
"""Two numbers of up to 35 bits each."""
HISTOGRAM_MIN_BYTES: Final = 4

_0 = np.uint64(0)
_1 = np.uint64(1)
_2 = np.uint64(2)
_7 = np.uint64(7)
_DIGIT = np.uint64(127)
_MORE = np.uint64(128)
_HASH_PRIME = np.uint64(1099511628211)
_HASH_FOLD = np.uint64(29)
_COUNT_MAX = COUNT_MAX
_WEIGHT_UNIT = float(WEIGHT_UNIT)


@compiled
def _equal(fields: Arrays, one: Position, other: Position) -> Any:
    process, name, key, kind, bucket_count, low, high = fields
    return (
        (name[one] == name[other])
        & (process[one] == process[other])
        & (key[one] == key[other])
        & (kind[one] == kind[other])
        & (bucket_count[one] == bucket_count[other])
        & (low[one] == low[other])
        & (high[one] == high[other])
    )


@compiled
def _slot(fields: Arrays, histogram: Position, firsts: Array, slots: Array) -> Position:
    """Where in `slots` the number of a histogram's definition is, or would be."""
    process, name, key, kind, bucket_count, low, high = fields
    code = (np.uint64(process[histogram]) * _HASH_PRIME) ^ np.uint64(name[histogram])
    code = (code * _HASH_PRIME) ^ np.uint64(key[histogram])
    code = (code * _HASH_PRIME) ^ np.uint64(kind[histogram])
    code = (code * _HASH_PRIME) ^ np.uint64(bucket_count[histogram])
    code = (code * _HASH_PRIME) ^ np.uint64(low[histogram])
    code = ((code * _HASH_PRIME) ^ np.uint64(high[histogram])) * _HASH_PRIME
    mask = np.uint64(slots.size) - _1
    slot = (code ^ (code >> _HASH_FOLD)) & mask
    while slots[slot] >= 0 and not _equal(fields, firsts[np.uint64(slots[slot])], histogram):
        slot = (slot + _1) & mask
    return slot


@compiled
def number_definitions(
    fields: Arrays, numbers: Array, firsts: Array, following: Array, slots: Array
) -> Integer:
    """Give each histogram the number of its definition, and each number the first histogram that has it.

    `fields` are process, name, key, kind, number of buckets and range of all histograms, as whole numbers.
    Gives how many definitions there are, or -1 when `firsts` has no room for them; `slots` are empty (-1),
    twice as many at least, and a power of two. Pings of one build have the same histograms in the same
    order: so the number that followed last time is compared first, and only when it is another one is it
    looked up.
    """
    known = 0
    before = _0
    for histogram in range(np.uint64(numbers.size)):
        number = following[before]
        if known == 0 or not _equal(fields, firsts[np.uint64(number)], histogram):
            slot = _slot(fields, histogram, firsts, slots)
            number = slots[slot]
            if number < 0:
                if known == firsts.size:
                    return -1
                number = np.int32(known)
                slots[slot] = number
                firsts[np.uint64(number)] = histogram
                known += 1
            following[before] = number
        numbers[histogram] = number
        before = np.uint64(number)
    return known


@compiled
def number_rows(
    order: Array,
    groups: Array,
    ping_starts: Array,
    definitions: Array,
    sizes: Array,
    row_of: Array,
    rows: Array,
    row_groups: Array,
    row_definitions: Array,
) -> Integer:
    """Give each histogram the number of its row: one for each group of pings and definition with buckets.

    `order` says in which order pings are taken, group by group. `row_of` has room for each definition. A
    histogram whose buckets nobody knows gets -1. Gives how many rows there are.
    """
    count = 0
    group = np.int64(-1)
    for ping in order:
        if groups[np.uint64(ping)] != group:
            group = groups[np.uint64(ping)]
            for place in range(np.uint64(row_of.size)):
                row_of[place] = -1
        first, last = ping_starts[np.uint64(ping)], ping_starts[np.uint64(ping) + _1]
        for histogram in range(np.uint64(first), np.uint64(last)):
            definition = np.uint64(definitions[histogram])
            row = row_of[definition]
            if row < 0 and sizes[definition] > 0:
                row = count
                row_of[definition] = row
                row_groups[np.uint64(row)] = group
                row_definitions[np.uint64(row)] = definitions[histogram]
                count += 1
            rows[histogram] = row
    return count


@compiled
def _put(text: Array, at: Position, number: Position) -> Position:
    """Write a number; where the next one goes."""
    while number >= _MORE:
        text[at] = (number & _DIGIT) | _MORE
        number >>= _7
        at += _1
    text[at] = number
    return at + _1


@compiled
def _get(text: Array, at: Position) -> tuple[Position, Position]:
    """The number at a place, and where the next one is."""
    byte = np.uint64(text[at])
    at += _1
    number = byte & _DIGIT
    shift = _7
    while byte >= _MORE:
        byte = np.uint64(text[at])
        at += _1
        number |= (byte & _DIGIT) << shift
        shift += _7
    return number, at


@compiled
def _place(bounds: Array, first: Position, last: Position, bucket: Integer) -> Position:
    """Where `bucket` is among the ascending bounds from `first` to `last`; `last` if it is none of them."""
    low, high = first, last
    while low < high:
        middle = (low + high) >> _1
        if bounds[middle] < bucket:
            low = middle + _1
        else:
            high = middle
    return low if low < last and bounds[low] == bucket else last


@compiled
def count_samples(
    ping_starts: Array,
    weighs: Array,
    definitions: Array,
    rows: Array,
    said: Array,
    lists: Arrays,
    bounds_starts: Array,
    bounds: Array,
    places: Array,
    row_starts: Array,
    sums: Arrays,
    text: Array,
    text_starts: Array,
) -> None:
    """Add the histograms of pings to their rows, but for damaged ones.

    `lists` are where those of each histogram start, and all buckets and counts.
    `places` has room for each bucket of a histogram. `sums` are the pings, the sums and the counts of
    rows, the latter from `row_starts` on. Of the pings that `weighs` says, what they have to weigh is
    written to `text`.
    """
    starts, buckets, counts = lists
    pings, sums_said, numbers = sums
    end = _0
    for ping in range(np.uint64(weighs.size)):
        weighing = weighs[ping]
        for histogram in range(np.uint64(ping_starts[ping]), np.uint64(ping_starts[ping + _1])):
            if rows[histogram] < 0:
                continue
            row = np.uint64(rows[histogram])
            definition = np.uint64(definitions[histogram])
            first, last = np.uint64(bounds_starts[definition]), np.uint64(bounds_starts[definition + _1])
            # First the place of each bucket, so that a damaged histogram leaves no trace.
            sample_start = np.uint64(starts[histogram])
            length = np.uint64(starts[histogram + _1]) - sample_start
            filled = _0
            sound = True
            place = first
            for sample in range(length):
                bucket = buckets[sample_start + sample]
                count = counts[sample_start + sample]
                if place >= last or bounds[place] != bucket:
                    place = _place(bounds, first, last, bucket)
                if place >= last or count < 0 or count > _COUNT_MAX:
                    sound = False
                    break
                filled += np.uint64(count > 0)
                places[sample] = place - first
                # Nearly always the next bucket is the one behind it.
                place += _1
            if not sound:
                continue
            pings[row] += 1
            number = said[histogram]
            if number >= 0 and number <= SUM_MAX and number == np.floor(number):
                sums_said[row] += np.int64(number)
            start = np.uint64(row_starts[row])
            if weighing and filled:
                end = _put(text, end, definition)
                end = _put(text, end, filled)
                for sample in range(length):
                    count = counts[sample_start + sample]
                    if count:
                        place = places[sample]
                        numbers[start + place] += count
                        end = _put(text, end, place)
                        end = _put(text, end, np.uint64(count))
            elif filled:
                for sample in range(length):
                    numbers[start + places[sample]] += counts[sample_start + sample]
        text_starts[ping + _1] = end


@compiled
def mark_definitions(text: Array, first: Position, last: Position, marks: Array) -> None:
    """Set the marks of the definitions that histograms in this stretch of `text` have."""
    at = np.uint64(first)
    while at < np.uint64(last):
        definition, at = _get(text, at)
        marks[definition] = True
        filled, at = _get(text, at)
        for _ in range(_2 * filled):
            while text[at] >= _MORE:
                at += _1
            at += _1


@compiled
def divide_weights(
    order: Array,
    groups: Array,
    clients: Array,
    text: Array,
    text_starts: Array,
    base: Array,
    definition_of: Array,
    row_of: Array,
    rows: Array,
    weights: Array,
    row_groups: Array,
    row_definitions: Array,
    row_clients: Array,
    totals: Array,
) -> Integer:
    """Say of each histogram in `text`, in `order`, its row and what one of its samples weighs.

    `order` says in which order pings are taken, group by group and in it client by client. The number that a
    ping has for a definition is looked up in `definition_of`, from the ping's `base` on. `row_of` has room
    for each definition, the others have it for each histogram; `totals` and `row_clients` are zeros. Gives
    how many rows there are.
    """
    count = 0
    written = _0
    group = np.int64(-1)
    turn = _0
    turns = np.uint64(order.size)
    while turn < turns:
        ping = np.uint64(order[turn])
        client = clients[ping]
        if groups[ping] != group:
            group = groups[ping]
            for place in range(np.uint64(row_of.size)):
                row_of[place] = -1
        of_client = written
        while True:
            at, until = np.uint64(text_starts[ping]), np.uint64(text_starts[ping + _1])
            while at < until:
                number, at = _get(text, at)
                definition = np.uint64(definition_of[np.uint64(base[ping]) + number])
                filled, at = _get(text, at)
                total = _0
                for _ in range(filled):
                    while text[at] >= _MORE:
                        at += _1
                    samples, at = _get(text, at + _1)
                    total += samples
                if row_of[definition] < 0:
                    row_of[definition] = count
                    row_groups[np.uint64(count)] = group
                    row_definitions[np.uint64(count)] = np.int64(definition)
                    count += 1
                row = np.uint64(row_of[definition])
                row_clients[row] += totals[row] == 0
                totals[row] += np.int64(total)
                rows[written] = np.int64(row)
                written += _1
            turn += _1
            if turn == turns:
                break
            ping = np.uint64(order[turn])
            if groups[ping] != group or clients[ping] != client:
                break
        for histogram in range(of_client, written):
            weights[histogram] = _WEIGHT_UNIT / np.float64(totals[np.uint64(rows[histogram])])
        for histogram in range(of_client, written):
            totals[np.uint64(rows[histogram])] = 0
    return count


@compiled
def add_weights(
    order: Array,
    text: Array,
    text_starts: Array,
    rows: Array,
    weights: Array,
    row_starts: Array,
    numbers: Array,
) -> None:
    """Add what the samples in `text` weigh to their rows, in the `order` of `divide_weights`."""
    histogram = _0
    for turn in order:
        ping = np.uint64(turn)
        at, until = np.uint64(text_starts[ping]), np.uint64(text_starts[ping + _1])
        while at < until:
            _, at = _get(text, at)
            filled, at = _get(text, at)
            start = np.uint64(row_starts[np.uint64(rows[histogram])])
            weight = weights[histogram]
            for _ in range(filled):
                place, at = _get(text, at)
                count, at = _get(text, at)
                numbers[start + place] += np.int64(np.rint(np.float64(count) * weight))
            histogram += _1


@compiled
def add_lists(row_of: Array, list_starts: Array, numbers: Array, row_starts: Array, into: Array) -> None:
    """Add each list of numbers to the stretch of `into` that its row has; an empty list adds nothing."""
    for each in range(np.uint64(row_of.size)):
        start = np.uint64(row_starts[np.uint64(row_of[each])])
        first = np.uint64(list_starts[each])
        for place in range(np.uint64(list_starts[each + _1]) - first):
            into[start + place] += numbers[first + place]
