"""Loop over the samples of many histograms, compiled to machine code (numba).

A ping of Firefox has 300 histograms with 2,600 buckets. Sorting and looking them up with numpy, step by step,
means that some twenty arrays of that length go through memory; here each sample is looked at once to count
it and twice to weigh it, while it is in the processor's cache. `aggregation` calls this.

What a ping has to weigh is written as bytes, which are a tenth of its columns: for each histogram with
samples the number of its definition, how many of its buckets have some, and of those the place among the
bounds and the count. They are numbers in base 128, lowest digits first, as in Protocol Buffers.

Positions are unsigned, so that no code is made for negative indexes, and nothing is allocated (`_nrt`), so
that no references are counted: together that makes it four times as fast. The caller brings all arrays.
"""

from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.numba_options import compiled, compiled_in_place

Text: TypeAlias = NDArray[np.uint8]
Integers: TypeAlias = NDArray[np.int64]

COUNT_MAX: Final = 2**31 - 1
"""Firefox counts in 32 bits: a larger count is damage."""
SUM_MAX: Final = float(2**44)
"""A larger sum of one ping is not believed: sums up to it, of 2^18 pings, fit into 64 bits."""
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
_WEIGHT_UNIT = float(WEIGHT_UNIT)


class Fields(NamedTuple):
    """What says which definition each histogram has, as whole numbers; each of shape (histograms,)."""

    process: NDArray[np.int32]
    name: NDArray[np.int32]
    key: NDArray[np.int32]
    kind: Integers
    bucket_count: Integers
    low: Integers
    high: Integers


class Pings(NamedTuple):
    """In which order pings are taken: group by group, and in it client by client where clients matter."""

    order: Integers
    """(pings,)"""
    groups: Integers
    """(pings,): the group of each."""


class Rows(NamedTuple):
    """The rows of sums: one for each group of pings and definition with buckets. Filled in here."""

    groups: Integers
    """(rows,)"""
    definitions: Integers
    """(rows,)"""


class Histograms(NamedTuple):
    """The histograms of all pings."""

    ping_starts: NDArray[np.int32]
    """(pings + 1,): where those of each ping begin."""
    definitions: NDArray[np.int32]
    """(histograms,)"""
    rows: Integers
    """(histograms,): the row of each; -1 where its buckets are unknown."""
    sums: NDArray[np.float64]
    """(histograms,): the sums that were sent."""
    starts: NDArray[np.int32]
    """(histograms + 1,): where the buckets and counts of each begin."""
    buckets: Integers
    """(samples,)"""
    counts: Integers
    """(samples,)"""


class Bounds(NamedTuple):
    """The lower bounds of the buckets of each definition, ascending."""

    starts: Integers
    """(definitions + 1,)"""
    bounds: Integers


class Sums(NamedTuple):
    """The sums of each row; added to here."""

    starts: Integers
    """(rows + 1,): where the counts of each begin."""
    pings: Integers
    """(rows,)"""
    sums: Integers
    """(rows,)"""
    counts: Integers
    """(buckets of all rows,)"""


class Samples(NamedTuple):
    """What pings have to weigh, as bytes."""

    text: Text
    starts: Integers
    """(pings + 1,): where that of each ping begins."""


class WeighedPings(NamedTuple):
    """Pings whose samples are weighed."""

    clients: Integers
    """(pings,)"""
    bases: Integers
    """(pings,): what has to be added to the numbers of definitions in the bytes of each."""
    definitions: Integers
    """(numbers,): the definition that each number with its base stands for."""


class Places(NamedTuple):
    """Where the buckets of a part are among those of all parts, for definitions that have sent bounds."""

    shifts: Integers
    """(numbers,): where in `places` those of each number begin; -1 where both have the same buckets."""
    places: Integers
    """(bounds of all numbers,)"""


class Weights(NamedTuple):
    """Filled in for each histogram in the bytes of pings, in the order of pings."""

    rows: Integers
    """(histograms,)"""
    weights: NDArray[np.float64]
    """(histograms,): what one of its samples weighs, in units of 1 / WEIGHT_UNIT."""


@compiled
def _equal(fields: Fields, one: np.uint64, other: np.uint64) -> bool:
    return bool(
        (fields.name[one] == fields.name[other])
        & (fields.process[one] == fields.process[other])
        & (fields.key[one] == fields.key[other])
        & (fields.kind[one] == fields.kind[other])
        & (fields.bucket_count[one] == fields.bucket_count[other])
        & (fields.low[one] == fields.low[other])
        & (fields.high[one] == fields.high[other])
    )


