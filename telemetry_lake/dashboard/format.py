"""The form of the cubes: schemas of their files, and the records that say which files belong together.

A *cube* is the rows of `derived.histogram_aggregates` in one of two *views*: by the date of the build, added
up over submission dates, or by submission date, added up over builds. It is stored in *segments*, Parquet
files that each hold one or more submission dates. All segments of a view together are the cube: rows with the
same key columns are in several segments of the view `build`, and a reader adds them up.

A *version* is a manifest that names its segments and its dictionary of metrics. Segments never change, so
versions share those of the dates that did not change. One object, the pointer, names the current version.
`docs/dashboard.md` describes all of it for readers.
"""

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa

from telemetry_lake.storage.records import Record

FORMAT: Final = 1
"""The number of this form, in every manifest; it changes with any change that a reader has to know of."""
KEYS_KEPT_MAX: Final = 200
"""The keys of a metric that are kept, by submission date, channel and process; the others are added up."""
WEIGHT_UNIT: Final = 2**32
"""The weight of one client in `weights`."""
ROW_GROUP_MIN_ROWS: Final = 1_000
"""A row group ends with a metric of a channel once it has so many rows: who asks for it reads little else."""
ROW_GROUP_MAX_ROWS: Final = 5_000
"""Where a metric of a channel has more rows, it gets several row groups, each with few of its keys."""

DIMENSIONS: Final = ("application", "version", "os", "architecture", "namespace", "document_type")
"""What a reader may filter and compare by, besides channel, process and key."""
DEFINITION: Final = ("histogram_type", "bucket_count", "range_low", "range_high")
"""What decides the buckets: rows that differ in it are never added up."""
SORTED_BY: Final = ("channel", "metric", "process", "key", "date")
KEY_COLUMNS: Final = (*SORTED_BY, "is_rest", *DIMENSIONS, *DEFINITION)
"""No two rows of a segment are the same in all of them."""

_SEGMENT_FIELDS: Final["Sequence[pa.Field[Any]]"] = (
    pa.field("channel", pa.string(), nullable=False),
    pa.field("metric", pa.string(), nullable=False),
    pa.field("process", pa.string(), nullable=False),
    # Null for a plain metric, and for the sum of the keys that are not kept.
    pa.field("key", pa.string()),
    pa.field("is_rest", pa.bool_(), nullable=False),
    # How many different keys a submission date adds up in this row's metric, channel and process; the
    # largest such number where several dates are added up. Null where `is_rest` is false.
    pa.field("rest_keys", pa.int32()),
    pa.field("application", pa.string(), nullable=False),
    pa.field("version", pa.string(), nullable=False),
    pa.field("os", pa.string(), nullable=False),
    pa.field("architecture", pa.string()),
    pa.field("namespace", pa.string(), nullable=False),
    pa.field("document_type", pa.string(), nullable=False),
    # Of the build or of submission; null where the build id does not begin with a date.
    pa.field("date", pa.date32()),
    pa.field("histogram_type", pa.int8(), nullable=False),
    pa.field("bucket_count", pa.int32(), nullable=False),
    pa.field("range_low", pa.int64(), nullable=False),
    pa.field("range_high", pa.int64(), nullable=False),
    pa.field("pings", pa.int64(), nullable=False),
    # Added up over rows and dates: a client counts once in each row of the aggregates.
    pa.field("clients", pa.int64(), nullable=False),
    pa.field("sum", pa.int64(), nullable=False),
    # The lower bounds of the buckets that are not empty, ascending, and what is in them.
    # Segments of before the distributions of Glean have them in 32 bits.
    pa.field("buckets", pa.list_(pa.int64()), nullable=False),
    pa.field("counts", pa.list_(pa.int64()), nullable=False),
    # In units of 1 / WEIGHT_UNIT; the units of a row add up to about `clients`.
    pa.field("weights", pa.list_(pa.int64()), nullable=False),
)
SEGMENT_SCHEMA: Final = pa.schema(_SEGMENT_FIELDS)

_DICTIONARY_FIELDS: Final["Sequence[pa.Field[Any]]"] = (
    pa.field("metric", pa.string(), nullable=False),
    # histogram, or the kind of measure whose values were put into buckets.
    pa.field("family", pa.string(), nullable=False),
    # As the definitions name it: exponential, linear, enumerated, boolean, flag, count, categorical, …
    pa.field("kind", pa.string(), nullable=False),
    pa.field("keyed", pa.bool_(), nullable=False),
    # Empty for a metric that is known from its data alone.
    pa.field("description", pa.string(), nullable=False),
    pa.field("labels", pa.list_(pa.string()), nullable=False),
    pa.field("processes", pa.list_(pa.string()), nullable=False),
    pa.field("channels", pa.list_(pa.string()), nullable=False),
    # Submission dates.
    pa.field("first_date", pa.date32(), nullable=False),
    pa.field("last_date", pa.date32(), nullable=False),
    pa.field("pings", pa.int64(), nullable=False),
    # How many different definitions its rows have.
    pa.field("definitions", pa.int32(), nullable=False),
    pa.field("expires", pa.string()),
)
DICTIONARY_SCHEMA: Final = pa.schema(_DICTIONARY_FIELDS)


class View(StrEnum):
    """Which date the rows of a cube have."""

    BUILD = "build"
    SUBMISSION = "submission"


class StoredFile(Record):
    """An object of a version, and what it has to contain."""

    key: str
    bytes: int
    sha256: str


class Segment(StoredFile):
    """The rows of a view for the submission dates from `first_date` to `last_date`."""

    view: View
    first_date: date
    last_date: date
    rows: int


class ReplacedVersion(Record):
    """An earlier version that is kept for those who are reading it."""

    version: str
    replaced_at: datetime


class Manifest(Record):
    """One version of the cubes."""

    format: int = FORMAT
    version: str
    built_at: datetime
    data_until: datetime | None
    """No ping that was received after this moment is in it; None without any."""
    preliminary_date: date | None
    """The last date, when pings were still received on it after `data_until`."""
    segments: tuple[Segment, ...]
    dictionary: StoredFile
    summaries: StoredFile
    """What the dictionary is made of, by segment; of no use to readers."""
    dates: dict[date, str]
    """The submission dates that are in it, with or without rows, and what names the state of each."""
    replaced: tuple[ReplacedVersion, ...] = ()

    def segments_of(self, view: View) -> tuple[Segment, ...]:
        """Return the segments of one view, by their dates."""
        return tuple(segment for segment in self.segments if segment.view is view)


class Pointer(Record):
    """What the pointer says."""

    version: str
