"""Count pings by day and document type: from live.pings into derived.ping_counts."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

if not __package__:  # started as a file: its folder is on the path, the project's is not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.command_line import chosen_dates, reported_failures
from jobs.date_range import DateRange
from jobs.table_checks import check_date
from telemetry_lake.columns import DOCUMENT_TYPE, NAMESPACE, SUBMISSION_DATE
from telemetry_lake.settings import PROJECT_ROOT, Settings, load_settings

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

PING_COUNTS: Final = "derived.ping_counts"
QUERY_FILE: Final = PROJECT_ROOT / "sql" / "derived" / "ping_counts" / "query.sql"
DEFAULT_DATES: Final = "yesterday..today"


def count_pings(session: "SparkSession", dates: DateRange) -> "list[Row]":
    """Count the pings of `dates` anew; the rows of derived.ping_counts for these dates, in order.

    In one commit the counts replace whatever the table had for these dates, also for dates and types that
    have no pings any more: doing it again changes nothing. Raises FatalError and RetriableError.
    """
    from pyspark.sql.functions import col

    from jobs.spark_session import spark_failures

    of_these_dates = col(SUBMISSION_DATE).between(dates.first, dates.last)
    with spark_failures():
        counts = session.sql(
            QUERY_FILE.read_text(encoding="utf-8"),
            first_date=dates.first.isoformat(),
            last_date=dates.last.isoformat(),
        )
        counts.writeTo(PING_COUNTS).overwrite(of_these_dates)
        for day in dates:
            for warning in check_date(session, PING_COUNTS, day):
                typer.echo(f"warning: {warning}", err=True)
        return (
            session.table(PING_COUNTS)
            .where(of_these_dates)
            .orderBy(SUBMISSION_DATE, NAMESPACE, DOCUMENT_TYPE)
            .collect()
        )


def main(
    dates: Annotated[
        str,
        typer.Option(
            help="Submission dates (UTC) to count: FIRST..LAST or one date; YYYY-MM-DD, today or yesterday."
        ),
    ] = DEFAULT_DATES,
    debug: Annotated[bool, typer.Option("--debug", help="Show Spark's own log and whole traces.")] = False,
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
        _run(load_settings(), chosen, debug=debug)


def _run(settings: Settings, dates: DateRange, *, debug: bool) -> None:
    from jobs.spark_session import open_session

    started = time.monotonic()
    typer.echo("starting Spark", err=True)
    session = open_session(settings, f"count_pings {dates}", short=True, debug=debug)
    try:
        ready = time.monotonic()
        typer.echo(f"Spark is up after {ready - started:.1f} s; counting the pings of {dates}", err=True)
        rows = count_pings(session, dates)
        typer.echo(_summary(rows))
        typer.echo(
            f"{PING_COUNTS} has {len(rows)} rows for {dates}; counted in {time.monotonic() - ready:.1f} s",
            err=True,
        )
    finally:
        session.stop()


def _summary(rows: "list[Row]") -> str:
    """The rows as a table of text with a total."""
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
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