@compiled
def _slot(fields: Fields, histogram: np.uint64, firsts: Integers, slots: NDArray[np.int32]) -> np.uint64:
    """Return where in `slots` the number of a histogram's definition is, or would be."""
    code = (np.uint64(fields.process[histogram]) * _HASH_PRIME) ^ np.uint64(fields.name[histogram])
    code = (code * _HASH_PRIME) ^ np.uint64(fields.key[histogram])
    code = (code * _HASH_PRIME) ^ np.uint64(fields.kind[histogram])
    code = (code * _HASH_PRIME) ^ np.uint64(fields.bucket_count[histogram])
    code = (code * _HASH_PRIME) ^ np.uint64(fields.low[histogram])
    code = ((code * _HASH_PRIME) ^ np.uint64(fields.high[histogram])) * _HASH_PRIME
    mask = np.uint64(slots.size) - _1
    slot = (code ^ (code >> _HASH_FOLD)) & mask
    while slots[slot] >= 0 and not _equal(fields, np.uint64(firsts[np.uint64(slots[slot])]), histogram):
        slot = (slot + _1) & mask
    return slot


@compiled
def number_definitions(
    fields: Fields,
    numbers: NDArray[np.int32],
    firsts: Integers,
    following: NDArray[np.int32],
    slots: NDArray[np.int32],
) -> int:
    """Give each histogram the number of its definition, and each number the first histogram that has it.

    Returns how many definitions there are, or -1 when `firsts`, (definitions,), has no room for them.
    `numbers` has the shape (histograms,), `following` that of `firsts`; `slots` are empty (-1), twice as many
    at least, and a power of two. Pings of one build have the same histograms in the same order: so the number
    that followed last time is compared first, and only when it is another one is it looked up.
    """
    count = 0
    before = _0
    for index in range(np.uint64(numbers.size)):
        histogram = np.uint64(index)
        number = following[before]
        if count == 0 or not _equal(fields, np.uint64(firsts[np.uint64(number)]), histogram):
            slot = _slot(fields, histogram, firsts, slots)
            number = slots[slot]
            if number < 0:
                if count == firsts.size:
                    return -1
                number = np.int32(count)
                slots[slot] = number
                firsts[np.uint64(number)] = histogram
                count += 1
            following[before] = number
        numbers[histogram] = number
        before = np.uint64(number)
    return count


@compiled
def number_rows(pings: Pings, histograms: Histograms, sizes: Integers, row_of: Integers, rows: Rows) -> int:
    """Give each histogram the number of its row, and return how many rows there are.

    `sizes` says how many buckets each definition has; `row_of`, (definitions,), is overwritten.
    """
    count = 0
    group = np.int64(-1)
    for turn in pings.order:
        ping = np.uint64(turn)
        if pings.groups[ping] != group:
            group = pings.groups[ping]
            for place in range(np.uint64(row_of.size)):
                row_of[place] = -1
        first, last = histograms.ping_starts[ping], histograms.ping_starts[ping + _1]
        for histogram in range(np.uint64(first), np.uint64(last)):
            definition = np.uint64(histograms.definitions[histogram])
            row = row_of[definition]
            if row < 0 and sizes[definition] > 0:
                row = count
                row_of[definition] = row
                rows.groups[np.uint64(row)] = group
                rows.definitions[np.uint64(row)] = histograms.definitions[histogram]
                count += 1
            histograms.rows[histogram] = row
    return count


@compiled
def _put(text: Text, at: np.uint64, number: np.uint64) -> np.uint64:
    """Write a number, and return where the next one goes."""
    while number >= _MORE:
        text[at] = (number & _DIGIT) | _MORE
        number >>= _7
        at += _1
    text[at] = number
    return at + _1


