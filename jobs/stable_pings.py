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
    dates: Annotated[str, dates_option("make")] = DEFAULT_DATES,
    preceding_days: Annotated[
        int,
        typer.Option(
            min=0,
            max=30,
            help="How many days before a date are searched for its document ids, besides the date.",
        ),
    ] = PRECEDING_DAYS,
    late_days: Annotated[int, late_days_option("made again when late pings came for them")] = LATE_DAYS,
    again: Annotated[bool, again_option("make")] = False,
    debug: Annotated[bool, debug_option()] = False,
) -> None:
    """Make stable.pings from live.pings: each document id once, without test pings.

    Only what is out of date is made, each date in one commit: it may be run at any time, also beside itself.

    \b
    python jobs/stable_pings.py
    python jobs/stable_pings.py --dates 2026-11-01..2026-11-07
    python jobs/stable_pings.py --dates 2026-11-07 --again
    """

    def told(made: MadeDate) -> str:
        received = made.source[LIVE_PINGS][made.day.isoformat()]
        return f"{made.rows:,} of {received:,} pings of {LIVE_PINGS}"

    make_dates(
        "stable_pings",
        dates,
        late_days,
        lambda session, _, chosen: stable_pings(
            session, chosen, preceding_days=preceding_days, late_days=late_days, again=again
        ),
        told,
        debug=debug,
    )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
