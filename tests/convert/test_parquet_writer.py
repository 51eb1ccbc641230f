"""Staged files: what is in them, that Iceberg takes them, and that memory stays bounded."""

import gzip
import json
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog

from lake_testing import ping_builders as build
from lake_testing.ping_builders import (
    generic_path,
    glean_document,
    gzipped,
    linear,
    ping,
    raw_object,
    telemetry_path,
    unified_document,
)
from telemetry_lake.convert import parquet_writer
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.parquet_writer import stage_raw_objects
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.failures import DamagedRawObject
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.tables.catalog import create_tables
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition
from telemetry_lake.tables.staged import Staged

OTHER_KEY = build.RAW_KEY.replace("segment-1", "segment-2")


@dataclass(frozen=True)
class Folder:
    filesystem: pa_fs.FileSystem
    path: str
    uri: str


@pytest.fixture
def folders(tmp_path):
    def folder(name):
        path = tmp_path / name
        path.mkdir()
        return Folder(pa_fs.LocalFileSystem(), str(path), path.as_uri())

    return {LIVE_PINGS: folder("pings"), LIVE_REJECTED_PINGS: folder("rejected")}


def mixed_pings(count):
    """Main, Glean and broken pings of many builds, over midnight."""
    pings = []
    for number in range(count):
        document = unified_document(histograms={"A": linear({"1": number}, sum=number)})
        document["application"]["buildId"] = f"2026{(number * 7919) % 97:04d}"
        document["application"]["channel"] = ("release", "beta", "nightly")[number % 3]
        later = timedelta(hours=number % 20)
        pings.append(ping(telemetry_path("main"), gzipped(document), later=later))
        if number % 4 == 0:
            pings.append(
                ping(
                    generic_path("a-b", "events"),
                    glean_document(metrics={"quantity": {"a.number": number}}),
                    later=later,
                )
            )
            pings.append(ping(telemetry_path("main"), b"{", later=later))
    return pings


def read(file):
    return pq.read_table(Path(file.uri.removeprefix("file://")))


def partition_of(file):
    """The one value that each column of the partition has in all rows of a staged file."""
    names = [part.column for part in table_definition(file.table).metadata.partitioned_by]
    (values,) = set(zip(*(map(str, read(file).column(name).to_pylist()) for name in names), strict=True))
    return values


def test_one_sorted_file_for_each_partition(folders):
    pings = mixed_pings(600)
    staged = stage_raw_objects(Converter(build.settings()), [raw_object(pings)], folders)

    assert Staged.model_validate_json(staged.model_dump_json()) == staged
    (totals,) = staged.raw_objects
    assert (totals.key, totals.pings, totals.rejected) == (build.RAW_KEY, 750, {"invalid_json": 150})
    partitions = Counter((file.table, *partition_of(file)) for file in staged.files)
    assert partitions == {
        (LIVE_PINGS, "2026-11-23", "events"): 1,
        (LIVE_PINGS, "2026-11-23", "main"): 1,
        (LIVE_PINGS, "2026-11-24", "events"): 1,
        (LIVE_PINGS, "2026-11-24", "main"): 1,
        (LIVE_REJECTED_PINGS, "2026-11-23"): 1,
        (LIVE_REJECTED_PINGS, "2026-11-24"): 1,
    }
    for file in staged.files:
        table, definition = read(file), table_definition(file.table)
        assert table.num_rows == file.rows
        assert Path(file.uri.removeprefix("file://")).stat().st_size == file.bytes
        assert pq.ParquetFile(file.uri.removeprefix("file://")).metadata.num_row_groups == 1
        order = [table.column(name).to_pylist() for name in definition.metadata.sorted_by]
        assert list(zip(*order, strict=True)) == sorted(zip(*order, strict=True))
        assert set(table.column("submission_date").to_pylist()) == {file.date}


