"""What the programs that make a table date by date have in common: options, choice of dates, and run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer

from jobs.spark.command_line import chosen_dates, reported_failures
from jobs.spark.made_dates import MadeDate
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import Role, Settings, load_settings
from telemetry_lake.units import DateRange

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Result = TypeVar("Result")

LATE_DATES_MAX: Final = 366


def late_dates_option(done: str) -> Any:
    """Return the option `--late-dates` of a job by which dates are `done`."""
    return typer.Option(
        min=0,
        max=LATE_DATES_MAX,
        help=f"Of all dates before DATES that are out of date, at most this many are {done}, oldest first.",
    )


def again_option(verb: str) -> Any:
    """Return the option `--again` of a job that does `verb` with dates."""
    return typer.Option(
        "--again/--no-again", help=f"{verb.capitalize()} DATES also when they are up to date."
    )


def in_turn(
    table: str,
    out_of_date: Iterable[date],
    dates: DateRange,
    make: Callable[[date], Result],
    *,
    late_dates: int,
) -> Iterator[Result]:
    """Make the first `late_dates` of the dates before `dates` that are out of date, then those of `dates`.

    Yields what `make` returns for each. What is left is said: the next run goes on there. A date that raises
    FatalError does not hold the others back, or one that always fails would stop all after it; the first one
    is raised at the end.
    """
    ordered = sorted(out_of_date)
    late = [day for day in ordered if day < dates.first]
    left = late[late_dates:]
    failures: list[FatalError] = []
    for day in [*late[:late_dates], *(day for day in ordered if day >= dates.first)]:
        try:
            made = make(day)
        except FatalError as error:
            typer.echo(f"{table} {day}: {error}", err=True)
            failures.append(error)
        else:
            yield made
    if left:
        typer.echo(
            f"{table}: {len(left):,} dates from {left[0]} to {left[-1]} are out of date and left to the next "
            "runs"
        )
    if failures:
        raise failures[0]


def make_dates(
    name: str,
    dates: str,
    make: "Callable[[SparkSession, Settings, DateRange], Iterator[MadeDate]]",
    described: Callable[[MadeDate], str],
    *,
    short: bool = False,
    worker_imports: Sequence[str] = (),
    debug: bool,
) -> None:
    """Start Spark, make what is out of date, and print a line for each date, which `described` ends.

    `name` is the job's, `dates` the text that was given to `--dates`; `short` and `worker_imports` are passed
    to `open_session`. A failure ends the program.
    """
    chosen = chosen_dates(dates)
    with reported_failures(debug=debug):
        from jobs.spark_session import open_session

        settings = load_settings(role=Role.JOBS)
        typer.echo("starting Spark", err=True)
        session = open_session(
            settings, f"{name} {chosen}", short=short, debug=debug, worker_imports=worker_imports
        )
        try:
            is_up_to_date = True
            for made in make(session, settings, chosen):
                is_up_to_date = False
                typer.echo(f"{made.table} {made.day}: {described(made)}, {made.seconds:.1f} s")
            if is_up_to_date:
                typer.echo(f"nothing was to be done for {chosen}")
        finally:
            session.stop()
