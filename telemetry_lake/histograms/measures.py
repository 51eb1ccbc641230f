"""The numbers and truth values that pings have beside histograms, as histograms with one sample each.

They stay in the column `document`: scalars and keyed scalars of each process and simple measurements of
unified pings (`payload.processes.*`, `payload.simpleMeasurements`, and `simpleMeasurements` of pings before
them), and counters, quantities, booleans, timespans and rates of Glean (`metrics`), labeled ones included.
`docs/dashboard.md` says what their families are and which values count.

A document is skimmed: only these parts are decoded. What is left out leaves no trace, because a client can
send anything here; the document itself keeps it.
"""

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from telemetry_lake.histograms.bucket_ranges import MEASURE_RANGES, HistogramType, bucket_bounds
from telemetry_lake.histograms.stored import PARENT_PROCESS
from telemetry_lake.histograms.sum_kernels import SUM_MAX

VALUE_MAX: Final = int(SUM_MAX)
"""A larger value is damage, as a larger sum of a histogram is."""
PART_MAX: Final = 2**63
"""The largest number in a timespan or rate, of which a value is computed."""
VALUES_MAX_COUNT: Final = 2_000
"""So many values of a ping count, the first in its document: Firefox sends some hundreds."""
KEYS_MAX_COUNT: Final = 100
"""So many keys of a metric count in a ping, the first in its document: Firefox keeps no more itself."""
NAME_MAX_CHARACTERS: Final = 120
KEY_MAX_CHARACTERS: Final = 120
"""Glean's longest labels have 111."""
DEFINITIONS_MAX_COUNT: Final = 20_000
"""So many measures, with each key one, count in pings that are read together: those that most pings have."""

_NAME: Final = re.compile(rf"[A-Za-z0-9_.-]{{1,{NAME_MAX_CHARACTERS}}}")
_PROCESS: Final = re.compile(r"[A-Za-z_]{1,20}")
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)
"""Any escape of JSON; the group is half of a character without its other half, which is not decoded."""
_SENT_NAMES_MAX_COUNT: Final = 4 * DEFINITIONS_MAX_COUNT
_MILLISECONDS: Final = {
    "nanosecond": (1, 1_000_000),
    "microsecond": (1, 1_000),
    "millisecond": (1, 1),
    "second": (1_000, 1),
    "minute": (60_000, 1),
    "hour": (3_600_000, 1),
    "day": (86_400_000, 1),
}
"""Factor and divisor, so that whole numbers stay exact."""
_LABELS_JOINT: Final = "|"
"""Stands between the two labels of a dual-labeled counter."""

# The stubs know few of the functions.
pc: Final[Any] = pyarrow.compute
_INTEGERS: Final = {int}
_ABSENT: Final = msgspec.Raw()


class _Document(msgspec.Struct, rename="camel"):
    payload: msgspec.Raw = _ABSENT
    simple_measurements: msgspec.Raw = _ABSENT
    metrics: msgspec.Raw = _ABSENT


class _Payload(msgspec.Struct, rename="camel"):
    simple_measurements: msgspec.Raw = _ABSENT
    processes: msgspec.Raw = _ABSENT


class _Process(msgspec.Struct, rename="camel"):
    scalars: msgspec.Raw = _ABSENT
    keyed_scalars: msgspec.Raw = _ABSENT


class _Metrics(msgspec.Struct):
    boolean: msgspec.Raw = _ABSENT
    labeled_boolean: msgspec.Raw = _ABSENT
    counter: msgspec.Raw = _ABSENT
    labeled_counter: msgspec.Raw = _ABSENT
    dual_labeled_counter: msgspec.Raw = _ABSENT
    quantity: msgspec.Raw = _ABSENT
    labeled_quantity: msgspec.Raw = _ABSENT
    timespan: msgspec.Raw = _ABSENT
    rate: msgspec.Raw = _ABSENT


_DOCUMENT: Final = msgspec.json.Decoder(_Document)
_PAYLOAD: Final = msgspec.json.Decoder(_Payload)
_PROCESS_PART: Final = msgspec.json.Decoder(_Process)
_METRICS: Final = msgspec.json.Decoder(_Metrics)
_PARTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUES: Final = msgspec.json.Decoder(dict[str, Any])


