"""Files that a process outside of any box takes from the tables, kept for some minutes.

A page asks for the same again and again while a job is written. What is asked for goes to the process as
JSON, and names its file. The process acts as the role `script`.
"""

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from telemetry_lake.analysis_jobs.sandbox.folders import new_folder, remove_folder
from telemetry_lake.failures import FatalError, RetriableError

TAKING_MAX_SECONDS: Final = 60.0
KEPT_SECONDS: Final = 600.0
KEPT_MAX_COUNT: Final = 16


class KeptFiles:
    """The files that one module makes. Safe to share between threads; one process runs at a time."""

    def __init__(self, module: str) -> None:
        """`module` is run with the name of the file to write, and reads what is asked for."""
        self._module = module
        self._taking = threading.Lock()
        self._folder = new_folder("pings")

    def close(self) -> None:
        """Forget the files."""
        remove_folder(self._folder)

    def get(self, asked: Mapping[str, Any]) -> Path:
        """Return the file for what is asked, which may be some minutes old.

        Raises FatalError when it cannot be taken, and RetriableError when that takes too long.
        """
        text = json.dumps(asked, sort_keys=True)
        file = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.parquet"
        with self._taking:
            if not file.exists() or file.stat().st_mtime < time.time() - KEPT_SECONDS:
                self._take(text, file)
        return file

    def _take(self, asked: str, file: Path) -> None:
        kept = sorted(self._folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime)
        for old in kept[: 1 - KEPT_MAX_COUNT or None]:
            old.unlink(missing_ok=True)
        try:
            done = subprocess.run(
                (sys.executable, "-m", self._module, str(file)),
                input=asked,
                capture_output=True,
                text=True,
                timeout=TAKING_MAX_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RetriableError(
                f"no pings were found within {TAKING_MAX_SECONDS:.0f} seconds: give fewer dates, or another "
                "filter"
            ) from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise FatalError(lines[-1].removeprefix("error: ") if lines else "no pings can be read")
