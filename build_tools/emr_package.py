"""Makes and uploads what EMR needs to run the Spark jobs of this clone: `make emr-package`.

What is in the bucket already is neither made nor sent again. The last lines name every artifact.
"""

from typing import Annotated

import typer

from telemetry_lake.deploy.spark_package import missing_artifacts, package_of, upload
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.settings import load_settings
from telemetry_lake.storage.object_store import ObjectStore


def _say(line: str) -> None:
    typer.echo(line, err=True)


def main(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is there and what is not.")
    ] = False,
) -> None:
    """Make and upload what EMR needs to run the Spark jobs of this clone.

    The bucket is the lake's (TELEMETRY_LAKE_S3__LAKE_BUCKET), the credentials are boto3's own or those of the
    settings. Running it again sends only what has changed; DAGs of this clone find it by themselves.
    """
    try:
        settings = load_settings()
        package = package_of(settings)
        store, bucket = ObjectStore(settings.s3), settings.s3.lake_bucket
        if dry_run:
            absent = missing_artifacts(store, bucket, package)
        else:
            sent = upload(settings, store, package, _say)
            _say(f"{len(sent)} of {len(list(package))} artifacts were missing")
            absent = []
        for artifact in package:
            typer.echo(f"s3://{bucket}/{artifact.key}" + (" (missing)" if artifact in absent else ""))
    except TelemetryLakeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
