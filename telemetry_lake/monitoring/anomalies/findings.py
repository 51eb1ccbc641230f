"""What was found, and what changes by it: an anomaly is opened once, and closed once."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from pydantic import AwareDatetime

from telemetry_lake.storage.records import Record

NEW_LEVEL_AFTER: Final = timedelta(days=7)
"""A volume that is off for so long is what is usual from then on."""


class Kind(StrEnum):
    """What can be unusual."""

    VOLUME_FALL = "volume_fall"
    """Fewer pings in the last minutes or hours than at this weekday and hour."""
    VOLUME_RISE = "volume_rise"
    """More of them."""
    DAY_FALL = "day_fall"
    """Fewer pings in the last day than on the days before, by the test of Mann and Whitney."""
    DAY_RISE = "day_rise"
    """More of them."""
    ERROR_SHARE = "error_share"
    """Of all pings, too many are rejected for one reason, or for all reasons together."""
    NEW_ERROR = "new_error"
    """Pings are rejected for a reason for which none were in the last weeks."""
    BUILD_SHIFT = "build_shift"
    """The samples of the builds of a day are distributed otherwise than those of the builds before."""
    DAY_SHIFT = "day_shift"
    """The samples that were received on a day are distributed otherwise than those of the days before."""


class Severity(StrEnum):
    """How soon a person should look."""

    CRITICAL = "critical"
    """Now."""
    WARNING = "warning"
    """In working hours."""


CLOSE_AFTER: Final[dict[Kind, timedelta]] = {
    Kind.VOLUME_FALL: timedelta(minutes=30),
    Kind.VOLUME_RISE: timedelta(minutes=30),
    Kind.DAY_FALL: timedelta(hours=6),
    Kind.DAY_RISE: timedelta(hours=6),
    Kind.ERROR_SHARE: timedelta(minutes=30),
}
"""How long an anomaly has to be away before it is closed; the others are closed at once."""


class ChangeKind(StrEnum):
    """What became of an anomaly."""

    OPENED = "opened"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is unusual now."""

    kind: Kind
    series: str
    """`namespace/type/channel`, a reason of rejection, or `channel/metric/process`."""
    since: datetime
    value: float
    expected: float
    severity: Severity
    link: str
    """The path of the page that shows it."""
    is_still: bool = False
    """Keeps an anomaly open, and opens none."""


class Anomaly(Record):
    """Something unusual that was opened and not closed yet."""

    kind: Kind
    series: str
    since: AwareDatetime
    opened_at: AwareDatetime
    last_seen: AwareDatetime
    value: float
    expected: float
    severity: Severity
    link: str
    silenced: bool = False
    """Nobody is told of it, and no alarm counts it."""

    @property
    def key(self) -> tuple[Kind, str]:
        """What tells it apart from the others that are open at the same time."""
        return self.kind, self.series


class Change(Record):
    """An anomaly was opened or closed: a row of derived.anomalies."""

    change_id: str
    change: ChangeKind
    changed_at: AwareDatetime
    anomaly: Anomaly
    why: str = ""
    """Why it was closed."""

    @property
    def changed_date(self) -> date:
        """The UTC date of the change."""
        return self.changed_at.astimezone(UTC).date()


def change_of(change: ChangeKind, anomaly: Anomaly, at: datetime, why: str = "") -> Change:
    """Return the change; its id follows from the anomaly and from what became of it."""
    told = "\n".join((change, anomaly.kind, anomaly.series, anomaly.opened_at.astimezone(UTC).isoformat()))
    return Change(
        change_id=hashlib.sha256(told.encode()).hexdigest()[:32],
        change=change,
        changed_at=at,
        anomaly=anomaly,
        why=why,
    )


def changes_by(
    is_open: Sequence[Anomaly],
    findings: Iterable[Finding],
    looked_for: Collection[Kind],
    at: datetime,
    *,
    silenced: Iterable[str] = (),
) -> tuple[tuple[Anomaly, ...], tuple[Change, ...]]:
    """Return the anomalies that are open after a look at `at` for the kinds `looked_for`, and the changes.

    Anomalies of other kinds stay as they are. `silenced` are patterns of `<kind> <series>`, with `*` and `?`.
    """
    found = {(finding.kind, finding.series): finding for finding in findings}
    patterns = tuple(silenced)
    after, changes = [], []
    for anomaly in is_open:
        finding = found.pop(anomaly.key, None)
        why = "it is usual again"
        if anomaly.kind not in looked_for:
            after.append(anomaly)
            continue
        if finding is not None:
            anomaly = _seen_again(anomaly, finding, at)  # noqa: PLW2901 (the same anomaly, seen again)
            why = "it has been like this for so long that it is usual now"
        ends = NEW_LEVEL_AFTER if finding is not None else CLOSE_AFTER.get(anomaly.kind, timedelta())
        if at - (anomaly.opened_at if finding is not None else anomaly.last_seen) < ends:
            after.append(anomaly)
        else:
            changes.append(change_of(ChangeKind.CLOSED, anomaly, at, why))
    for finding in found.values():
        if not finding.is_still:
            opened = _opened(finding, at, patterns)
            after.append(opened)
            changes.append(change_of(ChangeKind.OPENED, opened, at))
    return tuple(after), tuple(changes)


def _seen_again(anomaly: Anomaly, finding: Finding, at: datetime) -> Anomaly:
    seen = {"last_seen": at, "value": finding.value, "expected": finding.expected}
    return anomaly.model_copy(update=seen)


def _opened(finding: Finding, at: datetime, patterns: Sequence[str]) -> Anomaly:
    name = f"{finding.kind} {finding.series}"
    return Anomaly(
        kind=finding.kind,
        series=finding.series,
        since=finding.since,
        opened_at=at,
        last_seen=at,
        value=finding.value,
        expected=finding.expected,
        severity=finding.severity,
        link=finding.link,
        silenced=any(fnmatchcase(name, pattern) for pattern in patterns),
    )
