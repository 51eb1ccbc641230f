"""Make stable.pings from live.pings, date by date: each document once, without test pings.

A date is made from live.pings alone, never from what stable.pings has of the days before. So it does not
matter in which order, how often or by how many at once dates are made: a row of a date becomes stable when
no row of live.pings that is older, on the same date or in the window of days before, has its document id in
the same namespace and document type: clients of one application know nothing of the ids of another.
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

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

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
from telemetry_lake.tables.definitions import LIVE_PINGS, SQL_DIRECTORY, STABLE_PINGS
from telemetry_lake.units import DateRange

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from telemetry_lake.audits.dates import DateAudits

QUERY_FILE: Final = SQL_DIRECTORY / "stable" / "pings" / "query.sql"
DEFAULT_DATES: Final = "yesterday"
PRECEDING_DAYS: Final = 1
LATE_DATES: Final = 14
WINDOW: Final = "preceding_days"
"""The name of the number of preceding days in a date's source."""


def stable_pings(
    session: "SparkSession",
    dates: DateRange,
    *,
    preceding_days: int = PRECEDING_DAYS,
    late_dates: int = 0,
    again: bool = False,
    audits: "DateAudits | None" = None,
) -> Iterator[MadeDate]:
    """Make those of `dates` that are out of date, and `late_dates` of those before; yield each once made.

    `again` makes all of `dates`. Each date is replaced in one commit; what its checks found is kept in
    `audits`. Raises FatalError and RetriableError.
    """
    from jobs.spark_session import spark_failures

    asked = dates.since_ever() if late_dates else dates
    with spark_failures():
        snapshot = current_snapshot(session, LIVE_PINGS)
        rows = rows_by_date(session, LIVE_PINGS, snapshot, asked.reaching_back(preceding_days))
        known = recorded(session, STABLE_PINGS, asked)
    out_of_date = [
        day
        for day in rows
        if asked.first <= day
        and (
            (again and day >= dates.first) or _out_of_date(known.get(day), _source(rows, day, preceding_days))
        )
    ]

    def make(day: date) -> MadeDate:
        return again_on_conflict(lambda: _make(session, day, preceding_days, audits))

    yield from in_turn(STABLE_PINGS, out_of_date, dates, make, late_dates=late_dates)


def _make(session: "SparkSession", day: date, preceding_days: int, audits: "DateAudits | None") -> MadeDate:
    from jobs.spark_session import spark_failures

    started = time.monotonic()
    with spark_failures():
        # Stable before live: what commits a date after this run has read live.pings later, too.
        base = current_snapshot(session, STABLE_PINGS)
        snapshot = current_snapshot(session, LIVE_PINGS)
        window = DateRange(day, day).reaching_back(preceding_days)
        source = _source(rows_by_date(session, LIVE_PINGS, snapshot, window), day, preceding_days)
        with view_of(session, LIVE_PINGS, snapshot) as live:
            query = QUERY_FILE.read_text(encoding="utf-8")
            frame = session.sql(query.format(live=live, first_date=f"'{window.first}'", date=f"'{day}'"))
            rows = replace_date(frame, STABLE_PINGS, day, base=base)
        check_date(session, STABLE_PINGS, day, audits)
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
    late_dates: Annotated[int, late_dates_option("made")] = LATE_DATES,
    again: Annotated[bool, again_option("make")] = False,
    debug: Annotated[bool, debug_option()] = False,
) -> None:
    """Make stable.pings from live.pings: each document once, without test pings.

    Only what is out of date is made, each date in one commit: it may be run at any time, also beside itself.

    \b
    python jobs/stable_pings.py
    python jobs/stable_pings.py --dates 2026-11-01..2026-11-07
    python jobs/stable_pings.py --dates 2026-11-07 --again
    """

    def described(made: MadeDate) -> str:
        received = made.source[LIVE_PINGS][made.day.isoformat()]
        return f"{made.rows:,} of {received:,} pings of {LIVE_PINGS}"

    make_dates(
        "stable_pings",
        dates,
        lambda session, settings, chosen: stable_pings(
            session,
            chosen,
            preceding_days=preceding_days,
            late_dates=late_dates,
            again=again,
            audits=date_audits(settings),
        ),
        described,
        debug=debug,
    )


if __name__ == "__main__":
    program(main)()
