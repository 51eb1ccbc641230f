"""Answers as documents: JSON and CSV. Both are made of the same answer as charts and tables."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from itertools import accumulate, takewhile
from typing import Any, Final

from telemetry_lake.dashboard.answers import Distribution, Evolution, Thresholds
from telemetry_lake.dashboard.cubes import Cubes, Metric
from telemetry_lake.dashboard.resolve import Resolved
from telemetry_lake.dashboard.selection import Definition, Selection, Weight
from web.edge import AnswerTooLarge

ANSWER_MAX_BYTES: Final = 1_000_000
"""No answer of the API is larger, before it is compressed."""
_PLAIN: Final = (str, int, float, bool, type(None))


def limited(content: str) -> bytes:
    """Return an answer as bytes; raises AnswerTooLarge."""
    body = content.encode()
    if len(body) > ANSWER_MAX_BYTES:
        raise AnswerTooLarge(
            f"This answer would have {len(body):,} bytes, and at most {ANSWER_MAX_BYTES:,} are possible: "
            "choose fewer dates, percentiles or series, or a smaller limit."
        )
    return body


def fitting_count(items: Sequence[object], max_bytes: int) -> int:
    """Return how many of the items, from the first on, fit into so many bytes of a list in JSON."""
    sizes = accumulate(len(json.dumps(item, separators=(",", ":"))) + 1 for item in items)
    return sum(1 for _ in takewhile(lambda size: size <= max_bytes, sizes))


def as_json(value: object) -> Any:
    """Return `value` as what JSON has: dataclasses become objects, dates and definitions text."""
    if isinstance(value, Definition):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): as_json(each) for name, each in value.items()}
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Iterable):
        items = list(value)
        return items if all(type(each) in _PLAIN for each in items) else [as_json(each) for each in items]
    raise TypeError(f"JSON has no {type(value).__name__}")


def metric_document(metric: Metric) -> dict[str, Any]:
    """Return what is known of a metric."""
    document: dict[str, Any] = as_json(metric)
    document["keyed"] = document.pop("is_keyed")
    return document


def selection_parameters(selection: Selection) -> dict[str, Any]:
    """Return a selection as the parameters of a URL that ask for it."""
    return {
        "metric": selection.metric,
        **{name: list(values) for name, values in selection.filters.items()},
        "versions": None if selection.versions is None else str(selection.versions),
        "key": list(selection.keys),
        "rest": selection.with_rest,
        "ping": selection.ping,
        "by": selection.view.value,
        "dates": None if selection.dates is None else str(selection.dates),
        "compare": selection.compare,
        "weight": selection.weight.value,
        "definition": None if selection.definition is None else str(selection.definition),
        "percentiles": [f"{percent:g}" for percent in selection.percents],
        "trim": selection.trim,
    }


def data_document(cubes: Cubes) -> dict[str, Any]:
    """Return which data an answer is from."""
    manifest = cubes.manifest
    return {
        "version": manifest.version,
        "built_at": as_json(manifest.built_at),
        "data_until": as_json(manifest.data_until),
        "preliminary_date": as_json(manifest.preliminary_date),
    }


def answer_document(
    cubes: Cubes, resolved: Resolved, thresholds: Thresholds, answer: Distribution | Evolution
) -> dict[str, Any]:
    """Return an answer with all that a page shows beside it."""
    options = resolved.options
    return {
        "metric": metric_document(resolved.metric),
        "selection": selection_parameters(resolved.selection),
        "chosen_here": list(resolved.chosen_here),
        "data": data_document(cubes),
        "options": {
            name: [{"value": value, "pings": pings} for value, pings in values]
            for name, values in options.values.items()
        },
        "first_date": as_json(options.first_date),
        "last_date": as_json(options.last_date),
        "minimum_clients": thresholds.of(resolved.selection.filters["channel"])
        if resolved.selection.compare != "channel"
        else max([thresholds.elsewhere, *thresholds.by_channel.values()]),
        **as_json(answer),
    }


def distribution_csv(resolved: Resolved, answer: Distribution) -> str:
    """Return one line for each bucket of each series."""
    groups = _group_columns(answer.series)
    weight = "client_weight" if resolved.selection.weight is Weight.CLIENT else "weight"
    lines: list[Sequence[object]] = [[*groups, "start", "end", "label", "samples", weight, "share"]]
    for series in answer.series:
        lines += [
            [
                *(series.group.get(name, "") for name in groups),
                bucket.start,
                "" if bucket.end is None else bucket.end,
                bucket.label or "",
                count,
                weighing,
                share,
            ]
            for bucket, count, weighing, share in zip(
                answer.buckets, series.counts, series.weights, series.shares, strict=True
            )
        ]
    return _csv(lines)


def evolution_csv(resolved: Resolved, answer: Evolution) -> str:
    """Return one line for each date of each series that has data."""
    groups = _group_columns(answer.series)
    percents = [f"{percent:g}" for percent in resolved.selection.percents] if answer.has_percentiles else []
    labels = list(dict.fromkeys(label for series in answer.series for label in series.shares))
    lines: list[Sequence[object]] = [
        [*groups, "date", "pings", "client_days", "samples", "mean"]
        + [f"p{percent}" for percent in percents]
        + [f"share of {label}" for label in labels]
    ]
    for series in answer.series:
        for place, day in enumerate(answer.dates):
            if series.pings[place] is None:
                continue
            cells = [
                *(series.group.get(name, "") for name in groups),
                day.isoformat(),
                *(column[place] for column in (series.pings, series.clients, series.samples, series.means)),
                *(series.percentiles[percent][place] for percent in percents),
                *(series.shares[label][place] if label in series.shares else None for label in labels),
            ]
            lines.append(["" if cell is None else cell for cell in cells])
    return _csv(lines)


def _group_columns(series: Sequence[Any]) -> list[str]:
    return list(series[0].group) if series else []


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([_safe(cell) for cell in line] for line in lines)
    return text.getvalue()


def _safe(cell: object) -> object:
    """Return a cell that no spreadsheet takes for a formula: keys and labels are chosen by clients."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell
