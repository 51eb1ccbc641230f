"""From what a reader asks for to rows: fills in defaults, and gives a reason where there is no answer."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from telemetry_lake.dashboard.cubes import Cubes, Facet, Metric, RowFilter
from telemetry_lake.dashboard.search import MetricIndex
from telemetry_lake.dashboard.selection import FILTERS, Selection
from telemetry_lake.dashboard.version_order import sorted_versions
from telemetry_lake.failures import TelemetryLakeError

DEFAULT_KEYS: Final = 4
PREFERRED_CHANNELS: Final = ("nightly", "beta", "release")
SUGGESTIONS_MAX_COUNT: Final = 5
NAMES_SHOWN: Final = 8


class UnknownMetric(TelemetryLakeError):
    """No metric has this name; `suggestions` are names that are spelt alike."""

    def __init__(self, name: str, suggestions: Sequence[str]) -> None:
        short = name if len(name) <= 80 else f"{name[:80]}…"
        hint = f" Did you mean {_enumerated(suggestions, 'or')}?" if suggestions else ""
        super().__init__(f"There is no metric “{short}”.{hint}")
        self.suggestions = tuple(suggestions)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there is nothing to show: a code for programs and a sentence for people."""

    code: str
    """`no_such_value`, `no_such_combination`, `no_such_dates`, `no_such_key`, `no_such_definition`,
    `below_threshold`."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Options:
    """The values that the metric has, each with its pings in the chosen kind of ping."""

    values: Mapping[str, tuple[tuple[str, int], ...]]
    """By the names in `FILTERS`, `version` and `ping`."""
    first_date: date | None
    last_date: date | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """A selection with every default filled in, and the rows that it means."""

    selection: Selection
    metric: Metric
    options: Options
    row_filter: RowFilter
    chosen_here: tuple[str, ...]
    """The parameters that were not given, and whose values follow from the data."""
    reason: Reason | None
    """Why no row can be found, when that is known already."""


def resolve(
    cubes: Cubes, index: MetricIndex, selection: Selection, *, keys_by_default: bool = True
) -> Resolved:
    """Fill in what `selection` leaves open. Raises UnknownMetric.

    Without `keys_by_default`, a keyed metric of which no key is chosen has all its keys.
    """
    metric = cubes.metrics.get(selection.metric)
    if metric is None:
        raise UnknownMetric(selection.metric, index.similar(selection.metric, limit=SUGGESTIONS_MAX_COUNT))
    facets = cubes.facets(selection.view, selection.metric)
    chosen_here = []
    pings = _counted(facets, "ping")
    if selection.ping is None and pings:
        selection = replace(selection, ping=max(pings, key=lambda ping: (pings[ping], ping)))
        chosen_here.append("ping")
    of_ping = [facet for facet in facets if facet.ping == selection.ping]
    if not selection.filters["channel"] and of_ping and selection.compare != "channel":
        channels = _counted(of_ping, "channel")
        channel = next((name for name in PREFERRED_CHANNELS if name in channels), None) or max(
            channels, key=lambda name: (channels[name], name)
        )
        selection = replace(selection, filters={**selection.filters, "channel": (channel,)})
        chosen_here.append("channel")
    options = _options(facets, of_ping)
    reason = _missing_value(selection, options) or _missing_combination(selection, of_ping)
    row_filter = _row_filter(selection, options)
    is_open = metric.is_keyed and not selection.keys and not selection.with_rest
    if is_open and keys_by_default and reason is None:
        keys = [key for key in cubes.keys(selection.view, row_filter) if key.key is not None]
        selection = replace(selection, keys=tuple(str(key.key) for key in keys[:DEFAULT_KEYS]))
        # Without a single key that is kept, the rest is what there is.
        selection = replace(selection, with_rest=not selection.keys)
        row_filter = _row_filter(selection, options)
        chosen_here.append("key")
    return Resolved(selection, metric, options, row_filter, tuple(chosen_here), reason)


def no_rows_reason(cubes: Cubes, resolved: Resolved) -> Reason:
    """Return why a query whose values all exist found no rows."""
    selection, name = resolved.selection, resolved.metric.name
    if selection.dates is not None:
        without = replace(resolved.row_filter, first_date=None, last_date=None)
        dates = [row for row in cubes.rows(selection.view, without, ("date",))["date"].to_pylist() if row]
        if dates:
            return Reason(
                "no_such_dates",
                f"{name} has no samples from {selection.dates.first} to {selection.dates.last} with these "
                f"filters. It was first seen on {min(dates)} and last seen on {max(dates)} "
                f"(by {selection.view} date).",
            )
    if selection.keys:
        return Reason(
            "no_such_key",
            f"{name} has no samples with the key {_enumerated(selection.keys, 'or')} and these "
            f"filters. Only the "
            "most common keys of a day are kept one by one; the others are added up as “other keys”.",
        )
    return Reason("no_such_combination", f"{name} has no samples with all of these filters together.")


def _row_filter(selection: Selection, options: Options) -> RowFilter:
    versions: tuple[str, ...] = ()
    if selection.versions is not None:
        chosen = selection.versions
        versions = tuple(version for version, _ in options.values["version"] if version in chosen)
    return RowFilter(
        metric=selection.metric,
        dimensions={
            **selection.filters,
            "version": versions,
            "ping": (selection.ping,) if selection.ping is not None else (),
        },
        keys=selection.keys,
        with_rest=selection.with_rest,
        first_date=selection.dates.first if selection.dates else None,
        last_date=selection.dates.last if selection.dates else None,
    )


def _options(facets: Sequence[Facet], of_ping: Sequence[Facet]) -> Options:
    values = {
        name: tuple(sorted(_counted(of_ping, name).items(), key=lambda item: (-item[1], item[0])))
        for name in FILTERS
    }
    versions = _counted(of_ping, "version")
    values["version"] = tuple((version, versions[version]) for version in sorted_versions(set(versions)))
    values["ping"] = tuple(_counted(facets, "ping").most_common())
    return Options(
        values,
        min((facet.first_date for facet in of_ping if facet.first_date), default=None),
        max((facet.last_date for facet in of_ping if facet.last_date), default=None),
    )


def _counted(facets: Iterable[Facet], name: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for facet in facets:
        counts[getattr(facet, name)] += facet.pings
    return counts


def _missing_value(selection: Selection, options: Options) -> Reason | None:
    asked = {
        "ping": (selection.ping,) if selection.ping is not None else (),
        **selection.filters,
    }
    for name, values in asked.items():
        known = [value for value, _ in options.values[name]]
        missing = [value for value in values if value not in known]
        if missing and (name == "ping" or len(missing) == len(values)):
            there = f"it has {_enumerated(known, 'and')}" if known else "it has no rows at all"
            return Reason(
                "no_such_value",
                f"{selection.metric} has no samples with {name} {_enumerated(missing, 'or')}; {there}.",
            )
    versions = [version for version, _ in options.values["version"]]
    if selection.versions is not None and not any(version in selection.versions for version in versions):
        return Reason(
            "no_such_value",
            f"{selection.metric} has no samples of version {selection.versions}; "
            f"its versions go from {versions[0]} to {versions[-1]}."
            if versions
            else f"{selection.metric} has no samples of any version.",
        )
    return None


def _missing_combination(selection: Selection, facets: Sequence[Facet]) -> Reason | None:
    def matches(facet: Facet, without: str | None = None) -> bool:
        return all(
            name == without or not values or getattr(facet, name) in values
            for name, values in selection.filters.items()
        ) and (without == "version" or selection.versions is None or facet.version in selection.versions)

    if any(matches(facet) for facet in facets):
        return None
    for name in (*reversed(FILTERS), "version"):
        others = sorted({getattr(facet, name) for facet in facets if matches(facet, name)})
        if others:
            return Reason(
                "no_such_combination",
                f"{selection.metric} has no samples with all of these filters together; with the "
                f"others as they "
                f"are, {name} can be {_enumerated(others, 'or')}.",
            )
    return Reason(
        "no_such_combination", f"{selection.metric} has no samples with all of these filters together."
    )


def _enumerated(names: Sequence[str], word: str) -> str:
    shown = list(names[:NAMES_SHOWN])
    if len(names) > NAMES_SHOWN:
        return f"{', '.join(shown)} {word} {len(names) - NAMES_SHOWN} more"
    return f"{', '.join(shown[:-1])} {word} {shown[-1]}" if len(shown) > 1 else "".join(shown)
