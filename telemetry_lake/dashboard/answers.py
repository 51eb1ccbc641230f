"""The numbers of a view: distributions over buckets, and evolutions over dates.

Everything is added up in whole numbers from the rows of the cubes. Rows with different definitions of a
histogram are never added up: an answer is about one definition, by default the newest, and says which others
there are. Charts, tables and exports are all made of the same answer.

A series (of a distribution) or a date (of an evolution) from fewer clients than the threshold of its channel
is left out, and the answer says how many were.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from telemetry_lake.dashboard.cubes import Cubes, Metric
from telemetry_lake.dashboard.format import DEFINITION, WEIGHT_UNIT
from telemetry_lake.dashboard.percentiles import percentiles
from telemetry_lake.dashboard.resolve import Reason, Resolved, no_rows_reason
from telemetry_lake.dashboard.selection import Definition, Weight
from telemetry_lake.dashboard.version_order import major_of, sorted_versions, version_key
from telemetry_lake.failures import FatalError
from telemetry_lake.histograms.bucket_ranges import (
    BucketRange,
    HistogramType,
    bucket_bounds,
    has_sent_buckets,
)

SERIES_MAX_COUNT: Final = 12
TRIMMED_SHARE: Final = 0.001
"""`trim` leaves out buckets at the ends that have a smaller share of the samples than this in every
series."""
LABELS_MAX_COUNT: Final = 10
"""How many labels of a categorical metric an evolution follows: those with most samples."""
MARK_MIN_SHARE: Final = 0.05
"""A version begins where it first has this share of a date's pings."""
UNKNOWN_LABEL: Final = "not labelled"
REST_NAME: Final = "other keys"
EMPTY_NAME: Final = "(empty)"
_REST_MARK: Final = "\x00"
"""Stands for the rest among keys: a client may well have a key called `other keys`."""
_WITHOUT_PERCENTILES: Final = {"categorical", "enumerated", "boolean", "flag"}
_TRUTH_TYPES: Final = {HistogramType.BOOLEAN, HistogramType.FLAG, HistogramType.TRUTH}
_NAMED_TYPES: Final = {HistogramType.CATEGORICAL, *_TRUTH_TYPES}
_NO_DATE: Final = np.datetime64("NaT", "D")

# The stubs know few of the functions.
pc: Final[Any] = pyarrow.compute
Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UsedDefinition:
    """A definition among the chosen rows."""

    definition: Definition
    pings: int
    first_date: date | None
    last_date: date | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the rows of a series, or of one date of it."""

    pings: int
    clients: int
    """Client-days: a client counts once in each row of the aggregates."""
    samples: int
    sum: int
    mean: float | None
    """The sum of the samples by their number; None under client weights, and where values are names."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket by its limits; the last one of a histogram has no upper limit."""

    start: int
    end: int | None
    label: str | None


@dataclass(frozen=True, slots=True)
class DistributionSeries:
    """One histogram; its lists are parallel to the buckets of the answer."""

    name: str
    group: Mapping[str, str]
    totals: Totals
    dates: int
    first_date: date | None
    last_date: date | None
    percentiles: Mapping[str, float]
    counts: Sequence[int]
    weights: Sequence[float]
    """What the samples of a bucket weigh: their number, or how many clients they stand for."""
    shares: Sequence[float]


@dataclass(frozen=True, slots=True)
class Hidden:
    """What is left out because it is from too few clients."""

    name: str
    clients: int
    dates: int
    minimum_clients: int


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What `trim` left out at the ends."""

    buckets: int
    samples: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """The answer of the distribution view."""

    definition: Definition | None
    definitions: Sequence[UsedDefinition]
    has_percentiles: bool
    buckets: Sequence[Bucket]
    series: Sequence[DistributionSeries]
    hidden: Sequence[Hidden]
    series_left_out: int
    trimmed: Trimmed
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class EvolutionSeries:
    """One series; its lists are parallel to the dates of the answer, None where there is nothing to show."""

    name: str
    group: Mapping[str, str]
    totals: Totals
    pings: Sequence[int | None]
    clients: Sequence[int | None]
    samples: Sequence[int | None]
    means: Sequence[float | None]
    percentiles: Mapping[str, Sequence[float | None]]
    shares: Mapping[str, Sequence[float | None]]
    """Of metrics whose values are names: each label's share of the samples."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A version and the first date on which it is more than a few pings."""

    date: date
    version: str


