"""What the command lines of all jobs have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import typer

from jobs.date_range import DateRange
from telemetry_lake.failures import RetriableError, TelemetryLakeError


@contextmanager
def reported_failures(*, debug: bool) -> Iterator[None]:
    """End the program with one line on standard error and exit status 1; with `debug`, with a trace."""
    try:
        yield
    except TelemetryLakeError as error:
        if debug:
            raise
        again = " (trying again may help)" if isinstance(error, RetriableError) else ""
        typer.echo(f"error: {error}{again}. --debug shows where it arose.", err=True)
        raise typer.Exit(1) from None


def chosen_dates(text: str, *, now: datetime | None = None, option: str = "--dates") -> DateRange:
    """The dates that somebody gave to `option`, `today` being that of `now`; raises typer.BadParameter."""
    try:
        return DateRange.parse(text, today=(now or datetime.now(UTC)).date())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
