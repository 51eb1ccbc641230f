"""How many pings came: of the last hours from the live tables, of the weeks before from derived.ping_volumes.

Of the live tables only the files are read that have pings of these hours, which their statistics in the
manifests say, and of these only four columns.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And

from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.monitoring.anomalies.errors import WINDOW as ERROR_WINDOW
from telemetry_lake.monitoring.anomalies.rhythm import HISTORY_HOURS
from telemetry_lake.monitoring.anomalies.series import HOUR, MINUTE, Series, Table, floor_hour, table_of
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, PING_VOLUMES
from telemetry_lake.tables.expressions import at_least, at_most

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression

RECENT: Final = timedelta(hours=2)
"""The longest window; the hour in which it begins is read whole."""
_TIME: Final = "submission_timestamp"
_PARTS: Final = ("namespace", "document_type", "app_update_channel")


@dataclass(frozen=True, slots=True)
class Volumes:
    """What is known of the pings until `end`."""

    end: datetime
    minutes: Table
    history: Table
    accepted: int
    """Pings of the last `ERROR_WINDOW` that were converted."""
    rejected: dict[str, int]
    """Those that were not, by reason."""
    rejected_before: dict[str, int]
    """Those of the weeks before."""


def read_volumes(catalog: Catalog, now: datetime, lag: timedelta) -> Volumes:
    """Read what was received until `lag` before `now`. Raises RetriableError and FatalError."""
    end = (now.astimezone(UTC) - lag).replace(second=0, microsecond=0)
    first = floor_hour(end - RECENT)
    with catalog_failures("reading the volumes of pings"):
        recent = _recent(catalog, first, end)
        rejected = _rejected(catalog, end - ERROR_WINDOW, end)
        hours, errors = _history(catalog, first, end)
    by_minute: Counter[tuple[Series, datetime]] = Counter()
    accepted = 0
    for (series, minute), pings in recent.items():
        by_minute[series, minute] += pings
        hours[series, floor_hour(minute)] += pings
        accepted += pings if minute >= end - ERROR_WINDOW else 0
    oldest = floor_hour(end) - HISTORY_HOURS * HOUR
    # Of an hour without any ping nothing is known: derived.ping_volumes may be late. Recent hours are known.
    known = {hour for _, hour in hours} | {first + number * HOUR for number in range((end - first) // HOUR)}
    unknown = [hour for number in range(HISTORY_HOURS) if (hour := oldest + number * HOUR) not in known]
    history = table_of(hours, oldest, floor_hour(end), HOUR, unknown=unknown)
    return Volumes(end, table_of(by_minute, first, end, MINUTE), history, accepted, rejected, errors)


def _recent(catalog: Catalog, first: datetime, end: datetime) -> "Counter[tuple[Series, datetime]]":
    found: Counter[tuple[Series, datetime]] = Counter()
    scan = catalog.load_table(LIVE_PINGS).scan(
        row_filter=_between(first, end), selected_fields=(_TIME, *_PARTS)
    )
    for batch in scan.to_arrow_batch_reader():
        minute = pc.floor_temporal(batch.column(_TIME), unit="minute")
        rows = pa.table([minute, *(batch.column(name) for name in _PARTS)], names=[_TIME, *_PARTS])
        for row in rows.group_by([_TIME, *_PARTS]).aggregate([([], "count_all")]).to_pylist():
            series = Series(*(_part(row[name]) for name in _PARTS))
            found[series, row[_TIME].astimezone(UTC)] += row["count_all"]
    return found


def _rejected(catalog: Catalog, first: datetime, end: datetime) -> dict[str, int]:
    scan = catalog.load_table(LIVE_REJECTED_PINGS).scan(
        row_filter=_between(first, end), selected_fields=("error_type", _TIME)
    )
    found: Counter[str] = Counter()
    for batch in scan.to_arrow_batch_reader():
        rows = pa.table([batch.column("error_type")], names=["error_type"])
        for row in rows.group_by("error_type").aggregate([([], "count_all")]).to_pylist():
            found[row["error_type"]] += row["count_all"]
    return dict(found)


def _history(
    catalog: Catalog, first: datetime, end: datetime
) -> "tuple[Counter[tuple[Series, datetime]], dict[str, int]]":
    """Return pings by hour before `first`, and the rejected ones before the window of errors by reason.

    The newest hour that derived.ping_volumes has may be half counted, and is left out.
    """
    oldest = floor_hour(end) - HISTORY_HOURS * HOUR
    scan = catalog.load_table(PING_VOLUMES).scan(
        row_filter=at_least(SUBMISSION_DATE, oldest.date().isoformat()),
        selected_fields=("submission_hour", *_PARTS, "error_type", "pings"),
    )
    rows = scan.to_arrow().to_pylist()
    newest = max((row["submission_hour"] for row in rows), default=first)
    pings: Counter[tuple[Series, datetime]] = Counter()
    errors: Counter[str] = Counter()
    for row in rows:
        hour = row["submission_hour"].astimezone(UTC)
        if row["error_type"] is not None:
            if hour + HOUR <= end - ERROR_WINDOW:
                errors[row["error_type"]] += row["pings"]
        elif oldest <= hour < min(first, newest):
            pings[Series(*(_part(row[name]) for name in _PARTS)), hour] += row["pings"]
    return pings, dict(errors)


def _between(first: datetime, end: datetime) -> "BooleanExpression":
    return And(
        at_least(SUBMISSION_DATE, first.date().isoformat()),
        at_least(_TIME, first.isoformat()),
        at_most(_TIME, (end - timedelta(microseconds=1)).isoformat()),
    )


def _part(value: str | None) -> str:
    """Return a part of a series: without the characters that separate and stand for all."""
    return (value or "unknown").replace("/", "_").replace("*", "_")
