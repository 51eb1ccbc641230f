"""What Mozilla's aggregation service answered, from the cubes: for pages that were written for it.

The service (mozilla/python_mozaggregator) knew channels, major versions, dates as eight digits, and one
histogram for each date and key. What it did not know is left out here as well: client weights, and keys that
are not kept one by one. Of several definitions the newest is given, and of several kinds of pings the one
with most pings.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from itertools import groupby
from typing import Final

from telemetry_lake.dashboard.answers import Thresholds, histograms_by_date
from telemetry_lake.dashboard.cubes import Cubes
from telemetry_lake.dashboard.format import View
from telemetry_lake.dashboard.resolve import resolve
from telemetry_lake.dashboard.search import MetricIndex
from telemetry_lake.dashboard.selection import FILTERS, Selection
from telemetry_lake.dashboard.version_order import VersionRange, major_of, version_key
from telemetry_lake.failures import TelemetryLakeError

VIEWS: Final = {"build_id": View.BUILD, "submission_date": View.SUBMISSION}
SYSTEMS: Final = {"Windows_NT": "Windows", "Darwin": "Mac"}
"""The service's names of systems, and ours."""
PROCESSES: Final = {"false": "parent", "true": "content"}
"""The service's `child`, before it had the names of processes."""
ARGUMENTS: Final = ("application", "architecture", "os", "child", "label")
_OLD_SYSTEMS: Final = {ours: theirs for theirs, ours in SYSTEMS.items()}


class NoAggregates(TelemetryLakeError):
    """There is nothing for these arguments: what the service answered 404."""


class UnknownArgument(TelemetryLakeError):
    """The service answered 405 for an argument that is none of its dimensions."""


@dataclass(frozen=True, slots=True)
class OldEntry:
    """One histogram of the service: `count` is the number of pings."""

    date: str
    label: str
    histogram: Sequence[int]
    count: int
    sum: int


@dataclass(frozen=True, slots=True)
class OldAnswer:
    """The histograms of a metric."""

    buckets: Sequence[int | str]
    kind: str
    description: str
    data: Sequence[OldEntry]


@dataclass(frozen=True, slots=True)
class OldAggregates:
    """An answer, and how many labels it has no room for."""

    answer: OldAnswer
    labels_left_out: int


def view_of(prefix: str) -> View:
    """Return the view of a path; raises NoAggregates."""
    if prefix not in VIEWS:
        raise NoAggregates(f"aggregates are by {' or by '.join(VIEWS)}, not by “{prefix[:80]}”")
    return VIEWS[prefix]


def channels(cubes: Cubes, view: View) -> list[str]:
    """Return all channels with data, sorted."""
    return sorted({channel for channel, _, _ in cubes.releases(view)})


def dates(cubes: Cubes, view: View, channel: str) -> list[dict[str, str]]:
    """Return each major version of a channel with each of its dates; raises NoAggregates."""
    found = {
        (major_of(version), day)
        for name, version, day in cubes.releases(view)
        if name == channel and version_key(version) is not None
    }
    if not found:
        raise NoAggregates(f"there is no channel “{channel[:80]}”")
    ordered = sorted(found, key=lambda item: (version_key(item[0]) or (), item[1]))
    return [{"version": version, "date": f"{day:%Y%m%d}"} for version, day in ordered]


def filters(cubes: Cubes, channel: str, version: str) -> dict[str, list[str]]:
    """Return the values of each dimension for a version of a channel; raises NoAggregates."""
    versions = {
        each
        for view in View
        for name, each, _ in cubes.releases(view)
        if name == channel and major_of(each) == version
    }
    if not versions:
        raise NoAggregates(f"there is no version “{version[:40]}” of the channel “{channel[:80]}”")
    values = cubes.values(View.SUBMISSION, channel, sorted(versions))
    return {
        "metric": values["metric"],
        "application": values["application"],
        "architecture": values["architecture"],
        "os": sorted(_OLD_SYSTEMS.get(system, system) for system in values["os"]),
        "child": values["process"],
    }


def aggregates(
    cubes: Cubes,
    index: MetricIndex,
    view: View,
    channel: str,
    arguments: Iterable[tuple[str, str]],
    thresholds: Thresholds,
    max_bytes: int,
) -> OldAggregates:
    """Return the histograms that the arguments of a URL ask for.

    Of a keyed metric those labels with most pings are given that fit into `max_bytes` of JSON, one at least.

    Raises NoAggregates, UnknownMetric and UnknownArgument.
    """
    given: dict[str, list[str]] = {}
    for name, value in arguments:
        given.setdefault(name, []).append(value)
    metric, version = (given.pop(name, [""])[0] for name in ("metric", "version"))
    asked = {_date(text) for text in given.pop("dates", [""])[0].split(",") if text}
    if not metric or not version or not asked:
        raise NoAggregates("the arguments metric, version and dates are needed")
    if unknown := sorted(set(given) - set(ARGUMENTS)):
        raise UnknownArgument(f"there is no argument “{unknown[0][:80]}”: there are {', '.join(ARGUMENTS)}")
    if version_key(version) is None:
        raise NoAggregates(f"“{version[:40]}” is not a version")
    selection = Selection(
        metric=metric,
        filters=dict.fromkeys(FILTERS, ()) | {"channel": (channel,)} | _filters(given),
        versions=VersionRange(version, version),
        keys=tuple(given.get("label", ())),
        view=view,
    )
    resolved = resolve(cubes, index, selection, keys_by_default=False)
    found = histograms_by_date(cubes, resolved, thresholds, asked)
    if isinstance(found, str):
        raise NoAggregates(found)
    buckets: Sequence[int | str] = [bucket.start for bucket in found.buckets]
    if found.buckets[0].label is not None and resolved.metric.labels:
        buckets = [bucket.label or str(bucket.start) for bucket in found.buckets]
    empty = OldAnswer(buckets, resolved.metric.kind, resolved.metric.description, ())
    # Each entry but the first has a comma before it.
    room, entries, left_out = max_bytes - json_bytes(asdict(empty)) + 1, list[OldEntry](), 0
    for label, cells in groupby(found.cells, key=lambda cell: cell.key):
        if room <= 0 and entries:
            left_out += 1
            continue
        of_label = [
            OldEntry(f"{cell.day:%Y%m%d}", label, cell.counts, cell.pings, cell.sum) for cell in cells
        ]
        room -= sum(json_bytes(asdict(entry)) + 1 for entry in of_label)
        if room < 0 and entries:
            left_out += 1
        else:
            entries += of_label
    if not entries:
        raise NoAggregates(f"{metric} has no samples on these dates")
    return OldAggregates(replace(empty, data=entries), left_out)


def json_bytes(value: object) -> int:
    """Return how long `value` is as JSON."""
    return len(json.dumps(value, separators=(",", ":")))


def _filters(given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {
        "application": tuple(given.get("application", ())),
        "architecture": tuple(given.get("architecture", ())),
        # With a system's version behind it, which aggregates do not have.
        "os": tuple(
            dict.fromkeys(SYSTEMS.get(each.split(",")[0], each.split(",")[0]) for each in given.get("os", ()))
        ),
        "process": tuple(PROCESSES.get(each, each) for each in given.get("child", ())),
    }


def _date(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a date has no zone
    except ValueError:
        raise NoAggregates(f"“{text[:40]}” is not a date: expected eight digits") from None
