"""Adding up the histograms of many pings, without making Python objects of them.

Everything here is about Arrow tables and numpy arrays, and knows nothing of where they come from. It is
done in three steps, so that it can be done in many places at once:

1. `count_histograms` adds up some pings: one row for each group of pings and each definition of a histogram.
   What a client weighs depends on all its pings, so those with a client id are given back beside it
   (`ClientPings`), in a tenth of their bytes, and divided into shares by client.
2. `ClientShare` weighs the clients of one share: rows with what counting left at zero.
3. `merge_sums` adds up the rows of both, from many places.

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
Pings without a client id, and those of a client with more pings than one browser sends, are in `counts` and
`pings`, and neither in `normalized` nor in `clients`.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from telemetry_lake.compiled_lists import read_lists
from telemetry_lake.compiled_sums import (
    HISTOGRAM_MAX_BYTES,
    HISTOGRAM_MIN_BYTES,
    SAMPLE_MAX_BYTES,
    WEIGHT_UNIT,
    add_lists,
    add_weights,
    count_samples,
    divide_weights,
    mark_definitions,
    number_definitions,
    number_rows,
)
from telemetry_lake.convert.bucket_ranges import BucketRange, HistogramType, NoBuckets, bucket_bounds
from telemetry_lake.failures import FatalError

SHARE_MAX_PINGS: Final = 2**18
"""The sums that so many pings say fit into 64 bits."""

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
    *(f"{HISTOGRAMS}.list.element.{field}" for field in (*DEFINED_BY, "buckets", "counts", "sum")),
)
"""The columns of a Parquet file that are needed, as Parquet names them."""
READ_AS_DICTIONARY: Final = tuple(
    f"{HISTOGRAMS}.list.element.{field}" for field in ("process", "name", "key")
)
"""Those of them of which the few different values are read once: half of the time of reading."""

DEFINITIONS_FIRST_ROOM: Final = 4_096

SAMPLES: Final = "samples"
"""The column with what a ping has to weigh, as `compiled_sums` writes it."""
NUMBER: Final = "number"
"""The column with the number that a definition has in those bytes."""

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


@dataclass(frozen=True, slots=True)
class ClientPings:
    """Pings with a client id: `GROUPED_BY`, `CLIENT_ID`, `SAMPLES`, and the definitions that these name."""

    pings: pa.Table
    definitions: pa.Table

    def split(self, shares: int) -> "Iterator[tuple[int, ClientPings]]":
        """The pings of each share that has some; all of a client are in one."""
        codes = pc.dictionary_encode(self.pings.column(CLIENT_ID)).combine_chunks()
        share_of_code = np.array(
            [zlib.crc32(client.encode()) % shares for client in codes.dictionary.to_pylist()], np.int64
        )
        share = share_of_code[np.asarray(codes.indices)]
        order = np.argsort(share, kind="stable")
        ordered = self.pings.take(order)
        starts = np.searchsorted(share[order], np.arange(shares + 1))
        for number, (start, end) in enumerate(pairwise(starts)):
            if end > start:
                pings = ordered.slice(start, end - start)
                yield number, ClientPings(pings, self._definitions_of(pings))

    def _definitions_of(self, pings: pa.Table) -> pa.Table:
        """The definitions that `pings` need: with many shares, all would be more than the samples."""
        numbers = self.definitions.column(NUMBER).to_numpy()
        marks = np.zeros(1 + numbers.max(initial=-1), np.bool_)
        for samples in pings.column(SAMPLES).chunks:
            text, starts = _texts(samples)
            mark_definitions(text, starts[0], starts[-1], marks)
        return self.definitions.filter(pa.array(marks[numbers]))


def count_histograms(pings: pa.Table) -> tuple[pa.Table, ClientPings]:
    """One row for each group of `pings` and each definition of a histogram in them, and what is left.

    Columns: `GROUPED_BY`, `DEFINED_BY`, `pings` that have it and `sum` and `counts` of their samples;
    `clients` is 0 and `normalized` empty. Raises FatalError when there are more than `SHARE_MAX_PINGS`, or
    when a histogram has not as many counts as buckets.
    """
    if pings.num_rows > SHARE_MAX_PINGS:
        raise FatalError(f"{pings.num_rows} pings at once; their sums fit for {SHARE_MAX_PINGS}")
    group, groups = _codes([pings.column(name) for name in GROUPED_BY])
    has_client = np.asarray(pings.column(CLIENT_ID).combine_chunks().is_valid())
    lists: ArrowArray = pings.column(HISTOGRAMS).combine_chunks()
    histograms = lists.values
    sample_starts, buckets = read_lists(histograms.field("buckets"))
    count_starts, counts = read_lists(histograms.field("counts"))
    if not np.array_equal(sample_starts, count_starts):
        raise FatalError("a histogram has not as many counts as buckets: the conversion is wrong")
    definition, firsts = _definitions(histograms)
    known = {name: _plain(histograms.field(name).take(firsts)) for name in DEFINED_BY}
    bounds = [
        _bounds(*key) for key in zip(*(known[name].to_pylist() for name in DEFINED_BY[3:]), strict=True)
    ]
    sizes = np.array([len(each) for each in bounds], np.int64)
    ping_starts = _numbers(lists.offsets, np.int32)
    # One row for each group and definition; its buckets are a stretch of one long array.
    row = np.zeros(len(histograms), np.int64)
    rows_max = min(len(histograms), len(groups) * len(firsts))
    row_group, row_definition = np.zeros(rows_max, np.int64), np.zeros(rows_max, np.int64)
    order = np.argsort(group, kind="stable")
    row_of = np.zeros(len(firsts), np.int64)
    rows = number_rows(order, group, ping_starts, definition, sizes, row_of, row, row_group, row_definition)
    row_group, row_definition = row_group[:rows], row_definition[:rows]
    starts = _starts(sizes[row_definition])
    having, said, numbers = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(starts[-1], np.int64)
    text = np.empty(HISTOGRAM_MAX_BYTES * len(histograms) + SAMPLE_MAX_BYTES * len(buckets), np.uint8)
    text_starts = np.zeros(pings.num_rows + 1, np.int64)
    count_samples(
        ping_starts,
        has_client,
        definition,
        row,
        _numbers(histograms.field("sum"), np.float64),
        (sample_starts, buckets, counts),
        _starts(sizes),
        np.concatenate([_no_bounds, *bounds]),
        np.zeros(np.diff(sample_starts).max(initial=0), np.uint64),
        starts,
        (having, said, numbers),
        text,
        text_starts,
    )
    summed: dict[str, Any] = {
        **{name: _plain(pings.column(name).take(groups[row_group])) for name in GROUPED_BY},
        **{name: known[name].take(row_definition) for name in DEFINED_BY},
        "pings": having,
        "clients": np.zeros(rows, np.int64),
        "sum": said,
        "counts": _lists(starts, numbers),
        "normalized": _lists(np.zeros(rows + 1, np.int64), numbers[:0]),
    }
    # A copy, because nearly all of the room was not needed.
    written = [pa.py_buffer(text_starts.tobytes()), pa.py_buffer(text[: text_starts[-1]].tobytes())]
    samples = pa.LargeBinaryArray.from_buffers(pa.large_binary(), pings.num_rows, [None, *written])
    names = [*GROUPED_BY, CLIENT_ID]
    of_clients = pings.select(names).append_column(SAMPLES, samples).filter(pa.array(has_client))
    definitions = pa.table({**known, NUMBER: pa.array(np.arange(len(firsts), dtype=np.int32))})
    return pa.table(summed).filter(pa.array(having > 0)), ClientPings(of_clients, definitions)


class ClientShare:
    """All pings of some clients, as they come in; clients with more than `client_max_pings` are not kept."""

    def __init__(self, client_max_pings: int) -> None:
        self._client_max_pings = client_max_pings
        self._pings_of: Counter[str] = Counter()
        self._parts: list[ClientPings] = []

    def add(self, part: ClientPings) -> None:
        """Keep the pings of `part`, but for those of clients that have already sent too many."""
        clients: list[Any] = part.pings.column(CLIENT_ID).to_pylist()
        self._pings_of.update(clients)
        self._parts.append(self._without_crowds(part, clients))

    @property
    def held(self) -> int:
        """How many pings are kept."""
        return sum(part.pings.num_rows for part in self._parts)

    def sums(self) -> pa.Table:
        """One row for each group and definition, as `count_histograms` has them.

        `clients` are those with samples, `normalized` is in units of 1 / `WEIGHT_UNIT`; `pings` and `sum` are
        0 and `counts` is empty. Raises FatalError when there are more than `SHARE_MAX_PINGS`.
        """
        parts = []
        for part in self._parts:
            clients_of: list[Any] = part.pings.column(CLIENT_ID).to_pylist()
            parts.append(self._without_crowds(part, clients_of))
        pings = pa.concat_tables([part.pings for part in parts]).combine_chunks()
        definitions = pa.concat_tables([part.definitions for part in parts]).combine_chunks()
        if pings.num_rows > SHARE_MAX_PINGS:
            raise FatalError(f"{pings.num_rows} pings in one share; it holds {SHARE_MAX_PINGS}")
        group, groups = _codes([pings.column(name) for name in GROUPED_BY])
        client = _codes([pings.column(CLIENT_ID)])[0]
        definition, firsts = _codes([definitions.column(name) for name in DEFINED_BY])
        known = {name: definitions.column(name).take(firsts) for name in DEFINED_BY}
        bounds = [
            _bounds(*key) for key in zip(*(known[name].to_pylist() for name in DEFINED_BY[3:]), strict=True)
        ]
        # Each part has numbers of its own for definitions: where in the table of all they begin.
        sizes = [1 + part.definitions.column(NUMBER).to_numpy().max(initial=-1) for part in parts]
        bases = _starts(sizes)
        definition_of = np.zeros(int(bases[-1]), np.int64)
        rows = [part.definitions.num_rows for part in parts]
        definition_of[np.repeat(bases[:-1], rows) + definitions.column(NUMBER).to_numpy()] = definition
        text, text_starts = _texts(pings.column(SAMPLES).combine_chunks())
        order = np.lexsort((client, group))
        histograms_max = int(text_starts[-1] - text_starts[0]) // HISTOGRAM_MIN_BYTES
        row, weight = np.zeros(histograms_max, np.int64), np.zeros(histograms_max, np.float64)
        rows_max = min(histograms_max, len(groups) * len(firsts))
        row_group, row_definition, clients, totals = (np.zeros(rows_max, np.int64) for _ in range(4))
        rows = divide_weights(
            order,
            group,
            client,
            text,
            text_starts,
            np.repeat(bases[:-1], [part.pings.num_rows for part in parts]),
            definition_of,
            np.zeros(len(firsts), np.int64),
            row,
            weight,
            row_group,
            row_definition,
            clients,
            totals,
        )
        row_group, row_definition, clients = row_group[:rows], row_definition[:rows], clients[:rows]
        starts = _starts(np.array([len(each) for each in bounds], np.int64)[row_definition])
        weights = np.zeros(starts[-1], np.int64)
        add_weights(order, text, text_starts, row, weight, starts, weights)
        nothing = np.zeros(len(clients), np.int64)
        summed: dict[str, Any] = {
            **{name: _plain(pings.column(name).take(groups[row_group])) for name in GROUPED_BY},
            **{name: known[name].take(row_definition) for name in DEFINED_BY},
            "pings": nothing,
            "clients": clients,
            "sum": nothing,
            "counts": _lists(np.zeros(len(starts), np.int64), weights[:0]),
            "normalized": _lists(starts, weights),
        }
        return pa.table(summed)

    def _without_crowds(self, part: ClientPings, clients: Sequence[str]) -> ClientPings:
        crowds = {client for client in clients if self._pings_of[client] > self._client_max_pings}
        if not crowds:
            return part
        hidden = pc.is_in(part.pings.column(CLIENT_ID), value_set=pa.array(sorted(crowds)))
        return ClientPings(part.pings.filter(pc.invert(hidden)), part.definitions)


def merge_sums(parts: Sequence[pa.Table]) -> pa.Table:
    """The rows of `count_histograms` and `ClientShare.sums` of many places, added up."""
    rows = pa.concat_tables(parts).combine_chunks()
    row_of, first = _codes([rows.column(name) for name in (*GROUPED_BY, *DEFINED_BY)])
    merged: dict[str, Any] = {name: rows.column(name).take(first) for name in (*GROUPED_BY, *DEFINED_BY)}
    for name in _SUMS:
        merged[name] = np.zeros(len(first), np.int64)
        np.add.at(merged[name], row_of, rows.column(name).to_numpy())
    lists: dict[str, ArrowArray] = {name: rows.column(name).combine_chunks() for name in _DENSE}
    # Who counted has no weights, and who weighed has no counts: such a list is empty and means zeros.
    sizes = np.zeros(len(first), np.int64)
    for array in lists.values():
        np.maximum.at(sizes, row_of, np.diff(np.asarray(array.offsets)))
    starts = _starts(sizes)
    for name, array in lists.items():
        numbers = np.zeros(int(starts[-1]), np.int64)
        add_lists(
            row_of, _numbers(array.offsets, np.int32), _numbers(array.values, np.int64), starts, numbers
        )
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
    """Rows of sums by the shard that adds them up: a histogram's are all in one."""
    if not sums.num_rows:
        return
    names = pc.dictionary_encode(sums.column("name")).combine_chunks()
    of_name = np.array(
        [zlib.crc32(name.encode()) % shards for name in names.dictionary.to_pylist()], np.int64
    )
    shard = of_name[np.asarray(names.indices)]
    for number in np.unique(shard):
        yield int(number), sums.filter(pa.array(shard == number))


