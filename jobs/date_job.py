"""What the programs that make a table date by date have in common: their options, and their run."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

from jobs.command_line import chosen_dates, reported_failures
from jobs.date_range import DateRange
from jobs.made_dates import MadeDate
from telemetry_lake.settings import Settings, load_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LATE_DAYS_MAX: Final = 366


def dates_option(verb: str) -> Any:
    """The option `--dates` of a job that does `verb` with dates."""
    return typer.Option(
        help=f"Submission dates (UTC) to {verb}: FIRST..LAST or one date; YYYY-MM-DD, today or yesterday."
    )


def late_days_option(what: str) -> Any:
    """The option `--late-days`; `what` becomes of so many days, and when."""
    return typer.Option(min=0, max=LATE_DAYS_MAX, help=f"So many days before DATES are {what}.")


def again_option(verb: str) -> Any:
    """The option `--again`."""
    return typer.Option(
        "--again/--no-again", help=f"{verb.capitalize()} DATES also when they are up to date."
    )


def debug_option() -> Any:
    """The option `--debug`."""
    return typer.Option("--debug", help="Show Spark's own log and whole traces.")


def make_dates(
    name: str,
    dates: str,
    late_days: int,
    make: "Callable[[SparkSession, Settings, DateRange], Iterator[MadeDate]]",
    told: Callable[[MadeDate], str],
    *,
    short: bool = False,
    worker_imports: Sequence[str] = (),
    debug: bool,
) -> None:
    """Start Spark, make what is out of date, and tell of each date as `told` says it.

    `name` is the job's, `dates` what the command line says of them; `short` and `worker_imports` are those
    of `open_session`. Failures end the program.
    """
    chosen = chosen_dates(dates)
    with reported_failures(debug=debug):
        from jobs.spark_session import open_session

        settings = load_settings()
        typer.echo("starting Spark", err=True)
        session = open_session(
            settings, f"{name} {chosen}", short=short, debug=debug, worker_imports=worker_imports
        )
        try:
            is_up_to_date = True
            for made in make(session, settings, chosen):
                is_up_to_date = False
                typer.echo(f"{made.table} {made.day}: {told(made)}, {made.seconds:.1f} s")
            if is_up_to_date:
                typer.echo(f"nothing to do: {chosen} and the {late_days} days before are up to date")
        finally:
            session.stop()