@dataclass(frozen=True, slots=True)
class Evolution:
    """The answer of the evolution view."""

    definition: Definition | None
    definitions: Sequence[UsedDefinition]
    has_percentiles: bool
    dates: Sequence[date]
    series: Sequence[EvolutionSeries]
    hidden: Sequence[Hidden]
    series_left_out: int
    undated_pings: int
    """Pings whose build id does not begin with a date."""
    marks: Sequence[Mark]
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The fewest client-days that are shown, by channel."""

    by_channel: Mapping[str, int]
    elsewhere: int

    def of(self, channels: Sequence[str]) -> int:
        """Return the largest threshold of the channels; of all channels when none is named."""
        if not channels:
            return max([*self.by_channel.values(), self.elsewhere])
        return max(self.by_channel.get(channel, self.elsewhere) for channel in channels)


def distribution(cubes: Cubes, resolved: Resolved, thresholds: Thresholds) -> Distribution:
    """Return the distributions that are asked for."""
    rows = _rows(cubes, resolved)
    if isinstance(rows, _NothingFound):
        return Distribution(None, rows.definitions, True, (), (), (), 0, Trimmed(0, 0), rows.reason)
    selection = resolved.selection
    counts, weights = rows.dense(rows.group, len(rows.groups))
    weighing = weights if selection.weight is Weight.CLIENT else counts
    all_weights = weighing.sum(axis=1)
    named = _has_names(rows.definition, resolved.metric)
    quantiles = percentiles(rows.bounds, weighing, selection.percents) if not named else None
    order, hidden, left_out = _shown_groups(rows, resolved, thresholds)
    first, last = _ends(weighing[order], 0.0)
    shown_first, shown_last = _ends(weighing[order], TRIMMED_SHARE) if selection.trim else (first, last)
    shown = slice(shown_first, shown_last)
    kept = int(counts[order, shown].sum())
    series = []
    unit = WEIGHT_UNIT if selection.weight is Weight.CLIENT else 1
    for number in order:
        of_group = rows.group == number
        dates = np.unique(rows.dates[of_group & ~np.isnat(rows.dates)])
        total = int(all_weights[number])
        series.append(
            DistributionSeries(
                name=rows.names[number],
                group=rows.groups[number],
                totals=rows.totals(of_group, int(counts[number].sum()), selection.weight, named),
                dates=len(dates),
                first_date=_day(dates.min()) if len(dates) else None,
                last_date=_day(dates.max()) if len(dates) else None,
                percentiles=_named_percentiles(selection.percents, quantiles[number])
                if quantiles is not None and total
                else {},
                counts=counts[number, shown].tolist(),
                weights=[value / unit if unit > 1 else value for value in weighing[number, shown].tolist()],
                shares=[value / total if total else 0.0 for value in weighing[number, shown].tolist()],
            )
        )
    return Distribution(
        definition=rows.definition,
        definitions=rows.definitions,
        has_percentiles=not named,
        buckets=_buckets(rows, resolved.metric)[shown],
        series=series,
        hidden=hidden,
        series_left_out=left_out,
        trimmed=Trimmed(
            (last - first) - (shown_last - shown_first), int(counts[order, first:last].sum()) - kept
        ),
        reason=None if series else _all_hidden(hidden),
    )


def evolution(cubes: Cubes, resolved: Resolved, thresholds: Thresholds) -> Evolution:
    """Return the evolutions that are asked for, one point for each date with data."""
    rows = _rows(cubes, resolved)
    if isinstance(rows, _NothingFound):
        return Evolution(None, rows.definitions, True, (), (), (), 0, 0, (), rows.reason)
    selection, named = resolved.selection, _has_names(rows.definition, resolved.metric)
    dated = ~np.isnat(rows.dates)
    dates, place = np.unique(rows.dates[dated], return_inverse=True)
    order = rows.by_pings[:SERIES_MAX_COUNT]
    labels = _buckets(rows, resolved.metric)
    series, hidden = [], []
    for number in order:
        of_group = rows.group == number
        cells = np.full(len(rows.group), -1, np.int64)
        cells[dated] = np.where(of_group[dated], place, -1)
        counts, weights = rows.dense(cells, len(dates))
        sums = {name: np.zeros(len(dates), np.int64) for name in ("pings", "clients", "sum")}
        for name, into in sums.items():
            np.add.at(into, cells[cells >= 0], rows.numbers[name][cells >= 0])
        minimum = thresholds.of(_channels(resolved, rows.groups[number]))
        has_data = sums["pings"] > 0
        shown = has_data & (sums["clients"] >= minimum)
        if (has_data & ~shown).any():
            left_out = has_data & ~shown
            hidden.append(
                Hidden(rows.names[number], int(sums["clients"][left_out].sum()), int(left_out.sum()), minimum)
            )
        if not shown.any():
            continue
        weighing = weights if selection.weight is Weight.CLIENT else counts
        samples = counts.sum(axis=1)
        quantiles = percentiles(rows.bounds, weighing, selection.percents)
        filled = shown & (samples > 0)
        with_mean = filled & (selection.weight is Weight.SAMPLES) & (not named)
        series.append(
            EvolutionSeries(
                name=rows.names[number],
                group=rows.groups[number],
                totals=rows.totals(
                    of_group & dated & shown[_safe(cells)], int(samples[shown].sum()), selection.weight, named
                ),
                pings=_where(shown, sums["pings"]),
                clients=_where(shown, sums["clients"]),
                samples=_where(shown, samples),
                means=_where(with_mean, sums["sum"] / np.maximum(samples, 1)),
                percentiles={}
                if named
                else {
                    f"{percent:g}": _where(filled & ~np.isnan(quantiles[:, column]), quantiles[:, column])
                    for column, percent in enumerate(selection.percents)
                },
                shares=_label_shares(weighing, labels, filled) if named else {},
            )
        )
    return Evolution(
        definition=rows.definition,
        definitions=rows.definitions,
        has_percentiles=not named,
        dates=[_day(each) for each in dates],
        series=series,
        hidden=hidden,
        series_left_out=max(0, len(rows.groups) - len(order)),
        undated_pings=int(rows.numbers["pings"][~dated].sum()),
        marks=_marks(rows, dates, place, dated),
        reason=None if series else _all_hidden(hidden),
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """The histogram of a date, and of a key of a keyed metric; `key` is empty for a plain one."""

    day: date
    key: str
    counts: Sequence[int]
    pings: int
    sum: int


@dataclass(frozen=True, slots=True)
class Cells:
    """Histograms by date and key, all with the same buckets: keys with most pings first, then by date."""

    buckets: Sequence[Bucket]
    cells: Iterator[Cell]


def histograms_by_date(
    cubes: Cubes, resolved: Resolved, thresholds: Thresholds, asked: Collection[date]
) -> Cells | str:
    """Return the histogram of each key that is kept on each of the dates `asked`, or why there is none."""
    rows = _rows(cubes, resolved)
    if isinstance(rows, _NothingFound):
        return rows.reason.sentence
    dates, place = np.unique(rows.dates, return_inverse=True)
    # How common a key is decides its place: an answer may have room for some keys only.
    rank = np.empty(len(rows.groups), np.int64)
    by_pings = rows.by_pings
    rank[by_pings] = np.arange(len(rows.groups))
    is_kept = np.array([each.get("key") != REST_NAME for each in rows.groups])
    is_asked = np.isin(dates, np.array(sorted(asked), "datetime64[D]"))
    cells = np.where(is_kept[rows.group] & is_asked[place], rank[rows.group] * len(dates) + place, -1)
    # Only cells with rows: keys times dates may be many, and most are empty.
    present, number = np.unique(cells, return_inverse=True)
    if len(present) and present[0] == -1:
        present, number = present[1:], number - 1
    counts, _ = rows.dense(number, len(present))
    sums = {name: np.zeros(len(present), np.int64) for name in rows.numbers}
    for name, into in sums.items():
        np.add.at(into, number[number >= 0], rows.numbers[name][number >= 0])
    minimum = thresholds.of(resolved.selection.filters["channel"])
    found = (
        Cell(
            _day(dates[cell % len(dates)]),
            rows.groups[by_pings[cell // len(dates)]].get("key", ""),
            counts[at].tolist(),
            int(sums["pings"][at]),
            int(sums["sum"][at]),
        )
        for at, cell in enumerate(present.tolist())
        if sums["clients"][at] >= minimum
    )
    return Cells(_buckets(rows, resolved.metric), found)


@dataclass(frozen=True, slots=True)
class _NothingFound:
    reason: Reason
    definitions: Sequence[UsedDefinition] = ()


@dataclass(frozen=True, slots=True)
class _Rows:
    """The chosen rows of one definition, with the number of the series that each belongs to."""

    definition: Definition
    definitions: Sequence[UsedDefinition]
    bounds: tuple[int, ...]
    groups: Sequence[Mapping[str, str]]
    names: Sequence[str]
    group: Whole
    dates: NDArray[np.datetime64]
    versions: NDArray[Any]
    numbers: Mapping[str, Whole]
    """`pings`, `clients` and `sum`."""
    lengths: Whole
    bucket: Whole
    """The number of the bucket of each entry of the rows' lists."""
    counts: Whole
    weights: Whole

    @property
    def by_pings(self) -> list[int]:
        """The numbers of the series, those with most pings first."""
        pings = np.zeros(len(self.groups), np.int64)
        np.add.at(pings, self.group, self.numbers["pings"])
        return sorted(range(len(self.groups)), key=lambda number: (-int(pings[number]), self.names[number]))

    def dense(self, cells: Whole, count: int) -> tuple[Whole, Whole]:
        """Return counts and weights of each of `count` cells, by bucket; rows with a cell below 0 are left
        out."""
        buckets = len(self.bounds)
        cell = np.repeat(cells, self.lengths)
        chosen = cell >= 0
        place = cell[chosen] * buckets + self.bucket[chosen]
        counts, weights = np.zeros(count * buckets, np.int64), np.zeros(count * buckets, np.int64)
        np.add.at(counts, place, self.counts[chosen])
        np.add.at(weights, place, self.weights[chosen])
        return counts.reshape(count, buckets), weights.reshape(count, buckets)

    def totals(self, chosen: NDArray[np.bool_], samples: int, weight: Weight, named: bool) -> Totals:
        """Return the sums over the `chosen` rows, which have this many samples."""
        sums = {name: int(values[chosen].sum()) for name, values in self.numbers.items()}
        has_mean = samples > 0 and weight is Weight.SAMPLES and not named
        return Totals(
            sums["pings"],
            sums["clients"],
            samples,
            sums["sum"],
            sums["sum"] / samples if has_mean else None,
        )