def _definitions(histograms: ArrowArray) -> tuple[Any, Indices]:
    """A number for the definition of each histogram, and for each number the first that has it."""
    fields = _definition_fields(histograms)
    numbers = np.zeros(len(histograms), np.int32)
    room = DEFINITIONS_FIRST_ROOM
    while True:
        firsts, following = np.zeros(room, np.int64), np.zeros(room, np.int32)
        known = number_definitions(fields, numbers, firsts, following, np.full(2 * room, -1, np.int32))
        if known >= 0:
            return numbers, firsts[:known]
        room *= 4


def _definition_fields(histograms: ArrowArray) -> tuple[Any, ...]:
    """What says which definition each histogram has, as whole numbers."""
    fields = []
    for name in DEFINED_BY[:3]:
        codes = pc.dictionary_encode(histograms.field(name)).indices
        fields.append(_numbers(pc.fill_null(codes, -1), np.int32))
    parameters = [histograms.field(name) for name in DEFINED_BY[3:]]
    said = np.ones(len(histograms), np.bool_)
    for parameter in parameters:
        said &= np.asarray(parameter.is_valid())
    # With a parameter unknown, the others are no matter: nobody knows the buckets.
    for parameter in parameters:
        numbers = np.asarray(pc.fill_null(parameter, 0))
        fields.append(_numbers(numbers if said.all() else np.where(said, numbers, -1), np.int64))
    return tuple(fields)


