"""Whether more pings are rejected than may be, and for reasons that are new.

The limits are those of the first Telemetry server (telemetry-server, `monitoring/process_incoming/
error_rates.py`): 10 % of all pings may be rejected, and 1 % for one reason that is not boring. Boring is what
old clients and strangers send and nobody can mend.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

from telemetry_lake.failures import ErrorType
from telemetry_lake.monitoring.anomalies.findings import Finding, Kind, Severity

BORING: Final = frozenset(
    {ErrorType.BARE_DOCUMENT_ID, ErrorType.EMPTY_BODY, ErrorType.UNKNOWN_HISTOGRAM_REVISION}
)
"""What the original called `uuid_only_path`, `empty_data` and `missing_revision`."""
ALL_ERRORS: Final = "*"
"""The series of all reasons together."""
SHARE_MAX: Final = 0.01
"""Of one reason that is not boring."""
ALL_SHARE_MAX: Final = 0.10
USUAL_AGAIN: Final = 0.8
"""An open anomaly ends below this part of its limit."""
WINDOW: Final = timedelta(hours=1)
PINGS_MIN: Final = 1_000
"""In an hour with fewer pings, a share says little."""
NEW_PINGS_MIN: Final = 10
"""So many pings have to be rejected within the window for a reason that is new."""
KNOWN_PINGS_MIN: Final = 10
"""A reason is known when so many pings were rejected for it in the weeks before."""


def errors_off(
    rejected: Mapping[str, int], accepted: int, end: datetime, *, is_open: Collection[str] = ()
) -> list[Finding]:
    """Return the reasons for which too large a share of the pings of the `WINDOW` until `end` was rejected.

    `rejected` are pings by reason. The reasons in `is_open` stay found until they are far below.
    """
    pings = accepted + sum(rejected.values())
    if pings < PINGS_MIN:
        return []
    limits = {reason: SHARE_MAX for reason in rejected if reason not in BORING}
    shares = {reason: rejected[reason] / pings for reason in limits}
    shares[ALL_ERRORS], limits[ALL_ERRORS] = sum(rejected.values()) / pings, ALL_SHARE_MAX
    return [
        Finding(
            kind=Kind.ERROR_SHARE,
            series=reason,
            since=end - WINDOW,
            value=round(share, 6),
            expected=limits[reason],
            severity=Severity.CRITICAL if share > ALL_SHARE_MAX else Severity.WARNING,
            link="/operations",
            is_still=share <= limits[reason],
        )
        for reason, share in shares.items()
        if share > limits[reason] or (reason in is_open and share > USUAL_AGAIN * limits[reason])
    ]


def new_errors(
    rejected: Mapping[str, int], before: Mapping[str, int], end: datetime, *, is_open: Collection[str] = ()
) -> list[Finding]:
    """Return the reasons for which pings were rejected in the `WINDOW` until `end`, and not before.

    `before` has the rejected pings of those weeks by reason; the reasons of `is_open` stay found for as long
    as pings come.
    """
    return [
        Finding(
            kind=Kind.NEW_ERROR,
            series=reason,
            since=end - WINDOW,
            value=float(pings),
            expected=0.0,
            severity=Severity.WARNING,
            link="/operations",
            is_still=pings < NEW_PINGS_MIN,
        )
        for reason, pings in rejected.items()
        if before.get(reason, 0) < KNOWN_PINGS_MIN
        and (pings >= NEW_PINGS_MIN or (reason in is_open and pings))
    ]
