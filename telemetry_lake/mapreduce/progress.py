"""How far a run has come, as it says itself while it runs: for who watches it, and for nothing else.

A job on this machine prints it as a line of its output, which begins with `MARK`: in a sandbox it can write
nowhere else. A job on another machine writes it to S3. Progress that cannot be written never fails a run.
"""

import time
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from pydantic import AwareDatetime, Field

from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.settings import S3Settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import Record

MARK: Final = "@progress "
AS_LINES: Final = "-"
"""The place of progress that is printed."""
ERROR_MAX_CHARACTERS: Final = 8_000
SECONDS_AHEAD_MAX: Final = 366 * 24 * 3_600
TIMEOUT_SECONDS: Final = 5
"""A report that takes longer is left out."""

_Count = Annotated[int, Field(ge=0, le=2**62)]
_Number = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


class Phase(StrEnum):
    """What a run is doing."""

    PREPARING = "preparing"
    STARTING = "starting"
    MAPPING = "mapping"
    REDUCING = "reducing"
    ENDED = "ended"


class Progress(Record):
    """What a run has read. The process that runs the script says it: believe nothing."""

    phase: Phase
    updated_at: AwareDatetime
    records: _Count = 0
    records_total: _Count | None = None
    """Those of the files that are read; filters may leave some out."""
    bytes: _Count = 0
    bytes_total: _Count | None = None
    records_per_second: _Number | None = None
    seconds_left: _Number | None = None
    """Of mapping; estimated from the bytes that are left."""
    written: _Count | None = None
    """Records of output."""
    failures: _Count | None = None
    """Calls of the script that failed."""
    error: Annotated[str, Field(max_length=ERROR_MAX_CHARACTERS)] | None = None
    """Why it ended without a result."""


class ProgressReport:
    """What a run says of itself, at a place: `AS_LINES`, s3://bucket/key, or None for nowhere."""

    def __init__(self, place: str | None, s3: S3Settings) -> None:
        self._place = place
        # One attempt: the next report comes soon, and the run does not wait for this one.
        limits = {
            "max_attempts": 1,
            "connect_timeout_seconds": TIMEOUT_SECONDS,
            "read_timeout_seconds": TIMEOUT_SECONDS,
        }
        self._s3 = s3.model_copy(update=limits)
        self._store: ObjectStore | None = None
        self._last: dict[str, Any] = {}
        self._mapping_since: float | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether there is a place for it."""
        return self._place is not None

    def report(self, phase: Phase, **fields: Any) -> None:
        """Say how far the run has come; what `fields` leave out is as it was said last."""
        if self._place is None:
            return
        self._last |= fields
        if phase is Phase.MAPPING:
            self._last |= self._rates()
        else:
            self._last.pop("seconds_left", None)
        progress = Progress(phase=phase, updated_at=datetime.now(UTC), **self._last)
        text = progress.model_dump_json(exclude_none=True)
        if self._place == AS_LINES:
            typer.echo(MARK + text)
            return
        parts = urlsplit(self._place)
        with suppress(TelemetryLakeError):
            self._store = self._store or ObjectStore(self._s3)
            self._store.put(parts.netloc, parts.path.lstrip("/"), text.encode())

    def failed(self, error: str) -> None:
        """Say why the run ends without a result."""
        self.report(Phase.ENDED, error=error[:ERROR_MAX_CHARACTERS])

    def _rates(self) -> dict[str, float | None]:
        """Return how fast the records are read, and how long the rest takes if it goes on like that."""
        now = time.monotonic()
        if self._mapping_since is None:
            self._mapping_since = now
        seconds = now - self._mapping_since
        size, total = self._last.get("bytes", 0), self._last.get("bytes_total")
        if not seconds or not size:
            return {"records_per_second": None, "seconds_left": None}
        left = None if total is None else min(max(total - size, 0) * seconds / size, SECONDS_AHEAD_MAX)
        return {"records_per_second": self._last.get("records", 0) / seconds, "seconds_left": left}
