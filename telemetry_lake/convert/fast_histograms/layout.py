"""The arrays that the compiled parser reads and writes, and what their columns mean.

All arrays belong to the caller, which makes them larger when the parser asks for it (`Status`). Each
enumeration names the columns of one array, or the places of one that has a single dimension.
"""

from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Text: TypeAlias = NDArray[np.uint8]
"""Bytes, in one dimension."""
Arrays: TypeAlias = tuple[NDArray[Any], ...]
"""The arrays of one of the named tuples below. Passing a named tuple from Python costs a microsecond more."""


class Status(IntEnum):
    """How reading a document ended."""

    FINE = 0
    UNUSUAL = 1
    """The document has to be read in plain Python."""
    NEW_RANGES = 2
    """It has ranges that are not in the table yet. They are in `Scratch.new_ranges`, to be added."""
    FULL_ROWS = 3
    """The arrays of `Rows` with one row for each histogram are full."""
    FULL_LABELS = 4
    """The table of labels is full."""
    FULL_KEYS = 5
    """`Rows.keys` is full. Of all three, the array has to grow, and the document to be parsed again."""
    NEW_LABELS = 6
    """Some label has not been looked up in the definitions yet."""


class Field(IntEnum):
    """Columns of `Rows.histograms`."""

    NAME = 0
    PROCESS = 1
    TYPE = 2
    BUCKET_COUNT = 3
    BUCKETS_END = 4
    COUNTS_END = 5
    KEY_START = 6
    KEY_LENGTH = 7


class Limit(IntEnum):
    """Columns of `Rows.limits`."""

    LOW = 0
    HIGH = 1


NO_KEY: Final = -1
"""The length of the key of a histogram without one."""
SUMS: Final = 5
"""Columns of `Rows.sums`, in the order of `stored.SUM_FIELDS`."""


class Source(IntEnum):
    """Columns of `Scratch.sources`."""

    RANGE = 0
    LABEL_START = 1
    LABEL_LENGTH = 2
    TEXT_START = 3
    TEXT_END = 4
    CONTAINER = 5


class Label(IntEnum):
    """Labels that every table of labels begins with. A guess that has not been made yet is the first."""

    EMPTY = 0
    PARENT = 1


class Kind(IntEnum):
    """Which histograms a container holds."""

    PLAIN = 0
    KEYED = 1


class Level(IntEnum):
    """Where a container is."""

    DOCUMENT = 0
    PAYLOAD = 1
    PROCESSES = 2
    PROCESS = 3


class ContainerField(IntEnum):
    """Columns of `Places.containers`."""

    KIND = 0
    LEVEL = 1
    PROCESS = 2
    START = 3
    END = 4
    READ_COUNT = 5


class EmptyField(IntEnum):
    """Columns of `Places.empties`."""

    CONTAINER = 0
    START = 1
    LENGTH = 2


class RangeField(IntEnum):
    """Columns of `Ranges.table`; the first four are also those of `Scratch.new_ranges`."""

    TYPE = 0
    LOW = 1
    HIGH = 2
    BUCKET_COUNT = 3
    BOUNDS_START = 4
    BOUNDS_END = 5
    HEAD_LENGTH = 6
    TAIL_LENGTH = 7


NEW_RANGE_COLUMNS: Final = 4
RANGE_TEXT_BYTES: Final = 128
"""For each range the text is remembered that a histogram of it began with, from its brace to its values."""


class InexactField(IntEnum):
    """Columns of `Scratch.inexact`."""

    ROW = 0
    FIELD = 1
    START = 2
    END = 3


class Total(IntEnum):
    """Places of `Scratch.totals`; the first four go on from document to document."""

    HISTOGRAMS = 0
    BUCKET_BYTES = 1
    COUNT_BYTES = 2
    KEY_BYTES = 3
    CONTAINERS = 4
    EMPTIES = 5
    NEW_RANGES = 6
    INEXACT = 7
    FIRST = 8
    """The first histogram of the document."""
    LONG_NUMBERS = 9
    """How many of its other numbers have digits enough to be a large integer."""
    # Of the histogram that was read last, where its text can be remembered:
    HEAD_END = 10
    """where its sum is, if that comes before its values,"""
    TAIL_START = 11
    VALUES_START = 12
    """and where its values begin; else 0."""
    BUCKETS = 13
    """How many buckets it has."""
    PUT_BACK = 14
    """How many histograms of the document are put back into it."""


