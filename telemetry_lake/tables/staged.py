"""Files that are staged for a table: written, and not committed yet."""

import datetime

from telemetry_lake.storage.records import Record


class StagedFile(Record):
    """A Parquet file that no snapshot names yet; `table` such as `live.pings`, `bytes` its size.

    All its rows have the submission date `date`; None in records that were kept without it.
    """

    uri: str
    table: str
    date: datetime.date | None = None
    rows: int
    bytes: int


class RawObjectRows(Record):
    """How many rows the pings of one raw object became; `rejected` by error type."""

    key: str
    pings: int
    rejected: dict[str, int]


class Staged(Record):
    """What a conversion staged: the files of some raw objects, and how many rows each of them became."""

    files: tuple[StagedFile, ...] = ()
    raw_objects: tuple[RawObjectRows, ...] = ()


class Publication(Record):
    """The decision what a batch is: files to commit by table, and raw objects set aside by key.

    `raw_objects` are the members whose pings are in the files, `rows` the rows by table.
    """

    batch_id: str
    raw_objects: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    rows: dict[str, int]
    quarantined: dict[str, str]
