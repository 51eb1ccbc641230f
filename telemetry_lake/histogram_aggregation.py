"""Adding up the histograms of many pings, without making Python objects of them.

Everything here is about Arrow tables and numpy arrays, and knows nothing of where they come from. It is
done in three steps, so that it can be done in many places at once:

1. `split_by_client` divides pings so that all pings of a client are in the same share.
2. `sum_histograms` adds up a share: one row for each group of pings and each definition of a histogram.
3. `merge_sums` adds up such rows of many shares.

All sums are of whole numbers, so that neither the order of pings nor that of shares changes anything.

**Client-level normalisation.** A client that sends many pings, or one whose browser takes many samples, would
dominate the sums. Therefore a second histogram is kept, to which each client gives a total weight of 1:

    normalized[b] = Σ over clients c of  n(c, b) / Σ over b' of n(c, b')

where n(c, b) is how many samples of the client are in the bucket b, in all its pings of the group. That is
how Mozilla's GLAM weights clients (bigquery-etl, `glam_etl`: histograms are added up by client, divided by
their total, and added up over clients; https://github.com/mozilla/glam). Weights are kept in units of 2^-32
while they are added.

**What is left out.** A histogram whose buckets nobody knows, or that has a bucket which is not one of them,
or a count below 0 or above `COUNT_MAX`: Firefox counts samples in 32 bits, so such a number is damage.
Clients without an id are in `counts` and `pings`, and neither in `normalized` nor in `clients`.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute

from telemetry_lake.columns import (
    APP_BUILD_ID,
    APP_NAME,
    APP_UPDATE_CHANNEL,
    APP_VERSION,
    ARCHITECTURE,
    BUILD_DATE,
    CLIENT_ID,
    DOCUMENT_TYPE,
    HISTOGRAMS,
    NAMESPACE,
    NORMALIZED_OS,
)
from telemetry_lake.convert.bucket_ranges import BucketRange, HistogramType, NoBuckets, bucket_bounds
from telemetry_lake.failures import FatalError

COUNT_MAX: Final = 2**31 - 1
SUM_MAX: Final = float(2**44)
"""A larger sum of one ping is not believed: so large ones of 2^18 pings fit into 64 bits."""
SHARE_MAX_PINGS: Final = 2**18
"""So many pings of at most `COUNT_MAX` in a bucket are added exactly by floating-point numbers."""
WEIGHT_UNIT: Final = 2**32

GROUPED_BY: Final = (
    NAMESPACE,
    DOCUMENT_TYPE,
    APP_UPDATE_CHANNEL,
    APP_NAME,
    APP_VERSION,
    BUILD_DATE,
    NORMALIZED_OS,
    ARCHITECTURE,
)
DEFINED_BY: Final = ("process", "name", "key", "histogram_type", "bucket_count", "range_low", "range_high")
READ: Final = (
    *(APP_BUILD_ID if column == BUILD_DATE else column for column in GROUPED_BY),
    CLIENT_ID,
    *(f"{HISTOGRAMS}.list.element.{field}" for field in (*DEFINED_BY, "sum")),
    *(f"{HISTOGRAMS}.list.element.{field}.list.element" for field in ("buckets", "counts")),
)
"""The columns of a Parquet file that are needed, as Parquet names them."""
READ_AS_DICTIONARY: Final = tuple(
    f"{HISTOGRAMS}.list.element.{field}" for field in ("process", "name", "key")
)
"""Those of them of which the few different values are read once: half of the time of reading."""

_SUMS: Final = ("pings", "clients", "sum")
_DENSE: Final = ("counts", "normalized")

# The stubs know few of the functions and none of the attributes of nested arrays.
pc: Final[Any] = pyarrow.compute
ArrowArray = Any
Indices = np.ndarray[Any, np.dtype[np.int64]]


def with_build_date(pings: pa.Table) -> pa.Table:
    """`pings` with the date that a build id begins with in the place of the id; null where it is none."""
    text = pings.column(APP_BUILD_ID)
    digits = pc.if_else(pc.match_substring_regex(text, r"^\d{8}"), pc.utf8_slice_codeunits(text, 0, 8), None)
    day = pc.cast(pc.strptime(digits, format="%Y%m%d", unit="s", error_is_null=True), pa.date32())
    return pings.set_column(pings.schema.get_field_index(APP_BUILD_ID), BUILD_DATE, day)


def without_clients(pings: pa.Table, clients: Iterable[str]) -> pa.Table:
    """`pings`, of which those of `clients` have no client id any more."""
    ids = pings.column(CLIENT_ID)
    hidden = pc.is_in(ids, value_set=pa.array(sorted(clients), pa.string()))
    return pings.set_column(pings.schema.get_field_index(CLIENT_ID), CLIENT_ID, pc.if_else(hidden, None, ids))


def split_by_client(pings: pa.Table, shares: int) -> Iterator[tuple[int, pa.Table]]:
    """The pings of each share that has some; a client's are all in one, those without a client in any."""
    codes = pc.dictionary_encode(pings.column(CLIENT_ID)).combine_chunks()
    share_of_code = np.array(
        [zlib.crc32(client.encode()) % shares for client in codes.dictionary.to_pylist()], np.int64
    )
    unknown = np.asarray(codes.indices.is_null())
    share = np.arange(pings.num_rows, dtype=np.int64) % shares
    share[~unknown] = share_of_code[np.asarray(codes.indices.drop_null())]
    order = np.argsort(share, kind="stable")
    ordered = pings.take(order)
    starts = np.searchsorted(share[order], np.arange(shares + 1))
    for number, (start, end) in enumerate(pairwise(starts)):
        if end > start:
            yield number, ordered.slice(start, end - start)


