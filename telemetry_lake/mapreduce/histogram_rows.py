"""The column `histograms` of some rows, from which one histogram can be taken without making the others."""

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from telemetry_lake.convert.bucket_ranges import BucketRange, HistogramType, bucket_bounds
from telemetry_lake.convert.histograms import (
    KEYED,
    PARENT_PROCESS,
    PLAIN,
    SUM_FIELDS,
    restored_histogram,
)
from telemetry_lake.number_lists import list_numbers

RANGES_REMEMBERED: Final = 4_096
Json = dict[str, Any]


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
        """The numbers of the histograms of one ping, container and name, in order; several if keyed."""
        wanted = kind, process, name
        found = self._found.get(wanted)
        if found is None:
            found = self._found[wanted] = self._find(kind, process, name)
        return found.get(row, [])

    def of_container(self, row: int, kind: str, process: str) -> dict[str, list[int]]:
        """The numbers of all histograms of one ping and container by name, in order."""
        first, last = self._first[row], self._first[row + 1]
        chosen = first + np.flatnonzero(self._in_container(slice(first, last), kind, process))
        by_name: dict[str, list[int]] = {}
        for number, code in zip(chosen.tolist(), self._name_codes[chosen].tolist(), strict=True):
            by_name.setdefault(self._names[code], []).append(number)
        return by_name

    def compact(self, number: int, leftover: object) -> list[int | float]:
        """A histogram as Mozilla's first server gave it: the count of every bucket, then the five sums."""
        positions = _positions(*[part.item(number) for part in self._ranges])
        dense: list[int | float] = [0] * len(positions)
        buckets, counts = (list_numbers(lists[number].as_py()) for lists in (self._buckets, self._counts))
        for bucket, count in zip(buckets, counts, strict=True):
            dense[positions[bucket]] = count
        if (
            isinstance(leftover, list) and len(leftover) > 1
        ):  # sums that no double holds stand behind the mark
            return [*dense, *leftover[1:]]
        unsaid = leftover if isinstance(leftover, dict) else {}
        for field, column in zip(SUM_FIELDS, self._sums, strict=True):
            value = column.item(number)
            said = unsaid.get(field)
            dense.append(said if said is not None else int(value) if value.is_integer() else value)
        return dense

    def all_compact(self, row: int) -> Json:
        """All plain histograms of the parent process of one ping, as `compact` gives each, but faster."""
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
        for is_chosen, name, of, end, five in zip(chosen, names, ranges, ends[1:], sums, strict=True):
            end -= ends[0]  # noqa: PLW2901
            if is_chosen:
                positions = _positions(*of)
                dense: list[int | float] = [0] * len(positions)
                for bucket, count in zip(buckets[start:end], counts[start:end], strict=True):
                    dense[positions[bucket]] = count
                dense += five
                found[self._names[name]] = dense
            start = end
        return found

    def as_sent(self, number: int, leftover: object) -> object:
        """A histogram as the client sent it."""
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

    def key(self, number: int) -> str:
        """The key of a keyed histogram."""
        return cast("str", self._keys[number].as_py())

    @cached_property
    def _samples(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Where those of each histogram begin, and all buckets and counts."""
        # Loading numba takes a second, which is of use only to who asks for all histograms of a ping.
        from telemetry_lake.compiled_lists import read_lists

        first, buckets = read_lists(self._buckets.cast(pa.string()))  # which may be a dictionary
        _, counts = read_lists(self._counts)
        return first, buckets, counts

    def _find(self, kind: str, process: str, name: str) -> dict[int, list[int]]:
        """One name in all pings of the batch at once, because the next ping will be asked for it, too."""
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
        return cast("NDArray[np.bool_]", of_process & (keyed if kind == KEYED else ~keyed))


class Container:
    """The members of one object of histograms in one document: those of the column, and what stayed behind.

    `leftover` is what the document still has there: histograms nobody understood, and what the column
    cannot say of the others. Plain histograms of the parent process are given in compact form, all others
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
        """All members at once."""
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
        if self._kind == PLAIN:
            if self._process == PARENT_PROCESS:
                return self._rows().compact(numbers[0], leftover)
            return self._rows().as_sent(numbers[0], leftover)
        by_key = dict(leftover or {})
        for number in numbers:
            key = self._rows().key(number)
            by_key[key] = self._rows().as_sent(number, by_key.get(key))
        return by_key


@lru_cache(maxsize=RANGES_REMEMBERED)
def _positions(kind: int, low: int, high: int, bucket_count: int) -> dict[int, int]:
    """Which place in the dense array each bucket has."""
    bounds = bucket_bounds(BucketRange(HistogramType(kind), low, high, bucket_count))
    return {bound: position for position, bound in enumerate(bounds)}


def _without(members: Json, names: Json) -> Json:
    return {name: member for name, member in members.items() if name not in names} if names else members


def _numbers(sums: NDArray[np.float64]) -> list[int | float]:
    """Sums as numbers of JSON: without a fraction where there is none."""
    numbers: list[int | float] = sums.tolist()
    for place in np.flatnonzero(sums == np.floor(sums)).tolist():
        numbers[place] = int(numbers[place])
    return numbers


def _dictionary(texts: Any) -> tuple[list[str], NDArray[np.int32]]:
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices)