class _Measure(NamedTuple):
    """What says which measure a value is of."""

    process: str
    name: str
    key: str | None
    histogram_type: HistogramType


def read_measures(documents: Iterable[bytes]) -> Any:
    """Return the measures of each document, the JSON text of a row of pings.

    An Arrow array with a list for each document, of the fields of the column `histograms` that sums are made
    of. A ping has each of them once at most.
    """
    reader = _Reader()
    for document in documents:
        reader.read(document)
    return reader.column()


class _Reader:
    """The measures of some pings, as numbers that stand for what they are, and values."""

    def __init__(self) -> None:
        self._measures: list[_Measure] = []
        self._number_of_measure: dict[_Measure, int] = {}
        # A cache of what names, or keys of a keyed measure, stand for: by family, process, the keyed
        # measure's name, and whether the values are truth values.
        self._number_of: dict[tuple[str, str, str | None, bool], dict[str, int]] = {}
        self._numbers = array("i")
        self._values = array("q")
        self._ends = array("q", [0])
        self._sent_names = 0
        self._names_meet = False
        """Whether two names that a ping may have at once are the same measure."""

    def read(self, document: bytes) -> None:
        """Add the measures of the next document."""
        for family, process, values in _families(document):
            if not family.is_keyed:
                self._add(family, process, None, values)
                continue
            for name, keys in values.items():
                if isinstance(keys, dict) and keys:
                    self._add(family, process, name, dict(islice(keys.items(), KEYS_MAX_COUNT)))
        self._ends.append(len(self._numbers))
        if len(self._measures) > 2 * DEFINITIONS_MAX_COUNT:
            self._keep_most_common()
        if self._sent_names > _SENT_NAMES_MAX_COUNT:  # many that differ in case alone
            self._forget_sent_names()

    def column(self) -> Any:
        """Return what was read."""
        if len(self._measures) > DEFINITIONS_MAX_COUNT:
            self._keep_most_common()
        numbers, values, starts = self._columns()
        kinds = np.array([measure.histogram_type for measure in self._measures], np.int32)[numbers]
        texts: list[str] = []
        buckets = np.zeros(len(values), np.int64)
        for kind in np.unique(kinds).tolist():
            bounds = bucket_bounds(MEASURE_RANGES[HistogramType(kind)])
            is_kind = kinds == kind
            buckets[is_kind] = np.searchsorted(bounds, values[is_kind], side="right") - 1 + len(texts)
            texts += [str(bound) for bound in bounds]
        ranges = [MEASURE_RANGES[measure.histogram_type] for measure in self._measures]
        columns = {
            **{
                name: _taken([getattr(measure, name) for measure in self._measures], numbers)
                for name in ("process", "name", "key")
            },
            "histogram_type": pa.array(kinds),
            "bucket_count": pa.array(np.array([each.bucket_count for each in ranges], np.int32)[numbers]),
            "range_low": pa.array(np.array([each.low for each in ranges], np.int64)[numbers]),
            "range_high": pa.array(np.array([each.high for each in ranges], np.int64)[numbers]),
            "buckets": pc.take(pa.array(texts, pa.string()), pa.array(buckets)),
            "counts": pa.repeat(pa.scalar("1"), len(values)),
            "sum": pa.array(values.astype(np.float64)),
        }
        measures = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
        return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), measures)

    def _add(self, family: "_Family", process: str, name: str | None, values: Mapping[str, Any]) -> None:
        """Add values by the names of their measures; where `name` is one, by the keys of that measure."""
        room = VALUES_MAX_COUNT - (len(self._numbers) - self._ends[-1])
        known = self._known(family, process, name, is_truth=False)
        # Nearly always all are known whole numbers, and then no loop of Python's is needed.
        numbers: list[Any] = list(map(known.get, values))
        sent = list(values.values())
        if (
            0 < len(sent) <= room
            and None not in numbers
            and set(map(type, sent)) == _INTEGERS
            and min(sent) >= 0
            and max(sent) <= VALUE_MAX
        ):
            self._numbers.extend(numbers)
            self._values.extend(sent)
            return
        truths = self._known(family, process, name, is_truth=True)
        for label, value in values.items():
            kind = type(value)
            if not room:
                return
            if kind is bool:
                known_of_kind = truths
            elif (kind is int or kind is float) and 0 <= value <= VALUE_MAX:
                known_of_kind = known
            else:
                continue
            number = known_of_kind.get(label)
            if number is None:
                measure = family.measure(process, name, label, is_truth=kind is bool)
                if measure is None:
                    continue
                number = known_of_kind[label] = self._number(measure)
                self._sent_names += 1
            self._numbers.append(number)
            self._values.append(int(value))
            room -= 1

    def _known(self, family: "_Family", process: str, name: str | None, *, is_truth: bool) -> dict[str, int]:
        whose = (family.name, process, name, is_truth)
        known = self._number_of.get(whose)
        if known is None:
            known = self._number_of[whose] = {}
            self._sent_names += 1
        return known

    def _number(self, measure: _Measure) -> int:
        number = self._number_of_measure.setdefault(measure, len(self._measures))
        if number == len(self._measures):
            self._measures.append(measure)
        else:
            self._names_meet = True
        return number

    def _keep_most_common(self) -> None:
        """Forget all measures but those with most values; of two with as many, the one that came first stays.

        What has been forgotten may come again, and is counted from then on.
        """
        numbers, values, starts = self._columns()
        frequency = np.bincount(numbers, minlength=len(self._measures))
        kept = np.sort(np.argsort(-frequency, kind="stable")[:DEFINITIONS_MAX_COUNT])
        is_kept = np.zeros(len(self._measures), np.bool_)
        is_kept[kept] = True
        new = np.cumsum(is_kept) - 1
        stays = is_kept[numbers]
        before = np.concatenate(([0], np.cumsum(stays)))
        self._numbers = array("i", new[numbers[stays]].astype(np.int32).tobytes())
        self._values = array("q", values[stays].tobytes())
        self._ends = array("q", before[starts].astype(np.int64).tobytes())
        self._measures = [self._measures[number] for number in kept.tolist()]
        self._number_of_measure = {measure: number for number, measure in enumerate(self._measures)}
        self._forget_sent_names()

    def _forget_sent_names(self) -> None:
        self._number_of.clear()
        self._sent_names = 0

    def _columns(self) -> "tuple[Any, Any, Any]":
        """Return the number and value of each measure, and where those of each ping begin."""
        numbers, values = np.array(self._numbers, np.int64), np.array(self._values, np.int64)
        starts = np.array(self._ends, np.int64)
        if not self._names_meet:
            return numbers, values, starts
        ping = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        _, first = np.unique(ping * max(1, len(self._measures)) + numbers, return_index=True)
        first.sort()
        return numbers[first], values[first], np.searchsorted(first, starts)


