"""Where the rows of cubes come from: `derived.histogram_aggregates`, read from its files.

What is asked of a table is in the manifests of Iceberg: which files have the rows of a date, and, because
each row of `derived.made_dates` is a partition and so a file of its own, when each date was made. So asking
what has changed opens no file, however many dates there are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes
from pyiceberg.table import Table
from pyiceberg.types import TimestamptzType

from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES, MADE_DATES, STABLE_PINGS
from telemetry_lake.tables.files import READ_ONLY_FILE_IO, ReadOnlyFileIO, snapshot_files

MICROSECONDS: Final = 1_000_000
READ_ROWS: Final = 4_096
"""Rows that are read at once; a row has 100 buckets on average, and at most 1,100."""


@dataclass(frozen=True, slots=True)
class SourceDate:
    """A submission date of the aggregates."""

    identity: str
    """Another one whenever the rows of the date were made again."""
    made_at: datetime
    received_until: datetime
    """No ping that was received later is in its rows."""


class Source(Protocol):
    """The aggregates at one moment."""

    def dates(self) -> dict[date, SourceDate]:
        """Return all dates that have been made."""

    def batches(self, day: date, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a date, always the same ones, with these columns in this order."""


class LakeAggregates:
    """The aggregates as the lake has them when this is made."""

    def __init__(self, settings: Settings) -> None:
        """Read what is there. Raises RetriableError when the catalog does not answer."""
        self._files: dict[date, list[str]] = {}
        with catalog_failures("reading the aggregates of the lake"):
            catalog = load_lake_catalog(settings, file_io=READ_ONLY_FILE_IO)
            # The record before the rows: what it says is never newer than what is read.
            self._dates = _dates(catalog.load_table(MADE_DATES))
            table = catalog.load_table(HISTOGRAM_AGGREGATES)
            self._properties = dict(table.io.properties)
            for file in snapshot_files(table):
                self._files.setdefault(_as_date(file.partition[0]), []).append(file.location)

    def dates(self) -> dict[date, SourceDate]:
        """Return all dates that have been made."""
        return self._dates

    def batches(self, day: date, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a date. Raises RetriableError when a file cannot be read."""
        files = ReadOnlyFileIO(self._properties)
        for location in sorted(self._files.get(day, ())):
            source: Any
            try:
                with files.new_input(location).open() as source:
                    file = pq.ParquetFile(source, pre_buffer=True)
                    for batch in file.iter_batches(READ_ROWS, columns=list(columns), use_threads=False):
                        yield batch.select(list(columns))
            except OSError as error:
                raise RetriableError(f"reading {location}: {error}") from error


def _dates(made_dates: Table) -> dict[date, SourceDate]:
    """Return the dates of the aggregates that the manifests of `made_dates` tell of."""
    made: dict[str, dict[date, datetime]] = {HISTOGRAM_AGGREGATES: {}, STABLE_PINGS: {}}
    field = made_dates.schema().find_field("made_at")
    for task in made_dates.scan().plan_files():
        day, table = _as_date(task.file.partition[0]), task.file.partition[1]
        if table not in made:
            continue
        bound = (task.file.upper_bounds or {}).get(field.field_id)
        if bound is None:
            raise FatalError(
                f"{MADE_DATES} does not say when {day} of {table} was made: the statistics of made_at are "
                f"missing in {task.file.file_path}. Make the date again, with --again."
            )
        moment = datetime.fromtimestamp(int(from_bytes(TimestamptzType(), bound)) / MICROSECONDS, UTC)
        made[table][day] = max(moment, made[table].get(day, moment))
    return {
        day: SourceDate(at.isoformat(), at, min(made[STABLE_PINGS].get(day, at), end_of(day)))
        for day, at in made[HISTOGRAM_AGGREGATES].items()
    }


def end_of(day: date) -> datetime:
    """Return the first moment after a UTC date."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def _as_date(value: object) -> date:
    """Return a partition value as a date; Iceberg keeps dates as days since 1970."""
    return value if isinstance(value, date) else date(1970, 1, 1) + timedelta(days=int(str(value)))
