"""Sums of histograms do not depend on how pings are divided, and damage does not get into them."""

import random
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.histogram_aggregates import FilePart, read_part
from telemetry_lake.failures import FatalError
from telemetry_lake.histogram_aggregation import (
    WEIGHT_UNIT,
    finished,
    from_bytes,
    merge_sums,
    shard_of,
    split_by_client,
    sum_histograms,
    to_bytes,
    with_build_date,
    without_clients,
)
from telemetry_lake.tables import LIVE_PINGS
from tests.jobs.test_against_polars import generated
from tests.query.sample_rows import sample_rows

PINGS = with_build_date(sample_rows(LIVE_PINGS, generated(seed=8)))


def summed(pings: pa.Table, shares: int = 1) -> list[dict[str, Any]]:
    parts = [sum_histograms(share) for _, share in split_by_client(pings, shares)]
    return sorted(merge_sums(parts).to_pylist(), key=str)


EXPECTED = summed(PINGS)


@settings(max_examples=20, deadline=None)
@given(shares=st.integers(1, 50), seed=st.integers())
def test_neither_the_order_of_pings_nor_the_number_of_shares_changes_anything(shares: int, seed: int):
    order = list(range(PINGS.num_rows))
    random.Random(seed).shuffle(order)
    assert summed(PINGS.take(order), shares) == EXPECTED


@settings(max_examples=20, deadline=None)
@given(shards=st.integers(1, 20))
def test_rows_of_a_histogram_meet_in_one_shard(shards: int):
    sums = merge_sums([sum_histograms(PINGS)])
    parts = dict(shard_of(sums, shards))
    assert set(parts) <= set(range(shards))
    assert sum(part.num_rows for part in parts.values()) == sums.num_rows
    names = [set(part.column("name").to_pylist()) for part in parts.values()]
    assert len(set().union(*names)) == sum(map(len, names))


def test_each_client_weighs_one():
    rows = finished(merge_sums([sum_histograms(PINGS)])).to_pylist()
    assert any(row["clients"] > 1 for row in rows)
    for row in rows:
        assert sum(row["normalized"]) == pytest.approx(
            row["clients"], abs=len(row["buckets"]) / WEIGHT_UNIT * 100
        )


def test_a_hidden_client_is_counted_and_weighs_nothing():
    everybody = {f"client {number}" for number in range(20)}
    hidden = summed(without_clients(PINGS, everybody))
    assert [row["counts"] for row in hidden] == [row["counts"] for row in EXPECTED]
    assert {row["clients"] for row in hidden} == {0}
    assert not any(any(row["normalized"]) for row in hidden)


def test_files_with_different_names_in_them_give_the_same_sums(tmp_path: Path):
    rows = generated(seed=8)
    shares: dict[int, list[bytes]] = {}
    for number in range(3):
        file = tmp_path / f"{number}.parquet"
        pq.write_table(sample_rows(LIVE_PINGS, rows[number::3]), file, row_group_size=70)
        starts = [pq.ParquetFile(file).metadata.row_group(group).column(0) for group in range(3)]
        offsets = [start.dictionary_page_offset or start.data_page_offset for start in starts]
        for part in [FilePart(file.as_uri(), offset) for offset in offsets]:
            for pings in read_part(part, {}):
                for share, some in split_by_client(pings, 4):
                    shares.setdefault(share, []).append(to_bytes(some))
    parts = [sum_histograms(pa.concat_tables(from_bytes(pieces))) for pieces in shares.values()]
    through_bytes = from_bytes(to_bytes(part) for part in parts)
    merged = merge_sums(through_bytes)
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
        "buckets": [0, 10],
        "counts": [1, 2],
        **of_range,
        **sums,
        **changed,
    }


@pytest.mark.parametrize(
    "damage",
    [
        {"buckets": [0, 5]},
        {"counts": [1, -1]},
        {"counts": [1, 2**31]},
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
    rows = [{"histograms": [histogram(counts=[1])]}]
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
