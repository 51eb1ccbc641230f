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

**Sent bounds.** A custom distribution of Glean does not say which buckets it has. Those of a row are then all
that its pings sent and that have samples; sums with different bounds are brought together before they are
added.

**What is left out.** A histogram whose buckets are unknown, or that has a bucket which is not one of them,
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
from numpy.typing import NDArray

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
from telemetry_lake.failures import FatalError
from telemetry_lake.histograms.bucket_ranges import (
    BucketRange,
    HistogramType,
    NoBuckets,
    bucket_bounds,
    has_sent_buckets,
)
from telemetry_lake.histograms.list_kernels import read_lists
from telemetry_lake.histograms.sum_kernels import (
    COUNT_MAX,
    HISTOGRAM_MAX_BYTES,
    HISTOGRAM_MIN_BYTES,
    SAMPLE_MAX_BYTES,
    WEIGHT_UNIT,
    Bounds,
    Fields,
    Histograms,
    Pings,
    Places,
    Rows,
    Samples,
    Sums,
    WeighedPings,
    Weights,
    add_lists,
    add_weights,
    count_samples,
    divide_weights,
    mark_definitions,
    number_definitions,
    number_rows,
)

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
SENT: Final = "sent"
"""The column with the lower bounds of a row or definition whose buckets are those that were sent."""
SENT_BOUNDS_MAX: Final = 10_000
"""A row with more of them is left out: an application has some hundreds, made-up pings any number."""
MEASURES: Final = "measures"
"""The column with the measures of pings (`measures.read_measures`), in the form of that of histograms."""

_SUMS: Final = ("pings", "clients", "sum")
_DENSE: Final = ("counts", "normalized")

# The stubs know few of the functions and none of the attributes of nested arrays.
pc: Final[Any] = pyarrow.compute
ArrowArray = Any
_KINDS: Final = frozenset(HistogramType)
Indices = NDArray[np.int64]


def with_build_date(pings: pa.Table) -> pa.Table:
    """Return `pings` with the date that a build id begins with in its place; null where it is not a date."""
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


def count_pings(pings: pa.Table) -> tuple[pa.Table, ClientPings]:
    """Return what `count_histograms` does of the histograms of `pings` and of their `MEASURES` together."""
    sums, clients = count_histograms(pings)
    more_sums, more = count_histograms(pings, MEASURES, first_number=clients.definitions.num_rows)
    # A ping stays one ping, so that a client's pings are counted once.
    nothing = pa.scalar(b"", pa.large_binary())
    samples = pc.binary_join_element_wise(clients.pings.column(SAMPLES), more.pings.column(SAMPLES), nothing)
    place = clients.pings.schema.get_field_index(SAMPLES)
    return pa.concat_tables([sums, more_sums]), ClientPings(
        clients.pings.set_column(place, SAMPLES, samples),
        pa.concat_tables([clients.definitions, more.definitions]),
    )


