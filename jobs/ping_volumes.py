"""Count pings and bytes by hour, document type, channel and error type, into derived.ping_volumes.

A date is out of date when live.pings or live.rejected_pings has another number of rows of it than when it was
counted; their manifests say so. A date of which both have none any more is left as it is.
"""

import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

if not __package__:  # started as a file: its folder is on the path, the project's is not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.date_job import again_option, dates_option, debug_option, late_days_option, make_dates
from jobs.date_range import DateRange
from jobs.made_dates import (
    MadeDate,
    again_on_conflict,
    current_snapshot,
    record,
    recorded,
    replace_date,
    rows_by_date,
    view_of,
)
from jobs.table_checks import check_date
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS, SQL_DIRECTORY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PING_VOLUMES: Final = "derived.ping_volumes"
QUERY_FILE: Final = SQL_DIRECTORY / "derived" / "ping_volumes" / "query.sql"
DEFAULT_DATES: Final = "yesterday..today"
LATE_DAYS: Final = 7
SOURCES: Final = (LIVE_PINGS, LIVE_REJECTED_PINGS)


def ping_volumes(
    session: "SparkSession", dates: DateRange, *, late_days: int = 0, again: bool = False
) -> Iterator[MadeDate]:
    """Count those of `dates` and of the `late_days` before them that are out of date; each once it is
    counted.

    `again` counts all of `dates`. Each date is replaced in one commit. Raises FatalError and RetriableError.
    """
    from jobs.spark_session import spark_failures

    asked = dates.reaching_back(late_days)
    with spark_failures():
        rows = {
            table: rows_by_date(session, table, current_snapshot(session, table), asked) for table in SOURCES
        }
        known = recorded(session, PING_VOLUMES, asked)
    for day in asked:
        source = {table: rows[table].get(day, 0) for table in SOURCES}
        forced = again and day >= dates.first
        if any(source.values()) and (forced or day not in known or known[day].source != source):
            yield again_on_conflict(lambda day=day: _make(session, day))  # type: ignore[misc]


def _make(session: "SparkSession", day: date) -> MadeDate:
    from jobs.spark_session import spark_failures

    started = time.monotonic()
    with spark_failures():
        # The target before its sources: whoever commits a date after us has read them after us, too.
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
        for warning in check_date(session, PING_VOLUMES, day):
            typer.echo(f"warning: {warning}", err=True)
        made = MadeDate(PING_VOLUMES, day, source, rows, time.monotonic() - started)
        record(session, made)
    return made


def main(
    dates: Annotated[str, dates_option("count")] = DEFAULT_DATES,
    late_days: Annotated[int, late_days_option("counted again when their pings have changed")] = LATE_DAYS,
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
        late_days,
        lambda session, _, chosen: ping_volumes(session, chosen, late_days=late_days, again=again),
        lambda made: f"{sum(made.source[table] for table in SOURCES):,} pings in {made.rows:,} rows",
        short=True,
        debug=debug,
    )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
