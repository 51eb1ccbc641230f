"""Make stable.pings from live.pings, date by date: each document id once, without test pings.

A date is made from live.pings alone, never from what stable.pings has of the days before. So it does not
matter in which order, how often or by how many at once dates are made: a row of a date becomes stable when
no row of live.pings that is older, on the same date or in the window of days before, has its document id.
`sql/stable/pings/query.sql` says it exactly. A document that a client sends every day is therefore stable
on the first day only, however long it goes on.

A date is out of date when live.pings has more rows of it, or of a day of its window, than when it was made:
rows come late with replays, backfills and after outages. The manifests of live.pings say how many there
are, so that asking costs no scan, and compaction, which moves rows, changes no number. What is gone from
live.pings (after its retention) does not make a date out of date, and a date that has no rows there is left
as it is.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

if not __package__:  # started as a file: its folder is on the path, the project's is not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.command_line import chosen_dates, reported_failures
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
from telemetry_lake.settings import Settings, load_settings
from telemetry_lake.tables import LIVE_PINGS, SQL_DIRECTORY, STABLE_PINGS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

QUERY_FILE: Final = SQL_DIRECTORY / "stable" / "pings" / "query.sql"
DEFAULT_DATES: Final = "yesterday"
PRECEDING_DAYS: Final = 1
LATE_DAYS: Final = 7
WINDOW: Final = "preceding_days"
"""The name of the number of preceding days in a date's source."""


def stable_pings(
    session: "SparkSession",
    dates: DateRange,
    *,
    preceding_days: int = PRECEDING_DAYS,
    late_days: int = 0,
    again: bool = False,
) -> Iterator[MadeDate]:
    """Make those of `dates` and of the `late_days` before them that are out of date; each once it is made.

    `again` makes all of `dates`. Each date is replaced in one commit. Raises FatalError and RetriableError.
    """
    from jobs.spark_session import spark_failures

    asked = dates.reaching_back(late_days)
    with spark_failures():
        snapshot = current_snapshot(session, LIVE_PINGS)
        rows = rows_by_date(session, LIVE_PINGS, snapshot, asked.reaching_back(preceding_days))
        known = recorded(session, STABLE_PINGS, asked)
    for day in asked:
        forced = again and day >= dates.first
        if rows.get(day) and (forced or _out_of_date(known.get(day), _source(rows, day, preceding_days))):
            yield again_on_conflict(lambda day=day: _make(session, day, preceding_days))  # type: ignore[misc]


def _make(session: "SparkSession", day: date, preceding_days: int) -> MadeDate:
    from jobs.spark_session import spark_failures

    started = time.monotonic()
    with spark_failures():
        # Stable before live: whoever commits a date after us has read live.pings after us, too.
        base = current_snapshot(session, STABLE_PINGS)
        snapshot = current_snapshot(session, LIVE_PINGS)
        window = DateRange(day, day).reaching_back(preceding_days)
        source = _source(rows_by_date(session, LIVE_PINGS, snapshot, window), day, preceding_days)
        with view_of(session, LIVE_PINGS, snapshot) as live:
            query = QUERY_FILE.read_text(encoding="utf-8")
            frame = session.sql(query.format(live=live, first_date=f"'{window.first}'", date=f"'{day}'"))
            rows = replace_date(frame, STABLE_PINGS, day, base=base)
        for warning in check_date(session, STABLE_PINGS, day):
            typer.echo(f"warning: {warning}", err=True)
        made = MadeDate(STABLE_PINGS, day, source, rows, time.monotonic() - started)
        record(session, made)
    return made


def _source(rows: Mapping[date, int], day: date, preceding_days: int) -> dict[str, object]:
    window = DateRange(day, day).reaching_back(preceding_days)
    return {LIVE_PINGS: {each.isoformat(): rows.get(each, 0) for each in window}, WINDOW: preceding_days}


def _out_of_date(made: MadeDate | None, source: Mapping[str, object]) -> bool:
    """Whether there are rows that were not there when the date was made."""
    if made is None or made.source[WINDOW] != source[WINDOW]:
        return True
    then, now = made.source[LIVE_PINGS], source[LIVE_PINGS]
    assert isinstance(now, Mapping)
    return any(rows > then.get(day, 0) for day, rows in now.items())


def main(
    dates: Annotated[
        str,
        typer.Option(
            help="Submission dates (UTC) to make: FIRST..LAST or one date; YYYY-MM-DD, today or yesterday."
        ),
    ] = DEFAULT_DATES,
    preceding_days: Annotated[
        int,
        typer.Option(
            min=0,
            max=30,
            help="How many days before a date are searched for its document ids, besides the date.",
        ),
    ] = PRECEDING_DAYS,
    late_days: Annotated[
        int,
        typer.Option(
            min=0, max=366, help="So many days before DATES are made again when late pings came for them."
        ),
    ] = LATE_DAYS,
    again: Annotated[
        bool, typer.Option("--again/--no-again", help="Make DATES also when they are up to date.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show Spark's own log and whole traces.")] = False,
) -> None:
    """Make stable.pings from live.pings: each document id once, without test pings.

    Only what is out of date is made, each date in one commit: it may be run at any time, also beside itself.

    \b
    python jobs/stable_pings.py
    python jobs/stable_pings.py --dates 2026-11-01..2026-11-07
    python jobs/stable_pings.py --dates 2026-11-07 --again
    """
    chosen = chosen_dates(dates)
    with reported_failures(debug=debug):
        _run(load_settings(), chosen, preceding_days, late_days, again=again, debug=debug)


def _run(
    settings: Settings, dates: DateRange, preceding_days: int, late_days: int, *, again: bool, debug: bool
) -> None:
    from jobs.spark_session import open_session

    typer.echo("starting Spark", err=True)
    session = open_session(settings, f"stable_pings {dates}", debug=debug)
    try:
        count = 0
        for made in stable_pings(
            session, dates, preceding_days=preceding_days, late_days=late_days, again=again
        ):
            count += 1
            received = made.source[LIVE_PINGS][made.day.isoformat()]
            typer.echo(
                f"{STABLE_PINGS} {made.day}: {made.rows:,} of {received:,} pings of {LIVE_PINGS}, "
                f"{made.seconds:.1f} s"
            )
        if not count:
            typer.echo(f"nothing to do: {dates} and the {late_days} days before are up to date")
    finally:
        session.stop()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