def count_histograms(
    pings: pa.Table, column: str = HISTOGRAMS, *, first_number: int = 0
) -> tuple[pa.Table, ClientPings]:
    """One row for each group of `pings` and each definition of a histogram in `column`, and what is left.

    Where clients' pings name definitions, the numbers of these begin with `first_number`.

    Columns: `GROUPED_BY`, `DEFINED_BY`, `pings` that have it and `sum` and `counts` of their samples;
    `clients` is 0 and `normalized` empty. Raises FatalError when there are more than `SHARE_MAX_PINGS`, or
    when a histogram has not as many counts as buckets.
    """
    if pings.num_rows > SHARE_MAX_PINGS:
        raise FatalError(f"{pings.num_rows} pings at once; their sums fit for {SHARE_MAX_PINGS}")
    group, groups = _codes([pings.column(name) for name in GROUPED_BY])
    has_client = np.asarray(pings.column(CLIENT_ID).combine_chunks().is_valid())
    lists: ArrowArray = pings.column(column).combine_chunks()
    histograms = lists.values
    sample_starts, buckets = read_lists(histograms.field("buckets"))
    count_starts, counts = read_lists(histograms.field("counts"))
    if not np.array_equal(sample_starts, count_starts):
        raise FatalError("a histogram has not as many counts as buckets: the conversion is wrong")
    numbers, firsts = _definitions(histograms)
    definitions = {name: _plain(histograms.field(name).take(firsts)) for name in DEFINED_BY}
    bounds = _bounds_of(definitions)
    has_sent = _have_sent_buckets(definitions)
    if has_sent.any():
        _add_sent_bounds(bounds, has_sent, numbers, sample_starts, buckets, counts)
    sizes = np.array([len(each) for each in bounds], np.int64)
    kernel_input = Histograms(
        ping_starts=_numbers(lists.offsets, np.int32),
        definitions=numbers,
        rows=np.zeros(len(histograms), np.int64),
        sums=_numbers(histograms.field("sum"), np.float64),
        starts=sample_starts,
        buckets=buckets,
        counts=counts,
    )
    rows = _rows_of(group, kernel_input, sizes, min(len(histograms), len(groups) * len(firsts)))
    # The buckets of each row are a stretch of one long array.
    starts = _starts(sizes[rows.definitions])
    count = len(rows.groups)
    sums = Sums(starts, np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(starts[-1], np.int64))
    samples = Samples(
        np.empty(HISTOGRAM_MAX_BYTES * len(histograms) + SAMPLE_MAX_BYTES * len(buckets), np.uint8),
        np.zeros(pings.num_rows + 1, np.int64),
    )
    places = np.zeros(np.diff(sample_starts).max(initial=0), np.uint64)
    all_bounds = Bounds(_starts(sizes), np.concatenate([_no_bounds, *bounds]))
    count_samples(has_client, kernel_input, all_bounds, places, sums, samples, first_number)
    summed: dict[str, Any] = {
        **{name: _plain(pings.column(name).take(groups[rows.groups])) for name in GROUPED_BY},
        **{name: definitions[name].take(rows.definitions) for name in DEFINED_BY},
        "pings": sums.pings,
        "clients": np.zeros(count, np.int64),
        "sum": sums.sums,
        "counts": _lists(starts, sums.counts),
        "normalized": _lists(np.zeros(count + 1, np.int64), sums.counts[:0]),
        SENT: _sent_lists(bounds, has_sent, rows.definitions),
    }
    clients = pings.select([*GROUPED_BY, CLIENT_ID]).append_column(SAMPLES, _binary(samples))
    all_numbers = np.arange(first_number, first_number + len(firsts), dtype=np.int32)
    sent = _sent_lists(bounds, has_sent, all_numbers - first_number)
    numbered = pa.table({**definitions, NUMBER: pa.array(all_numbers), SENT: sent})
    return pa.table(summed).filter(pa.array(sums.pings > 0)), ClientPings(
        clients.filter(pa.array(has_client)), numbered
    )


def _rows_of(group: Indices, histograms: Histograms, sizes: Indices, most: int) -> Rows:
    """Return the rows, at most `most`, of histograms whose pings are of these groups."""
    rows = Rows(np.zeros(most, np.int64), np.zeros(most, np.int64))
    pings = Pings(np.argsort(group, kind="stable"), group)
    count = number_rows(pings, histograms, sizes, np.zeros(len(sizes), np.int64), rows)
    return Rows(rows.groups[:count], rows.definitions[:count])


