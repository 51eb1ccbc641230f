"""Make stable.pings and derived.histogram_aggregates of some dates in one Spark session.

The same as `jobs/stable_pings.py` and then `jobs/histogram_aggregates.py`, which take a session each: for a
few thousand pings, starting Spark is most of their work. Only what is out of date is made.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.histogram_aggregates import WORKER_IMPORTS, histogram_aggregates
from jobs.spark.command_line import dates_option, debug_option, program
from jobs.spark.date_job import make_dates
from jobs.spark.made_dates import MadeDate
from jobs.spark.table_checks import date_audits
from jobs.stable_pings import stable_pings
from telemetry_lake.settings import Settings
from telemetry_lake.units import DateRange

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DEFAULT_DATES: Final = "yesterday..today"


def fresh_aggregates(session: "SparkSession", settings: Settings, dates: DateRange) -> Iterator[MadeDate]:
    """Make the pings of those dates that are out of date, and their aggregates; yield each once made."""
    yield from stable_pings(session, dates, audits=date_audits(settings))
    yield from histogram_aggregates(session, settings, dates)


def main(
    dates: Annotated[str, dates_option("make")] = DEFAULT_DATES,
    debug: Annotated[bool, debug_option()] = False,
) -> None:
    """Make stable.pings and derived.histogram_aggregates of some dates in one Spark session.

    Only what is out of date is made, each date in one commit: it may be run at any time, also beside itself.

    \b
    python jobs/fresh_aggregates.py
    python jobs/fresh_aggregates.py --dates today
    """
    make_dates(
        "fresh_aggregates",
        dates,
        fresh_aggregates,
        lambda made: f"{made.rows:,} rows",
        short=True,
        worker_imports=WORKER_IMPORTS,
        debug=debug,
    )


if __name__ == "__main__":
    program(main)()
