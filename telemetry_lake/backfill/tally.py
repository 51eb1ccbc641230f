"""What a finished unit leaves behind: its tally, and an index of its records.

The tally is written only if absent. Each copy of a unit stages files under names of its own and then
writes the tally; the first one decides which files the unit consists of, and what others staged is never
looked at. So a unit that was copied twice, by two runs at once or again after a failure, counts once.

The index has a row for each record and is what duplicates are found with; Parquet, because it is large.
"""

from datetime import date
from typing import Final

import pyarrow as pa
from pydantic import AwareDatetime

from telemetry_lake.backfill.plan import Problem
from telemetry_lake.storage.records import Record
from telemetry_lake.tables.staged import StagedFile

PROBLEMS_MAX: Final = 1_000
"""How many problems of a unit are kept one by one; all of them are counted."""

_INDEX_FIELDS: "Final[list[pa.Field[pa.DataType]]]" = [
    pa.field("raw_object", pa.string()),
    pa.field("position", pa.int64()),
    pa.field("submission_date", pa.date32()),
    pa.field("document_id", pa.binary()),
    pa.field("document_type", pa.string()),
    pa.field("content", pa.binary()),
    pa.field("error_type", pa.string()),
    pa.field("path", pa.string()),
    pa.field("offset", pa.int64()),
    pa.field("number", pa.int32()),
]
INDEX_SCHEMA: Final = pa.schema(_INDEX_FIELDS)
"""A row for each record: where it is in the tables (`raw_object`, `position`), the document id in lower case,
the document type that it names, the hash of its content, why it was rejected (null when it was converted),
and where it is in the source: `path`, `offset`, and `number` for the reader's index behind the offset."""


class DateTally(Record):
    """The records of one submission date in a unit.

    `bytes` is the size of the documents, decompressed where they were converted; digests are those of
    `digest`, `rejected` counts by error type.
    """

    records: int
    bytes: int
    converted: int
    converted_digest: str
    rejected: dict[str, int]
    rejected_digest: str


class Seconds(Record):
    """Where the time of a unit went. `proving` is hashing and comparing, `writing` is Parquet and S3."""

    reading: float
    converting: float
    proving: float
    writing: float


class Tally(Record):
    """The result of copying a unit."""

    unit: str
    source_bytes: int
    started_at: AwareDatetime
    finished_at: AwareDatetime
    seconds: Seconds
    files: tuple[StagedFile, ...]
    index_key: str
    has_types: bool = False
    """Whether the index says the document types; that of an earlier version does not."""
    dates: dict[date, DateTally]
    problems: dict[date, tuple[Problem, ...]]
    """By date; those of a file without a date count for that of its modification."""
    problem_counts: dict[date, dict[str, int]]
    """All of them, by date and kind."""

    @property
    def records(self) -> int:
        """How many records were read."""
        return sum(day_tally.records for day_tally in self.dates.values())
