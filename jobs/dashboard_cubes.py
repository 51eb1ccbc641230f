"""Make the cubes of the dashboard from derived.histogram_aggregates. It is the one job that needs no Spark.

A run makes what has changed since the version before, and nothing when nothing has: `docs/dashboard.md` says
what cubes are, and `telemetry_lake.dashboard.making` makes them. It may be run at any time, also beside
itself.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.spark.command_line import debug_option, program, reported_failures
from telemetry_lake.settings import Role, load_settings


def main(debug: Annotated[bool, debug_option()] = False) -> None:
    """Make the cubes of the dashboard from derived.histogram_aggregates.

    Only dates that were made again since the last run are read. It may be run at any time, also beside
    itself.

    \b
    python jobs/dashboard_cubes.py
    """
    with reported_failures(debug=debug):
        from telemetry_lake.dashboard.making.build import update_cubes
        from telemetry_lake.dashboard.making.descriptions import known_definitions
        from telemetry_lake.dashboard.making.source import LakeAggregates
        from telemetry_lake.dashboard.making.versions import CubeVersions
        from telemetry_lake.storage.object_store import ObjectStore

        settings = load_settings(role=Role.JOBS)
        store = ObjectStore(settings.s3)
        versions = CubeVersions(store, settings.s3.lake_bucket)
        definitions = partial(known_definitions, settings.conversion, store)
        is_up_to_date = True
        for manifest in update_cubes(versions, lambda: LakeAggregates(settings), definitions):
            is_up_to_date = False
            typer.echo(
                f"{manifest.version}: {len(manifest.dates)} dates in {len(manifest.segments)} segments of "
                f"{sum(segment.bytes for segment in manifest.segments):,} bytes, data until "
                f"{manifest.data_until or 'never'}"
            )
        if is_up_to_date:
            typer.echo("nothing to do: the cubes are up to date")


if __name__ == "__main__":
    program(main)()
