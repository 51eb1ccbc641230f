"""One look at volumes, errors and distributions: read, judge, decide, and deliver what is left to be done."""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final

from telemetry_lake.monitoring.anomalies.days import findings_of_days, judge_days
from telemetry_lake.monitoring.anomalies.deliver import deliver
from telemetry_lake.monitoring.anomalies.errors import errors_off, new_errors
from telemetry_lake.monitoring.anomalies.findings import (
    NEW_LEVEL_AFTER,
    Anomaly,
    Change,
    ChangeKind,
    Finding,
    Kind,
    changes_by,
)
from telemetry_lake.monitoring.anomalies.rhythm import Span, rhythm_at, unusual_until
from telemetry_lake.monitoring.anomalies.series import Series
from telemetry_lake.monitoring.anomalies.state import AnomalyState, Decision, StateStore, UnusualSpan
from telemetry_lake.monitoring.anomalies.volumes import directions_of, findings_of, judge
from telemetry_lake.settings import Settings

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from telemetry_lake.monitoring.anomalies.volume_source import Volumes

VOLUME_KINDS: Final = (Kind.VOLUME_FALL, Kind.VOLUME_RISE)
COUNTED_KINDS: Final = (*VOLUME_KINDS, Kind.DAY_FALL, Kind.DAY_RISE, Kind.ERROR_SHARE, Kind.NEW_ERROR)
"""The kinds that are looked for with the volumes."""
SHIFT_KINDS: Final = (Kind.BUILD_SHIFT, Kind.DAY_SHIFT)
"""The kinds that are looked for once the cubes have another whole date."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look found."""

    state: AnomalyState
    changes: tuple[Change, ...]
    is_delivered: bool
    """Whether all rows are written and everybody is told."""


class Looker:
    """Looks at the lake of `settings`, those of a process that acts as `Role.ANOMALIES`."""

    def __init__(self, settings: Settings) -> None:
        from telemetry_lake.storage.object_store import ObjectStore

        self._settings = settings
        self._store = ObjectStore(settings.s3)
        self.states = StateStore(self._store, settings.s3.lake_bucket)
        self.name = uuid.uuid4().hex
        """Tells this process apart from others that look at the same time."""

    @cached_property
    def _catalog(self) -> "Catalog":
        from telemetry_lake.tables.catalog import load_lake_catalog

        return load_lake_catalog(self._settings)

    def look(self, now: datetime, *, volumes: bool = True, distributions: bool = True) -> Looked:
        """Look at the lake as it is at `now`. Raises RetriableError and FatalError."""
        shifted = self._shifts() if distributions else None
        counted = self._counted(now) if volumes else None

        def decide(state: AnomalyState) -> tuple[AnomalyState | None, tuple[Change, ...]]:
            if state.checked_at is not None and state.checked_at >= now:
                return None, ()  # another process has looked at newer pings
            findings: list[Finding] = []
            looked_for: list[Kind] = []
            if counted is not None:
                findings += findings_of_volumes(counted, state)
                looked_for += COUNTED_KINDS
            if shifted is not None:
                findings += shifted[1]
                looked_for += SHIFT_KINDS
            silenced = self._settings.anomalies.silenced
            until = shifted[0] if shifted is not None else state.distributions_until
            return decided(state, findings, looked_for, now, silenced=silenced, distributions_until=until)

        changes = self.states.change(decide)
        is_delivered = deliver(self._settings, self.states, lambda: self._catalog, self.name)
        return Looked(self.states.read().state, changes, is_delivered)

    def _counted(self, now: datetime) -> "Volumes":
        from telemetry_lake.monitoring.anomalies.volume_source import read_volumes

        return read_volumes(self._catalog, now, timedelta(seconds=self._settings.anomalies.lag_seconds))

    def _shifts(self) -> tuple[date, list[Finding]] | None:
        """Return the last whole date of the cubes and what is found until then; None when that was done."""
        from telemetry_lake.dashboard.making.versions import CubeVersions
        from telemetry_lake.monitoring.anomalies.distribution_source import last_whole_date, shifts

        versions = CubeVersions(self._store, self._settings.s3.lake_bucket)
        manifest = versions.current().manifest
        last = last_whole_date(manifest) if manifest is not None else None
        if manifest is None or last is None or last == self.states.read().state.distributions_until:
            return None
        return last, list(shifts(versions, manifest, last))


def findings_of_volumes(volumes: "Volumes", state: AnomalyState) -> list[Finding]:
    """Return what is unusual in the volumes, given what is open."""
    end = volumes.end
    spans = [Span(Series.parse(each.series), each.first, each.end) for each in state.spans]
    running = [
        Span(Series.parse(each.series), each.since, end) for each in state.open if each.kind in VOLUME_KINDS
    ]
    left_out = [*spans, *running]
    rhythm = rhythm_at(volumes.history, end, left_out)
    unusual = judge(volumes.minutes, rhythm, end, is_open=directions_of(state.open))
    return [
        *findings_of(unusual, end),
        *findings_of_days(judge_days(volumes.history, end, left_out), end),
        *errors_off(volumes.rejected, volumes.accepted, end, is_open=_series(state.open, Kind.ERROR_SHARE)),
        *new_errors(
            volumes.rejected, volumes.rejected_before, end, is_open=_series(state.open, Kind.NEW_ERROR)
        ),
    ]


def decided(
    state: AnomalyState,
    findings: Iterable[Finding],
    looked_for: Iterable[Kind],
    now: datetime,
    *,
    silenced: Iterable[str] = (),
    distributions_until: date | None = None,
) -> tuple[AnomalyState, tuple[Change, ...]]:
    """Return the state after a look at `now`, with what is left to be done, and the changes."""
    after, changes = changes_by(state.open, findings, tuple(looked_for), now, silenced=silenced)
    pending = state.pending
    if changes:
        ids = "\n".join(sorted(change.change_id for change in changes))
        decision_id = hashlib.sha256(ids.encode()).hexdigest()[:32]
        pending = (*pending, Decision(decision_id=decision_id, decided_at=now, changes=changes))
    past = [Span(Series.parse(each.series), each.first, each.end) for each in state.spans]
    past += [
        Span(Series.parse(each.anomaly.series), each.anomaly.since, now)
        for each in changes
        if each.change is ChangeKind.CLOSED
        and each.anomaly.kind in VOLUME_KINDS
        # After that long it is what is usual, and belongs to the history.
        and now - each.anomaly.opened_at < NEW_LEVEL_AFTER
    ]
    spans = tuple(
        UnusualSpan(series=str(span.series), first=span.first, end=span.end)
        for span in unusual_until(now, past)
    )
    update = {
        "open": after,
        "pending": pending,
        "spans": spans,
        "checked_at": now,
        "distributions_until": distributions_until,
    }
    return state.model_copy(update=update), changes


def _series(is_open: Iterable[Anomaly], kind: Kind) -> set[str]:
    return {anomaly.series for anomaly in is_open if anomaly.kind is kind}