def _rows(cubes: Cubes, resolved: Resolved) -> _Rows | _NothingFound:
    if resolved.reason is not None:
        return _NothingFound(resolved.reason)
    selection = resolved.selection
    columns = ["date", "version"]
    grouped = [selection.compare] if selection.compare else []
    if resolved.metric.is_keyed:
        grouped.append("key")
    columns += [name for name in grouped if name not in columns]
    table = cubes.rows(selection.view, resolved.row_filter, columns).combine_chunks()
    if not table.num_rows:
        return _NothingFound(no_rows_reason(cubes, resolved))
    definitions = _definitions(table)
    definition = selection.definition or definitions[0].definition
    if definition not in [used.definition for used in definitions]:
        there = ", ".join(str(used.definition) for used in definitions)
        return _NothingFound(
            Reason(
                "no_such_definition",
                f"{resolved.metric.name} has no samples in the buckets {definition} with these filters; "
                f"it has {there}.",
            ),
            definitions,
        )
    is_chosen = np.ones(table.num_rows, np.bool_)
    for name, value in zip(DEFINITION, _numbers_of(definition), strict=True):
        is_chosen &= table.column(name).to_numpy() == value
    table = table.filter(pa.array(is_chosen)).combine_chunks()
    lists = {name: _list(table.column(name)) for name in ("buckets", "counts", "weights")}
    lower = np.asarray(lists["buckets"].flatten()).astype(np.int64)
    parameters = BucketRange(
        definition.histogram_type, definition.low, definition.high, definition.bucket_count
    )
    bounds = (
        tuple(np.union1d([0], lower).tolist()) if has_sent_buckets(parameters) else bucket_bounds(parameters)
    )
    bucket = np.searchsorted(np.asarray(bounds, np.int64), lower)
    if not np.array_equal(np.asarray(bounds, np.int64)[np.minimum(bucket, len(bounds) - 1)], lower):
        raise FatalError(
            f"{resolved.metric.name}: the cubes of version {cubes.version} have a bucket that "
            f"{definition} does "
            "not have: build them again"
        )
    group, groups = _groups(table, grouped)
    return _Rows(
        definition=definition,
        definitions=definitions,
        bounds=bounds,
        groups=groups,
        names=[
            " · ".join(value or EMPTY_NAME for value in each.values()) or resolved.metric.name
            for each in groups
        ],
        group=group,
        dates=table.column("date").to_numpy().astype("datetime64[D]"),
        versions=table.column("version").to_numpy(zero_copy_only=False),
        numbers={name: table.column(name).to_numpy() for name in ("pings", "clients", "sum")},
        lengths=np.asarray(lists["buckets"].value_lengths()).astype(np.int64),
        bucket=bucket,
        counts=np.asarray(lists["counts"].flatten()).astype(np.int64),
        weights=np.asarray(lists["weights"].flatten()).astype(np.int64),
    )


