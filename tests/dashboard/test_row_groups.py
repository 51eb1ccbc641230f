"""Row groups end with metrics, and none that has a row that is meant is left out."""

import hashlib
from datetime import UTC, date, datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry_lake.dashboard import cubes as cubes_module
from telemetry_lake.dashboard import segment_files
from telemetry_lake.dashboard.cubes import CubeLimits, Cubes, RowFilter, local_name
from telemetry_lake.dashboard.format import (
    DICTIONARY_SCHEMA,
    ROW_GROUP_MAX_ROWS,
    ROW_GROUP_MIN_ROWS,
    SEGMENT_SCHEMA,
    Manifest,
    Segment,
    StoredFile,
    View,
)
from telemetry_lake.dashboard.row_groups import RowGroups
from telemetry_lake.dashboard.segment_files import SegmentWriter, row_group_sizes
from telemetry_lake.failures import FatalError

DAY = date(2026, 11, 1)
CHANNELS, METRICS, KEYS = ["beta", "nightly"], ["A", "B", "C", "D"], [None, "", "a", "b", "ü"]


def row(channel: str, metric: str, key: str | None, number: int) -> dict[str, Any]:
    # The keys that are not kept are one row without a key.
    is_rest = key is None and number % 2 == 1
    plain = [
        channel,
        metric,
        "parent",
        key,
        is_rest,
        7 if is_rest else None,
        "Firefox",
        f"{number}.0",
        "Linux",
    ]
    values = [
        *plain,
        None,
        "telemetry",
        "main",
        DAY,
        1,
        3,
        1,
        2,
        number + 1,
        1,
        5,
        [0, 1],
        [number, 2],
        [1, 1],
    ]
    return dict(zip(SEGMENT_SCHEMA.names, values, strict=True))


def written(rows: list[dict[str, Any]], file: Path) -> Path:
    """Write rows in the order of a segment, a few at a time."""
    table = pa.Table.from_pylist(rows, schema=SEGMENT_SCHEMA)
    with SegmentWriter(file, "v") as writer:
        for start in range(0, len(rows), 3):
            writer.write(table.slice(start, 3))
    return file


@st.composite
def segments(draw: st.DrawFn) -> list[dict[str, Any]]:
    counts = st.integers(0, 4)
    return [
        row(channel, metric, key, number)
        for channel in CHANNELS
        for metric in METRICS
        for key in KEYS
        for number in range(draw(counts))
    ]


@pytest.fixture
def small_row_groups(monkeypatch):
    monkeypatch.setattr(segment_files, "ROW_GROUP_MIN_ROWS", 3)
    monkeypatch.setattr(segment_files, "ROW_GROUP_MAX_ROWS", 5)
    monkeypatch.setattr(segment_files, "WAITING_MIN_ROWS", 7)


@given(st.lists(st.integers(1, 3 * ROW_GROUP_MAX_ROWS), max_size=30), st.booleans())
def test_row_groups_are_neither_large_nor_needlessly_cut(runs, is_end):
    sizes = row_group_sizes(runs, is_end=is_end)
    ends = set(accumulate(runs))
    assert all(0 < size <= ROW_GROUP_MAX_ROWS for size in sizes)
    assert sum(sizes) == sum(runs) if is_end else sum(sizes) <= sum(runs)
    for size, cut in zip(sizes, accumulate(sizes), strict=True):
        assert cut in ends or size == ROW_GROUP_MAX_ROWS  # in the middle of a metric only when full
    for size, following in pairwise(sizes):
        assert size >= ROW_GROUP_MIN_ROWS or size + following > ROW_GROUP_MIN_ROWS


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    segments(),
    st.sampled_from([*METRICS, "AA", "Z"]),
    st.sets(st.sampled_from([*CHANNELS, "esr"])),
    st.sets(st.sampled_from(["", "a", "c", "ü"])),
    st.booleans(),
)
def test_what_is_meant_is_found(
    small_row_groups, tmp_path_factory, rows, metric, channels, keys, with_rest
) -> None:
    file = written(rows, tmp_path_factory.mktemp("segments") / "one.parquet")
    assert pq.read_table(file).cast(SEGMENT_SCHEMA).to_pylist() == rows

    def is_meant(each: dict[str, Any]) -> bool:
        return (
            each["metric"] == metric
            and (not channels or each["channel"] in channels)
            and (
                not (keys or with_rest)
                or (with_rest and each["is_rest"])
                or (not each["is_rest"] and each["key"] in keys)
            )
        )

    found = RowGroups([file]).find(metric, channels, keys, with_rest=with_rest)
    read = found.read(SEGMENT_SCHEMA.names).to_pylist()
    assert found.rows == len(read)
    assert [each for each in read if is_meant(each)] == [each for each in rows if is_meant(each)]


