"""The column `histograms` of a batch of rows, from which one histogram can be made without the others."""

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from telemetry_lake.histograms.bucket_ranges import BucketRange, HistogramType, bucket_bounds
from telemetry_lake.histograms.list_text import list_numbers
from telemetry_lake.histograms.stored import (
    DISTRIBUTION_CONTAINERS,
    KEYED,
    LABELS_JOINT,
    PARENT_PROCESS,
    PLAIN,
    SUM_FIELDS,
    path_in_container,
    restored_histogram,
)

RANGES_REMEMBERED: Final = 4_096
Json = dict[str, Any]

# The stubs know few of the functions.
pc: Final[Any] = pyarrow.compute


class HistogramRows:
    """The histograms of a batch of pings, in the form of the table."""

    def __init__(self, column: "pa.ListArray[Any]") -> None:
        self._first = np.asarray(column.offsets, np.int64)
        # The values before a sliced list's first are there as well; its offsets count from them.
        structs = cast("pa.StructArray", column.values)
        fields: dict[str, Any] = {
            field.name: structs.field(number) for number, field in enumerate(structs.type)
        }
        self._names, self._name_codes = _dictionary(fields["name"])
        self._processes, self._process_codes = _dictionary(fields["process"])
        self._keys = fields["key"]
        self._is_keyed = self._keys.is_valid().to_numpy(zero_copy_only=False)
        self._ranges = [
            fields[name].fill_null(0).to_numpy(zero_copy_only=False)
            for name in ("histogram_type", "range_low", "range_high", "bucket_count")
        ]
        self._buckets, self._counts = fields["buckets"], fields["counts"]
        self._sums = [fields[name].to_numpy(zero_copy_only=False) for name in SUM_FIELDS]
        self._found: dict[tuple[str, str, str], dict[int, list[int]]] = {}

    def of_name(self, row: int, kind: str, process: str, name: str) -> list[int]:
        """Return the numbers of the histograms of a ping, container and name, in order: several if keyed."""
        wanted = kind, process, name
        found = self._found.get(wanted)
        if found is None:
            found = self._found[wanted] = self._find(kind, process, name)
        return found.get(row, [])

    def of_container(self, row: int, kind: str, process: str) -> dict[str, list[int]]:
        """Return the numbers of all histograms of one ping and container by name, in order."""
        first, last = self._first[row], self._first[row + 1]
        chosen = first + np.flatnonzero(self._in_container(slice(first, last), kind, process))
        by_name: dict[str, list[int]] = {}
        for number, code in zip(chosen.tolist(), self._name_codes[chosen].tolist(), strict=True):
            by_name.setdefault(self._names[code], []).append(number)
        return by_name

    def compact(self, number: int, leftover: object) -> list[int | float]:
        """Return a histogram as Mozilla's first server did: the count of every bucket, then the five sums."""
        positions = _positions(*[part.item(number) for part in self._ranges])
        dense: list[int | float] = [0] * len(positions)
        buckets, counts = (list_numbers(lists[number].as_py()) for lists in (self._buckets, self._counts))
        for bucket, count in zip(buckets, counts, strict=True):
            dense[positions[bucket]] = count
        if (
            isinstance(leftover, list) and len(leftover) > 1
        ):  # sums that no double holds stand behind the mark
            return [*dense, *leftover[1:]]
        left_fields = leftover if isinstance(leftover, dict) else {}
        for field, column in zip(SUM_FIELDS, self._sums, strict=True):
            value = column.item(number)
            left = left_fields.get(field)
            dense.append(left if left is not None else int(value) if value.is_integer() else value)
        return dense

    def all_compact(self, row: int) -> Json:
        """Return all plain histograms of the parent process of one ping, as `compact` does, but faster."""
        first, last = int(self._first[row]), int(self._first[row + 1])
        chosen = self._in_container(slice(first, last), PLAIN, PARENT_PROCESS).tolist()
        names = self._name_codes[first:last].tolist()
        ranges = zip(*(part[first:last].tolist() for part in self._ranges), strict=True)
        firsts, all_buckets, all_counts = self._samples
        ends = firsts[first : last + 1].tolist()
        buckets = all_buckets[ends[0] : ends[-1]].tolist()
        counts = all_counts[ends[0] : ends[-1]].tolist()
        sums = zip(*(_numbers(sums[first:last]) for sums in self._sums), strict=True)
        found: Json = {}
        start = 0
        for is_chosen, name, range_, end, five in zip(chosen, names, ranges, ends[1:], sums, strict=True):
            end -= ends[0]  # noqa: PLW2901
            if is_chosen:
                positions = _positions(*range_)
                dense: list[int | float] = [0] * len(positions)
                for bucket, count in zip(buckets[start:end], counts[start:end], strict=True):
                    dense[positions[bucket]] = count
                dense += five
                found[self._names[name]] = dense
            start = end
        return found

    def as_sent(self, number: int, leftover: object) -> object:
        """Return a histogram as the client sent it."""
        kind, low, high, bucket_count = (int(part[number]) for part in self._ranges)
        row: Mapping[str, Any] = {
            "histogram_type": kind,
            "range_low": low,
            "range_high": high,
            "bucket_count": bucket_count,
            "buckets": self._buckets[number].as_py(),
            "counts": self._counts[number].as_py(),
            **{field: float(sums[number]) for field, sums in zip(SUM_FIELDS, self._sums, strict=True)},
        }
        return restored_histogram(row, leftover)

    def key(self, number: int) -> str | None:
        """Return the key of a histogram, None for a plain one."""
        return cast("str | None", self._keys[number].as_py())

    @cached_property
    def _samples(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Where those of each histogram begin, and all buckets and counts."""
        # Loading numba takes a second, which is of use only to who asks for all histograms of a ping.
        from telemetry_lake.histograms.list_kernels import read_lists

        first, buckets = read_lists(self._buckets.cast(pa.string()))  # which may be a dictionary
        _, counts = read_lists(self._counts)
        return first, buckets, counts

    def _find(self, kind: str, process: str, name: str) -> dict[int, list[int]]:
        """Find one name in all pings of the batch at once: the next ping will be asked for it, too."""
        if name not in self._names:
            return {}
        numbers = np.flatnonzero(
            (self._name_codes == self._names.index(name)) & self._in_container(slice(None), kind, process)
        )
        rows = np.searchsorted(self._first, numbers, side="right") - 1
        found: dict[int, list[int]] = {}
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
            found.setdefault(row, []).append(number)
        return found

    def _in_container(self, part: slice, kind: str, process: str) -> NDArray[np.bool_]:
        if process not in self._processes:
            return np.zeros(len(self._process_codes[part]), np.bool_)
        of_process = self._process_codes[part] == self._processes.index(process)
        keyed = self._is_keyed[part]
        distribution = DISTRIBUTION_CONTAINERS.get(kind)
        if distribution is None:
            return cast("NDArray[np.bool_]", of_process & (keyed if kind == KEYED else ~keyed))
        of_type = self._ranges[0][part] == distribution.histogram_type
        if not distribution.labels:
            return cast("NDArray[np.bool_]", of_process & of_type & ~keyed)
        is_dual = self._has_two_labels[part] == (distribution.labels > 1)
        return cast("NDArray[np.bool_]", of_process & of_type & keyed & is_dual)

    @cached_property
    def _has_two_labels(self) -> NDArray[np.bool_]:
        two = pc.match_substring(self._keys, LABELS_JOINT)
        return cast("NDArray[np.bool_]", two.fill_null(False).to_numpy(zero_copy_only=False))


class Container:
    """The members of one object of histograms in one document: those of the column, and those left behind.

    `leftover` is what the document still has there: histograms that were not understood, and what the column
    cannot hold of the others. Plain histograms of the parent process are made in compact form, all others
    as they were sent.
    """

    def __init__(self, rows: Callable[[], HistogramRows], row: int, source: str, leftover: Json) -> None:
        self._kind, _, process = source.partition(":")
        self._process = process or PARENT_PROCESS
        self._rows, self._row, self._leftover = rows, row, leftover

    def names(self) -> list[str]:
        return [*self._leftover, *(name for name in self._in_column() if name not in self._leftover)]

    def has(self, name: object) -> bool:
        return name in self._leftover or (
            isinstance(name, str) and bool(self._rows().of_name(self._row, self._kind, self._process, name))
        )

    def make(self, name: str) -> Any:
        return self._made(name, self._rows().of_name(self._row, self._kind, self._process, name))

    def all(self) -> Json:
        """Return all members at once."""
        if self._kind == PLAIN and self._process == PARENT_PROCESS:
            made = self._rows().all_compact(self._row)
            return {**{name: self.make(name) for name in self._leftover}, **_without(made, self._leftover)}
        by_name = self._in_column()
        return {name: self._made(name, by_name.get(name, [])) for name in self.names()}

    def _in_column(self) -> dict[str, list[int]]:
        return self._rows().of_container(self._row, self._kind, self._process)

    def _made(self, name: str, numbers: list[int]) -> Any:
        leftover = self._leftover.get(name)
        if not numbers:
            return leftover
        if self._kind == PLAIN and self._process == PARENT_PROCESS:
            return self._rows().compact(numbers[0], leftover)
        made: Json = {} if leftover is None else {name: leftover}
        for number in numbers:
            holder = made
            *parents, label = path_in_container(self._kind, name, self._rows().key(number))
            for parent in parents:
                holder = holder.setdefault(parent, {})
            holder[label] = self._rows().as_sent(number, holder.get(label))
        return made[name]


@lru_cache(maxsize=RANGES_REMEMBERED)
def _positions(kind: int, low: int, high: int, bucket_count: int) -> dict[int, int]:
    """Return the position of each bucket in the dense list, by its lower bound."""
    bounds = bucket_bounds(BucketRange(HistogramType(kind), low, high, bucket_count))
    return {bound: position for position, bound in enumerate(bounds)}


def _without(members: Json, names: Json) -> Json:
    return {name: member for name, member in members.items() if name not in names} if names else members


def _numbers(sums: NDArray[np.float64]) -> list[int | float]:
    """Return sums as numbers of JSON: whole numbers as int."""
    numbers: list[int | float] = sums.tolist()
    for place in np.flatnonzero(sums == np.floor(sums)).tolist():
        numbers[place] = int(numbers[place])
    return numbers


def _dictionary(texts: Any) -> tuple[list[str], NDArray[np.int32]]:
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices)
