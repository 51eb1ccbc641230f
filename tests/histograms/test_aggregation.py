"""Sums of histograms do not depend on how pings are divided, and damage does not get into them."""

import random
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.histogram_aggregates import FilePart, read_part
from lake_testing.coinciding_pings import coinciding_pings
from lake_testing.sample_rows import sample_rows
from telemetry_lake.failures import FatalError
from telemetry_lake.histograms.aggregation import (
    MEASURES,
    SENT_BOUNDS_MAX,
    ClientPings,
    ClientShare,
    count_pings,
    finished,
    from_bytes,
    merge_sums,
    shard_of,
    to_bytes,
    with_build_date,
)
from telemetry_lake.histograms.bucket_ranges import FUNCTIONAL_RANGES, HistogramType
from telemetry_lake.histograms.measures import read_measures
from telemetry_lake.histograms.sum_kernels import WEIGHT_UNIT
from telemetry_lake.tables.definitions import LIVE_PINGS

pc: Any = pyarrow.compute


def pings_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Return these rows of pings as a job reads them."""
    pings = with_build_date(sample_rows(LIVE_PINGS, rows))
    documents: list[Any] = pings.column("document").to_pylist()
    return pings.append_column(MEASURES, read_measures(document.encode() for document in documents))


PINGS = pings_of(coinciding_pings(seed=8))


MANY = 1_000


def sums_of(parts: Iterable[pa.Table], shares: int = 1, client_max_pings: int = MANY) -> pa.Table:
    """The sums of pings that come in parts, whose clients are weighed in so many shares."""
    sums: list[pa.Table] = []
    of_clients: dict[int, ClientShare] = {}
    for part in parts:
        counted, weighing = count_pings(part)
        sums += from_bytes([to_bytes(counted)])
        for share, some in weighing.split(shares):
            moved = ClientPings(*from_bytes([to_bytes(some.pings), to_bytes(some.definitions)]))
            of_clients.setdefault(share, ClientShare(client_max_pings)).add(moved)
    return merge_sums([*sums, *(share.sums() for share in of_clients.values())])


def summed(pings: pa.Table, shares: int = 1, parts: int = 1, **options: Any) -> list[dict[str, Any]]:
    size = -(-pings.num_rows // parts)
    slices = [pings.slice(first, size) for first in range(0, pings.num_rows, size)]
    return sorted(sums_of(slices, shares, **options).to_pylist(), key=str)


EXPECTED = summed(PINGS)


@settings(max_examples=20, deadline=None)
@given(shares=st.integers(1, 50), parts=st.integers(1, 20), seed=st.integers())
def test_neither_the_order_of_pings_nor_the_number_of_shares_changes_anything(
    shares: int, parts: int, seed: int
):
    order = list(range(PINGS.num_rows))
    random.Random(seed).shuffle(order)
    assert summed(PINGS.take(order), shares, parts) == EXPECTED


@settings(max_examples=20, deadline=None)
@given(shards=st.integers(1, 20))
def test_rows_of_a_histogram_meet_in_one_shard(shards: int):
    sums = sums_of([PINGS])
    parts = dict(shard_of(sums, shards))
    assert set(parts) <= set(range(shards))
    assert sum(part.num_rows for part in parts.values()) == sums.num_rows
    names = [set(part.column("name").to_pylist()) for part in parts.values()]
    assert len(set().union(*names)) == sum(map(len, names))


def test_each_client_weighs_one():
    rows = finished(sums_of([PINGS])).to_pylist()
    assert any(row["clients"] > 1 for row in rows)
    for row in rows:
        assert sum(row["normalized"]) == pytest.approx(
            row["clients"], abs=len(row["buckets"]) / WEIGHT_UNIT * 100
        )


def test_a_hidden_client_is_counted_and_weighs_nothing():
    hidden = summed(PINGS, client_max_pings=0)
    assert [row["counts"] for row in hidden] == [row["counts"] for row in EXPECTED]
    assert {row["clients"] for row in hidden} == {0}
    assert not any(any(row["normalized"]) for row in hidden)


@pytest.mark.parametrize("parts", [1, 7, 600])
def test_only_clients_with_too_many_pings_are_hidden_however_these_come(parts: int):
    sent = Counter(client for client in PINGS.column("client_id").to_pylist() if client)
    limit = sorted(sent.values())[len(sent) // 2]
    crowds = [client for client, pings in sent.items() if pings > limit]
    assert 0 < len(crowds) < len(sent)
    ids = PINGS.column("client_id")
    without = pc.if_else(pc.is_in(ids, value_set=pa.array(crowds)), None, ids)
    expected = summed(PINGS.set_column(PINGS.schema.get_field_index("client_id"), "client_id", without))
    assert summed(PINGS, 3, parts, client_max_pings=limit) == expected


def test_a_share_does_not_hold_the_pings_of_a_crowd():
    one = pa.concat_tables([PINGS.filter(pc.equal(PINGS.column("client_id"), "client 1"))] * 20)
    share = ClientShare(client_max_pings=10)
    for number in range(one.num_rows):
        share.add(count_pings(one.slice(number, 1))[1])
    assert one.num_rows > 100
    assert share.held <= 11


def test_files_with_different_names_in_them_give_the_same_sums(tmp_path: Path):
    rows = coinciding_pings(seed=8)
    pings: list[pa.Table] = []
    for number in range(3):
        file = tmp_path / f"{number}.parquet"
        pq.write_table(sample_rows(LIVE_PINGS, rows[number::3]), file, row_group_size=70)
        starts = [pq.ParquetFile(file).metadata.row_group(group).column(0) for group in range(3)]
        offsets = [start.dictionary_page_offset or start.data_page_offset for start in starts]
        for part in [FilePart(file.as_uri(), offset) for offset in offsets]:
            pings += read_part(part, {})
    merged = sums_of(pings, 4)
    assert sorted(merged.to_pylist(), key=str) == EXPECTED
    assert not [field for field in merged.schema if pa.types.is_dictionary(field.type)], "Spark takes none"


def test_a_row_group_that_is_not_where_it_should_be_is_fatal(tmp_path: Path):
    file = tmp_path / "file.parquet"
    pq.write_table(sample_rows(LIVE_PINGS, [{}]), file)
    with pytest.raises(FatalError, match="no row group at 5"):
        list(read_part(FilePart(file.as_uri(), 5), {}))
    assert [pings.num_rows for pings in read_part(FilePart(file.as_uri(), None), {})] == [1]


def histogram(**changed: Any) -> dict[str, Any]:
    sums = dict.fromkeys(("sum", "log_sum", "log_sum_squares", "sum_squares_lo", "sum_squares_hi"), -1.0)
    of_range = {"histogram_type": 1, "bucket_count": 3, "range_low": 1, "range_high": 10}
    return {
        "process": "parent",
        "name": "GC_MS",
        "key": None,
        "buckets": "0,10",
        "counts": "1,2",
        **of_range,
        **sums,
        **changed,
    }


@pytest.mark.parametrize(
    "damage",
    [
        {"buckets": "0,5"},
        {"counts": "1,-1"},
        {"counts": f"1,{2**31}"},
        {"histogram_type": None},
        {"histogram_type": 15},
        {"histogram_type": 17},
        {"bucket_count": 1},
        {"range_low": 10, "range_high": 10},
    ],
    ids=str,
)
def test_a_damaged_histogram_is_left_out_and_the_others_are_not(damage: dict[str, Any]):
    rows: list[dict[str, Any]] = [
        {"client_id": "x", "histograms": [histogram(), histogram(**damage)]},
        {"histograms": []},
    ]
    (row,) = summed(pings_of(rows))
    assert (row["pings"], row["clients"], row["counts"]) == (1, 1, [1, 0, 2])


def sent(name: str, values: dict[int, int]) -> dict[str, Any]:
    """A distribution whose bounds are those that were sent."""
    return histogram(
        name=name,
        histogram_type=8,
        bucket_count=0,
        range_low=0,
        range_high=0,
        buckets=",".join(map(str, values)) or None,
        counts=",".join(map(str, values.values())) or None,
        sum=sum(values.values()),
    )


distributions_sent = st.dictionaries(
    st.sampled_from([0, 1, 87, 100, 8416, 2**60]), st.integers(0, 3), max_size=4
)
pings_sent = st.lists(
    st.fixed_dictionaries(
        {
            "client_id": st.sampled_from([None, "x", "y", "z"]),
            "app_update_channel": st.sampled_from(["beta", "release"]),
            "histograms": st.lists(
                st.builds(sent, st.sampled_from("ab"), distributions_sent),
                max_size=3,
            ),
        }
    ),
    min_size=1,
    max_size=12,
)


def counted_by_hand(pings: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Pings, sums, and for each bucket with samples its count and the weights of clients, by channel and
    name."""
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for channel in ("beta", "release"):
        for name in "ab":
            chosen = [
                (ping["client_id"], one)
                for ping in pings
                for one in ping["histograms"]
                if (ping["app_update_channel"], one["name"]) == (channel, name)
            ]
            samples: Counter[tuple[str | None, int]] = Counter()
            for client, one in chosen:
                if one["buckets"]:
                    buckets, counts = (map(int, one[field].split(",")) for field in ("buckets", "counts"))
                    for bucket, count in zip(buckets, counts, strict=True):
                        samples[client, bucket] += count
            filled = {bucket for (_, bucket), count in samples.items() if count}
            of_client: Counter[str | None] = Counter()
            for (client, _), count in samples.items():
                of_client[client] += count
            weights = {
                bucket: sum(
                    count / of_client[client]
                    for (client, each), count in samples.items()
                    if each == bucket and client and count
                )
                for bucket in filled
            }
            counts_of = {
                bucket: sum(count for (_, each), count in samples.items() if each == bucket)
                for bucket in filled
            }
            if chosen:
                total = sum(int(one["sum"]) for _, one in chosen)
                found[channel, name] = (len(chosen), total, counts_of, pytest.approx(weights, abs=1e-6))
    return found