def _binary(samples: Samples) -> ArrowArray:
    """Return an Arrow array of byte strings. A copy, because nearly all of the room was not needed."""
    written = [samples.starts.tobytes(), samples.text[: samples.starts[-1]].tobytes()]
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(samples.starts) - 1, [None, *map(pa.py_buffer, written)]
    )


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
        defined = {name: definitions.column(name).take(firsts) for name in DEFINED_BY}
        # Each part has numbers of its own for definitions: where in the table of all they begin.
        sizes = [1 + part.definitions.column(NUMBER).to_numpy().max(initial=-1) for part in parts]
        bases = _starts(sizes)
        definition_of = np.zeros(int(bases[-1]), np.int64)
        offsets = np.repeat(bases[:-1], [part.definitions.num_rows for part in parts])
        slots = offsets + definitions.column(NUMBER).to_numpy()
        definition_of[slots] = definition
        bounds, places = _united_bounds(
            defined, definitions.column(SENT), definition, slots, len(definition_of)
        )
        weighed = WeighedPings(
            client, np.repeat(bases[:-1], [part.pings.num_rows for part in parts]), definition_of
        )
        samples = Samples(*_texts(pings.column(SAMPLES).combine_chunks()))
        ordered = Pings(np.lexsort((client, group)), group)
        histograms_max = int(samples.starts[-1] - samples.starts[0]) // HISTOGRAM_MIN_BYTES
        weights = Weights(np.zeros(histograms_max, np.int64), np.zeros(histograms_max, np.float64))
        rows_max = min(histograms_max, len(groups) * len(firsts))
        rows = Rows(np.zeros(rows_max, np.int64), np.zeros(rows_max, np.int64))
        clients, totals = np.zeros(rows_max, np.int64), np.zeros(rows_max, np.int64)
        row_of = np.zeros(len(firsts), np.int64)
        count = divide_weights(ordered, weighed, samples, row_of, weights, rows, clients, totals)
        rows = Rows(rows.groups[:count], rows.definitions[:count])
        bucket_counts = np.array([len(each) for each in bounds], np.int64)
        starts = _starts(bucket_counts[rows.definitions])
        normalized = np.zeros(starts[-1], np.int64)
        add_weights(ordered.order, weighed.bases, places, samples, weights, starts, normalized)
        nothing = np.zeros(count, np.int64)
        summed: dict[str, Any] = {
            **{name: _plain(pings.column(name).take(groups[rows.groups])) for name in GROUPED_BY},
            **{name: defined[name].take(rows.definitions) for name in DEFINED_BY},
            "pings": nothing,
            "clients": clients[:count],
            "sum": nothing,
            "counts": _lists(np.zeros(count + 1, np.int64), normalized[:0]),
            "normalized": _lists(starts, normalized),
            SENT: _sent_lists(bounds, _have_sent_buckets(defined), rows.definitions),
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
    sent_starts, sent = _list_parts(rows.column(SENT))
    sent_sizes = np.diff(sent_starts)
    has_sent = sent_sizes > 0
    union_starts, union, places = _unions(np.repeat(row_of, sent_sizes), sent, len(first))
    unites = np.diff(union_starts) > 0
    sizes = np.where(unites, np.diff(union_starts), sizes)
    starts = _starts(sizes)
    added: dict[str, Indices] = {}
    for name, array in lists.items():
        numbers = added[name] = np.zeros(int(starts[-1]), np.int64)
        list_starts, values = _numbers(array.offsets, np.int32), _numbers(array.values, np.int64)
        add_lists(_numbers(np.where(has_sent, -1, row_of), np.int64), list_starts, values, starts, numbers)
        lengths = np.diff(list_starts)
        united = np.flatnonzero(has_sent & (lengths > 0))
        into = np.repeat(starts[row_of[united]], lengths[united])
        into += places[_stretches(sent_starts[united], lengths[united])]
        np.add.at(numbers, into, values[_stretches(list_starts[united], lengths[united])])
    if unites.any():
        # Bounds without samples are those of other groups of pings that were counted at the same time.
        of_united = np.repeat(unites, sizes)
        keep = ~of_united | (added["counts"] != 0) | (added["normalized"] != 0)
        union = union[keep[of_united]]
        starts = _starts(keep)[starts]
        added = {name: numbers[keep] for name, numbers in added.items()}
    for name, numbers in added.items():
        merged[name] = _lists(starts, numbers)
    merged[SENT] = _lists(_starts(np.where(unites, np.diff(starts), 0)), union)
    return pa.table(merged)


def finished(sums: pa.Table) -> pa.Table:
    """Merged sums as people read them: with the lower bound of each bucket, and weights instead of units."""
    sums = sums.filter(pc.less_equal(pc.list_value_length(sums.column(SENT)), SENT_BOUNDS_MAX))
    keys = zip(*(sums.column(name).to_pylist() for name in DEFINED_BY[3:]), strict=True)
    normalized: ArrowArray = sums.column("normalized").combine_chunks()
    weights = pc.divide(pc.cast(normalized.flatten(), pa.float64()), float(WEIGHT_UNIT))
    sent = sums.column(SENT).to_pylist()
    buckets = [bounds or _bounds(*key) for key, bounds in zip(keys, sent, strict=True)]
    return (
        sums.set_column(
            sums.schema.get_field_index("normalized"),
            "normalized",
            pa.ListArray.from_arrays(pa.array(_list_parts(normalized)[0], pa.int32()), weights),
        )
        .drop_columns([SENT])
        .append_column("buckets", pa.array(buckets, pa.list_(pa.int64())))
    )


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


def _definitions(histograms: ArrowArray) -> tuple[NDArray[np.int32], Indices]:
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


def _definition_fields(histograms: ArrowArray) -> Fields:
    """Return what says which definition each histogram has."""
    fields = []
    for name in DEFINED_BY[:3]:
        codes = pc.dictionary_encode(histograms.field(name)).indices
        fields.append(_numbers(pc.fill_null(codes, -1), np.int32))
    parameters = [histograms.field(name) for name in DEFINED_BY[3:]]
    complete = np.ones(len(histograms), np.bool_)
    for parameter in parameters:
        complete &= np.asarray(parameter.is_valid())
    # With a parameter unknown, the others do not matter: the buckets are unknown.
    for parameter in parameters:
        numbers = np.asarray(pc.fill_null(parameter, 0))
        fields.append(_numbers(numbers if complete.all() else np.where(complete, numbers, -1), np.int64))
    return Fields(*fields)


def _numbers(array: Any, kind: Any) -> Any:
    """An array for the compiled loops; never writable, because each kind of array is compiled anew."""
    numbers = np.asarray(array).astype(kind, copy=False).view()
    numbers.flags.writeable = False
    return numbers


def _texts(samples: ArrowArray) -> tuple[NDArray[np.uint8], Indices]:
    """Return the bytes of all, and where in them each one's begin, with a last one for their end."""
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


_no_bounds: Final = np.zeros(0, np.int64)


def _bounds_of(definitions: dict[str, ArrowArray]) -> list[Indices]:
    """Return the lower bounds of the buckets of each definition; each column of them is in `definitions`."""
    columns = (definitions[name].to_pylist() for name in DEFINED_BY[3:])
    return [_bounds(*parameters) for parameters in zip(*columns, strict=True)]


@cache
def _bounds(kind: int | None, bucket_count: int | None, low: int | None, high: int | None) -> Indices:
    """The lower bounds of a definition's buckets; none when it has not said which."""
    if kind is None or bucket_count is None or low is None or high is None:
        return _no_bounds
    try:
        return np.array(bucket_bounds(BucketRange(HistogramType(kind), low, high, bucket_count)), np.int64)
    except (NoBuckets, ValueError):
        return _no_bounds


def _have_sent_buckets(definitions: dict[str, ArrowArray]) -> NDArray[np.bool_]:
    """Return of each definition whether the bounds that were sent are its buckets."""
    columns = [definitions[name].to_pylist() for name in DEFINED_BY[3:]]
    return np.array([_has_sent_buckets(*parameters) for parameters in zip(*columns, strict=True)], np.bool_)


@cache
def _has_sent_buckets(kind: int | None, bucket_count: int | None, low: int | None, high: int | None) -> bool:
    if kind not in _KINDS or bucket_count is None or low is None or high is None:
        return False
    return has_sent_buckets(BucketRange(HistogramType(kind), low, high, bucket_count))


def _add_sent_bounds(
    bounds: list[Indices],
    has_sent: NDArray[np.bool_],
    numbers: NDArray[np.int32],
    sample_starts: NDArray[np.int32],
    buckets: Indices,
    counts: Indices,
) -> None:
    """Fill in the bounds that histograms were sent with, for the definitions that have such buckets.

    0 is always one, so that there is a place for a histogram without samples.
    """
    of_sample = np.repeat(numbers.astype(np.int64), np.diff(sample_starts))
    chosen = has_sent[of_sample] & (counts >= 0) & (counts <= COUNT_MAX)
    starts, union, _ = _unions(of_sample[chosen], buckets[chosen], len(bounds))
    for number in np.flatnonzero(has_sent):
        bounds[number] = np.union1d(union[starts[number] : starts[number + 1]], [0])


def _united_bounds(
    defined: dict[str, ArrowArray], sent: ArrowArray, definition: Indices, slots: Indices, size: int
) -> tuple[list[Indices], Places]:
    """Return the bounds of all definitions, and where those of each part are among them.

    `sent` and `definition` say of each definition of a part its sent bounds and its number among all,
    `slots`, of `size` that there are, where it is in the table of all numbers.
    """
    sent_starts, values = _list_parts(sent)
    sizes = np.diff(sent_starts)
    bounds = _bounds_of(defined)
    starts, union, places = _unions(np.repeat(definition, sizes), values, len(bounds))
    for number in np.flatnonzero(np.diff(starts)):
        bounds[number] = union[starts[number] : starts[number + 1]]
    shifts = np.full(size, -1, np.int64)
    shifts[slots] = np.where(sizes > 0, sent_starts[:-1], -1)
    return bounds, Places(shifts, places)


def _sent_lists(bounds: list[Indices], has_sent: NDArray[np.bool_], definitions: Any) -> Any:
    """Return for each of `definitions`, by their numbers, the bounds if they are those that were sent."""
    sizes = np.array([len(each) for each in bounds], np.int64)
    found = [bounds[number] for number in definitions[has_sent[definitions]]]
    return _lists(_starts(np.where(has_sent, sizes, 0)[definitions]), np.concatenate([_no_bounds, *found]))


def _unions(rows: Indices, bounds: Indices, count: int) -> tuple[Indices, Indices, Indices]:
    """Return the different `bounds` of each of `count` rows, ascending: where each row's begin, and all.

    The third array says of each given bound its place among those of its row.
    """
    order = np.lexsort((bounds, rows))
    rows_in_order, bounds_in_order = rows[order], bounds[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (rows_in_order[1:] != rows_in_order[:-1]) | (bounds_in_order[1:] != bounds_in_order[:-1])
    starts = np.searchsorted(rows_in_order[is_new], np.arange(count + 1)).astype(np.int64)
    places = np.empty(len(order), np.int64)
    places[order] = np.cumsum(is_new) - 1
    return starts, bounds_in_order[is_new], places - starts[rows]


def _stretches(starts: Any, lengths: Any) -> Indices:
    """Return the indices of stretches that begin at `starts` and are so long, one after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(np.asarray(starts, np.int64) - (ends - lengths), lengths) + np.arange(
        ends[-1] if len(ends) else 0
    )


def _list_parts(column: ArrowArray) -> tuple[Indices, Indices]:
    """Return where each list of a column begins, with a last one for the end, and all numbers."""
    array: Any = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    offsets = np.asarray(array.offsets).astype(np.int64)
    return offsets - offsets[0], np.asarray(array.flatten())


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
