"""The process of a job on this machine: its output, line by line, and its end."""

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

_log = logging.getLogger(__name__)


class JobProcess:
    """A process in a session of its own, so that a signal reaches all that it starts."""

    def __init__(self) -> None:
        self._process: Popen[bytes] | None = None

    def run(self, command: list[str], directory: Path, shown: Callable[[str], bool]) -> tuple[int, str]:
        """Run a command to its end, and log each line of its output for which `shown` returns true.

        Returns the exit status and the last line that was logged.
        """
        _log.info("running %s", command)
        self._process = Popen(
            command, stdout=PIPE, stderr=STDOUT, cwd=directory, start_new_session=True, restore_signals=True
        )
        assert self._process.stdout is not None
        last = ""
        # Not closed when this is interrupted: a job that is told to end may still print why.
        for raw in iter(self._process.stdout.readline, b""):
            line = raw.decode(errors="backslashreplace").rstrip()
            if shown(line):
                last = line
                _log.info("%s", line)
        status = self._process.wait()
        self._process.stdout.close()
        _log.info("exit status %d", status)
        return status, last

    def end(self) -> None:
        """Tell the process, and all that it started, to end."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
