"""Makes and uploads what EMR needs to run the Spark jobs of this clone: `make emr-package`.

What is in the bucket already is neither made nor sent again. The last lines name every artifact.
"""

import gzip
import io
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from telemetry_lake.deploy.spark_package import (
    REQUIREMENTS_FILE,
    Artifact,
    SparkPackage,
    missing_artifacts,
    package_of,
)
from telemetry_lake.failures import FatalError, TelemetryLakeError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Settings, load_settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.units import MIB

PYTHON_VERSION: Final = "3.11"
PLATFORM: Final = "x86_64-manylinux_2_34"
"""That of Amazon Linux 2023, which EMR's machines run; wheels for it are fetched on any machine."""
COMPRESSION_LEVEL: Final = 6
_LEFT_OUT: Final = {"__pycache__", "tests"}


def environment_archive(python: str, requirements: Path) -> bytes:
    """Make a virtual environment for `python` with the locked requirements, as a tar.gz that works anywhere.

    Its `bin/python` is a link to `python`, an absolute path on EMR's machines, so nothing in it names the
    place where it was made. Raises FatalError when a requirement cannot be installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder)
        packages = environment / "lib" / f"python{PYTHON_VERSION}" / "site-packages"
        installed = subprocess.run(
            [
                *(Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--system-certs"),
                *(
                    "--python-version",
                    PYTHON_VERSION,
                    "--python-platform",
                    PLATFORM,
                    "--only-binary",
                    ":all:",
                ),
                *("--target", packages, "--no-deps", "--require-hashes", "-r", requirements),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if installed.returncode != 0:
            raise FatalError(
                f"the packages of {requirements} cannot be installed: {installed.stderr.strip()}"
            )
        (environment / "bin").mkdir()
        (environment / "bin" / "python").symlink_to(python)
        (environment / "pyvenv.cfg").write_text(
            f"home = {Path(python).parent}\n"
            "include-system-site-packages = false\n"
            f"version = {PYTHON_VERSION}\n"
        )
        return _archive(environment)


def _archive(folder: Path) -> bytes:
    """Return all files of a folder, without dates and owners, so that equal files give equal bytes."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=COMPRESSION_LEVEL, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as archive,
    ):
        for path in sorted(folder.rglob("*")):
            if not _LEFT_OUT & set(path.relative_to(folder).parts):
                archive.add(path, path.relative_to(folder), recursive=False, filter=_undated)
    return buffer.getvalue()


def _undated(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def upload(settings: Settings, package: SparkPackage) -> list[Artifact]:
    """Put what is missing into the lake bucket; return what was put, in the order of the package.

    Raises FatalError and RetriableError.
    """
    store = ObjectStore(settings.s3)
    missing = missing_artifacts(store, settings.s3.lake_bucket, package)
    for artifact in missing:
        started = time.monotonic()
        body = _content(settings, package, artifact)
        store.put_if_absent(settings.s3.lake_bucket, artifact.key, body)
        _say(f"{Path(artifact.key).name}: {len(body) / MIB:.1f} MiB in {time.monotonic() - started:.0f} s")
    return missing


def _content(settings: Settings, package: SparkPackage, artifact: Artifact) -> bytes:
    if artifact.body is not None:
        return artifact.body
    if artifact.path is not None:
        if not artifact.path.is_file():
            raise FatalError(f"{artifact.path} does not exist: run `make install`")
        return artifact.path.read_bytes()
    assert artifact == package.environment
    _say("making the environment: a minute or two")
    return environment_archive(settings.spark.python, PROJECT_ROOT / REQUIREMENTS_FILE)


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
        bucket = settings.s3.lake_bucket
        if dry_run:
            absent = missing_artifacts(ObjectStore(settings.s3), bucket, package)
        else:
            _say(f"{len(upload(settings, package))} of {len(list(package))} artifacts were missing")
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
