"""Folders for a short time, which name the process that made them, so that those of killed ones are found."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

import psutil

_PREFIX: Final = "telemetry-lake-"


def new_folder(kind: str) -> Path:
    """Return a new folder that only this user may look into, and remove those of `kind` that nobody uses.

    A process that was killed could not remove its own.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}{kind}-*"):
        named = re.fullmatch(rf"{_PREFIX}{re.escape(kind)}-(\d+)-\w+", folder.name)
        if named and not psutil.pid_exists(int(named.group(1))):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-{os.getpid()}-"))


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