def _numbers(array: Any, kind: Any) -> Any:
    """An array for the compiled loops; never writable, because each kind of array is compiled anew."""
    numbers = np.asarray(array).astype(kind, copy=False).view()
    numbers.flags.writeable = False
    return numbers


def _texts(samples: ArrowArray) -> tuple[Any, Any]:
    """The bytes of all, and where in them each one's begin."""
    _, starts, text = samples.buffers()
    first, last = samples.offset, samples.offset + len(samples) + 1
    return (
        np.frombuffer(text, np.uint8) if text else np.zeros(0, np.uint8),
        np.frombuffer(starts, np.int64)[first:last],
    )


def _starts(sizes: Any) -> Indices:
    """Where each of stretches of these sizes starts, and where the last one ends."""
    return np.concatenate(([0], np.cumsum(np.asarray(sizes, np.int64))))


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


_no_bounds: Final = np.zeros(0, np.int32)


@cache
def _bounds(kind: int | None, bucket_count: int | None, low: int | None, high: int | None) -> Any:
    """The lower bounds of a definition's buckets; none when it has not said which."""
    if kind is None or bucket_count is None or low is None or high is None:
        return _no_bounds
    try:
        return np.array(bucket_bounds(BucketRange(HistogramType(kind), low, high, bucket_count)), np.int32)
    except (NoBuckets, ValueError):
        return _no_bounds


def _lists(starts: Indices, numbers: Indices) -> Any:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(numbers))


def to_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow stream; not compressed, because Spark compresses what it moves."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(pieces: Iterable[bytes]) -> list[pa.Table]:
    """The tables that `to_bytes` was given."""
    return [pa.ipc.open_stream(piece).read_all() for piece in pieces]
