"""What a reader of the dashboard asks for, as parameters of a URL: parsed, checked and limited.

Every parameter may be left out but `metric`. `PARAMETERS` says what each means; pages, exports and the API
understand the same ones, so that a link to one is a link to all when its path is changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from enum import StrEnum
from typing import Final

from telemetry_lake.dashboard.cubes import COMPARABLE
from telemetry_lake.dashboard.format import View
from telemetry_lake.dashboard.version_order import VersionRange, version_key
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.histograms.bucket_ranges import HistogramType
from telemetry_lake.units import DateRange

VALUES_MAX_COUNT: Final = 20
VALUE_MAX_CHARACTERS: Final = 200
PERCENTS: Final = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
DEFAULT_PERCENTS: Final = (5.0, 25.0, 50.0, 75.0, 95.0)
FILTERS: Final = ("channel", "application", "os", "architecture", "process")
"""The dimensions whose values are listed; versions are a range."""

PARAMETERS: Final[Mapping[str, str]] = {
    "metric": "The metric's name.",
    "channel": "A release channel; may be repeated. Without it: nightly, else the channel with most pings.",
    "versions": "A version, or the lowest and the highest: 118..121. A number without a dot is all "
    "its releases.",
    "application": "An application; may be repeated.",
    "os": "An operating system; may be repeated.",
    "architecture": "A processor architecture; may be repeated.",
    "process": "The process that the samples come from; may be repeated.",
    "key": "A key of a keyed metric; may be repeated. Without it: the keys with most pings.",
    "rest": "1 adds the keys that are not kept one by one, as one series.",
    "ping": "The kind of ping, as namespace/type. Without it: the kind with most pings.",
    "by": "build or submission: the date by which samples are told apart. Without it: build.",
    "dates": "A date, or the first and the last: 2026-01-01..2026-01-31.",
    "compare": f"A series for each value of one of {', '.join(COMPARABLE)}.",
    "weight": "samples counts every sample; client gives each client of a day a total weight of 1. "
    "Without it: samples.",
    "definition": "Buckets to show, where a metric has had several: kind.low.high.buckets. Without "
    "it: the newest.",
    "percentiles": f"Some of {', '.join(f'{each:g}' for each in PERCENTS)}, with commas.",
    "trim": "1 leaves out buckets at both ends with less than 0.1 % of the samples.",
}
DISPLAY_PARAMETERS: Final = ("cumulative", "reference", "table", "threshold", "search")
"""What only pages look at."""


class Weight(StrEnum):
    """What a sample counts."""

    SAMPLES = "samples"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Definition:
    """What decides the buckets of a histogram."""

    histogram_type: HistogramType
    bucket_count: int
    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.histogram_type.name.lower()}.{self.low}.{self.high}.{self.bucket_count}"

    @classmethod
    def parse(cls, text: str) -> "Definition":
        """Read `kind.low.high.buckets`; raises ValueError."""
        kind, low, high, count = text.split(".")
        return cls(HistogramType[kind.upper()], int(count), int(low), int(high))


class BadSelection(TelemetryLakeError):
    """A parameter cannot be understood; the message says which, why and what is possible."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for. An empty tuple and None leave the choice to the answer, which says what it took."""

    metric: str
    filters: Mapping[str, tuple[str, ...]]
    """Values by the names in `FILTERS`."""
    versions: VersionRange | None = None
    keys: tuple[str, ...] = ()
    with_rest: bool = False
    ping: str | None = None
    view: View = View.BUILD
    dates: DateRange | None = None
    compare: str | None = None
    weight: Weight = Weight.SAMPLES
    definition: Definition | None = None
    percents: tuple[float, ...] = DEFAULT_PERCENTS
    trim: bool = False


