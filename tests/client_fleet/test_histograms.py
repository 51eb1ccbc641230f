"""Buckets as Firefox counts them: checked against what a Firefox really sent."""

import gzip
import json
import struct

import pytest

from client_fleet.histograms import (
    DEFINITIONS_COUNT,
    HistogramKind,
    exponential_bounds,
    histogram_definitions,
    linear_bounds,
)
from telemetry_lake.project_files import PROJECT_ROOT

FIREFOX_PING = PROJECT_ROOT / "lake_testing" / "data" / "ping.v1.record"
RECORD_HEADER = struct.Struct("<BHIQ")


def _firefox_histograms():
    record = FIREFOX_PING.read_bytes()
    _, path_length, data_length, _ = RECORD_HEADER.unpack_from(record)
    start = RECORD_HEADER.size + path_length
    return json.loads(gzip.decompress(record[start : start + data_length]))["histograms"]


def test_bounds_are_those_of_the_buckets_that_firefox_sends():
    checked = 0
    for name, histogram in _firefox_histograms().items():
        low, high = histogram["range"]
        count = histogram["bucket_count"]
        if histogram["histogram_type"] == HistogramKind.EXPONENTIAL:
            bounds = exponential_bounds(low, high, count)
        elif histogram["histogram_type"] == HistogramKind.LINEAR:
            bounds = linear_bounds(low, high, count)
        else:
            continue
        assert len(bounds) == count
        assert {int(bucket) for bucket in histogram["values"]} <= set(bounds), name
        checked += len(histogram["values"])
    assert checked > 2_000


@pytest.mark.parametrize(
    "bounds,expected",
    [
        (linear_bounds(1, 10, 11), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)),
        (linear_bounds(1, 2, 3), (0, 1, 2)),
        (exponential_bounds(1, 1_000, 5), (0, 1, 10, 100, 1_000)),
        (exponential_bounds(1, 4, 5), (0, 1, 2, 3, 4)),
    ],
)
def test_bounds_of_small_histograms(bounds, expected):
    assert bounds == expected


def test_definitions_are_the_same_for_every_fleet():
    definitions = histogram_definitions()
    assert len(definitions) == len({definition.name for definition in definitions}) == DEFINITIONS_COUNT
    assert {definition.kind for definition in definitions} == set(HistogramKind)
    assert all(list(d.buckets) == sorted(set(d.buckets)) for d in definitions)
