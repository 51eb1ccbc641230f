"""The canonical texts of the documents of rows of `live.pings`, put together again from their columns.

They are those of `digest.canonical_text(restore_document(row))`, many times faster: most histograms never
become Python objects (`histogram_texts`), and their texts are laid into that of the rest of the document.
"""

from collections.abc import Mapping
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from telemetry_lake import columns
from telemetry_lake.backfill.units.digest import canonical_text
from telemetry_lake.backfill.units.histogram_texts import SUMS_IN_ORDER, histogram_texts
from telemetry_lake.documents.restore import (
    HistogramSource,
    put_back,
    restore_document,
    stored_document,
)
from telemetry_lake.histograms.bucket_ranges import (
    RANGES_REMEMBERED,
    BucketRange,
    HistogramType,
    bucket_bounds,
)
from telemetry_lake.histograms.list_kernels import read_lists
from telemetry_lake.histograms.stored import KEYED, PLAIN, SUM_FIELDS, Json, restored_histogram

_PARAMETERS: Final = ("bucket_count", "histogram_type", "range_low", "range_high")
_DENSE: Final = ["dense"]
"""The leftover of a histogram that was a list, when the columns hold all of it."""

Run = tuple[HistogramSource, int, int]
"""Histograms of one kind and process that follow each other."""


class RowTexts:
    """Rows of `live.pings`, as many as fit into memory several times."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        histograms: Any = batch.column(columns.HISTOGRAMS)
        self._offsets: list[int] = (histograms.offsets.to_numpy() - histograms.offsets[0].as_py()).tolist()
        self._histograms = pa.RecordBatch.from_struct_array(histograms.flatten())
        self._names: list[Any] = self._histograms.column("name").to_pylist()
        self._keys: list[Any] = self._histograms.column("key").to_pylist()
        self._texts = self._usual_texts()
        self._runs = self._runs_by_row()

    def canonical_text(self, index: int, row: Mapping[str, Any]) -> bytes:
        """Return the text of a row's document; `row` has all columns of that row but the histograms.

        Raises ValueError, LookupError or TypeError when the columns do not fit together.
        """
        left = self._offsets[index + 1] - self._offsets[index]

        def fill(container: Json, source: HistogramSource) -> None:
            nonlocal left
            for run_source, start, end in self._runs[index]:
                if run_source == source:
                    left -= end - start
                    self._fill(container, keyed=source[0] == KEYED, start=start, end=end)

        try:
            document = stored_document(row[columns.DOCUMENT].encode(), row[columns.LIFTED])
            put_back(document, row, fill)
            if not left:
                return canonical_text(document)
        except (_DoubledError, TypeError):  # the same name twice; numbers that only Python can write
            pass
        (whole,) = self._batch.slice(index, 1).to_pylist()
        return canonical_text(restore_document(whole))

    def _usual_texts(self) -> list[orjson.Fragment | None]:
        """Return the text of each histogram in the usual form, None for the others."""
        histograms = self._histograms
        offsets, buckets = read_lists(histograms.column("buckets"))
        count_offsets, counts = read_lists(histograms.column("counts"))
        arrays = [histograms.column(name) for name in (*_PARAMETERS, *SUMS_IN_ORDER)]
        if not np.array_equal(offsets, count_offsets) or any(array.null_count for array in arrays):
            return [None] * histograms.num_rows
        parameters = np.stack([array.to_numpy().astype(np.int64) for array in arrays[: len(_PARAMETERS)]], 1)
        sums = np.stack([array.to_numpy() for array in arrays[len(_PARAMETERS) :]], 1)
        self._arrays = parameters, offsets, buckets, counts, sums
        text, ends, usual = histogram_texts(parameters, offsets, buckets, counts, sums)
        fragments: list[orjson.Fragment | None] = [
            orjson.Fragment(text[start:end]) for start, end in pairwise([0, *ends])
        ]
        for index in np.flatnonzero(~usual):
            fragments[index] = None
        return fragments

    @cached_property
    def _lists(self) -> list[list[Any]]:
        """Parameters, offsets, buckets, counts and sums of all histograms, for those that were dense."""
        return [array.tolist() for array in self._arrays]

    def _dense(self, index: int) -> list[Any]:
        """Return a histogram that was a list of all its counts and the five sums."""
        parameters, offsets, buckets, counts, sums = self._lists
        places = _places(*parameters[index])
        dense: list[Any] = [0] * len(places)
        for number in range(offsets[index], offsets[index + 1]):
            dense[places[buckets[number]]] = counts[number]
        by_name = dict(zip(SUMS_IN_ORDER, sums[index], strict=True))
        return [*dense, *(by_name[name] for name in SUM_FIELDS)]

    def _runs_by_row(self) -> list[list[Run]]:
        """Return the runs of each row."""
        processes = self._histograms.column("process").dictionary_encode()
        keyed = self._histograms.column("key").is_valid().to_numpy(zero_copy_only=False)
        names = processes.dictionary.to_pylist()
        codes = processes.indices.to_numpy() * 2 + keyed
        seams = set((np.flatnonzero(np.diff(codes)) + 1).tolist())
        found: list[list[Run]] = []
        for first, last in pairwise(self._offsets):
            inside = sorted(seam for seam in seams if first < seam < last) if seams else []
            ends = [first, *inside, last]
            found.append(
                [
                    ((KEYED if keyed[start] else PLAIN, names[codes[start] // 2]), start, end)
                    for start, end in pairwise(ends)
                    if start < end
                ]
            )
        return found

    def _fill(self, container: Json, *, keyed: bool, start: int, end: int) -> None:
        """Put histograms back into the object that they were lifted from."""
        names, texts = self._names[start:end], self._texts[start:end]
        if not keyed and None not in texts and container.keys().isdisjoint(names):
            before = len(container)
            container.update(zip(names, texts, strict=True))
            if len(container) != before + len(names):
                raise _DoubledError
            return
        rows: list[dict[str, Any]] = []
        for index, (name, text) in enumerate(zip(names, texts, strict=True)):
            holder: Any = container
            label = name
            if keyed:
                holder, label = container.setdefault(name, {}), self._keys[start + index]
            leftover = holder.get(label)
            if isinstance(leftover, orjson.Fragment):
                raise _DoubledError
            if leftover is None and text is not None:
                holder[label] = text
                continue
            if leftover == _DENSE and text is not None:
                holder[label] = self._dense(start + index)
                continue
            # Where one histogram left something behind, most others did.
            rows = rows or self._histograms.slice(start, end - start).to_pylist()
            holder[label] = restored_histogram(rows[index], leftover)


@lru_cache(maxsize=RANGES_REMEMBERED)
def _places(bucket_count: int, kind: int, low: int, high: int) -> dict[int, int]:
    """Return the number of each bucket by its bound."""
    bounds = bucket_bounds(BucketRange(HistogramType(kind), low, high, bucket_count))
    return {bound: number for number, bound in enumerate(bounds)}


class _DoubledError(Exception):
    """A row has two histograms of one name."""