class _Family(NamedTuple):
    """Where values come from, and what they are called."""

    name: str
    histogram_type: HistogramType
    prefix: str = ""
    is_keyed: bool = False

    def measure(self, process: str, name: str | None, label: str, *, is_truth: bool) -> _Measure | None:
        """Return the measure with this name; or with `name`, where that is one, and this key.

        None when names or key cannot be those of a measure.
        """
        name, key = (label, None) if name is None else (name, label)
        if not (_NAME.fullmatch(name) and _PROCESS.fullmatch(process)):
            return None
        if key is not None and len(key) > KEY_MAX_CHARACTERS:
            return None
        kind = HistogramType.TRUTH if is_truth else self.histogram_type
        return _Measure(process, self.prefix + (name.upper() if self.prefix else name), key, kind)


_SCALARS: Final = _Family("scalar", HistogramType.SCALAR, "SCALARS_")
_KEYED_SCALARS: Final = _SCALARS._replace(name="keyed scalar", is_keyed=True)
_SIMPLE: Final = _Family("simple", HistogramType.SIMPLE_MEASUREMENT, "SIMPLE_MEASURES_")
_COUNTERS: Final = _Family("counter", HistogramType.COUNTER)
_LABELED_COUNTERS: Final = _COUNTERS._replace(name="labeled counter", is_keyed=True)
_QUANTITIES: Final = _Family("quantity", HistogramType.QUANTITY)
_LABELED_QUANTITIES: Final = _QUANTITIES._replace(name="labeled quantity", is_keyed=True)
_BOOLEANS: Final = _Family("boolean", HistogramType.TRUTH)
_LABELED_BOOLEANS: Final = _BOOLEANS._replace(name="labeled boolean", is_keyed=True)
_TIMESPANS: Final = _Family("timespan", HistogramType.TIMESPAN)
_RATES: Final = _Family("rate", HistogramType.RATE)


def _families(document: bytes) -> Iterator[tuple[_Family, str, Mapping[str, Any]]]:
    """Yield the parts of a document that have measures, with the family and process of each."""
    whole = _decoded(_DOCUMENT, document)
    if whole is None and b"\\u" in document:
        whole = _decoded(_DOCUMENT, _ESCAPE.sub(_without_lone_surrogate, document))
    if whole is None:
        return
    simple = whole.simple_measurements
    payload = _decoded(_PAYLOAD, whole.payload)
    if payload is not None:
        simple = payload.simple_measurements
        for process, part in (_decoded(_PARTS, payload.processes) or {}).items():
            of_process = _decoded(_PROCESS_PART, part)
            if of_process is not None:
                yield _SCALARS, process, _values(of_process.scalars)
                yield _KEYED_SCALARS, process, _values(of_process.keyed_scalars)
    yield _SIMPLE, PARENT_PROCESS, _flat(_values(simple))
    metrics = _decoded(_METRICS, whole.metrics)
    if metrics is not None:
        for family, values in (
            (_BOOLEANS, _values(metrics.boolean)),
            (_LABELED_BOOLEANS, _values(metrics.labeled_boolean)),
            (_COUNTERS, _values(metrics.counter)),
            (_LABELED_COUNTERS, _values(metrics.labeled_counter)),
            (_LABELED_COUNTERS, _both_labels(_values(metrics.dual_labeled_counter))),
            (_QUANTITIES, _values(metrics.quantity)),
            (_LABELED_QUANTITIES, _values(metrics.labeled_quantity)),
            (_TIMESPANS, _in_milliseconds(_values(metrics.timespan))),
            (_RATES, _in_percent(_values(metrics.rate))),
        ):
            yield family, PARENT_PROCESS, values


def _values(text: msgspec.Raw) -> Mapping[str, Any]:
    return _decoded(_VALUES, text) or {}


def _decoded(decoder: Any, text: Any) -> Any:
    """Return what a decoder makes of a text; None where it is absent or of another form."""
    if not text:
        return None
    try:
        return decoder.decode(text)
    # A text of a wrong type, such as a list; one that is nested too deeply; a number of thousands of digits.
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def _without_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[1] else escape[0]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values, with those of an object under its name and theirs."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update({f"{name}_{part}": number for part, number in value.items()})
        else:
            flat[name] = value
    return flat


def _both_labels(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            f"{key}{_LABELS_JOINT}{category}": count
            for key, categories in keys.items()
            if isinstance(categories, dict)
            for category, count in categories.items()
        }
        for name, keys in values.items()
        if isinstance(keys, dict)
    }


def _in_milliseconds(values: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, span in values.items():
        if isinstance(span, dict) and _is_number(span.get("value")):
            unit = span.get("time_unit")
            if isinstance(unit, str) and unit in _MILLISECONDS:
                factor, divisor = _MILLISECONDS[unit]
                found[name] = span["value"] * factor // divisor
    return found


def _in_percent(values: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, rate in values.items():
        if isinstance(rate, dict):
            numerator: Any = rate.get("numerator")
            denominator: Any = rate.get("denominator")
            if _is_number(numerator) and _is_number(denominator) and denominator:
                found[name] = 100 * numerator // denominator
    return found


def _is_number(value: object) -> bool:
    """Return whether this is a number that Glean can send; a product with it is never out of range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= PART_MAX


def _taken(texts: "list[str | None]", numbers: Any) -> Any:
    """Return the text of each number as a dictionary, in which each text is once."""
    encoded = pc.dictionary_encode(pa.array(texts, pa.string()))
    return pa.DictionaryArray.from_arrays(encoded.indices.take(pa.array(numbers)), encoded.dictionary)
