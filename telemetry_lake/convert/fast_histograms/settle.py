"""Take histograms out that the definitions do not know, compiled to machine code (numba)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.convert.fast_histograms.layout import (
    Arrays,
    ContainerField,
    Expected,
    Field,
    Places,
    PutBackField,
    Rows,
    Scratch,
    Source,
    Status,
    Text,
    Total,
)
from telemetry_lake.convert.fast_histograms.swar import put_word, word_at
from telemetry_lake.numba_options import Integer, compiled, compiled_in_place

_1 = np.uint64(1)
_WORD_BYTES = np.uint64(8)


@compiled
def settle(
    first: int,
    expected: NDArray[np.int64],
    rows: Arrays,
    scratch: Arrays,
    places: Arrays,
) -> Integer:
    """Take the histograms out of the rows that the definitions do not know, and list them as put back.

    The histograms are those from row `first` on; `expected`, (labels,), says what the definitions say about
    each label. Returns a Status: UNUSUAL when a histogram has another range than its definition, and
    NEW_LABELS when a label has yet to be looked up; then the rows are as before.
    """
    named_rows, named_scratch = Rows(*rows), Scratch(*scratch)
    status, undefined, first_undefined = _compare(first, expected, named_rows, named_scratch)
    named_scratch.totals[Total.PUT_BACK] = undefined
    if undefined:
        _take_out(first, first_undefined, expected, named_rows, named_scratch, Places(*places))
    return np.int64(status)


@compiled_in_place
def _compare(
    first: int,
    expected: NDArray[np.int64],
    rows: Rows,
    scratch: Scratch,
) -> tuple[Status, int, int]:
    """Return how many histograms are undefined, and the row of the first of these."""
    end = scratch.totals[Total.HISTOGRAMS]
    undefined = 0
    first_undefined = end
    for row in range(first, end):
        wanted = expected[rows.histograms[row, Field.NAME]]
        if wanted == Expected.UNRESOLVED:
            return Status.NEW_LABELS, 0, end
        if wanted == Expected.UNDEFINED:
            undefined += 1
            first_undefined = min(first_undefined, row)
        elif wanted != Expected.ANY_RANGE and wanted != scratch.sources[row - first, Source.RANGE]:
            return Status.UNUSUAL, 0, end
    return Status.FINE, undefined, first_undefined


@compiled_in_place
def _take_out(
    first: int,
    first_undefined: int,
    expected: NDArray[np.int64],
    rows: Rows,
    scratch: Scratch,
    places: Places,
) -> None:
    """Take the undefined histograms out of the rows; `first_undefined` is the row of the first of them."""
    histograms, put_back, totals = rows.histograms, places.put_back, scratch.totals
    end = totals[Total.HISTOGRAMS]
    place = 0
    row = first_undefined
    bucket = histograms[row - 1, Field.BUCKETS_END] if row else 0
    count = histograms[row - 1, Field.COUNTS_END] if row else 0
    read = row
    while read < end:
        if expected[histograms[read, Field.NAME]] == Expected.UNDEFINED:
            _list(put_back, place, scratch.sources, read - first, histograms, read)
            places.containers[put_back[place, PutBackField.CONTAINER], ContainerField.READ_COUNT] -= 1
            place += 1
            read += 1
            continue
        # All rows up to the next one that is taken out move at once: column by column, as they are stored.
        until = read + 1
        while until < end and expected[histograms[until, Field.NAME]] != Expected.UNDEFINED:
            until += 1
        # The row before them has not been overwritten: what moved before ends in front of it.
        read_bucket = histograms[read - 1, Field.BUCKETS_END]
        read_count = histograms[read - 1, Field.COUNTS_END]
        bucket_shift = read_bucket - bucket
        count_shift = read_count - count
        bucket = _moved(rows.bucket_text, bucket, read_bucket, histograms[until - 1, Field.BUCKETS_END])
        count = _moved(rows.count_text, count, read_count, histograms[until - 1, Field.COUNTS_END])
        _move_rows(histograms, row, read, until)
        _move_rows(rows.limits, row, read, until)
        _move_rows(rows.sums, row, read, until)
        for number in range(row, row + until - read):
            histograms[number, Field.BUCKETS_END] -= bucket_shift
            histograms[number, Field.COUNTS_END] -= count_shift
        row += until - read
        read = until
    totals[Total.HISTOGRAMS] = row
    totals[Total.BUCKET_BYTES] = bucket
    totals[Total.COUNT_BYTES] = count


@compiled_in_place
def _list(
    put_back: NDArray[np.int64],
    place: int,
    sources: NDArray[np.int64],
    source: int,
    histograms: NDArray[np.int32],
    row: int,
) -> None:
    put_back[place, PutBackField.CONTAINER] = sources[source, Source.CONTAINER]
    put_back[place, PutBackField.LABEL_START] = sources[source, Source.LABEL_START]
    put_back[place, PutBackField.LABEL_LENGTH] = sources[source, Source.LABEL_LENGTH]
    put_back[place, PutBackField.TEXT_START] = sources[source, Source.TEXT_START]
    put_back[place, PutBackField.TEXT_END] = sources[source, Source.TEXT_END]
    put_back[place, PutBackField.KEY] = histograms[row, Field.KEY_START]
    put_back[place, PutBackField.KEY_LENGTH] = histograms[row, Field.KEY_LENGTH]


@compiled
def _move_rows(table: NDArray[Any], to: Integer, start: Integer, end: Integer) -> None:
    """Move rows of a table of numbers, (rows, columns), to a place in front of them."""
    for column in range(table.shape[1]):
        for number in range(end - start):
            table[to + number, column] = table[start + number, column]


@compiled
def _moved(text: Text, to: Integer, start: Integer, end: Integer) -> Integer:
    """Move a stretch of `text` to a place not behind it; return its new end.

    What is between its new and its old end is overwritten.
    """
    target, source, until = np.uint64(to), np.uint64(start), np.uint64(end)
    while source + _WORD_BYTES <= until:
        put_word(text, target, word_at(text, source))
        target += _WORD_BYTES
        source += _WORD_BYTES
    while source < until:
        text[target] = text[source]
        target += _1
        source += _1
    return np.int64(target)


@compiled
def gather_keys(
    histograms: NDArray[np.int32],
    rows: int,
    keys: Text,
    offsets: NDArray[np.int32],
    text: Text,
) -> None:
    """Copy the keys of the first `rows` histograms behind each other into `text`, with room for all of them.

    `offsets`, (rows + 1,), begins with 0; where each ends is written behind that.
    """
    at = 0
    for row in range(rows):
        start = histograms[row, Field.KEY_START]
        for index in range(histograms[row, Field.KEY_LENGTH]):
            text[at] = keys[start + index]
            at += 1
        offsets[row + 1] = at
