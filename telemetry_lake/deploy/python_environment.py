"""Locked Python packages as one archive that is a virtual environment wherever it is unpacked.

Wheels are fetched for the machines that will run them, so that the archive can be made on any machine with
`uv`, which `make install` brings.
"""

import gzip
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from telemetry_lake.failures import FatalError

PYTHON_VERSION: Final = "3.11"
PLATFORM: Final = "x86_64-manylinux_2_34"
"""That of Amazon Linux 2023, which EMR's machines run; Debian 12, which the others run, is newer."""
COMPRESSION_LEVEL: Final = 6
_LEFT_OUT: Final = {"__pycache__", "tests"}


def environment_archive(python: str, requirements: Path) -> bytes:
    """Make a virtual environment for `python` with the locked requirements, as a tar.gz that works anywhere.

    Its `bin/python` is a link to `python`, an absolute path on the machines that run it, so nothing in it
    names the place where it was made. Raises FatalError when a requirement cannot be installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder)
        packages = environment / "lib" / f"python{PYTHON_VERSION}" / "site-packages"
        installed = subprocess.run(
            [
                *(Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--system-certs"),
                *("--python-version", PYTHON_VERSION, "--python-platform", PLATFORM),
                *("--only-binary", ":all:"),
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
