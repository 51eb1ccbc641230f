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
from telemetry_lake.compiled_sums import WEIGHT_UNIT
from telemetry_lake.failures import FatalError
from telemetry_lake.histogram_aggregation import (
    ClientPings,
    ClientShare,
    count_histograms,
    finished,
    from_bytes,
    merge_sums,
    shard_of,
    to_bytes,
    with_build_date,
)
from telemetry_lake.tables import LIVE_PINGS
from tests.jobs.test_against_polars import generated
from tests.query.sample_rows import sample_rows

pc: Any = pyarrow.compute
PINGS = with_build_date(sample_rows(LIVE_PINGS, generated(seed=8)))


MANY = 1_000


def sums_of(parts: Iterable[pa.Table], shares: int = 1, client_max_pings: int = MANY) -> pa.Table:
    """The sums of pings that come in parts, whose clients are weighed in so many shares."""
    sums: list[pa.Table] = []
    of_clients: dict[int, ClientShare] = {}
    for part in parts:
        counted, weighing = count_histograms(part)
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
        share.add(count_histograms(one.slice(number, 1))[1])
    assert one.num_rows > 100
    assert share.held <= 11


def test_files_with_different_names_in_them_give_the_same_sums(tmp_path: Path):
    rows = generated(seed=8)
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
    (row,) = summed(with_build_date(sample_rows(LIVE_PINGS, rows)))
    assert (row["pings"], row["clients"], row["counts"]) == (1, 1, [1, 0, 2])


def test_pings_without_histograms_give_no_rows():
    assert summed(with_build_date(sample_rows(LIVE_PINGS, [{"histograms": []}]))) == []


def test_a_histogram_with_too_few_counts_is_our_mistake():
    rows = [{"histograms": [histogram(counts="1")]}]
    with pytest.raises(FatalError, match="as many counts as buckets"):
        summed(with_build_date(sample_rows(LIVE_PINGS, rows)))


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
