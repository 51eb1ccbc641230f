"""Pings as a Spark DataFrame."""

from collections.abc import Collection
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, Literal, get_args

from telemetry_lake.columns import APP_UPDATE_CHANNEL, DOCUMENT_TYPE, SAMPLE_ID, SUBMISSION_DATE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


TableName = Literal["stable", "live"]
Dates = date | str | tuple[date | str, date | str]
"""A day, or the first and the last of several; `date`s, `YYYY-MM-DD`, or `YYYY-MM-DD..YYYY-MM-DD`."""
SAMPLES_COUNT: Final = 100
"""`sample_id` divides the clients into this many parts."""


def pings(
    spark: "SparkSession",
    *,
    document_type: str | Collection[str],
    dates: Dates,
    channel: str | Collection[str] | None = None,
    sample: int | None = None,
    table: TableName = "stable",
) -> "DataFrame":
    """Return the pings of document types and days, as a DataFrame with the columns of `live.pings`.

    Only what is needed is read: `dates` (submission dates, UTC) and `document_type` leave whole partitions
    out, `channel` (values of app_update_channel) leaves out parts of the files, which are sorted by it, and
    Spark reads only the columns that are used afterwards. `sample` takes that many percent of the clients,
    all pings of each: the same clients every day, and below 100 none of the pings without a client id.
    `table` is `stable`, where each document id occurs once, or `live`, which is minutes fresh.

    Raises ValueError and TypeError, which say which argument is wrong and what is possible.
    """
    if table not in get_args(TableName):
        raise ValueError(f"table={table!r}: there are {' and '.join(get_args(TableName))}")
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int)):
        raise TypeError(f"sample={sample!r}: it is a whole number of percent")
    if sample is not None and not 1 <= sample <= SAMPLES_COUNT:
        raise ValueError(f"sample={sample}: it is a number of percent from 1 to {SAMPLES_COUNT}")
    types = _names(DOCUMENT_TYPE, document_type)
    channels = None if channel is None else _names("channel", channel)
    first, last = _first_and_last(dates)

    from pyspark.sql.functions import col

    chosen = spark.table(f"{table}.pings").where(
        col(SUBMISSION_DATE).between(first, last) & col(DOCUMENT_TYPE).isin(types)
    )
    if channels is not None:
        chosen = chosen.where(col(APP_UPDATE_CHANNEL).isin(channels))
    if sample is not None and sample < SAMPLES_COUNT:
        chosen = chosen.where(col(SAMPLE_ID) < sample)
    return chosen


def _names(argument: str, given: str | Collection[str]) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{argument}={given!r}: it is a name or several")
    if not names or not all(names):
        raise ValueError(f"{argument}={given!r}: at least one name is needed, and none may be empty")
    return names


def _first_and_last(dates: Dates) -> tuple[date, date]:
    if isinstance(dates, str):
        begin, dots, end = dates.partition("..")
        pair: tuple[date | str, date | str] = (begin, end if dots else begin)
    else:
        pair = dates if isinstance(dates, tuple) else (dates, dates)
    if len(pair) != 2:
        raise ValueError(f"dates={dates!r}: a range has a first and a last date")
    first, last = (_day(day) for day in pair)
    if last < first:
        raise ValueError(f"dates={dates!r}: {last} is before {first}")
    return first, last


def _day(given: date | str) -> date:
    if isinstance(given, date) and not isinstance(given, datetime):
        return given
    if not isinstance(given, str):
        raise TypeError(f"dates: {given!r} is not a date: expected a datetime.date or YYYY-MM-DD")
    try:
        return date.fromisoformat(given.strip())
    except ValueError:
        raise ValueError(f"dates: {given!r} is not a date: expected YYYY-MM-DD") from None