class PutBackField(IntEnum):
    """Columns of `Places.put_back`."""

    CONTAINER = 0
    LABEL_START = 1
    LABEL_LENGTH = 2
    TEXT_START = 3
    TEXT_END = 4
    KEY = 5
    KEY_LENGTH = 6


class Expected(IntEnum):
    """What the definitions of a revision say about a label, where it is not the number of a range."""

    UNRESOLVED = -4
    """It has not been looked up yet."""
    UNDEFINED = -3
    ANY_RANGE = -2
    """It is defined, by parameters that cannot be computed."""


BUCKET_MIN_BYTES: Final = 6
"""A bucket in a document is at least `"0":1,`."""
KEYS_MAX_COUNT: Final = 1_024
"""A keyed histogram with more keys is read in plain Python: here they are compared each with each."""


class Rows(NamedTuple):
    """The histograms of a chunk of pings, as far as `Scratch.totals` says.

    Those with one row for each histogram are stored column by column. What is written here is not in the
    processor's cache, so it is as narrow as what is stored.
    """

    histograms: NDArray[np.int32]
    """(rows, len(Field))"""
    limits: NDArray[np.int64]
    """(rows, len(Limit))"""
    sums: NDArray[np.float64]
    """(rows, SUMS)"""
    bucket_text: Text
    """(bytes,): the lists of buckets, each as text, behind each other; with room for the whole document."""
    count_text: Text
    """(bytes,): the lists of counts, likewise."""
    keys: Text
    """(bytes,): the keys behind each other."""


class Labels(NamedTuple):
    """The table of labels, and what is remembered of each."""

    slots: NDArray[np.int64]
    """(power of two,): an open hash table of the numbers of labels; -1 where it is empty."""
    text: Text
    """(bytes,): all labels behind each other."""
    ends: NDArray[np.int64]
    """(labels + 1,): where each begins, and where the last one ends."""
    total: NDArray[np.int64]
    """(1,): how many there are."""
    stamps: NDArray[np.int64]
    """(labels + 1,): the number of the last container, and of the last one that each label was in."""
    following: NDArray[np.int64]
    """(labels,): the label that came behind each one last time."""
    last_ranges: NDArray[np.int64]
    """(labels,): the number of the range that each had last time."""


class Ranges(NamedTuple):
    """The table of ranges, and how histograms of each were written."""

    slots: NDArray[np.int64]
    """(power of two,): an open hash table of the numbers of ranges; -1 where it is empty."""
    table: NDArray[np.int64]
    """(ranges, len(RangeField))"""
    bounds: NDArray[np.int64]
    """(buckets,): the lower bounds of the buckets of all ranges, each ascending."""
    texts: Text
    """(ranges * RANGE_TEXT_BYTES + PADDING_BYTES,)"""


class Scratch(NamedTuple):
    """What is noted while one document is read."""

    totals: NDArray[np.int64]
    """(len(Total),)"""
    sources: NDArray[np.int64]
    """(histograms of a document, len(Source)); a document with more is unusual."""
    buckets: NDArray[np.int32]
    """(buckets,): those of the histogram that is read; with room for the whole document."""
    inexact: NDArray[np.int64]
    """(sums, len(InexactField)): the sums that have to be read again; a document with more is unusual."""
    new_ranges: NDArray[np.int64]
    """(ranges, NEW_RANGE_COLUMNS): ranges to be added to the table, some of them several times."""
    following_fields: NDArray[np.int64]
    """(fields + 1,): the field that came behind each one last time; at the end, the first one."""


class Places(NamedTuple):
    """Where histograms are in the document that is read. A document with more of any of them is unusual."""

    containers: NDArray[np.int64]
    """(containers, len(ContainerField)): the objects that hold histograms."""
    empties: NDArray[np.int64]
    """(histograms, len(EmptyField)): the keyed histograms without keys."""
    put_back: NDArray[np.int64]
    """(histograms, len(PutBackField)): the histograms to be put back, as `settle` found them."""
    key_codes: NDArray[np.uint64]
    """(KEYS_MAX_COUNT,): hash codes of the keys of one keyed histogram."""
