"""What a run prints, kept in the lake bucket while it runs, with a limit on its size.

The lines in which the job says how far it has come become `progress.json` instead. Neither is worth a run:
what cannot be written is left out, and written with what follows.
"""

import logging
import threading
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from pydantic import ValidationError

from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.mapreduce.progress import MARK, Progress
from telemetry_lake.storage.object_keys import analysis_run_key
from telemetry_lake.units import KIB

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore

WRITE_SECONDS: Final = 2.0
"""How often what is new is written; people see it at most that late."""
BEGIN_MAX_BYTES: Final = 256 * KIB
END_MAX_BYTES: Final = 768 * KIB
"""Of a longer log, the begin and the end are kept."""
LINE_MAX_BYTES: Final = 16 * KIB

_log = logging.getLogger(__name__)


class RunLog:
    """The log of one run, written by a thread of its own for the length of a `with` block."""

    def __init__(self, store: "ObjectStore", bucket: str, run_id: str) -> None:
        self._store = store
        self._bucket = bucket
        self._run_id = run_id
        self._lock = threading.Lock()
        self._begin: list[bytes] = []
        self._begin_bytes = 0
        self._end: deque[bytes] = deque()
        self._end_bytes = 0
        self._left_out = 0
        self._log_is_new = False
        self._progress: str | None = None
        self._ended = threading.Event()
        self._writer = threading.Thread(target=self._write_now_and_then, daemon=True)

    def __enter__(self) -> Self:
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._writer.join()
        self.write()

    def add(self, line: str) -> bool:
        """Take a line, without its end. Returns whether it is one for people."""
        if line.startswith(MARK):
            with self._lock:
                self._progress = line.removeprefix(MARK)
            return False
        content = line.encode(errors="replace")
        if len(content) > LINE_MAX_BYTES:
            content = content[:LINE_MAX_BYTES] + " […]".encode()
        content += b"\n"
        with self._lock:
            self._log_is_new = True
            if not self._end and self._begin_bytes + len(content) <= BEGIN_MAX_BYTES:
                self._begin.append(content)
                self._begin_bytes += len(content)
                return True
            self._end.append(content)
            self._end_bytes += len(content)
            while self._end_bytes > END_MAX_BYTES:
                left_out = self._end.popleft()
                self._end_bytes -= len(left_out)
                self._left_out += 1
        return True

    def text(self) -> bytes:
        """Return the log as it is written."""
        with self._lock:
            gap = f"[… {self._left_out:,} lines are left out …]\n".encode() if self._left_out else b""
            return b"".join([*self._begin, gap, *self._end])

    def write(self) -> None:
        """Write what is new."""
        with self._lock:
            log_is_new, self._log_is_new = self._log_is_new, False
            progress, self._progress = self._progress, None
        try:
            if progress is not None:
                self._put("progress.json", Progress.model_validate_json(progress).model_dump_json().encode())
            if log_is_new:
                self._put("log.txt", self.text())
        except ValidationError:
            _log.warning("%s says what is no progress: %.200s", self._run_id, progress)
        except TelemetryLakeError as error:
            with self._lock:
                self._log_is_new = self._log_is_new or log_is_new
            _log.warning("the log of %s is not up to date: %s", self._run_id, error)

    def _put(self, name: str, content: bytes) -> None:
        self._store.put(self._bucket, analysis_run_key(self._run_id, name), content)

    def _write_now_and_then(self) -> None:
        while not self._ended.wait(WRITE_SECONDS):
            self.write()
