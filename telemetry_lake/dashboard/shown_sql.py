"""The SQL over `derived.histogram_aggregates` that gives the numbers of a page, for `make query`."""

from collections.abc import Sequence
from typing import Final

from telemetry_lake.columns import (
    APP_NAME,
    APP_UPDATE_CHANNEL,
    APP_VERSION,
    ARCHITECTURE,
    BUILD_DATE,
    DOCUMENT_TYPE,
    NAMESPACE,
    NORMALIZED_OS,
    SUBMISSION_DATE,
)
from telemetry_lake.dashboard.answers import REST_NAME, Thresholds
from telemetry_lake.dashboard.cubes import UNKNOWN, Cubes, RowFilter
from telemetry_lake.dashboard.format import DEFINITION, KEYS_KEPT_MAX, WEIGHT_UNIT, View
from telemetry_lake.dashboard.resolve import Resolved
from telemetry_lake.dashboard.selection import Definition, Weight
from telemetry_lake.histograms.bucket_ranges import BucketRange, has_sent_buckets

TABLE: Final = "derived.histogram_aggregates"
_COLUMNS: Final = {
    "channel": APP_UPDATE_CHANNEL,
    "application": APP_NAME,
    "version": APP_VERSION,
    "os": NORMALIZED_OS,
    "architecture": f"coalesce({ARCHITECTURE}, '{UNKNOWN}')",
    "process": "process",
    "ping": f"{NAMESPACE} || '/' || {DOCUMENT_TYPE}",
}


def distribution_sql(
    cubes: Cubes, resolved: Resolved, definition: Definition | None, thresholds: Thresholds
) -> str:
    """Return the statement that gives each bucket's samples, weight and share, and the sums of its series."""
    groups = _groups(resolved)
    names = ", ".join(groups)
    share = _weight_column(resolved)
    return f"""{_rows(cubes, resolved, definition, [])}{_sent_bounds(definition)},
totals AS (
    SELECT {names}, sum(pings) AS pings, sum(clients) AS client_days, sum(sum) AS sum
    FROM chosen GROUP BY ALL
),
{_per_bucket(groups, definition)}
SELECT {names}, start, "end", samples, weight,
    {share} / nullif(sum({share}) OVER (PARTITION BY {names}), 0) AS share, pings, client_days,
    sum / sum(samples) OVER (PARTITION BY {names}) AS mean
FROM per_bucket JOIN totals USING ({names}){_threshold(resolved, thresholds)}
QUALIFY samples > 0
ORDER BY pings DESC, {names}, start
"""  # noqa: S608 - a statement to be shown; values are quoted


def evolution_sql(
    cubes: Cubes, resolved: Resolved, definition: Definition | None, thresholds: Thresholds
) -> str:
    """Return the statement that gives each date's pings, clients, samples, mean and percentiles."""
    groups = [*_groups(resolved), "date"]
    names = ", ".join(groups)
    weight = _weight_column(resolved)
    columns = [_percentile(percent, weight) for percent in resolved.selection.percents]
    return f"""{_rows(cubes, resolved, definition, ["date"])}{_sent_bounds(definition)},
totals AS (
    SELECT {names}, sum(pings) AS pings, sum(clients) AS client_days, sum(sum) AS sum
    FROM chosen WHERE date IS NOT NULL GROUP BY ALL
),
{_per_bucket(groups, definition, "WHERE date IS NOT NULL ")},
running AS (
    SELECT *, sum({weight}) OVER (PARTITION BY {names} ORDER BY start)::DOUBLE AS upto,
        sum({weight}) OVER (PARTITION BY {names})::DOUBLE AS total
    FROM per_bucket
)
SELECT {names}, pings, client_days, sum(samples) AS samples, sum / nullif(sum(samples), 0) AS mean,
{",".join(chr(10) + column for column in columns).lstrip(chr(10))}
FROM running JOIN totals USING ({names}){_threshold(resolved, thresholds)}
GROUP BY {names}, pings, client_days, sum
ORDER BY {names}
"""  # noqa: S608


def _percentile(percent: float, weight: str) -> str:
    target = f"total * {percent / 100:g}"
    name = f"{percent:g}".replace(".", "_")
    return f"""    max(CASE WHEN upto - {weight} < {target} AND upto >= {target}
        THEN start + (coalesce("end", start) - start) * ({target} - (upto - {weight})) / {weight}
        END) AS p{name}"""


def _groups(resolved: Resolved) -> list[str]:
    groups = ["metric"]
    if resolved.selection.compare:
        groups.append(resolved.selection.compare)
    if resolved.metric.is_keyed:
        groups.append("key")
    return groups


