"""The mail and the call of a web hook about what one look opened and closed."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Final

from telemetry_lake.monitoring.anomalies.distributions import DISTANCE_MIN
from telemetry_lake.monitoring.anomalies.findings import Anomaly, Change, ChangeKind, Kind
from telemetry_lake.monitoring.anomalies.state import Decision
from telemetry_lake.notices import receiver_digest

LINES_MAX: Final = 50
"""So many changes are told one by one; the table has all of them."""
_NAMES: Final = {"*/*/*": "all pings", "*": "all reasons together"}


def told_changes(decision: Decision) -> list[Change]:
    """Return the changes of a decision that people are told of."""
    return [change for change in decision.changes if not change.anomaly.silenced]


def sentence(anomaly: Anomaly) -> str:
    """Return what is unusual, in words."""
    name = _NAMES.get(anomaly.series, anomaly.series)
    match anomaly.kind:
        case Kind.VOLUME_FALL | Kind.VOLUME_RISE | Kind.DAY_FALL | Kind.DAY_RISE:
            off = anomaly.value / anomaly.expected - 1 if anomaly.expected else 1.0
            when = "in the last day" if anomaly.kind in (Kind.DAY_FALL, Kind.DAY_RISE) else "lately"
            usual = f"where {anomaly.expected:,.0f} are usual ({off:+.0%})"
            return f"{name}: {anomaly.value:,.0f} pings {when} {usual}"
        case Kind.ERROR_SHARE:
            return f"{name}: {anomaly.value:.2%} of all pings are rejected, of at most {anomaly.expected:.0%}"
        case Kind.NEW_ERROR:
            return f"{name}: {anomaly.value:,.0f} pings are rejected for this reason, which is new"
        case Kind.BUILD_SHIFT | Kind.DAY_SHIFT:
            what = "the builds" if anomaly.kind is Kind.BUILD_SHIFT else "the samples"
            return (
                f"{name}: {what} of {anomaly.since:%Y-%m-%d} are distributed otherwise than those before "
                f"(distance {anomaly.value:.2f}, of at most {DISTANCE_MIN:g})"
            )


def mail_of(sender: str, receiver: str, decision: Decision, pages: str | None) -> EmailMessage:
    """Return the mail about a decision. Its id follows from the decision and the receiver."""
    changes = told_changes(decision)
    message = EmailMessage()
    message["From"], message["To"] = sender, receiver
    message["Subject"] = f"[telemetry] {_subject(changes)}"
    message["Date"] = format_datetime(decision.decided_at.astimezone(UTC))
    message["Message-ID"] = f"<anomalies.{decision.decision_id}.{receiver_digest(receiver)}@telemetry-lake>"
    message["Auto-Submitted"] = "auto-generated"
    lines = list(_lines(changes, pages))
    lines.append(
        "What is open, and since when: python -m telemetry_lake anomalies. What it means, and how to silence "
        "it: docs/anomalies.md."
    )
    message.set_content("\n".join(lines))
    return message


def hook_of(decision: Decision, pages: str | None) -> dict[str, Any]:
    """Return what a web hook is sent about a decision, as JSON."""
    return {
        "event": "anomalies",
        "decision": decision.decision_id,
        "decided_at": decision.decided_at.astimezone(UTC).isoformat(),
        "changes": [
            {
                "id": change.change_id,
                "change": change.change.value,
                "sentence": sentence(change.anomaly),
                "page": page_of(change.anomaly, pages),
                **change.anomaly.model_dump(mode="json", exclude={"link", "silenced"}),
            }
            for change in told_changes(decision)[:LINES_MAX]
        ],
    }


def page_of(anomaly: Anomaly, pages: str | None) -> str:
    """Return the address of the page that shows an anomaly; its path where the pages have no address."""
    return f"{pages or ''}{anomaly.link}"


def duration(since: datetime, until: datetime) -> str:
    """Return how long something lasted, in words."""
    minutes = max(0, int((until - since).total_seconds() // 60))
    days, hours = minutes // 1_440, minutes // 60
    if days >= 2:
        return f"{days} days"
    return f"{hours} hours" if hours >= 2 else f"{minutes} minutes"


def _subject(changes: Sequence[Change]) -> str:
    first = changes[0]
    kind = first.anomaly.kind.replace("_", " ")
    name = _NAMES.get(first.anomaly.series, first.anomaly.series)
    verb = "" if first.change is ChangeKind.OPENED else "over: "
    more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{verb}{kind} of {name}{more}"


def _lines(changes: Sequence[Change], pages: str | None) -> Iterator[str]:
    for change in changes[:LINES_MAX]:
        anomaly = change.anomaly
        if change.change is ChangeKind.OPENED:
            yield f"{anomaly.severity.upper()}: {sentence(anomaly)}"
            yield f"  Since {_moment(anomaly.since)}, found {_moment(anomaly.opened_at)}"
        else:
            name = _NAMES.get(anomaly.series, anomaly.series)
            yield f"Over: {anomaly.kind.replace('_', ' ')} of {name}: {change.why}"
            yield f"  After {duration(anomaly.since, change.changed_at)}, since {_moment(anomaly.since)}"
        yield f"  {page_of(anomaly, pages)}"
        yield ""
    if len(changes) > LINES_MAX:
        yield f"{len(changes) - LINES_MAX} more are in derived.anomalies."
        yield ""


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
