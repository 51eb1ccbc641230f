"""What EMR needs to run our Spark jobs: a package of files in S3, each under the hash of its content.

- the core: `telemetry_lake`, `jobs`, `sql` and `schemas` in one zip, the same bytes wherever it is made;
- the entry point `jobs/launch.py`, which starts a job of the core by its name;
- the environment: the dependencies that `requirements-emr.txt` locks, as an archive of a virtual environment,
  under the hash of that file and of the interpreter it is for;
- Iceberg's jars, the same that jobs have on one machine.

What starts a job computes the same names from its own files. So a job runs the code of the DAG that started
it, or reports that this code was never uploaded.
"""

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from telemetry_lake.deploy.python_environment import environment_archive
from telemetry_lake.failures import ConfigurationError, FatalError
from telemetry_lake.project_files import DATA_FOLDERS, PROJECT_ROOT
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import artifact_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.units import MIB

CODE_FOLDERS: Final = ("jobs", "telemetry_lake")
ENTRY_POINT: Final = "jobs/launch.py"
REQUIREMENTS_FILE: Final = "requirements-emr.txt"
JARS_FOLDER: Final = "java/lib/spark"
JAR_CHECKSUMS: Final = "java/checksums.sha256"
_DATA_SUFFIXES: Final = {".json", ".sql", ".yaml"}
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip can name."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of the package: its key in the lake bucket, and where its content comes from."""

    key: str
    path: Path | None = None
    """The file that is uploaded, or None when the content has to be built."""
    body: bytes | None = None
    """The content itself, where it is made from many files."""


@dataclass(frozen=True, slots=True)
class SparkPackage:
    """The artifacts that one version of the code runs with."""

    core: Artifact
    entry_point: Artifact
    environment: Artifact
    jars: tuple[Artifact, ...]

    def __iter__(self) -> Iterator[Artifact]:
        return iter((self.core, self.entry_point, self.environment, *self.jars))


def package_of(settings: Settings, root: Path = PROJECT_ROOT) -> SparkPackage:
    """Return the package of the code in `root`, from its files alone.

    Raises ConfigurationError when a file of the project is missing.
    """
    core = core_archive(root)
    entry_point = root / ENTRY_POINT
    requirements = _read(root / REQUIREMENTS_FILE)
    return SparkPackage(
        core=Artifact(artifact_key(_sha256(core), "core.zip"), body=core),
        entry_point=Artifact(artifact_key(_sha256(_read(entry_point)), entry_point.name), path=entry_point),
        environment=Artifact(
            artifact_key(_sha256(requirements + settings.spark.python.encode()), "environment.tar.gz")
        ),
        jars=tuple(_jars(root)),
    )


def core_archive(root: Path = PROJECT_ROOT) -> bytes:
    """Return the zip of the core, neither compressed nor dated, so that equal files give equal bytes."""
    files = [
        path
        for folder in (*CODE_FOLDERS, *DATA_FOLDERS)
        for path in (root / folder).rglob("*")
        if path.suffix in ({".py"} if folder in CODE_FOLDERS else _DATA_SUFFIXES)
    ]
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as package:
        for path in sorted(files):
            entry = ZipInfo(path.relative_to(root).as_posix(), _EPOCH)
            entry.external_attr = 0o644 << 16
            package.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def missing_artifacts(store: ObjectStore, bucket: str, package: SparkPackage) -> list[Artifact]:
    """Return the artifacts that are not in the bucket. Raises RetriableError and FatalError."""
    return [
        artifact
        for artifact in package
        if not any(found.key == artifact.key for found in store.list_objects(bucket, artifact.key))
    ]


def upload(
    settings: Settings, store: ObjectStore, package: SparkPackage, say: Callable[[str], None]
) -> list[Artifact]:
    """Put what is missing into the lake bucket; return what was put, in the order of the package.

    Raises FatalError and RetriableError.
    """
    missing = missing_artifacts(store, settings.s3.lake_bucket, package)
    for artifact in missing:
        started = time.monotonic()
        body = _content(settings, package, artifact, say)
        store.put_if_absent(settings.s3.lake_bucket, artifact.key, body)
        say(f"{Path(artifact.key).name}: {len(body) / MIB:.1f} MiB in {time.monotonic() - started:.0f} s")
    return missing


def _content(
    settings: Settings, package: SparkPackage, artifact: Artifact, say: Callable[[str], None]
) -> bytes:
    if artifact.body is not None:
        return artifact.body
    if artifact.path is not None:
        if not artifact.path.is_file():
            raise FatalError(f"{artifact.path} does not exist: run `make install`")
        return artifact.path.read_bytes()
    assert artifact == package.environment
    say("making the environment of Spark jobs: a minute or two")
    return environment_archive(settings.spark.python, PROJECT_ROOT / REQUIREMENTS_FILE)


def _jars(root: Path) -> Iterator[Artifact]:
    """Yield Iceberg's jars, without the driver for SQLite, which only tests use."""
    for line in _read(root / JAR_CHECKSUMS).decode().splitlines():
        checksum, _, name = line.partition("  ")
        path = root / "java" / name
        if path.parent == root / JARS_FOLDER and path.name.startswith("iceberg-"):
            yield Artifact(artifact_key(checksum, path.name), path=path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is not there, so there is nothing to run on EMR") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
