"""What is remembered from one look to the next: one object, changed on the condition that it has not changed.

A look decides what opens and what closes, and writes that down here together with what is left to be done
about it: rows for derived.anomalies, and mails. Only after that is anything done, and each thing that is done
is ticked off here. So whatever ends a process:

- before its state is written, nothing has happened, and the next look decides anew;
- after that, the next look finds what is left, with the same ids, and goes on;
- of two looks at the same time, one writes, and the other begins again with what that one wrote.

Rows are committed once by their decision's id (`rows`). A mail whose sending was not ticked off is sent again
with the same Message-ID: no protocol says whether a server took a mail whose answer was lost.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import AwareDatetime

from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.monitoring.anomalies.findings import Anomaly, Change
from telemetry_lake.storage.object_keys import ANOMALY_STATE_KEY
from telemetry_lake.storage.records import Record

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore

FORMAT: Final = 1
WRITE_MAX_ATTEMPTS: Final = 10
DELIVERY_MAX: Final = timedelta(minutes=4)
"""How long one process may be at the deliveries without ticking one off, before another one takes over."""

T = TypeVar("T")


class Decision(Record):
    """What one look changed, until its rows are written and everybody is told."""

    decision_id: str
    decided_at: AwareDatetime
    changes: tuple[Change, ...]
    recorded: bool = False
    told: tuple[str, ...] = ()
    """The digests of the receivers that need not be told any more."""


class UnusualSpan(Record):
    """A time of which the volumes of a series are not looked at as history."""

    series: str
    first: AwareDatetime
    end: AwareDatetime


class Delivery(Record):
    """Who is delivering."""

    by: str
    until: AwareDatetime


class AnomalyState(Record):
    """What is open, what is left to be done, and what was looked at."""

    format: int = FORMAT
    checked_at: AwareDatetime | None = None
    """The moment of the last look."""
    distributions_until: date | None = None
    """The last submission date whose distributions were looked at."""
    open: tuple[Anomaly, ...] = ()
    pending: tuple[Decision, ...] = ()
    spans: tuple[UnusualSpan, ...] = ()
    delivery: Delivery | None = None
    written: str = ""
    """Another one with every writing."""


@dataclass(frozen=True, slots=True)
class ReadState:
    """The state as it was read; without `etag`, there was none."""

    state: AnomalyState
    etag: str | None


class StateStore:
    """The state in `bucket`."""

    def __init__(self, store: "ObjectStore", bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def read(self) -> ReadState:
        """Return the state, an empty one before the first look; raises FatalError for one of another form."""
        found = self._store.read(self._bucket, ANOMALY_STATE_KEY)
        if found is None:
            return ReadState(AnomalyState(), None)
        try:
            state = AnomalyState.model_validate_json(found.body)
        except ValueError as error:
            raise FatalError(
                f"s3://{self._bucket}/{ANOMALY_STATE_KEY} is not the state of the anomalies: {error}. Remove "
                "it to begin anew: what is unusual is then opened again."
            ) from error
        return ReadState(state, found.etag)

    def change(self, change: Callable[[AnomalyState], tuple[AnomalyState | None, T]]) -> T:
        """Write what `change` makes of the state, from the newest one again while others write meanwhile.

        `change` returns the new state, or None to leave it as it is, and what this returns. Raises
        RetriableError when others always come first.
        """
        for _ in range(WRITE_MAX_ATTEMPTS):
            before = self.read()
            after, result = change(before.state)
            if after is None or self._write(after, before.etag):
                return result
        raise RetriableError(
            f"s3://{self._bucket}/{ANOMALY_STATE_KEY} was changed {WRITE_MAX_ATTEMPTS} times while it was "
            "read: several looks at the anomalies run at the same time"
        )

    def _write(self, state: AnomalyState, etag: str | None) -> bool:
        body = state.model_copy(update={"written": uuid.uuid4().hex}).model_dump_json().encode()
        if self._store.put_if_unchanged(self._bucket, ANOMALY_STATE_KEY, body, etag=etag):
            return True
        # An earlier attempt of this put may have been the one that changed it.
        there = self._store.read(self._bucket, ANOMALY_STATE_KEY)
        return there is not None and there.body == body


def with_decision(state: AnomalyState, decision: Decision) -> AnomalyState:
    """Return the state in which a decision takes the place of the one with its id; done ones are dropped."""
    pending = tuple(decision if each.decision_id == decision.decision_id else each for each in state.pending)
    return state.model_copy(update={"pending": pending})


def may_deliver(state: AnomalyState, by: str, now: datetime) -> bool:
    """Return whether nobody else is delivering at `now`."""
    return state.delivery is None or state.delivery.by == by or state.delivery.until <= now