def parse_selection(pairs: Iterable[tuple[str, str]], *, today: date) -> Selection:
    """Return what the parameters `pairs` of a URL ask for; `today` is the date of now in UTC.

    Raises BadSelection.
    """
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        _check_name(name)
        if len(value) > VALUE_MAX_CHARACTERS:
            raise BadSelection(
                f"the parameter {name} has {len(value):,} characters; at most {VALUE_MAX_CHARACTERS} "
                f"are possible"
            )
        # A key may be empty; nothing else is, and an empty field of a form means that it was left out.
        if (value or name == "key") and value not in given.setdefault(name, []):
            given[name].append(value)
    repeatable = {*FILTERS, "key"}
    for name, values in given.items():
        most = VALUES_MAX_COUNT if name in repeatable else 1
        if len(values) > most:
            raise BadSelection(
                f"the parameter {name} is given {len(values)} times; at most {most} are possible"
            )
    once = {name: values[0] for name, values in given.items() if name not in repeatable and values}
    if "metric" not in once:
        raise BadSelection("the parameter metric is missing: say which metric, for example ?metric=GC_MS")
    return Selection(
        metric=once["metric"],
        filters={name: tuple(given.get(name, ())) for name in FILTERS},
        versions=_versions(once.get("versions")),
        keys=tuple(given.get("key", ())),
        with_rest=_flag("rest", once),
        ping=once.get("ping"),
        view=View(_one_of("by", once, [view.value for view in View], View.BUILD.value)),
        dates=_dates(once.get("dates"), today),
        compare=_one_of("compare", once, COMPARABLE, "") or None,
        weight=Weight(_one_of("weight", once, [weight.value for weight in Weight], Weight.SAMPLES.value)),
        definition=_definition(once.get("definition")),
        percents=_percents(once.get("percentiles")),
        trim=_flag("trim", once),
    )


def _check_name(name: str) -> None:
    if name in PARAMETERS or name in DISPLAY_PARAMETERS:
        return
    close = get_close_matches(name[:VALUE_MAX_CHARACTERS], PARAMETERS, 1)
    hint = f"did you mean {close[0]}" if close else f"there are {', '.join(PARAMETERS)}"
    raise BadSelection(f"there is no parameter {_shown(name)}: {hint}")


def _flag(name: str, once: Mapping[str, str]) -> bool:
    return _one_of(name, once, ("0", "1"), "0") == "1"


def _one_of(name: str, once: Mapping[str, str], allowed: Iterable[str], default: str) -> str:
    value = once.get(name, default)
    if value != default and value not in allowed:
        raise BadSelection(f"the parameter {name} is {_shown(value)}, and possible are {', '.join(allowed)}")
    return value


def _versions(text: str | None) -> VersionRange | None:
    if text is None:
        return None
    first, dots, last = text.partition("..")
    last = last if dots else first
    for version in (first, last):
        if version_key(version) is None and version != "OTHER":
            raise BadSelection(
                f"the parameter versions is {_shown(text)}: expected a version such as 120.0, or the lowest "
                "and the highest such as 118..121"
            )
    if (version_key(first) or ()) > (version_key(last) or ()):
        raise BadSelection(
            f"the parameter versions is {_shown(text)}, and {last} is before {first}: the lowest comes first"
        )
    return VersionRange(first, last)


def _dates(text: str | None, today: date) -> DateRange | None:
    if text is None:
        return None
    try:
        return DateRange.parse(text, today)
    except ValueError as error:
        raise BadSelection(f"the parameter dates is {_shown(text)}: {error}") from error


def _definition(text: str | None) -> Definition | None:
    if text is None:
        return None
    try:
        return Definition.parse(text)
    except (ValueError, KeyError) as error:
        raise BadSelection(
            f"the parameter definition is {_shown(text)}: expected kind.low.high.buckets, such as "
            f"exponential.1.1000.50"
        ) from error


def _percents(text: str | None) -> tuple[float, ...]:
    if text is None:
        return DEFAULT_PERCENTS
    possible = {f"{percent:g}": percent for percent in PERCENTS}
    asked = [part.strip() for part in text.split(",") if part.strip()]
    for part in asked:
        if part not in possible:
            raise BadSelection(
                f"the parameter percentiles names {_shown(part)}, and possible are {', '.join(possible)}"
            )
    return tuple(sorted({possible[part] for part in asked}))


def _shown(text: str) -> str:
    short = text if len(text) <= 60 else f"{text[:60]}…"
    return f"“{short}”"