@settings(max_examples=25, deadline=None)
@given(pings=pings_sent, shares=st.integers(1, 4), parts=st.integers(1, 12))
def test_sums_of_bounds_as_sent_have_those_of_all_pings(pings: list[dict[str, Any]], shares: int, parts: int):
    table = pings_of(pings)
    size = -(-table.num_rows // parts)
    slices = [table.slice(first, size) for first in range(0, table.num_rows, size)]
    rows = finished(sums_of(slices, shares)).to_pylist()
    for row in rows:
        assert row["buckets"] == sorted(set(row["buckets"]))
    assert {
        (row["app_update_channel"], row["name"]): (
            row["pings"],
            row["sum"],
            dict(zip(row["buckets"], row["counts"], strict=True)),
            dict(zip(row["buckets"], row["normalized"], strict=True)),
        )
        for row in rows
    } == counted_by_hand(pings)


@pytest.mark.parametrize("bounds, rows", [(SENT_BOUNDS_MAX, 1), (SENT_BOUNDS_MAX + 1, 0)])
def test_a_row_of_too_many_bounds_is_left_out(bounds: int, rows: int):
    one = sent("page.load", dict.fromkeys(range(bounds), 1))
    pings = pings_of([{"histograms": [one]}])
    assert finished(sums_of([pings])).num_rows == rows


def test_functional_buckets_are_added_up_in_64_bits():
    found = FUNCTIONAL_RANGES[HistogramType.TIMING_DISTRIBUTION]
    one = histogram(
        histogram_type=6,
        bucket_count=found.bucket_count,
        range_low=1,
        range_high=found.high,
        buckets=f"961548,{found.high}",
        counts="1,2",
    )
    pings = pings_of([{"client_id": "x", "histograms": [one, one]}])
    (row,) = finished(sums_of([pings])).to_pylist()
    filled = {bucket: count for bucket, count in zip(row["buckets"], row["counts"], strict=True) if count}
    assert (filled, row["clients"], len(row["buckets"])) == (
        {961548: 2, found.high: 4},
        1,
        found.bucket_count,
    )


def test_pings_without_histograms_give_no_rows():
    assert summed(pings_of([{"histograms": []}])) == []


def test_measures_are_added_up_and_weighed_as_histograms_are():
    document = '{"metrics":{"boolean":{"on":%s},"labeled_counter":{"seen":{"a":%d}}}}'
    rows = [
        {"client_id": client, "histograms": [histogram(name="on")], "document": document % (value, number)}
        for client, value, number in (
            ("x", "true", 1),
            ("x", "false", 30),
            ("y", "true", 1),
            (None, "true", 1),
        )
    ]
    found = {
        (row["name"], row["histogram_type"]): row for row in finished(sums_of([pings_of(rows)])).to_pylist()
    }
    assert set(found) == {("on", 1), ("on", 22), ("seen", 18)}
    on, seen = found["on", 22], found["seen", 18]
    assert (on["pings"], on["clients"], on["sum"]) == (4, 2, 3)
    assert (on["buckets"], on["counts"], on["normalized"]) == ([0, 1, 2], [1, 3, 0], [0.5, 1.5, 0.0])
    assert (seen["key"], seen["pings"], seen["clients"], seen["sum"]) == ("a", 4, 2, 33)
    filled = zip(seen["buckets"], seen["counts"], seen["normalized"], strict=True)
    assert [each for each in filled if each[1]] == [(1, 3, 1.5), (29, 1, 0.5)]


def test_a_histogram_with_too_few_counts_is_our_mistake():
    rows = [{"histograms": [histogram(counts="1")]}]
    with pytest.raises(FatalError, match="as many counts as buckets"):
        summed(pings_of(rows))


@pytest.mark.parametrize(
    "build, day",
    [
        ("20261101120000", date(2026, 11, 1)),
        ("20261101", date(2026, 11, 1)),
        ("20261301120000", None),
        ("2026110", None),
        ("OTHER", None),
        ("", None),
    ],
)
def test_a_build_date_is_what_a_build_id_begins_with(build: str, day: date | None):
    table = with_build_date(sample_rows(LIVE_PINGS, [{"app_build_id": build}]))
    assert table.column("build_date").to_pylist() == [day]
