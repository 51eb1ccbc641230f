"""Look for anomalies in volumes, errors and distributions, write them down and tell people. Needs no Spark.

`docs/anomalies.md` says what is compared with what. It may be run at any time, also beside itself, and may be
killed at any moment: the next run goes on.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.spark.command_line import debug_option, program, reported_failures
from telemetry_lake.settings import Role, load_settings


def main(
    distributions: Annotated[
        bool, typer.Option(help="Look at the distributions, too, if the cubes have another whole date.")
    ] = True,
    debug: Annotated[bool, debug_option()] = False,
) -> None:
    """Look for anomalies in volumes, errors and distributions, write them down and tell people.

    It may be run at any time, also beside itself.

    \b
    python jobs/anomalies.py
    python jobs/anomalies.py --no-distributions
    """
    with reported_failures(debug=debug):
        from telemetry_lake.monitoring.anomalies.look import Looker
        from telemetry_lake.monitoring.anomalies.notices import sentence

        looker = Looker(load_settings(role=Role.ANOMALIES))
        looked = looker.look(datetime.now(UTC), distributions=distributions)
        for change in looked.changes:
            typer.echo(f"{change.change}: {change.anomaly.kind} {sentence(change.anomaly)}")
        left = "" if looked.is_delivered else "; not everybody is told yet, the next run goes on"
        typer.echo(f"{len(looked.state.open)} anomalies are open{left}")


if __name__ == "__main__":
    program(main)()
