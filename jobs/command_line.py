"""What the command lines of all jobs have in common."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

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