def test_a_metric_is_read_without_the_others(small_row_groups, tmp_path):
    rows = [
        row(channel, metric, None, number)
        for channel in CHANNELS
        for metric in METRICS
        for number in range(4)
    ]
    found = RowGroups([written(rows, tmp_path / "one.parquet")]).find("B", ("beta",), (), with_rest=False)
    assert {(each["channel"], each["metric"]) for each in found.read(["channel", "metric"]).to_pylist()} == {
        ("beta", "B")
    }


def opened(folder: Path, rows: list[dict[str, Any]]) -> Cubes:
    def stored(file: Path) -> dict[str, Any]:
        content = file.read_bytes()
        named = StoredFile(key=file.name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        file.rename(folder / local_name(named))
        return named.model_dump()

    dictionary = folder / "dictionary.parquet"
    pq.write_table(DICTIONARY_SCHEMA.empty_table(), dictionary)
    segment = written(rows, folder / "segment.parquet")
    manifest = Manifest(
        version="v",
        built_at=datetime(2026, 11, 2, tzinfo=UTC),
        data_until=None,
        preliminary_date=None,
        segments=(
            Segment(**stored(segment), view=View.BUILD, first_date=DAY, last_date=DAY, rows=len(rows)),
        ),
        dictionary=StoredFile(**(of_dictionary := stored(dictionary))),
        summaries=StoredFile(**of_dictionary),
        dates={DAY: "made"},
    )
    return Cubes(manifest, folder, CubeLimits(1, 5, 30, 2**28))


CHOICES = [
    RowFilter("B", {}),
    RowFilter("B", {"channel": ("nightly",), "ping": ("telemetry/main",), "architecture": ("unknown",)}),
    RowFilter("C", {}, keys=("a", "ü"), first_date=DAY),
    RowFilter("C", {"version": ("1.0",)}, keys=("a",), with_rest=True, last_date=DAY),
    RowFilter("Z", {}),
]


def test_duckdb_gives_the_same_from_the_files(tmp_path, monkeypatch):
    rows = [
        row(channel, metric, key, number)
        for channel in CHANNELS
        for metric in METRICS
        for key in KEYS
        for number in range(3)
    ]

    def answers(cubes: Cubes) -> list[Any]:
        columns = ["channel", "ping", "architecture", "version", "key", "date"]
        return [
            cubes.facets(View.BUILD, "B"),
            *(cubes.keys(View.BUILD, chosen) for chosen in CHOICES),
            *(cubes.rows(View.BUILD, chosen, columns).to_pylist() for chosen in CHOICES),
        ]

    (tmp_path / "parts").mkdir()
    (tmp_path / "files").mkdir()
    from_parts = answers(opened(tmp_path / "parts", rows))
    monkeypatch.setattr(cubes_module, "READ_MAX_ROWS", -1)
    assert answers(opened(tmp_path / "files", rows)) == from_parts
    assert from_parts[0]
    assert all(from_parts[len(CHOICES) + 1 + number] for number in range(4))


def test_a_damaged_file_is_named(tmp_path):
    cubes = opened(tmp_path, [row("beta", "A", None, number) for number in range(10)])
    (file,) = [path for path in tmp_path.iterdir() if path.name == local_name(cubes.manifest.segments[0])]
    content = bytearray(file.read_bytes())
    content[10:200] = b"\xff" * 190
    file.write_bytes(content)
    with pytest.raises(FatalError, match="version v is damaged"):
        cubes.rows(View.BUILD, RowFilter("A", {}), ["channel"])
