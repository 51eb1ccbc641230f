"""The folder with the Histograms.json of each revision: what a person put there, and what was fetched.

`<repository>/<revision>/Histograms.json` belongs to the operator and is never removed. What was fetched is in
`.fetched/<repository>/<revision>/Histograms.json`, at most KEPT_MAX_COUNT files and KEPT_MAX_BYTES, the least
recently used out first: which revisions are fetched is up to those who send pings.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from telemetry_lake.units import MIB

KEPT_MAX_COUNT: Final = 1_024
"""Firefox releases a few revisions a week; each file is about 0.5 MB."""
KEPT_MAX_BYTES: Final = 1_024 * MIB
FETCHED: Final = ".fetched"
FILE_NAME: Final = "Histograms.json"

_log = logging.getLogger(__name__)


class DefinitionFolder:
    """The files of one folder, which several processes may read and write at the same time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fetched = directory / FETCHED

    def placed_file(self, name: str) -> Path:
        """Return where an operator puts the file `name`, `<repository>/<revision>/Histograms.json`."""
        return self._directory / name

    def read(self, name: str) -> bytes | None:
        """Return the text of `name`, None when the folder has none."""
        text = _read(self.placed_file(name))
        if text is None and (text := _read(self._fetched / name)) is not None:
            # The age of use, by which the folder is kept small.
            with suppress(OSError):
                os.utime(self._fetched / name)
        return text

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the name and the status of each file; one that was both placed and fetched, twice."""
        for root in (self._directory, self._fetched):
            for path in root.rglob(FILE_NAME):
                name = path.relative_to(root)
                if FETCHED not in name.parts:
                    with suppress(OSError):
                        yield str(name), path.stat()

    def keep(self, name: str, text: bytes) -> None:
        """Keep what was fetched, as a whole or not at all; a failure is logged and changes nothing."""
        file = self._fetched / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, text)
            self._remove_least_used()
        except OSError as error:
            _log.warning("histogram definitions could not be kept in %s: %s", file, error)

    def _remove_least_used(self) -> None:
        # Unfinished files count as well: a process that was killed leaves one behind.
        files = [(path.stat(), path) for path in self._fetched.rglob("*") if path.is_file()]
        files.sort(key=lambda entry: entry[0].st_mtime_ns, reverse=True)
        total_bytes = 0
        for count, (status, path) in enumerate(files, start=1):
            total_bytes += status.st_size
            if count > KEPT_MAX_COUNT or total_bytes > KEPT_MAX_BYTES:
                path.unlink(missing_ok=True)
                with suppress(OSError):
                    path.parent.rmdir()


def _read(file: Path) -> bytes | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return file.read_bytes()
    return None


def _write(file: Path, text: bytes) -> None:
    """Write the file in one step for its readers; raises OSError, and then leaves nothing behind."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as part:
        try:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
            Path(part.name).replace(file)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
