"""A script tried on about a thousand pings, within seconds, before anything is submitted.

The pings are taken from the table by a process that may read it (`sample`), and kept for some minutes: a
script is tried over and over while it is written. The script then runs over them in a box (`sandbox`) that
holds the pings and the script and nothing else; it needs no Spark, no network and no key (`trial`).

What a trial says about itself was written where the script ran, and is not believed: it is read with limits,
and shown as text.
"""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from telemetry_lake.analysis_jobs.documents import JobRequest, JobSchedule
from telemetry_lake.analysis_jobs.sandbox.box import Box, Ended, Limits, new_box, sandbox_state
from telemetry_lake.analysis_jobs.sandbox.kept_files import KeptFiles
from telemetry_lake.analysis_jobs.schedule import dates_of_run
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.mapreduce.form import refuse_live_pings
from telemetry_lake.settings import Settings
from telemetry_lake.storage.records import Record
from telemetry_lake.units import KIB, MIB

PINGS: Final = 1_000
FILTER_NAME: Final = "of the job"
"""What messages call the filter that is given with a job."""
LIMITS: Final = Limits(memory_bytes=1_024 * MIB, disk_bytes=128 * MIB, processes=64, seconds=20)
SHOWN_MAX_CHARACTERS: Final = 64 * KIB
"""The most of the output, and of what the script prints, that is shown."""
TRIALS_AT_ONCE: Final = 2
TURN_MAX_SECONDS: Final = 10.0
_RESULT_MAX_BYTES: Final = 2 * MIB
_TASK: Final = "task.json"
_SAMPLE: Final = "sample.parquet"
_RESULT: Final = "result.json"

_Count = Annotated[int, Field(ge=0)]


class TrialTask(Record):
    """What a trial is told: a script among the files below `code`, and how it is called."""

    entry: str
    arguments: tuple[str, ...]
    table: str
    is_text: bool
    """Whether the output is the text that the script writes; else it is shown as CSV."""


class TrialReport(Record):
    """What a trial tells of itself."""

    error: Annotated[str, Field(max_length=16 * KIB)] | None = None
    output: Annotated[str, Field(max_length=SHOWN_MAX_CHARACTERS)] = ""
    is_cut: bool = False
    """Whether there is more output than is shown."""
    records: _Count = 0
    written: _Count = 0
    failures: _Count = 0


@dataclass(frozen=True, slots=True)
class TryResult:
    """What came of a trial; everything in it is text that a script may have written."""

    error: str | None
    """What is wrong: an error of the script first of all, with its line. There may be output all the same."""
    output: str
    printed: str
    """What the script printed."""
    records: int
    """Pings that were mapped."""
    written: int
    failures: int
    seconds: float
    is_cut: bool
    sandbox: str
    """Whether it ran apart from the lake, in a sentence."""


def asked_dates(request: JobRequest, now: datetime) -> dict[str, str | None]:
    """Return the table and the dates that a request is about now; None for an open end.

    Raises FatalError when the dates are those of a schedule.
    """
    try:
        dates = dates_of_run(request.dates, JobSchedule(), now)
    except ValueError as error:
        raise FatalError(f"the dates {request.dates} cannot be tried: {error}. Give dates") from error
    return {
        "table": request.table.table_name,
        "first": None if dates is None else dates.first.isoformat(),
        "last": None if dates is None else dates.last.isoformat(),
    }


def dates_asked(asked: Mapping[str, Any]) -> tuple[date | None, date | None]:
    """Return the first and the last date of what `asked_dates` said; None for an open end."""
    first, last = (
        None if asked[name] is None else date.fromisoformat(asked[name]) for name in ("first", "last")
    )
    return first, last


class Trials:
    """Tries scripts, a few at a time; keeps the pings that it took. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """`settings` are those of a process that may act as `Role.SCRIPT`."""
        self._settings = settings
        self._turns = threading.BoundedSemaphore(TRIALS_AT_ONCE)
        self._samples = KeptFiles("telemetry_lake.analysis_jobs.sandbox.sample")

    def close(self) -> None:
        """Forget the pings."""
        self._samples.close()

    def try_script(
        self,
        files: Mapping[str, bytes],
        entry: str,
        request: JobRequest,
        *,
        arguments: Sequence[str] = (),
        now: datetime | None = None,
    ) -> TryResult:
        """Run the script `entry` among `files`, by relative paths, on some pings that `request` asks for.

        Returns what came of it, also where the script is wrong. Raises FatalError when the request cannot be
        used, and RetriableError when others are trying their scripts or the tables are unavailable.
        """
        refuse_live_pings(request.table)
        started = time.monotonic()
        if not self._turns.acquire(timeout=TURN_MAX_SECONDS):
            raise RetriableError("other scripts are being tried: try yours again in some seconds")
        try:
            sample = self._sample(request, now or datetime.now(UTC))
            with new_box() as box:
                for name, content in files.items():
                    box.put(f"code/{name}", content)
                box.put(_SAMPLE, sample.read_bytes())
                task = TrialTask(
                    entry=entry,
                    arguments=tuple(arguments),
                    table=request.table.table_name,
                    is_text=request.format == "text",
                )
                box.put(_TASK, task.model_dump_json().encode())
                return _tried(box, started)
        finally:
            self._turns.release()

    def _sample(self, request: JobRequest, now: datetime) -> Path:
        """Return a file with the pings for a request, which may be some minutes old."""
        asked = {**asked_dates(request, now), "filter": request.filter, "sample": request.sample}
        return self._samples.get(asked)


def _tried(box: Box, started: float) -> TryResult:
    printed: list[bytes] = []
    room = 4 * SHOWN_MAX_CHARACTERS

    def keep(chunk: bytes) -> None:
        nonlocal room
        if room > 0:
            printed.append(chunk[:room])
            room -= len(chunk)

    ended = box.run(
        (sys.executable, "-m", "telemetry_lake.analysis_jobs.sandbox.trial", box.inside("")),
        LIMITS,
        on_output=keep,
    )
    text = b"".join(printed).decode(errors="replace")
    report, error = _report(box, ended)
    return TryResult(
        error=error,
        output=report.output,
        printed=text[:SHOWN_MAX_CHARACTERS],
        records=report.records,
        written=report.written,
        failures=report.failures,
        seconds=time.monotonic() - started,
        is_cut=report.is_cut or len(text) > SHOWN_MAX_CHARACTERS,
        sandbox=sandbox_state().sentence,
    )


def _report(box: Box, ended: Ended) -> tuple[TrialReport, str | None]:
    """Return what the trial tells, and what is wrong."""
    if ended.stopped is not None:
        return TrialReport(), f"the script did not end by itself: {ended.stopped}"
    try:
        file = box.open_result(_RESULT, max_bytes=_RESULT_MAX_BYTES)
        if file is None:
            return TrialReport(), f"the script ended its process (exit status {ended.exit_status})"
        with file:
            report = TrialReport.model_validate_json(file.read())
    except (FatalError, ValidationError, OSError):
        return TrialReport(), "the script wrote over the report of its trial"
    return report, report.error
