"""What each date of a table was made from, and in which one commit it is replaced.

A job that makes a table date by date asks `recorded` what its dates were made from, makes those that are
out of date with `replace_date`, and writes with `record` what it made them from. All three are about one
date, so any number of runs may be killed or run beside each other:

- `replace_date` is one serializable Iceberg commit: when anybody else changed the date since `base`, it
  fails with RetriableError and changes nothing. `again_on_conflict` then makes the date anew, from what is
  there by then.
- So whoever commits a date later has also read its source later, and since `record` comes after the commit, a
  record is never newer than the rows. The worst that a kill or a race leaves is a date that is made once
  more.
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

from jobs.date_range import DateRange
from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.failures import RetriableError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

MADE_DATES: Final = "derived.made_dates"
RUN_ID_PROPERTY: Final = "telemetry-lake.run-id"
"""The name of a run's own id in the summary of the snapshot that it committed."""
CONFLICT_MAX_ATTEMPTS: Final = 5
CONFLICT_WAIT_MAX_SECONDS: Final = 30.0

Source = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MadeDate:
    """One date of a table as it was made: `source` says from what; `seconds` is how long that took."""

    table: str
    day: date
    source: Source
    rows: int
    seconds: float

    @property
    def digest(self) -> str:
        """The same for equal sources, and for no others; what a table further on says it was made from."""
        return hashlib.sha256(_json(self.source).encode()).hexdigest()


def current_snapshot(session: "SparkSession", table: str) -> int | None:
    """The snapshot that readers of `table` see now; None while it has none."""
    session.sql(f"REFRESH TABLE {table}")
    heads = session.table(f"{table}.refs").where("name = 'main'").select("snapshot_id").collect()
    return int(heads[0].snapshot_id) if heads else None


def as_of(session: "SparkSession", table: str, snapshot: int) -> "DataFrame":
    """The rows of a snapshot, with the table's columns of today: those that it did not have yet are null."""
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
    """A name under which queries find the rows of a snapshot; without a snapshot, the table as it is."""
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
    """How many rows of each of `dates` a snapshot has. Manifests say so; no data file is opened."""
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

    `base` is the table's snapshot from before anything was read; how many rows were written is given back.
    Raises RetriableError when somebody else changed the date.
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
    mine = (
        session.table(f"{table}.snapshots")
        .where(summary[RUN_ID_PROPERTY] == run)
        .select(summary["added-records"].cast("long").alias("rows"))
        .collect()
    )
    return int(mine[0].rows or 0) if mine else 0


def again_on_conflict(make: Callable[[], T]) -> T:
    """What `make` gives back; tried again, after a pause, while it raises RetriableError."""
    retrying = Retrying(
        retry=retry_if_exception_type(RetriableError),
        stop=stop_after_attempt(CONFLICT_MAX_ATTEMPTS),
        wait=wait_random_exponential(multiplier=1, max=CONFLICT_WAIT_MAX_SECONDS),
        reraise=True,
    )
    return retrying(make)


def recorded(session: "SparkSession", table: str, dates: DateRange) -> dict[date, MadeDate]:
    """What those of `dates` that were made of `table` were made from."""
    session.sql(f"REFRESH TABLE {MADE_DATES}")
    rows = session.table(MADE_DATES).where(_of(table, dates)).collect()
    return {
        row.submission_date: MadeDate(
            table, row.submission_date, json.loads(row.source), int(row.rows), float(row.seconds)
        )
        for row in rows
    }


def record(session: "SparkSession", made: MadeDate) -> None:
    """Write down what a date was made from; in the place of what was written before."""
    schema = session.table(MADE_DATES).schema
    seconds = round(made.seconds, 3)
    # In the order of the table's columns.
    row = (made.table, made.day, _json(made.source), made.rows, datetime.now(UTC), seconds)
    frame = session.createDataFrame([row], schema).coalesce(1)
    frame.writeTo(MADE_DATES).overwrite(_of(made.table, DateRange(made.day, made.day)))


def _of(table: str, dates: DateRange) -> "Column":
    from pyspark.sql.functions import col

    return (col("table_name") == table) & col(SUBMISSION_DATE).between(dates.first, dates.last)


def _json(source: Source) -> str:
    return json.dumps(source, sort_keys=True)
