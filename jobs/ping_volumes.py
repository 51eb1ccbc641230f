"""Count pings and bytes by hour, document type, channel and error type, into derived.ping_volumes.

A date is out of date when live.pings or live.rejected_pings has another number of rows of it than when it was
counted; their manifests say so. Rows that are gone from a table altogether, after its retention, do not make
it out of date.

A run ends with the summary that the operations page shows (`telemetry_lake.monitoring.volumes`).
"""

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from jobs.spark.command_line import dates_option, debug_option, program
from jobs.spark.date_job import again_option, in_turn, late_dates_option, make_dates
from jobs.spark.made_dates import (
    MadeDate,
    again_on_conflict,
    current_snapshot,
    record,
    recorded,
    replace_date,
    rows_by_date,
    view_of,
)
from jobs.spark.table_checks import check_date, date_audits
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, PING_VOLUMES, SQL_DIRECTORY
from telemetry_lake.units import DateRange

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from telemetry_lake.audits.dates import DateAudits
    from telemetry_lake.monitoring.volumes import Volumes
    from telemetry_lake.settings import Settings

QUERY_FILE: Final = SQL_DIRECTORY / "derived" / "ping_volumes" / "query.sql"
DEFAULT_DATES: Final = "yesterday..today"
LATE_DATES: Final = 31
SOURCES: Final = (LIVE_PINGS, LIVE_REJECTED_PINGS)


def ping_volumes(
    session: "SparkSession",
    dates: DateRange,
    *,
    late_dates: int = 0,
    again: bool = False,
    audits: "DateAudits | None" = None,
) -> Iterator[MadeDate]:
    """Count those of `dates` that are out of date, and `late_dates` of those before; yield each once counted.

    `again` counts all of `dates`. Each date is replaced in one commit; what its checks found is kept in
    `audits`. Raises FatalError and RetriableError.
    """
    from jobs.spark_session import spark_failures

    asked = dates.since_ever() if late_dates else dates
    with spark_failures():
        rows = {
            table: rows_by_date(session, table, current_snapshot(session, table), asked) for table in SOURCES
        }
        known = recorded(session, PING_VOLUMES, asked)
    out_of_date = [
        day
        for day in set().union(*rows.values())
        if (again and day >= dates.first)
        or _out_of_date(known.get(day), {table: rows[table].get(day, 0) for table in SOURCES})
    ]

    def make(day: date) -> MadeDate:
        return again_on_conflict(lambda: _make(session, day, audits))

    yield from in_turn(PING_VOLUMES, out_of_date, dates, make, late_dates=late_dates)


def _out_of_date(made: MadeDate | None, source: Mapping[str, int]) -> bool:
    """Whether a table has another number of rows than when the date was counted.

    A table that has none any more does not count: its retention has removed them, and what was counted stays.
    """
    if made is None:
        return any(source.values())
    return any(rows not in (0, made.source[table]) for table, rows in source.items())


def _make(session: "SparkSession", day: date, audits: "DateAudits | None") -> MadeDate:
    from jobs.spark_session import spark_failures

    started = time.monotonic()
    with spark_failures():
        # The target before its sources: what commits a date after this run has read them later, too.
        base = current_snapshot(session, PING_VOLUMES)
        snapshots = {table: current_snapshot(session, table) for table in SOURCES}
        of_day = DateRange(day, day)
        source = {
            table: rows_by_date(session, table, snapshot, of_day).get(day, 0)
            for table, snapshot in snapshots.items()
        }
        with (
            view_of(session, LIVE_PINGS, snapshots[LIVE_PINGS]) as live,
            view_of(session, LIVE_REJECTED_PINGS, snapshots[LIVE_REJECTED_PINGS]) as rejected,
        ):
            query = QUERY_FILE.read_text(encoding="utf-8")
            frame = session.sql(query.format(live=live, rejected=rejected, date=f"'{day}'"))
            rows = replace_date(frame, PING_VOLUMES, day, base=base)
        check_date(session, PING_VOLUMES, day, audits)
        made = MadeDate(PING_VOLUMES, day, source, rows, time.monotonic() - started)
        record(session, made)
    return made


def volumes(session: "SparkSession", now: datetime) -> "Volumes":
    """Return the summary of the table at the aware moment `now`, when what it holds had been counted."""
    from jobs.spark_session import spark_failures
    from telemetry_lake.monitoring.volumes import VolumeRow, first_day, first_hour, volumes_of

    def rows(start: str, since: date) -> list[VolumeRow]:
        # As seconds: Spark gives datetimes in the time zone of this process.
        frame = session.sql(
            f"SELECT {start} AS start, app_update_channel, error_type, sum(pings), sum(bytes) "  # noqa: S608
            f"FROM {PING_VOLUMES} WHERE submission_date >= DATE '{since}' GROUP BY ALL"
        )
        return [
            VolumeRow(datetime.fromtimestamp(start, UTC), channel, error, pings, size)
            for start, channel, error, pings, size in frame.collect()
        ]

    with spark_failures():
        hours = rows("unix_seconds(submission_hour)", first_hour(now).date())
        days = rows("bigint(unix_date(submission_date)) * 86400", first_day(now))
    return volumes_of(hours, days, now)


def _count_and_summarise(
    session: "SparkSession", settings: "Settings", dates: DateRange, *, late_dates: int, again: bool
) -> Iterator[MadeDate]:
    from telemetry_lake.monitoring.volumes import keep_volumes
    from telemetry_lake.storage.object_store import ObjectStore
    from telemetry_lake.storage.records import RecordStore

    started = datetime.now(UTC)
    yield from ping_volumes(session, dates, late_dates=late_dates, again=again, audits=date_audits(settings))
    records = RecordStore(ObjectStore(settings.s3), settings.s3.lake_bucket)
    keep_volumes(records, volumes(session, started))


def main(
    dates: Annotated[str, dates_option("count")] = DEFAULT_DATES,
    late_dates: Annotated[int, late_dates_option("counted")] = LATE_DATES,
    again: Annotated[bool, again_option("count")] = False,
    debug: Annotated[bool, debug_option()] = False,
) -> None:
    """Count pings and bytes by hour, document type, channel and error type, into derived.ping_volumes.

    Only what is out of date is counted, each date in one commit: it may be run at any time, also beside
    itself.

    \b
    python jobs/ping_volumes.py
    python jobs/ping_volumes.py --dates 2026-11-01..2026-11-07
    """
    make_dates(
        "ping_volumes",
        dates,
        lambda session, settings, chosen: _count_and_summarise(
            session, settings, chosen, late_dates=late_dates, again=again
        ),
        lambda made: f"{sum(made.source[table] for table in SOURCES):,} pings in {made.rows:,} rows",
        short=True,
        debug=debug,
    )


if __name__ == "__main__":
    program(main)()
