"""What each date of a table was made from, and the one commit that replaces it.

A job that makes a table date by date asks `recorded` what its dates were made from, makes those that are
out of date with `replace_date`, and writes with `record` what it made them from. All three are about one
date, so any number of runs may be killed or run at the same time:

- `replace_date` is one serializable Iceberg commit: when another commit changed the date since `base`, it
  fails with RetriableError and changes nothing. `again_on_conflict` then makes the date again, from the rows
  of that moment.
- So a run that commits a date later has also read its source later, and since `record` comes after the
  commit, a record is never newer than the rows. The worst that a kill or a race leaves is a date that is made
  once more.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.failures import RetriableError
from telemetry_lake.tables.definitions import MADE_DATES
from telemetry_lake.units import DateRange

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

RUN_ID_PROPERTY: Final = "telemetry-lake.run-id"
"""The property of a snapshot's summary that holds the id of the run that committed it."""
CONFLICT_MAX_ATTEMPTS: Final = 5
CONFLICT_WAIT_MAX_SECONDS: Final = 30.0

Source = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MadeDate:
    """One date of a table as it was made: from what (`source`), and how long that took (`seconds`)."""

    table: str
    day: date
    source: Source
    rows: int
    seconds: float

    @property
    def digest(self) -> str:
        """The hash of the source: tables further on record it as what they were made from."""
        return hashlib.sha256(_json(self.source).encode()).hexdigest()


def current_snapshot(session: "SparkSession", table: str) -> int | None:
    """Return the snapshot that readers of `table` see now; None for a table without snapshots."""
    session.sql(f"REFRESH TABLE {table}")
    heads = session.table(f"{table}.refs").where("name = 'main'").select("snapshot_id").collect()
    return int(heads[0].snapshot_id) if heads else None


def as_of(session: "SparkSession", table: str, snapshot: int) -> "DataFrame":
    """Return the rows of a snapshot with the present columns of the table; newer columns are null."""
    from pyspark.sql.functions import lit

    then = session.read.option("versionAsOf", str(snapshot)).table(table)
    now = session.table(table).schema
    return then.select(
        *(
            then[field.name]
            if field.name in then.columns
            else lit(None).cast(field.dataType).alias(field.name)
            for field in now
        )
    )


@contextmanager
def view_of(session: "SparkSession", table: str, snapshot: int | None) -> Iterator[str]:
    """Yield a name under which queries find the rows of a snapshot, or without one those of the table."""
    if snapshot is None:
        yield table
        return
    name = f"as_of_{uuid4().hex}"
    as_of(session, table, snapshot).createTempView(name)
    try:
        yield name
    finally:
        session.catalog.dropTempView(name)


def rows_by_date(
    session: "SparkSession", table: str, snapshot: int | None, dates: DateRange
) -> dict[date, int]:
    """Return the number of rows of each of `dates` in a snapshot, from its manifests alone."""
    if snapshot is None:
        return {}
    from pyspark.sql.functions import col
    from pyspark.sql.functions import sum as total

    day = col("partition").getField(SUBMISSION_DATE)
    counted = (
        session.read.option("versionAsOf", str(snapshot))
        .table(f"{table}.partitions")
        .where(day.between(dates.first, dates.last))
        .groupBy(day.alias("day"))
        .agg(total("record_count").alias("rows"))
    )
    return {row["day"]: int(row["rows"]) for row in counted.collect()}


def replace_date(frame: "DataFrame", table: str, day: date, *, base: int | None) -> int:
    """Make `frame` the rows of `day` in one commit, unless the date changed since the snapshot `base`.

    `base` is the table's snapshot from before anything was read. Returns the number of rows written. Raises
    RetriableError when another commit changed the date.
    """
    from pyspark.sql.functions import col

    run = uuid4().hex
    writer = (
        frame.writeTo(table)
        .option(f"snapshot-property.{RUN_ID_PROPERTY}", run)
        .option("isolation-level", "serializable")
    )
    if base is not None:
        writer = writer.option("validate-from-snapshot-id", str(base))
    writer.overwrite(col(SUBMISSION_DATE) == day)
    session = frame.sparkSession
    summary = col("summary")
    committed = (
        session.table(f"{table}.snapshots")
        .where(summary[RUN_ID_PROPERTY] == run)
        .select(summary["added-records"].cast("long").alias("rows"))
        .collect()
    )
    return int(committed[0].rows or 0) if committed else 0


def again_on_conflict(make: Callable[[], T]) -> T:
    """Call `make`, again after a pause while it raises RetriableError, and return what it returns."""
    retrying = Retrying(
        retry=retry_if_exception_type(RetriableError),
        stop=stop_after_attempt(CONFLICT_MAX_ATTEMPTS),
        wait=wait_random_exponential(multiplier=1, max=CONFLICT_WAIT_MAX_SECONDS),
        reraise=True,
    )
    return retrying(make)


def recorded(session: "SparkSession", table: str, dates: DateRange) -> dict[date, MadeDate]:
    """Return, for those of `dates` of `table` that were made, what they were made from."""
    session.sql(f"REFRESH TABLE {MADE_DATES}")
    rows = session.table(MADE_DATES).where(_dates_of(table, dates)).collect()
    return {
        row.submission_date: MadeDate(
            table, row.submission_date, json.loads(row.source), int(row.rows), float(row.seconds)
        )
        for row in rows
    }


def record(session: "SparkSession", made: MadeDate) -> None:
    """Record what a date was made from, in place of an earlier record."""
    schema = session.table(MADE_DATES).schema
    seconds = round(made.seconds, 3)
    # In the order of the table's columns.
    row = (made.table, made.day, _json(made.source), made.rows, datetime.now(UTC), seconds)
    frame = session.createDataFrame([row], schema).coalesce(1)
    frame.writeTo(MADE_DATES).overwrite(_dates_of(made.table, DateRange(made.day, made.day)))


def _dates_of(table: str, dates: DateRange) -> "Column":
    from pyspark.sql.functions import col

    return (col("table_name") == table) & col(SUBMISSION_DATE).between(dates.first, dates.last)


def _json(source: Source) -> str:
    return json.dumps(source, sort_keys=True)
