"""The command line of the lake: `python -m telemetry_lake <command>`, each with its own `--help`.

Commands import what they need when they run, so that `--help` is quick.
"""

import sys
from typing import Annotated

import typer

from telemetry_lake import __version__
from telemetry_lake.commands import alarms, anomalies, drain, jobs, monitoring, query, schemas
from telemetry_lake.failures import TelemetryLakeError

app = typer.Typer(
    help="Query and look after the tables of the lake.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(query.app)
app.add_typer(drain.app)
app.add_typer(schemas.app)
app.add_typer(jobs.app)
app.add_typer(monitoring.app)
app.add_typer(alarms.app)
app.add_typer(anomalies.app)
_debugging = False


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"telemetry_lake {__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error arose.")] = False,
    version: Annotated[  # noqa: ARG001 (its callback ends the program)
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Query and look after the tables of the lake."""
    global _debugging  # noqa: PLW0603 (read once, when the command has failed)
    _debugging = debug


def run() -> None:
    """Run the command that the arguments name, and exit: 0, 1 for a failure, 2 for wrong usage."""
    try:
        _call()
    except TelemetryLakeError as error:
        if _debugging:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _call() -> None:
    """Run the command, and turn what the catalog raises into errors of this project."""
    try:
        app(prog_name="python -m telemetry_lake")
    except Exception as error:
        # Here, because --help needs no catalog.
        from telemetry_lake.tables.catalog_failures import KNOWN, explained

        if isinstance(error, TelemetryLakeError) or not isinstance(error, KNOWN):
            raise
        raise explained("using the Iceberg catalog", error) from error


if __name__ == "__main__":
    run()