@compiled
def _get(text: Text, at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the number at a place, and where the next one is."""
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
def _place(bounds: Integers, first: np.uint64, last: np.uint64, bucket: int) -> np.uint64:
    """Return where `bucket` is among the ascending bounds from `first` to `last`; else `last`."""
    low, high = first, last
    while low < high:
        middle = (low + high) >> _1
        if bounds[middle] < bucket:
            low = middle + _1
        else:
            high = middle
    return low if low < last and bounds[low] == bucket else last


@compiled_in_place
def _find_places(
    histogram: np.uint64, histograms: Histograms, bounds: Bounds, places: NDArray[np.uint64]
) -> int:
    """Write the place of each bucket of a histogram among its bounds, and return how many have samples.

    Returns -1 when the histogram is damaged.
    """
    definition = np.uint64(histograms.definitions[histogram])
    first, last = np.uint64(bounds.starts[definition]), np.uint64(bounds.starts[definition + _1])
    start = np.uint64(histograms.starts[histogram])
    filled = 0
    place = first
    for sample in range(np.uint64(histograms.starts[histogram + _1]) - start):
        bucket = histograms.buckets[start + sample]
        count = histograms.counts[start + sample]
        if place >= last or bounds.bounds[place] != bucket:
            place = _place(bounds.bounds, first, last, bucket)
        if place >= last or count < 0 or count > COUNT_MAX:
            return -1
        filled += count > 0
        places[sample] = place - first
        # Nearly always the next bucket is the one behind it.
        place += _1
    return filled


@compiled_in_place
def _add_and_write(
    histogram: np.uint64,
    filled: int,
    histograms: Histograms,
    places: NDArray[np.uint64],
    first: np.uint64,
    counts: Integers,
    text: Text,
    end: np.uint64,
) -> np.uint64:
    """Add the samples of a histogram to `counts`, from `first` on, and write them to `text`; its new end."""
    start = np.uint64(histograms.starts[histogram])
    end = _put(text, end, np.uint64(filled))
    for sample in range(np.uint64(histograms.starts[histogram + _1]) - start):
        count = histograms.counts[start + sample]
        if count:
            counts[first + places[sample]] += count
            end = _put(text, end, places[sample])
            end = _put(text, end, np.uint64(count))
    return end


@compiled
def count_samples(
    weighs: NDArray[np.bool_],
    histograms: Histograms,
    bounds: Bounds,
    places: NDArray[np.uint64],
    sums: Sums,
    samples: Samples,
    first_number: int,
) -> None:
    """Add the histograms of pings to their rows, but for damaged ones.

    Of the pings that `weighs`, (pings,), says, what they have to weigh is written to `samples`, where the
    numbers of definitions begin with `first_number`. `places` has room for each bucket of a histogram.
    """
    end = _0
    for ping in range(np.uint64(weighs.size)):
        for index in range(
            np.uint64(histograms.ping_starts[ping]), np.uint64(histograms.ping_starts[ping + _1])
        ):
            histogram = np.uint64(index)
            if histograms.rows[histogram] < 0:
                continue
            # First the place of each bucket, so that a damaged histogram leaves no trace.
            filled = _find_places(histogram, histograms, bounds, places)
            if filled < 0:
                continue
            row = np.uint64(histograms.rows[histogram])
            sums.pings[row] += 1
            number = histograms.sums[histogram]
            if number >= 0 and number <= SUM_MAX and number == np.floor(number):
                sums.sums[row] += np.int64(number)
            first = np.uint64(sums.starts[row])
            if weighs[ping] and filled:
                number_written = np.uint64(histograms.definitions[histogram]) + np.uint64(first_number)
                end = _put(samples.text, end, number_written)
                end = _add_and_write(
                    histogram, filled, histograms, places, first, sums.counts, samples.text, end
                )
            elif filled:
                start = np.uint64(histograms.starts[histogram])
                for sample in range(np.uint64(histograms.starts[histogram + _1]) - start):
                    sums.counts[first + places[sample]] += histograms.counts[start + sample]
        samples.starts[ping + _1] = end


@compiled
def mark_definitions(text: Text, first: int, last: int, marks: NDArray[np.bool_]) -> None:
    """Set the marks, (numbers,), of the definitions that histograms in this stretch of `text` have."""
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
    pings: Pings,
    weighed: WeighedPings,
    samples: Samples,
    row_of: Integers,
    weights: Weights,
    rows: Rows,
    row_clients: Integers,
    totals: Integers,
) -> int:
    """Say of each histogram in `samples`, in order, its row and what one of its samples weighs.

    Returns how many rows there are. `row_of`, (definitions,), is overwritten; `row_clients`, (rows,), counts
    the clients of each row. It and `totals`, (rows,), are zeros.
    """
    count = 0
    written = _0
    group = np.int64(-1)
    turn = _0
    while turn < np.uint64(pings.order.size):
        ping = np.uint64(pings.order[turn])
        client = weighed.clients[ping]
        if pings.groups[ping] != group:
            group = pings.groups[ping]
            for place in range(np.uint64(row_of.size)):
                row_of[place] = -1
        client_start = written
        while True:
            count, written = _total_samples(
                ping, weighed, samples, row_of, weights.rows, rows, row_clients, totals, group, count, written
            )
            turn += _1
            if turn == np.uint64(pings.order.size):
                break
            ping = np.uint64(pings.order[turn])
            if pings.groups[ping] != group or weighed.clients[ping] != client:
                break
        for histogram in range(client_start, written):
            weights.weights[histogram] = _WEIGHT_UNIT / np.float64(totals[np.uint64(weights.rows[histogram])])
        for histogram in range(client_start, written):
            totals[np.uint64(weights.rows[histogram])] = 0
    return count


@compiled_in_place
def _total_samples(
    ping: np.uint64,
    weighed: WeighedPings,
    samples: Samples,
    row_of: Integers,
    row_of_histogram: Integers,
    rows: Rows,
    row_clients: Integers,
    totals: Integers,
    group: np.int64,
    count: int,
    written: np.uint64,
) -> tuple[int, np.uint64]:
    """Add the samples of a ping to the totals of its client.

    `count` says how many rows there are, `written` how many histograms have one; both are returned as they
    are afterwards.
    """
    text = samples.text
    at, until = np.uint64(samples.starts[ping]), np.uint64(samples.starts[ping + _1])
    while at < until:
        number, at = _get(text, at)
        definition = np.uint64(weighed.definitions[np.uint64(weighed.bases[ping]) + number])
        filled, at = _get(text, at)
        total = _0
        for _ in range(filled):
            while text[at] >= _MORE:
                at += _1
            some, at = _get(text, at + _1)
            total += some
        if row_of[definition] < 0:
            row_of[definition] = count
            rows.groups[np.uint64(count)] = group
            rows.definitions[np.uint64(count)] = np.int64(definition)
            count += 1
        row = np.uint64(row_of[definition])
        row_clients[row] += totals[row] == 0
        totals[row] += np.int64(total)
        row_of_histogram[written] = np.int64(row)
        written += _1
    return count, written


@compiled
def add_weights(
    order: Integers,
    bases: Integers,
    places: Places,
    samples: Samples,
    weights: Weights,
    starts: Integers,
    normalized: Integers,
) -> None:
    """Add what `samples` weigh to their rows, in the `order` of `divide_weights`.

    `bases` are those of `WeighedPings`. `starts`, (rows + 1,), says where in `normalized` the buckets of each
    row begin.
    """
    text = samples.text
    histogram = _0
    for turn in order:
        ping = np.uint64(turn)
        at, until = np.uint64(samples.starts[ping]), np.uint64(samples.starts[ping + _1])
        while at < until:
            number, at = _get(text, at)
            shift = places.shifts[np.uint64(bases[ping]) + number]
            filled, at = _get(text, at)
            start = np.uint64(starts[np.uint64(weights.rows[histogram])])
            weight = weights.weights[histogram]
            for _ in range(filled):
                place, at = _get(text, at)
                count, at = _get(text, at)
                if shift >= 0:
                    place = np.uint64(places.places[np.uint64(shift) + place])
                normalized[start + place] += np.int64(np.rint(np.float64(count) * weight))
            histogram += _1


@compiled
def add_lists(
    row_of: Integers,
    list_starts: NDArray[np.int32],
    numbers: Integers,
    row_starts: Integers,
    sums: Integers,
) -> None:
    """Add each list of numbers to the stretch of `sums` that its row has; an empty list adds nothing.

    `row_of`, (lists,), is the row of each list, -1 for one that is left out; `list_starts`, (lists + 1,), and
    `row_starts`, (rows + 1,), say where each begins.
    """
    for each in range(np.uint64(row_of.size)):
        if row_of[each] < 0:
            continue
        start = np.uint64(row_starts[np.uint64(row_of[each])])
        first = np.uint64(list_starts[each])
        for place in range(np.uint64(list_starts[each + _1]) - first):
            sums[start + place] += numbers[first + place]