def _definitions(table: pa.Table) -> list[UsedDefinition]:
    """Return the definitions of the rows: the newest first, and of two as new the one with more pings."""
    used = (
        table.select([*DEFINITION, "pings", "date"])
        .group_by(list(DEFINITION))
        .aggregate([("pings", "sum"), ("date", "min"), ("date", "max")])
        .to_pylist()
    )
    return sorted(
        (
            UsedDefinition(
                Definition(
                    HistogramType(row["histogram_type"]),
                    row["bucket_count"],
                    row["range_low"],
                    row["range_high"],
                ),
                row["pings_sum"],
                row["date_min"],
                row["date_max"],
            )
            for row in used
        ),
        key=lambda each: (each.last_date or date.min, each.pings, str(each.definition)),
        reverse=True,
    )


def _numbers_of(definition: Definition) -> tuple[int, int, int, int]:
    return definition.histogram_type, definition.bucket_count, definition.low, definition.high


def _groups(table: pa.Table, grouped: Sequence[str]) -> tuple[Whole, list[dict[str, str]]]:
    if not grouped:
        return np.zeros(table.num_rows, np.int64), [{}]
    columns = [pc.fill_null(table.column(name), _REST_MARK) for name in grouped]
    codes = np.zeros(table.num_rows, np.int64)
    values = []
    for column in columns:
        encoded = pc.dictionary_encode(column.combine_chunks())
        values.append(encoded.dictionary.to_pylist())
        codes = codes * len(values[-1]) + np.asarray(encoded.indices)
    present, group = np.unique(codes, return_inverse=True)
    groups = []
    for code in present.tolist():
        named = {}
        for name, known in zip(reversed(grouped), reversed(values), strict=True):
            code, place = divmod(code, len(known))  # noqa: PLW2901 - a number in a mixed base, digit by digit
            named[name] = REST_NAME if known[place] == _REST_MARK else known[place]
        groups.append(dict(reversed(named.items())))
    return group.astype(np.int64), groups


