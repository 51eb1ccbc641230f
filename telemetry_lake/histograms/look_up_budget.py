"""Limits on look-ups of histogram definitions, shared by all processes of a machine through a file.

Pings name revisions, and anyone can send pings: without limits, invented revisions would make the conversion
wait for S3 and the upstream, and every conversion is a process of its own. The file holds how many look-ups
were made in the current period, which revisions were missing, and until when the upstream is left alone.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, ValidationError

PERIOD_SECONDS: Final = 60.0
LOOK_UPS_MAX: Final = 60
"""Look-ups of a machine in one period."""
MISSING_MAX: Final = 1_024
"""Missing revisions that are remembered; the oldest are forgotten first."""

_log = logging.getLogger(__name__)


class LookUpRefused(Exception):
    """A revision is not looked up before `until`, a time of the clock; the message says why."""

    def __init__(self, reason: str, until: float) -> None:
        super().__init__(reason)
        self.until = until


class _Missing(BaseModel):
    """A revision that was not found: until when that is believed, and the reason."""

    until: float
    reason: str


class _State(BaseModel):
    """What the processes of a machine share; times are seconds of the clock."""

    period_started: float = 0
    look_ups: int = 0
    upstream_rests_until: float = 0
    missing: dict[str, _Missing] = Field(default_factory=dict)


class LookUpBudget:
    """The look-ups that are left. Without a folder that can be written, each process counts for itself.

    `clock` counts the seconds of the machine, the same for all of its processes (`time.monotonic`).
    """

    def __init__(self, file: Path, *, retry_seconds: float, clock: Callable[[], float]) -> None:
        self._file = file
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._state = _State()
        self._file_is_usable = True

    def spend(self, name: str) -> None:
        """Take one look-up, for the revision `name`.

        Raises LookUpRefused when the revision was missing a short time ago or nothing is left in this period.
        """
        now = self._clock()
        # Without the file when this process has already seen that nothing is left.
        _refuse_when_spent(self._state, now)
        with self._shared_state() as state:
            missing = state.missing.get(name)
            if missing is not None and self._is_ahead(missing.until, now):
                raise LookUpRefused(missing.reason, missing.until)
            _refuse_when_spent(state, now)
            if not _is_in_period(state, now):
                state.period_started, state.look_ups = now, 0
            state.look_ups += 1

    def remember_missing(self, name: str, reason: str) -> None:
        """Refuse further look-ups of the revision `name` with `reason`, until the retry time is over."""
        now = self._clock()
        with self._shared_state() as state:
            for other, missing in list(state.missing.items()):
                if not self._is_ahead(missing.until, now):
                    del state.missing[other]
            while len(state.missing) >= MISSING_MAX:
                del state.missing[next(iter(state.missing))]
            state.missing[name] = _Missing(until=now + self._retry_seconds, reason=reason)

    def rest_upstream(self) -> None:
        """Leave the upstream alone until the retry time is over."""
        with self._shared_state() as state:
            state.upstream_rests_until = self._clock() + self._retry_seconds

    def upstream_rests(self) -> bool:
        """Return whether the upstream is left alone now."""
        with self._shared_state() as state:
            return self._is_ahead(state.upstream_rests_until, self._clock())

    def _is_ahead(self, moment: float, now: float) -> bool:
        # The clock begins again with the machine: a moment too far ahead is of an earlier life.
        return now < moment <= now + self._retry_seconds

    @contextmanager
    def _shared_state(self) -> Iterator[_State]:
        """Hold the file's lock, and write the state back when it was changed."""
        file = self._opened()
        if file is None:
            yield self._state
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            before = file.read()
            self._state = _parsed(before)
            try:
                yield self._state
            finally:
                after = self._state.model_dump_json().encode()
                if after != before:
                    self._write(file, after)

    def _write(self, file: FileIO, text: bytes) -> None:
        try:
            file.seek(0)
            if file.write(text) != len(text):
                raise OSError(errno.ENOSPC, "the file could not be written to its end", str(self._file))
            file.truncate()
        except OSError as error:
            self._give_up(error)

    def _opened(self) -> FileIO | None:
        if not self._file_is_usable:
            return None
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a write that fails must fail here, not when the file is closed.
            return FileIO(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
        except OSError as error:
            self._give_up(error)
            return None

    def _give_up(self, error: OSError) -> None:
        self._file_is_usable = False
        _log.warning("look-ups of histogram definitions are counted for this process alone: %s", error)


def _parsed(text: bytes) -> _State:
    """The state; one that was only half written counts as none."""
    try:
        return _State.model_validate_json(text)
    except ValidationError:
        return _State()


def _is_in_period(state: _State, now: float) -> bool:
    return 0 <= now - state.period_started < PERIOD_SECONDS


def _refuse_when_spent(state: _State, now: float) -> None:
    if state.look_ups >= LOOK_UPS_MAX and _is_in_period(state, now):
        raise LookUpRefused(
            f"the {LOOK_UPS_MAX} look-ups of histogram definitions that a machine may make in "
            f"{PERIOD_SECONDS:.0f} s are used up",
            state.period_started + PERIOD_SECONDS,
        )
