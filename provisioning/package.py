"""The code that the machines of a lake start from: one archive, under the hash of its content.

Equal files give equal bytes, so that a machine can check what it has fetched, and a deployment that changes
no code replaces no machine.
"""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.storage.object_keys import package_key
from telemetry_lake.storage.object_store import ObjectStore

REQUIREMENTS: Final = "requirements.txt"
FOLDERS: Final = (
    *(
        "build_tools",
        "client_fleet",
        "dags",
        "docker",
        "ingest_server",
        "java",
        "jobs",
        "local_stack",
        "monitoring",
    ),
    *("plugins", "schemas", "sql", "telemetry_lake", "web"),
)
"""What a machine runs or installs from. What only tests and operators use stays at home."""
FILES: Final = (REQUIREMENTS, "requirements-build.txt", "requirements-emr.txt", "pyproject.toml")
MACHINE_REQUIREMENTS: Final = "requirements-machines.txt"
"""In the package alone: what machines install, or what their archive of packages is made of."""
ONLY_FOR_SPARK: Final = frozenset({"pyspark", "py4j"})
"""Only EMR and the containers of Airflow run Spark. pyspark has no wheel, and machines build nothing."""
NEEDED: Final = (REQUIREMENTS, "telemetry_lake/__init__.py", "ingest_server/__main__.py")
_LEFT_OUT: Final = frozenset({"__pycache__", "frontend", "lib", "node_modules", "hadoop"})
COMPRESSION_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Package:
    """The archive and its hash."""

    body: bytes
    sha256: str

    @property
    def key(self) -> str:
        """Return the key of the archive in the bucket of code."""
        return package_key(self.sha256)


def make_package(root: Path = PROJECT_ROOT) -> Package:
    """Return the package of the project in `root`. Raises ConfigurationError when a file of it is missing."""
    for name in NEEDED:
        if not (root / name).is_file():
            raise ConfigurationError(f"{root / name} is missing: run this in a clone of the project")
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=COMPRESSION_LEVEL, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as archive,
    ):
        for path in _files(root):
            archive.add(path, path.relative_to(root), recursive=False, filter=_undated)
        requirements = machine_requirements(root)
        member = tarfile.TarInfo(MACHINE_REQUIREMENTS)
        member.size = len(requirements)
        archive.addfile(_undated(member), io.BytesIO(requirements))
    body = buffer.getvalue()
    return Package(body, hashlib.sha256(body).hexdigest())


def machine_requirements(root: Path = PROJECT_ROOT) -> bytes:
    """Return the locked requirements of machines, those of the project in `root` without Spark's."""
    kept, keeps = [], True
    for line in (root / REQUIREMENTS).read_text().splitlines(keepends=True):
        # A requirement begins at the margin; its hashes and where it comes from are indented below it.
        if not line.startswith((" ", "#")):
            keeps = line.partition("==")[0] not in ONLY_FOR_SPARK
        if keeps:
            kept.append(line)
    return "".join(kept).encode()


def upload(store: ObjectStore, bucket: str, package: Package) -> bool:
    """Put the package into the bucket of code unless it is there. Returns whether it was sent.

    Raises RetriableError and FatalError.
    """
    if store.head(bucket, package.key) is not None:
        return False
    return store.put_if_absent(bucket, package.key, package.body)


def _files(root: Path) -> Iterator[Path]:
    for name in sorted(FILES):
        if (root / name).is_file():
            yield root / name
    for folder in sorted(FOLDERS):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and not _LEFT_OUT & set(path.relative_to(root).parts):
                yield path


def _undated(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    # What the umask of one clone and another makes of modes is not a difference of the code.
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry
