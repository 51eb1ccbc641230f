"""One histogram of a ping as a row of the nested column `histograms`, and back.

This is the reference: every histogram can be converted here, one by one. `fast_histograms` does the same
for the many that have nothing unusual about them.

A histogram that has been lifted into the column leaves in the document only what the column cannot
say: fields that we do not know, `null` for a field of its range that was absent and is filled in by
definition, and sums that no double holds (`leftover`). Mostly that is nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from telemetry_lake.convert.extraction import HistogramPlaces
from telemetry_lake.documents.text import has_half
from telemetry_lake.failures import ErrorType, PingRejected, Stage
from telemetry_lake.histograms.bucket_ranges import BucketRange, bucket_bounds, sent_type
from telemetry_lake.histograms.definitions import HistogramDefinitions
from telemetry_lake.histograms.stored import (
    ABSENT_SUM,
    DENSE,
    KEYED,
    PARENT_PROCESS,
    PLAIN,
    SUM_FIELDS,
    HistogramRow,
    Json,
    source_of,
)

HISTOGRAMS_MAX_COUNT: Final = 10_000
"""A ping of Firefox has some hundreds, with keyed ones some thousands."""
RANGES_MAX_COUNT: Final = 1_024
"""The most different ranges of a ping's histograms, each with up to 1,100 buckets; Firefox has hundreds."""

COUNT_HIGHEST: Final = 2**63 - 1
_INT_HIGHEST: Final = 2**31 - 1
_QUOTED_MAX_CHARACTERS: Final = 80


class LiftedHistograms(NamedTuple):
    """What became of the histograms of one document."""

    rows: list[HistogramRow]
    containers: list[tuple[str, str]]
    """The JSON Pointer of each object that was emptied, and which histograms were in it."""
    unknown: int


def lift_histograms(
    document: Json, places: HistogramPlaces, definitions: HistogramDefinitions | None
) -> LiftedHistograms:
    """Move every histogram that can be understood from `document` into rows.

    With definitions, they say which buckets a histogram has; a name they do not know is unknown. Without,
    each histogram's own range says it. Unknown ones stay where they are.
    Raises PingRejected with `invalid_histogram`, `invalid_value` or `too_costly`.
    """
    lifted = LiftedHistograms([], [], 0)
    unknown = 0
    containers = list(histogram_containers(document, places))
    if sum(_members_of(kind, container) for _, kind, _, container in containers) > HISTOGRAMS_MAX_COUNT:
        raise too_many(f"{HISTOGRAMS_MAX_COUNT} histograms")
    rows = _Rows(lifted.rows)
    for pointer, kind, process, container in containers:
        before = len(lifted.rows)
        if kind == PLAIN:
            unknown += _lift_named(container, None, process, definitions, rows)
        else:
            for name, by_key in list(container.items()):
                if not isinstance(by_key, dict):
                    raise _unusable(f"{pointer}/{name}", "is not an object")
                if by_key:
                    unknown += _lift_named(by_key, name, process, definitions, rows)
                    if not container[name]:
                        del container[name]
        if len(lifted.rows) > before:
            lifted.containers.append((pointer, source_of(kind, process)))
    return lifted._replace(unknown=unknown)


class _Rows:
    """Rows of the histograms of one document, of which there may be so many ranges."""

    def __init__(self, rows: list[HistogramRow]) -> None:
        self._rows = rows
        self._ranges: set[tuple[int, int, int, int]] = set()

    def add(self, row: HistogramRow) -> None:
        self._rows.append(row)
        self._ranges.add((row.histogram_type, row.bucket_count, row.range_low, row.range_high))
        if len(self._ranges) > RANGES_MAX_COUNT:
            raise too_many(f"{RANGES_MAX_COUNT} different ranges of histograms")


def _members_of(kind: str, container: Json) -> int:
    if kind == PLAIN:
        return len(container)
    return sum(len(by_key) for by_key in container.values() if isinstance(by_key, dict))


def value_at(document: Json, pointer: str) -> object:
    """Return the value at a JSON Pointer without escapes; None when the document does not have it."""
    value: object = document
    for part in pointer.split("/")[1:]:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def histogram_containers(document: Json, places: HistogramPlaces) -> Iterator[tuple[str, str, str, Json]]:
    """Yield every object that holds histograms, in the order of the document.

    Each comes with its pointer, its kind and its process.
    """
    at = places.inside or ""
    inside = value_at(document, at)
    if not isinstance(inside, dict):
        return
    for member, value in inside.items():
        if not isinstance(value, dict):
            continue
        if member in (PLAIN, KEYED):
            yield f"{at}/{member}", member, PARENT_PROCESS, value
        elif member == "processes" and places.processes:
            for process, holder in value.items():
                # A parent process among the others would have the same place in the column as the
                # histograms outside; Firefox has none there. It stays in the document, as does what no
                # column can name.
                if not isinstance(holder, dict) or process == PARENT_PROCESS or has_half(process):
                    continue
                for kind, container in holder.items():
                    if kind in (PLAIN, KEYED) and isinstance(container, dict):
                        yield f"{at}/processes/{pointer_part(process)}/{kind}", kind, process, container


def _lift_named(
    histograms: Json,
    keyed_name: str | None,
    process: str,
    definitions: HistogramDefinitions | None,
    rows: _Rows,
) -> int:
    """Lift plain histograms by name, or those of `keyed_name` by key; return how many stay."""
    unknown = 0
    for label, sent in list(histograms.items()):
        name, key = (label, None) if keyed_name is None else (keyed_name, label)
        known, defined = not (has_half(label) or has_half(name)), None
        if known and definitions is not None:
            known = name in definitions
            defined = definitions.range_of(name) if known else None
        row, leftover = lift_histogram(process, name, key, sent, defined) if known else (None, sent)
        if row is None:
            unknown += 1
            continue
        rows.add(row)
        if leftover:
            histograms[label] = leftover
        else:
            del histograms[label]
    return unknown


def lift_histogram(
    process: str, name: str, key: str | None, sent: object, defined: BucketRange | None
) -> tuple[HistogramRow | None, object]:
    """Return the row of one histogram and what remains of it; no row when nothing says what its buckets are.

    Its buckets must be buckets by definition, and also by the range that it was sent with, if it was.
    """
    where = name if key is None else f"{name} with the key {_quoted(key)}"
    if isinstance(sent, list):
        return _lift_dense(process, name, key, sent, defined, where)
    if not isinstance(sent, dict) or not isinstance(sent.get("values"), dict):
        raise _unusable(where, "is not an object with values")
    remaining = dict(sent)
    values = remaining.pop("values")
    own = _own_range(sent, where)
    stored = own or defined
    if stored is None:
        return None, sent
    allowed = set(bucket_bounds(stored))
    if defined is not None and own is not None and own != defined:
        allowed &= set(bucket_bounds(defined))
    buckets, counts = _checked(values, allowed, where)
    for field, column in (
        ("range", [stored.low, stored.high]),
        ("bucket_count", stored.bucket_count),
        ("histogram_type", int(stored.histogram_type)),
    ):
        if field not in remaining:
            remaining[field] = None
        elif remaining[field] == column:
            del remaining[field]
    sums = [column_sum(remaining, field, where) for field in SUM_FIELDS]
    return HistogramRow(process, name, key, *_stored(stored), buckets, counts, *sums), remaining


def _lift_dense(
    process: str, name: str, key: str | None, sent: list[object], defined: BucketRange | None, where: str
) -> tuple[HistogramRow | None, object]:
    """Lift a histogram that Mozilla's first server made compact: all counts, then the five sums."""
    if defined is None:
        return None, sent
    bounds = bucket_bounds(defined)
    if len(sent) != len(bounds) + len(SUM_FIELDS):
        raise _invalid(where, f"has {len(sent) - len(SUM_FIELDS)} counts for {len(bounds)} buckets")
    dense = [_count(count, where, bound) for count, bound in zip(sent, bounds, strict=False)]
    tail = sent[len(bounds) :]
    remaining = {field: value for field, value in zip(SUM_FIELDS, tail, strict=True) if value != ABSENT_SUM}
    sums = [column_sum(remaining, field, where) for field in SUM_FIELDS]
    present = [(bound, count) for bound, count in zip(bounds, dense, strict=True) if count]
    row = HistogramRow(
        process,
        name,
        key,
        *_stored(defined),
        [bound for bound, _ in present],
        [count for _, count in present],
        *sums,
    )
    # A list says that this histogram was a list; it holds the sums when the columns cannot.
    return row, DENSE if not remaining else [*DENSE, *tail]


def _own_range(sent: Mapping[str, object], where: str) -> BucketRange | None:
    """Return the range that a histogram was sent with; None when it is incomplete or makes no buckets."""
    if any(sent.get(field) is None for field in ("range", "bucket_count", "histogram_type")):
        return None
    ends = sent["range"]
    if not isinstance(ends, list) or len(ends) != 2:
        raise _unusable(where, "has a range that is not a list of two numbers")
    low, high = (_whole(end, where, "range") for end in ends)
    bucket_count = _whole(sent["bucket_count"], where, "bucket_count")
    kind = _whole(sent["histogram_type"], where, "histogram_type")
    try:
        own = BucketRange(sent_type(kind), low, high, bucket_count)
        bucket_bounds(own)
    except ValueError:
        return None
    return own


def _whole(value: object, where: str, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise _unusable(where, f"has a {field} that is not a whole number")
    if abs(value) > _INT_HIGHEST:
        raise _unusable(where, f"has a {field} that is out of range")
    return int(value)


def _stored(own: BucketRange) -> tuple[int, int, int, int]:
    return int(own.histogram_type), own.bucket_count, own.low, own.high


def _checked(values: Mapping[str, object], allowed: set[int], where: str) -> tuple[list[int], list[int]]:
    buckets, counts = [], []
    for text, count in values.items():
        # A bucket is written as a number without sign and leading zeros; "01" is not a bucket.
        bound = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1
        if bound not in allowed or str(bound) != text:
            raise _invalid(where, f"has the bucket {_quoted(text)}, which is not in its range")
        buckets.append(bound)
        counts.append(_count(count, where, bound))
    return buckets, counts


def _count(count: object, where: str, bound: int) -> int:
    """Return a count, which is a whole number by its value: 1.0 is 1, as in JSON Schema."""
    if (
        isinstance(count, bool)
        or not isinstance(count, int | float)
        or not 0 <= count <= COUNT_HIGHEST
        or count != int(count)
    ):
        raise _invalid(
            where, f"has a count in the bucket {bound} that is not a whole number from 0 to {COUNT_HIGHEST}"
        )
    return int(count)


def column_sum(remaining: Json, field: str, where: str) -> float:
    """Return the sum for its column; it stays in `remaining` when the column would not give it back."""
    if field not in remaining:
        return ABSENT_SUM
    value = remaining[field]
    if value is None:
        return ABSENT_SUM
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unusable(where, f"has a {field} that is not a number")
    try:
        stored = float(value)
    except OverflowError as error:
        raise _unusable(where, f"has a {field} that is out of range") from error
    if stored == value and stored != ABSENT_SUM:
        del remaining[field]
    return stored


def pointer_part(part: str) -> str:
    """Return a name as a part of a JSON Pointer (RFC 6901, section 3)."""
    return part.replace("~", "~0").replace("/", "~1")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _QUOTED_MAX_CHARACTERS else f"{text[:_QUOTED_MAX_CHARACTERS]}…")


def _invalid(where: str, what: str) -> PingRejected:
    return PingRejected(ErrorType.INVALID_HISTOGRAM, f"the histogram {where} {what}", stage=Stage.CONVERT)


def too_many(what: str) -> PingRejected:
    """Return the failure of a document that has more than `what`."""
    return PingRejected(ErrorType.TOO_COSTLY, f"the document has more than {what}", stage=Stage.CONVERT)


def _unusable(where: str, what: str) -> PingRejected:
    return PingRejected(ErrorType.INVALID_VALUE, f"the histogram {where} {what}", stage=Stage.CONVERT)