def sum_histograms(pings: pa.Table) -> pa.Table:
    """One row for each group of `pings` and each definition of a histogram in them.

    Columns: `GROUPED_BY`, `DEFINED_BY`, `pings` and `clients` that have it, `sum`, and `counts` and
    `normalized` (in units of 1 / `WEIGHT_UNIT`) with a number for each bucket. Raises FatalError when there
    are more than `SHARE_MAX_PINGS`, or when a histogram has not as many counts as buckets.
    """
    if pings.num_rows > SHARE_MAX_PINGS:
        raise FatalError(f"{pings.num_rows} pings in one share; it holds {SHARE_MAX_PINGS}")
    group, groups = _codes([pings.column(name) for name in GROUPED_BY])
    client = _client_codes(pings.column(CLIENT_ID))
    lists: ArrowArray = pings.column(HISTOGRAMS).combine_chunks()
    histograms = lists.flatten()
    definition, definitions = _codes([pa.chunked_array([histograms.field(name)]) for name in DEFINED_BY])
    known = {name: _plain(histograms.field(name).take(definitions)) for name in DEFINED_BY}
    bounds = [
        _bounds(*key) for key in zip(*(known[name].to_pylist() for name in DEFINED_BY[3:]), strict=True)
    ]
    # By definition, so that the samples of one lie together: then no step has to look them up one by one.
    order = np.argsort(definition.astype(np.min_scalar_type(len(bounds))), kind="stable")
    definition = definition[order]
    ping = np.repeat(np.arange(len(lists), dtype=np.int64), np.diff(np.asarray(lists.offsets)))[order]
    said = np.asarray(histograms.field("sum"))[order]
    sizes = np.array([len(each) for each in bounds], np.int64)
    samples = _Samples(histograms.field("buckets"), histograms.field("counts"), order)
    position, good = samples.positions(definition, bounds)

    # One row for each group and definition; its buckets are a stretch of one long array.
    row = np.zeros(len(definition), np.int64)
    keys, row[good] = np.unique(group[ping[good]] * len(sizes) + definition[good], return_inverse=True)
    starts = np.concatenate(([0], np.cumsum(sizes[keys % max(len(sizes), 1)])))
    size = int(starts[-1])
    total = np.where(good, samples.totals(), 0)
    at = np.repeat(starts[row] * good, samples.lengths) + position
    count = samples.counts * np.repeat(good, samples.lengths)

    clients, share = _by_client(row, np.where(good, client[ping], -1), total, len(keys))
    weight = np.rint(count * np.repeat(share, samples.lengths))
    whole = good & (said >= 0) & (said <= SUM_MAX) & (said == np.floor(said))
    sums = np.zeros(len(keys), np.int64)
    np.add.at(sums, row[whole], said[whole].astype(np.int64))
    of_group, of_definition = np.divmod(keys, max(len(sizes), 1))
    summed: dict[str, Any] = {
        **{name: pings.column(name).take(groups[of_group]) for name in GROUPED_BY},
        **{name: known[name].take(of_definition) for name in DEFINED_BY},
        "pings": np.bincount(row[good], minlength=len(keys)),
        "clients": clients,
        "sum": sums,
        "counts": _lists(starts, np.bincount(at, weights=count, minlength=size)[:size].astype(np.int64)),
        "normalized": _lists(starts, np.bincount(at, weights=weight, minlength=size)[:size].astype(np.int64)),
    }
    return pa.table(summed)