def test_rows_read_back_from_parquet_are_the_pings(folders):
    sent = mixed_pings(40)
    staged = stage_raw_objects(Converter(build.settings()), [raw_object(sent)], folders)
    rows = [row for file in staged.files if file.table == LIVE_PINGS for row in read(file).to_pylist()]
    assert len(rows) == 50
    for row in rows:
        body = sent[row["raw_object_position"]].body
        text = body if body.startswith(b"{") else gzip.decompress(body)
        assert restore_document(row) == json.loads(text)


def test_iceberg_takes_the_files(folders, tmp_path):
    catalog = load_catalog(
        "test",
        type="sql",
        uri=f"sqlite:///{tmp_path}/catalog.db",
        warehouse=(tmp_path / "warehouse").as_uri(),
    )
    create_tables(catalog)
    staged = stage_raw_objects(Converter(build.settings()), [raw_object(mixed_pings(40))], folders)
    for name, rows in ((LIVE_PINGS, 50), (LIVE_REJECTED_PINGS, 10)):
        table = catalog.load_table(name)
        table.add_files([file.uri for file in staged.files if file.table == name])
        found = table.scan().to_arrow()
        assert found.num_rows == rows
        assert found.schema.names == table_definition(name).arrow_schema().names
        files = table.inspect.files().to_pylist()
        assert {str(file["partition"]["submission_date"]) for file in files} == {"2026-11-23", "2026-11-24"}


def test_a_full_buffer_writes_row_groups(folders, monkeypatch):
    monkeypatch.setattr(parquet_writer, "BUFFER_MAX_BYTES", 200_000)
    raws = [raw_object(mixed_pings(900)), raw_object(mixed_pings(300), OTHER_KEY)]
    staged = stage_raw_objects(Converter(build.settings()), raws, folders)
    assert [(one.key, one.pings) for one in staged.raw_objects] == [(build.RAW_KEY, 1_125), (OTHER_KEY, 375)]
    assert len({partition_of(file) for file in staged.files if file.table == LIVE_PINGS}) == 4
    largest = max(staged.files, key=lambda file: file.rows)
    parquet = pq.ParquetFile(largest.uri.removeprefix("file://"))
    assert parquet.metadata.num_row_groups > 1
    for number in range(parquet.metadata.num_row_groups):
        group = parquet.read_row_group(number, columns=["app_update_channel", "app_build_id"]).to_pylist()
        assert [tuple(row.values()) for row in group] == sorted(tuple(row.values()) for row in group)
    identities = Counter(
        (row["raw_object"], row["raw_object_position"])
        for file in staged.files
        for row in read(file).select(["raw_object", "raw_object_position"]).to_pylist()
    )
    assert set(identities.values()) == {1}
    assert len(identities) == 1_350 + 450


def test_memory_does_not_grow_with_the_raw_object(folders, monkeypatch):
    monkeypatch.setattr(parquet_writer, "BUFFER_MAX_BYTES", 500_000)
    converter = Converter(build.settings())
    whole = raw_object(mixed_pings(200) * 30)
    all_rows = sum(one.pings.nbytes + one.rejected.nbytes for one in converter.convert(whole))
    before = pa.total_allocated_bytes()
    held = []

    class Watched(RawObject):
        def record_batches(self):
            for batch in super().record_batches():
                held.append(pa.total_allocated_bytes() - before)
                yield batch

    stage_raw_objects(converter, [Watched(whole.key, whole._data)], folders)
    assert len(held) > 15
    assert max(held) < all_rows / 2


def test_no_pings_no_files(folders):
    assert stage_raw_objects(Converter(build.settings()), [], folders) == Staged()


def test_raw_object_that_breaks_off_is_an_error(folders):
    whole = raw_object(mixed_pings(600))
    assert isinstance(whole._data, bytes)
    damaged = RawObject(whole.key, whole._data[: len(whole._data) // 2])
    with pytest.raises(DamagedRawObject):
        stage_raw_objects(Converter(build.settings()), [damaged], folders)
