"""The command line of provisioning."""

import sys
from typing import Final

import typer

from provisioning import cost
from telemetry_lake.failures import TelemetryLakeError

app: Final = typer.Typer(
    help="The whole lake on AWS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _commands() -> None:
    """Keep the name of the command, also while there is one alone."""


cost.register(app)


def main() -> None:
    """Run the command line; a failure is a sentence and exit code 1."""
    try:
        app()
    except TelemetryLakeError as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