def _shown_groups(
    rows: _Rows, resolved: Resolved, thresholds: Thresholds
) -> tuple[list[int], list[Hidden], int]:
    shown, hidden = [], []
    clients = np.zeros(len(rows.groups), np.int64)
    np.add.at(clients, rows.group, rows.numbers["clients"])
    for number in rows.by_pings:
        minimum = thresholds.of(_channels(resolved, rows.groups[number]))
        if clients[number] >= minimum:
            shown.append(number)
        else:
            hidden.append(Hidden(rows.names[number], int(clients[number]), 0, minimum))
    left_out = max(0, len(shown) - SERIES_MAX_COUNT)
    shown = shown[:SERIES_MAX_COUNT]
    if resolved.selection.compare == "version":
        places = {name: place for place, name in enumerate(sorted_versions(set(rows.names)))}
        shown.sort(key=lambda number: places[rows.names[number]])
    return shown, hidden, left_out


def _channels(resolved: Resolved, group: Mapping[str, str]) -> Sequence[str]:
    return (group["channel"],) if "channel" in group else resolved.selection.filters["channel"]


def _all_hidden(hidden: Sequence[Hidden]) -> Reason:
    if not hidden:
        return Reason(
            "no_such_dates",
            "None of these samples has a build date: choose “by submission date” to see them.",
        )
    most = max(hidden, key=lambda each: each.clients)
    return Reason(
        "below_threshold",
        f"There are too few clients: {most.clients:,} client-days, and fewer than "
        f"{most.minimum_clients:,} are not "
        "shown in this channel. Choose more versions, systems or dates.",
    )


