"""The drain where no Airflow runs: by hand, as often as one likes, as the runbook of QueueOld says."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lake_testing.local_lake import END_WITH_US
from telemetry_lake.project_files import PROJECT_ROOT

PAUSE_SECONDS: Final = 2.0
"""Between two runs."""


class DrainByHand:
    """`python -m telemetry_lake drain`, again and again from its start to its stop."""

    def __init__(self, environment: Mapping[str, str], log_file: Path) -> None:
        self._environment = environment
        self._log_file = log_file
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to drain."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._drain_on, name="drain by hand", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Drain no more, once the run that is under way has ended."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not drain for the length of the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def _drain_on(self) -> None:
        with self._log_file.open("ab") as log:
            while not self._stopping.is_set():
                # A run that is red is looked at in the log; the next one goes on all the same.
                subprocess.run(
                    (*END_WITH_US, sys.executable, "-m", "telemetry_lake", "drain"),
                    cwd=PROJECT_ROOT,
                    env=self._environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
                self._stopping.wait(PAUSE_SECONDS)