def merge_sums(parts: Sequence[pa.Table]) -> pa.Table:
    """The rows of `sum_histograms` of many shares, added up."""
    rows = pa.concat_tables(parts).combine_chunks()
    row_of, first = _codes([rows.column(name) for name in (*GROUPED_BY, *DEFINED_BY)])
    merged: dict[str, Any] = {name: rows.column(name).take(first) for name in (*GROUPED_BY, *DEFINED_BY)}
    for name in _SUMS:
        merged[name] = np.zeros(len(first), np.int64)
        np.add.at(merged[name], row_of, rows.column(name).to_numpy())
    for name in _DENSE:
        lists: ArrowArray = rows.column(name).combine_chunks()
        lengths = np.diff(np.asarray(lists.offsets)).astype(np.int64)
        starts = np.concatenate(([0], np.cumsum(lengths[first])))
        # Where each list's numbers go: the stretch of its row.
        at = np.repeat(starts[row_of] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        numbers = np.zeros(int(starts[-1]), np.int64)
        np.add.at(numbers, at, np.asarray(lists.flatten()))
        merged[name] = _lists(starts, numbers)
    return pa.table(merged)


def finished(sums: pa.Table) -> pa.Table:
    """Merged sums as people read them: with the lower bound of each bucket, and weights instead of units."""
    keys = zip(*(sums.column(name).to_pylist() for name in DEFINED_BY[3:]), strict=True)
    normalized: ArrowArray = sums.column("normalized").combine_chunks()
    weights = pc.divide(pc.cast(normalized.flatten(), pa.float64()), float(WEIGHT_UNIT))
    return sums.set_column(
        sums.schema.get_field_index("normalized"),
        "normalized",
        pa.ListArray.from_arrays(normalized.offsets, weights),
    ).append_column("buckets", pa.array([_bounds(*key) for key in keys], pa.list_(pa.int32())))


def shard_of(sums: pa.Table, shards: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows of `sum_histograms` by the shard that adds them up: a histogram's are all in one."""
    if not sums.num_rows:
        return
    names = pc.dictionary_encode(sums.column("name")).combine_chunks()
    of_name = np.array(
        [zlib.crc32(name.encode()) % shards for name in names.dictionary.to_pylist()], np.int64
    )
    shard = of_name[np.asarray(names.indices)]
    for number in np.unique(shard):
        yield int(number), sums.filter(pa.array(shard == number))


class _Samples:
    """The samples of all histograms, one histogram's after the other's, in a given order of histograms."""

    def __init__(self, buckets: Any, counts: Any, order: Indices) -> None:
        buckets, counts = buckets.take(order), counts.take(order)
        self._starts = np.asarray(buckets.offsets)
        if not np.array_equal(self._starts, np.asarray(counts.offsets)):
            raise FatalError("a histogram has not as many counts as buckets: the conversion is wrong")
        self.lengths = np.diff(self._starts)
        self._buckets = np.asarray(buckets.values)
        numbers = np.asarray(counts.values)
        self._believed = (numbers >= 0) & (numbers <= COUNT_MAX)
        self.counts = np.where(self._believed, numbers, 0)

    def totals(self) -> Any:
        """How many samples each histogram has."""
        running = np.concatenate(([0], np.cumsum(self.counts)))
        return running[self._starts[1:]] - running[self._starts[:-1]]

    def positions(self, definition: Indices, bounds: Sequence[tuple[int, ...]]) -> tuple[Indices, Any]:
        """Which of its definition's buckets each sample is in, and which histograms are sound.

        Histograms are in the order of their definitions.
        """
        position = np.zeros(len(self._buckets), np.int64)
        fits = self._believed
        firsts = np.searchsorted(definition, np.arange(len(bounds) + 1))
        for number, known in enumerate(bounds):
            here = slice(self._starts[firsts[number]], self._starts[firsts[number + 1]])
            table = np.array(known or (-1,), np.int32)
            found = np.searchsorted(table, self._buckets[here])
            found[found == len(table)] = 0
            position[here] = found
            fits[here] &= table[found] == self._buckets[here]
        good = np.array([bool(known) for known in bounds], np.bool_)[definition]
        if not fits.all():
            good[np.searchsorted(self._starts, np.flatnonzero(~fits), side="right") - 1] = False
        return position, good


def _by_client(row: Indices, client: Indices, total: Any, rows: int) -> tuple[Indices, Any]:
    """How many clients with samples each row has, and what one sample of each histogram weighs, in units."""
    counted = np.flatnonzero((client >= 0) & (total > 0))
    clients = int(client.max(initial=0)) + 1
    keys, pair = np.unique(row[counted] * clients + client[counted], return_inverse=True)
    weight = np.zeros(len(row))
    weight[counted] = WEIGHT_UNIT / np.bincount(pair, weights=total[counted])[pair]
    return np.bincount(keys // clients, minlength=rows), weight


def _codes(columns: Sequence[ArrowArray]) -> tuple[Indices, Indices]:
    """A number for each row, equal where all columns are, and for each number the first row that has it."""
    combined = np.zeros(len(columns[0]), np.int64)
    # pyarrow makes no dictionary of no dates.
    for column in columns if len(combined) else ():
        codes = pc.dictionary_encode(column).combine_chunks()
        # Null is a value like others; an array that was a dictionary before has it beside its values.
        size = len(codes.dictionary) + 1
        combined = combined * size + np.asarray(pc.fill_null(codes.indices, size - 1))
        if combined.max(initial=0) > 2**31:  # so that the next product fits into 64 bits
            combined = np.unique(combined, return_inverse=True)[1]
    _, first, codes_of_rows = np.unique(combined, return_index=True, return_inverse=True)
    return codes_of_rows.astype(np.int64), first.astype(np.int64)


def _plain(array: ArrowArray) -> ArrowArray:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _client_codes(clients: ArrowArray) -> Indices:
    """A number for each client; -1 where it is not known."""
    codes = pc.dictionary_encode(clients).combine_chunks().indices
    return np.asarray(pc.cast(pc.fill_null(codes, -1), pa.int64()))


@cache
def _bounds(kind: int | None, bucket_count: int | None, low: int | None, high: int | None) -> tuple[int, ...]:
    """The lower bounds of a definition's buckets; none when it has not said which."""
    if kind is None or bucket_count is None or low is None or high is None:
        return ()
    try:
        return bucket_bounds(BucketRange(HistogramType(kind), low, high, bucket_count))
    except (NoBuckets, ValueError):
        return ()


def _lists(starts: Indices, numbers: Indices) -> Any:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(numbers))


def to_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow stream, compressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(pieces: Iterable[bytes]) -> list[pa.Table]:
    """The tables that `to_bytes` was given."""
    return [pa.ipc.open_stream(piece).read_all() for piece in pieces]
