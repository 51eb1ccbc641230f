"""The histograms of the last days, from the cubes of the dashboard.

Only plain metrics are looked at, without their keys. The segments of some submission dates are fetched into
a temporary folder, and DuckDB adds them up over all dimensions but channel and process.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import duckdb
import numpy as np

from telemetry_lake.dashboard.format import DEFINITION, Manifest, View
from telemetry_lake.dashboard.making.source import end_of
from telemetry_lake.dashboard.making.versions import CubeVersions
from telemetry_lake.monitoring.anomalies.distributions import Counts, Shift, recent_shift
from telemetry_lake.monitoring.anomalies.findings import Finding, Kind, Severity

DATES_READ: Final = 21
"""The submission dates whose samples are looked at: the reference days, those that are shown, and builds that
are not made every day."""
MEMORY_LIMIT: Final = "512MiB"
KINDS: Final = {View.BUILD: Kind.BUILD_SHIFT, View.SUBMISSION: Kind.DAY_SHIFT}
_NAMED: Final = ("namespace", "document_type", "channel", "process", "metric")


@dataclass(frozen=True, slots=True)
class Distribution:
    """The histograms of a metric by date, over the same buckets."""

    name: tuple[str, ...]
    """By the names in `_NAMED`."""
    days: dict[date, Counts]


def last_whole_date(manifest: Manifest) -> date | None:
    """Return the last submission date of which all pings are in the cubes."""
    whole = [day for day in manifest.dates if day != manifest.preliminary_date]
    return max(whole, default=None)


def shifts(versions: CubeVersions, manifest: Manifest, last: date) -> Iterator[Finding]:
    """Yield the shifts of the last days until the submission date `last`, by day and by build."""
    for view, kind in KINDS.items():
        for each in distributions(versions, manifest, view, last):
            if (shift := recent_shift(each.days)) is not None:
                yield _finding(kind, view, each, shift)


def distributions(
    versions: CubeVersions, manifest: Manifest, view: View, last: date
) -> Iterator[Distribution]:
    """Yield the histograms of the submission dates until `last`, in the definition with most samples."""
    first = last - timedelta(days=DATES_READ - 1)
    segments = [
        segment
        for segment in manifest.segments_of(view)
        if segment.rows and segment.last_date >= first and segment.first_date <= last
    ]
    if not segments:
        return
    with tempfile.TemporaryDirectory(prefix="anomalies-") as folder:
        files = []
        for segment in segments:
            files.append(Path(folder) / f"{segment.sha256}.parquet")
            files[-1].write_bytes(versions.get(segment))
        with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "threads": 1}) as connection:
            rows = connection.execute(_QUERY, [[str(file) for file in files], first, last]).fetchall()
    groups: dict[tuple[str, ...], dict[tuple[int, ...], dict[date, dict[int, int]]]] = {}
    for row in rows:
        name, definition, day = row[: len(_NAMED)], row[len(_NAMED) : -3], row[-3]
        buckets = groups.setdefault(name, {}).setdefault(definition, {}).setdefault(day, {})
        buckets[row[-2]] = row[-1]
    for name, by_definition in groups.items():
        most = max(by_definition.values(), key=lambda days: sum(sum(each.values()) for each in days.values()))
        yield Distribution(name, _aligned(most))


_QUERY: Final = f"""
SELECT {", ".join(_NAMED)}, {", ".join(DEFINITION)}, date, bucket, sum(samples)::BIGINT
FROM (
    SELECT *, unnest(buckets) AS bucket, unnest(counts) AS samples
    FROM read_parquet(?, union_by_name = true)
    WHERE "key" IS NULL AND NOT is_rest AND date BETWEEN ? AND ?
)
GROUP BY ALL
"""  # noqa: S608 (the columns are ours)


def _aligned(days: dict[date, dict[int, int]]) -> dict[date, Counts]:
    buckets = sorted(set().union(*days.values()))
    return {
        day: np.array([counts.get(bucket, 0) for bucket in buckets], np.int64) for day, counts in days.items()
    }


def _finding(kind: Kind, view: View, each: Distribution, shift: Shift) -> Finding:
    named = dict(zip(_NAMED, each.name, strict=True))
    given = {
        "metric": named["metric"],
        "channel": named["channel"],
        "process": named["process"],
        "ping": f"{named['namespace']}/{named['document_type']}",
        "by": view.value,
        "dates": f"{min(each.days).isoformat()}..{max(each.days).isoformat()}",
    }
    return Finding(
        kind=kind,
        series="/".join(each.name),
        since=end_of(shift.day) - timedelta(days=1),
        value=round(shift.distance, 4),
        expected=0.0,
        severity=Severity.WARNING,
        link=f"/evolution?{urlencode(given, safe='/')}",
    )
