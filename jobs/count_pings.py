"""Count pings by day and document type: from live.pings into derived.ping_counts."""

import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.spark.command_line import chosen_dates, dates_option, debug_option, program, reported_failures
from jobs.spark.date_job import in_turn, late_dates_option
from jobs.spark.made_dates import (
    MadeDate,
    again_on_conflict,
    current_snapshot,
    record,
    recorded,
    rows_by_date,
)
from jobs.spark.table_checks import check_date, date_audits
from telemetry_lake.columns import DOCUMENT_TYPE, NAMESPACE, SUBMISSION_DATE
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role, Settings, load_settings
from telemetry_lake.tables.definitions import LIVE_PINGS
from telemetry_lake.units import DateRange

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

    from telemetry_lake.audits.dates import DateAudits

PING_COUNTS: Final = "derived.ping_counts"
QUERY_FILE: Final = PROJECT_ROOT / "sql" / "derived" / "ping_counts" / "query.sql"
DEFAULT_DATES: Final = "yesterday..today"
LATE_DATES: Final = 7


def count_pings(
    session: "SparkSession", dates: DateRange, *, audits: "DateAudits | None" = None
) -> "list[Row]":
    """Count the pings of `dates` again, and return the rows of derived.ping_counts for them, in order.

    In one commit the counts replace whatever the table had for these dates, also for dates and types that
    have no pings any more, so that a repetition changes nothing. What the checks of each date found is kept
    in `audits`. Raises FatalError and RetriableError.
    """
    from pyspark.sql.functions import col

    from jobs.spark_session import spark_failures

    within_dates = col(SUBMISSION_DATE).between(dates.first, dates.last)
    with spark_failures():
        counts = session.sql(
            QUERY_FILE.read_text(encoding="utf-8"),
            first_date=dates.first.isoformat(),
            last_date=dates.last.isoformat(),
        )
        counts.writeTo(PING_COUNTS).overwrite(within_dates)
        for day in dates:
            check_date(session, PING_COUNTS, day, audits)
        return (
            session.table(PING_COUNTS)
            .where(within_dates)
            .orderBy(SUBMISSION_DATE, NAMESPACE, DOCUMENT_TYPE)
            .collect()
        )


def count_late_dates(
    session: "SparkSession", dates: DateRange, *, late_dates: int, audits: "DateAudits | None" = None
) -> Iterator[MadeDate]:
    """Count `late_dates` of the dates before `dates` that have more pings than when this last counted them.

    Oldest first; yields each once counted. So every date is counted once when it is over, and again when
    pings come late. Raises FatalError and RetriableError.
    """
    from jobs.spark_session import spark_failures

    before = DateRange(dates.first - timedelta(days=1), dates.first - timedelta(days=1)).since_ever()

    def rows_of(some: DateRange) -> dict[date, int]:
        return rows_by_date(session, LIVE_PINGS, current_snapshot(session, LIVE_PINGS), some)

    with spark_failures():
        rows, known = rows_of(before), recorded(session, PING_COUNTS, before)
    late = [day for day, count in rows.items() if day not in known or count > known[day].source[LIVE_PINGS]]

    def count(day: date) -> MadeDate:
        started, of_day = time.monotonic(), DateRange(day, day)
        with spark_failures():
            # Before the rows are counted: the record never says more than what is counted.
            source = {LIVE_PINGS: rows_of(of_day).get(day, 0)}
            counted = len(count_pings(session, of_day, audits=audits))
            made = MadeDate(PING_COUNTS, day, source, counted, time.monotonic() - started)
            record(session, made)
        return made

    def make(day: date) -> MadeDate:
        return again_on_conflict(lambda: count(day))

    yield from in_turn(PING_COUNTS, late, dates, make, late_dates=late_dates)


def main(
    dates: Annotated[str, dates_option("count")] = DEFAULT_DATES,
    late_dates: Annotated[int, late_dates_option("counted")] = LATE_DATES,
    debug: Annotated[bool, debug_option()] = False,
) -> None:
    """Count pings by day and document type: from live.pings into derived.ping_counts.

    Counts of these dates are replaced in one commit, so it may be run again for any date at any time.

    \b
    python jobs/count_pings.py
    python jobs/count_pings.py --dates 2026-11-01..2026-11-07
    spark-submit --driver-class-path 'java/lib/spark/*' jobs/count_pings.py --dates today
    """
    chosen = chosen_dates(dates)
    with reported_failures(debug=debug):
        _run(load_settings(role=Role.JOBS), chosen, late_dates, debug=debug)


def _run(settings: Settings, dates: DateRange, late_dates: int, *, debug: bool) -> None:
    from jobs.spark_session import open_session

    started = time.monotonic()
    typer.echo("starting Spark", err=True)
    session = open_session(settings, f"count_pings {dates}", short=True, debug=debug)
    try:
        ready = time.monotonic()
        typer.echo(f"Spark is up after {ready - started:.1f} s; counting the pings of {dates}", err=True)
        audits = date_audits(settings)
        rows = count_pings(session, dates, audits=audits)
        typer.echo(_summary(rows))
        typer.echo(
            f"{PING_COUNTS} has {len(rows)} rows for {dates}; counted in {time.monotonic() - ready:.1f} s",
            err=True,
        )
        for made in count_late_dates(session, dates, late_dates=late_dates, audits=audits):
            pings = made.source[LIVE_PINGS]
            typer.echo(f"{made.table} {made.day}: {pings:,} pings, {made.seconds:.1f} s", err=True)
    finally:
        session.stop()


def _summary(rows: "list[Row]") -> str:
    """Return the rows as a table of text with a total."""
    if not rows:
        return "no pings were received on these dates"
    lines = [
        (str(row.submission_date), f"{row.namespace}/{row.document_type}", f"{row.pings:,}") for row in rows
    ]
    lines.append(("total", "", f"{sum(row.pings for row in rows):,}"))
    widths = [max(len(line[index]) for line in lines) for index in range(3)]
    return "\n".join(
        f"{day:<{widths[0]}}  {what:<{widths[1]}}  {pings:>{widths[2]}}" for day, what, pings in lines
    )


if __name__ == "__main__":
    program(main)()