def _has_names(definition: Definition, metric: Metric) -> bool:
    """Return whether the values are names, of which there are no percentiles and no mean."""
    return definition.histogram_type in _NAMED_TYPES or metric.kind in _WITHOUT_PERCENTILES


def _buckets(rows: _Rows, metric: Metric) -> list[Bucket]:
    kind = rows.definition.histogram_type
    labels: Sequence[str] = metric.labels
    if not labels and kind in _TRUTH_TYPES:
        labels = ("no", "yes")
    ends: list[int | None] = [*rows.bounds[1:], None]
    return [
        Bucket(
            start,
            end,
            (labels[number] if number < len(labels) else UNKNOWN_LABEL)
            if labels
            else (str(start) if _has_names(rows.definition, metric) else None),
        )
        for number, (start, end) in enumerate(zip(rows.bounds, ends, strict=True))
    ]


def _ends(weights: Whole, share: float) -> tuple[int, int]:
    """Return where the buckets begin and end in which a series has a larger share than `share`."""
    totals = np.maximum(weights.sum(axis=1, keepdims=True), 1)
    filled = np.flatnonzero(((weights / totals) > share).any(axis=0)) if len(weights) else np.array([], int)
    return (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)


def _label_shares(
    weighing: Whole, buckets: Sequence[Bucket], filled: NDArray[np.bool_]
) -> dict[str, list[float | None]]:
    of_all = weighing.sum(axis=0)
    totals = np.maximum(weighing.sum(axis=1), 1)
    most = [int(number) for number in np.argsort(-of_all, kind="stable")[:LABELS_MAX_COUNT] if of_all[number]]
    return {
        buckets[number].label or str(buckets[number].start): _where(filled, weighing[:, number] / totals)
        for number in sorted(most)
    }


def _marks(rows: _Rows, dates: NDArray[np.datetime64], place: Whole, dated: NDArray[np.bool_]) -> list[Mark]:
    """Return where each major version begins, from the second one on."""
    pings = rows.numbers["pings"][dated]
    majors = np.array([major_of(str(version)) for version in rows.versions[dated]], dtype=object)
    per_date = np.zeros(len(dates), np.int64)
    np.add.at(per_date, place, pings)
    marks = []
    for major in set(majors.tolist()):
        if version_key(major) is None:
            continue
        of_major = np.zeros(len(dates), np.int64)
        np.add.at(of_major, place[majors == major], pings[majors == major])
        begun = np.flatnonzero(of_major >= np.maximum(1, MARK_MIN_SHARE * per_date))
        if len(begun) and begun[0] > 0:
            marks.append(Mark(_day(dates[begun[0]]), major))
    return sorted(marks, key=lambda mark: (mark.date, version_key(mark.version) or ()))


def _named_percentiles(percents: Sequence[float], values: NDArray[np.float64]) -> dict[str, float]:
    return {f"{percent:g}": float(value) for percent, value in zip(percents, values, strict=True)}


def _where(shown: NDArray[np.bool_], values: NDArray[Any]) -> list[Any]:
    return [value if flag else None for flag, value in zip(shown.tolist(), values.tolist(), strict=True)]


def _safe(cells: Whole) -> Whole:
    return np.maximum(cells, 0)


def _day(value: Any) -> date:
    day: date = value.astype("datetime64[D]").item()
    return day


def _list(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