def _rows(
    cubes: Cubes,
    resolved: Resolved,
    definition: Definition | None,
    more: Sequence[str],
) -> str:
    selection = resolved.selection
    date = SUBMISSION_DATE if selection.view is View.SUBMISSION else BUILD_DATE
    has_rest = resolved.metric.is_keyed and _has_rest(cubes, resolved)
    columns = ["name AS metric"]
    if selection.compare:
        columns.append(f"{_COLUMNS[selection.compare]} AS {selection.compare}")
    key = f"CASE WHEN place <= {KEYS_KEPT_MAX} THEN key ELSE {_quoted(REST_NAME)} END" if has_rest else "key"
    if resolved.metric.is_keyed:
        columns.append(f"{key} AS key")
    if more:
        columns.append(f"{date} AS date")
    conditions = [f"name = {_quoted(resolved.metric.name)}"]
    segments = cubes.manifest.segments_of(selection.view)
    if segments:
        first = min(segment.first_date for segment in segments)
        last = max(segment.last_date for segment in segments)
        conditions.append(f"{SUBMISSION_DATE} BETWEEN DATE '{first}' AND DATE '{last}'")
    conditions += _conditions(resolved.row_filter, date, key, has_rest=has_rest)
    if definition is not None:
        values = (definition.histogram_type, definition.bucket_count, definition.low, definition.high)
        conditions += [f"{name} = {int(value)}" for name, value in zip(DEFINITION, values, strict=True)]
    condition = "\n        AND ".join(conditions)
    source, places = TABLE, ""
    if has_rest:
        # Cubes keep the most common keys of a date one by one; the numbers of the page follow from that.
        whose = f"{SUBMISSION_DATE}, {APP_UPDATE_CHANNEL}, process"
        places = f"""places AS (
    SELECT {whose}, key, row_number() OVER (PARTITION BY {whose} ORDER BY sum(pings) DESC, key) AS place
    FROM {TABLE} WHERE name = {_quoted(resolved.metric.name)} AND key IS NOT NULL
    GROUP BY {whose}, key
),
"""  # noqa: S608
        source = f"{TABLE} JOIN places USING ({whose}, key)"
    return f"""WITH {places}chosen AS (
    SELECT {", ".join(columns)}, pings, clients, sum, buckets, counts, normalized
    FROM {source}
    WHERE {condition}
)"""  # noqa: S608


def _conditions(chosen: RowFilter, date: str, key: str, *, has_rest: bool) -> list[str]:
    parts = [
        f"{_COLUMNS[name]} IN ({', '.join(map(_quoted, values))})"
        for name, values in chosen.dimensions.items()
        if values
    ]
    if chosen.keys or (chosen.with_rest and has_rest):
        names = [*chosen.keys, *([REST_NAME] if chosen.with_rest and has_rest else [])]
        parts.append(f"({key}) IN ({', '.join(map(_quoted, names))})")
    if chosen.first_date is not None:
        parts.append(f"{date} >= DATE '{chosen.first_date}'")
    if chosen.last_date is not None:
        parts.append(f"{date} <= DATE '{chosen.last_date}'")
    return parts


def _has_sent_buckets(definition: Definition | None) -> bool:
    return definition is not None and has_sent_buckets(
        BucketRange(definition.histogram_type, definition.low, definition.high, definition.bucket_count)
    )


def _sent_bounds(definition: Definition | None) -> str:
    """Return a table of the buckets when they are those that clients sent: each row has only its own."""
    if not _has_sent_buckets(definition):
        return ""
    return """,
bounds AS (
    SELECT start, lead(start) OVER (ORDER BY start) AS "end"
    FROM (SELECT DISTINCT unnest(buckets) AS start FROM chosen)
)"""


def _per_bucket(groups: Sequence[str], definition: Definition | None, condition: str = "") -> str:
    names = ", ".join(groups)
    if _has_sent_buckets(definition):
        return f"""per_bucket AS (
    SELECT {names}, start, "end", sum(samples) AS samples, sum(units) / {WEIGHT_UNIT} AS weight
    FROM (
        SELECT {names}, unnest(buckets) AS start,
            unnest(counts) AS samples, round(unnest(normalized) * {WEIGHT_UNIT})::HUGEINT AS units
        FROM chosen {condition}
    ) JOIN bounds USING (start) GROUP BY ALL
)"""  # noqa: S608
    return f"""per_bucket AS (
    SELECT {names}, start, "end", sum(samples) AS samples, sum(units) / {WEIGHT_UNIT} AS weight
    FROM (
        SELECT {names}, unnest(buckets) AS start, unnest(list_concat(buckets[2:], [NULL])) AS "end",
            unnest(counts) AS samples, round(unnest(normalized) * {WEIGHT_UNIT})::HUGEINT AS units
        FROM chosen {condition}
    ) GROUP BY ALL
)"""  # noqa: S608


def _weight_column(resolved: Resolved) -> str:
    return "weight" if resolved.selection.weight is Weight.CLIENT else "samples"


def _threshold(resolved: Resolved, thresholds: Thresholds) -> str:
    """Return the condition that leaves out what is from too few clients."""
    if resolved.selection.compare == "channel":
        cases = " ".join(
            f"WHEN {_quoted(channel)} THEN {least}" for channel, least in thresholds.by_channel.items()
        )
        if cases:
            return f"\nWHERE client_days >= CASE channel {cases} ELSE {thresholds.elsewhere} END"
        return f"\nWHERE client_days >= {thresholds.elsewhere}" if thresholds.elsewhere else ""
    least = thresholds.of(resolved.selection.filters["channel"])
    return f"\nWHERE client_days >= {least}" if least else ""


def _has_rest(cubes: Cubes, resolved: Resolved) -> bool:
    chosen = RowFilter(resolved.metric.name, {}, with_rest=True)
    return bool(cubes.keys(resolved.selection.view, chosen))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
