"""What the command lines of all jobs have in common: options, dates, failures, and the program itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import typer

from telemetry_lake.failures import REFUSED_EXIT_STATUS, AccessRefused, RetriableError, TelemetryLakeError
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.units import DateRange


def program(main: Callable[..., None] | None = None, *, help: str | None = None) -> typer.Typer:  # noqa: A002
    """Return the program of a job, to be called with the command line.

    `main` is its only command. Without it commands are added to the program, which shows `help`.
    """
    app = typer.Typer(
        help=help,
        no_args_is_help=main is None,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    if main is not None:
        app.command()(main)
    return app


def dates_option(verb: str) -> Any:
    """Return the option `--dates` of a job that does `verb` with submission dates."""
    return typer.Option(
        help=f"Submission dates (UTC) to {verb}: FIRST..LAST or one date; YYYY-MM-DD, today or yesterday."
    )


def debug_option() -> Any:
    """Return the option `--debug`."""
    return typer.Option("--debug", help="Show Spark's own log and whole traces.")


def chosen_dates(text: str, *, now: datetime | None = None, option: str = "--dates") -> DateRange:
    """Return the dates that were given to `option`; `today` is the date of `now` in UTC.

    Raises typer.BadParameter when the text is not a range of dates.
    """
    try:
        return DateRange.parse(text, today=(now or datetime.now(UTC)).date())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


@contextmanager
def reported_failures(*, debug: bool) -> Iterator[None]:
    """End the program with one line on standard error and exit status 1; with `debug`, with a trace.

    The exit status of what was refused is `REFUSED_EXIT_STATUS`: trying again cannot help.
    """
    try:
        with catalog_failures("using the Iceberg catalog"):
            yield
    except TelemetryLakeError as error:
        if debug:
            raise
        again = " (trying again may help)" if isinstance(error, RetriableError) else ""
        typer.echo(f"error: {error}{again}. --debug shows where it arose.", err=True)
        raise typer.Exit(REFUSED_EXIT_STATUS if isinstance(error, AccessRefused) else 1) from None
