"""Maintenance makes tables smaller and forgets nothing, while others read and write."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from pyiceberg.catalog import Catalog, load_catalog
from pyspark.sql import SparkSession

from jobs.maintenance import MAINTENANCE_RUNS, Retention, compact, expire, maintain
from lake_testing.sample_rows import sample_rows
from lake_testing.shipping import ship
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.publish import publish
from telemetry_lake.drain.steps import Drain
from telemetry_lake.failures import FatalError
from telemetry_lake.recovery.rebuild import rebuild_ledger
from telemetry_lake.settings import Settings
from telemetry_lake.storage.aws import client_arguments
from telemetry_lake.storage.object_keys import committed_key
from telemetry_lake.tables.catalog import create_or_update_table, staging_area
from telemetry_lake.tables.commits import snapshot_of_batch
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition
from telemetry_lake.tables.expiry import expire_appends
from telemetry_lake.tables.late_files import ORPHAN_MIN_DAYS
from telemetry_lake.units import MIB, DateRange

YESTERDAY = date(2026, 11, 22)
OF_YESTERDAY = DateRange(YESTERDAY, YESTERDAY)
LATER = datetime.now(UTC) + timedelta(days=30)
"""When every snapshot of the tests is old."""
NO_ORPHANS = Retention(live_days=1, days=1, orphan_days=60)
"""Iceberg refuses to look for orphans that are younger than a day, and then all would be."""

pytestmark = pytest.mark.parametrize("settings", ["rest"], indirect=True, scope="session")


def append(catalog: Catalog, document_id: str, day: date = YESTERDAY) -> None:
    row = {"submission_date": day, "document_id": document_id, "app_build_id": document_id}
    catalog.load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, [row]))


def document_ids(catalog: Catalog) -> list[str]:
    ids = catalog.load_table(LIVE_PINGS).scan().to_arrow().column("document_id")
    return sorted(str(each) for each in ids.to_pylist())


def forget_the_record(settings: Settings, batch: str) -> None:
    store = boto3.client("s3", **client_arguments(settings.s3))  # type: ignore[call-overload]
    store.delete_object(Bucket=settings.s3.lake_bucket, Key=committed_key(batch))
    store.close()


def test_small_files_become_one_sorted_file_and_what_that_saved_is_recorded(
    spark: SparkSession, catalog: Catalog
):
    for number in (3, 1, 2, 0):
        append(catalog, str(number))
    append(catalog, "today", YESTERDAY + timedelta(days=1))

    (done,) = maintain(spark, OF_YESTERDAY, now=LATER, retention=NO_ORPHANS, tables=[LIVE_PINGS])

    table = catalog.load_table(LIVE_PINGS)
    assert (done.files_before, done.files_after, done.files_rewritten) == (5, 2, 4)
    assert done.manifests_after < done.manifests_before
    compacted = table.scan(row_filter=f"submission_date = '{YESTERDAY}'").to_arrow()
    assert compacted.column("app_build_id").to_pylist() == ["0", "1", "2", "3"]
    assert document_ids(catalog) == ["0", "1", "2", "3", "today"]
    (row,) = catalog.load_table(MAINTENANCE_RUNS).scan().to_arrow().to_pylist()
    assert (row["table_name"], row["files_before"], row["files_after"]) == (LIVE_PINGS, 5, 2)
    assert "5 files" in str(done)

    an_hour_later = LATER + timedelta(hours=1)
    (again,) = maintain(spark, OF_YESTERDAY, now=an_hour_later, retention=NO_ORPHANS, tables=[LIVE_PINGS])
    assert again.files_rewritten == 0


def test_files_that_compaction_replaced_are_deleted_although_the_appends_have_expired_before(
    spark: SparkSession, catalog: Catalog, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("jobs.maintenance.KEEP_SNAPSHOTS", 1)
    for number in range(4):
        append(catalog, str(number))
    replaced = [task.file.file_path for task in catalog.load_table(LIVE_PINGS).scan().plan_files()]
    assert compact(spark, LIVE_PINGS, OF_YESTERDAY, 256 * MIB) == 4
    for number in range(4, 6):
        append(catalog, str(number), YESTERDAY + timedelta(days=1))
    own = [snapshot.snapshot_id for snapshot in catalog.load_table(LIVE_PINGS).snapshots()[-7:]]

    expire_appends(settings.drain, catalog, LIVE_PINGS, now=LATER)
    table = catalog.load_table(LIVE_PINGS)
    kept = {snapshot.snapshot_id for snapshot in table.snapshots()}
    # The last append before the compaction, the compaction, and the last of all.
    assert [number for number, each in enumerate(own) if each in kept] == [3, 4, 6]
    assert [table.io.new_input(path).exists() for path in replaced] == [True] * 4
    expire(spark, LIVE_PINGS, LATER)
    assert [table.io.new_input(path).exists() for path in replaced] == [False] * 4
    assert document_ids(catalog) == ["0", "1", "2", "3", "4", "5"]


def test_a_table_that_fails_does_not_hold_the_others_back(spark: SparkSession, catalog: Catalog):
    append(catalog, "a")
    catalog.drop_table("derived.ping_counts")
    both = ["derived.ping_counts", LIVE_PINGS]
    runs = maintain(spark, OF_YESTERDAY, now=LATER, retention=NO_ORPHANS, tables=both)
    assert next(runs).table_name == LIVE_PINGS
    with pytest.raises(FatalError, match="ping_counts"):
        next(runs)


def test_a_drain_appends_and_a_reader_reads_meanwhile(spark: SparkSession, catalog: Catalog):
    for number in range(6):
        append(catalog, f"before {number}")
    ends = threading.Event()

    def write() -> list[str]:
        written: list[str] = []
        while not ends.is_set() or len(written) < 3:
            append(catalog, f"meanwhile {len(written)}")
            written.append(f"meanwhile {len(written)}")
        return written

    def read() -> int:
        reads = 0
        while not ends.is_set() or reads < 3:
            found = document_ids(catalog)
            assert [name for name in found if name.startswith("before")] == [f"before {n}" for n in range(6)]
            reads += 1
        return reads

    with ThreadPoolExecutor(2) as others:
        writer, reader = others.submit(write), others.submit(read)
        try:
            now = datetime.now(UTC)
            list(maintain(spark, OF_YESTERDAY, now=now, tables=[LIVE_PINGS]))
        finally:
            ends.set()
        written, reads = writer.result(), reader.result()
    assert document_ids(catalog) == sorted([*(f"before {n}" for n in range(6)), *written])
    assert reads >= 3


def test_a_batch_is_recognised_after_its_snapshots_have_expired(
    spark: SparkSession, catalog: Catalog, settings: Settings
):
    shipped = ship(settings, objects=1, good=3, bad=1)
    drain = Drain(LakeConnections(settings))
    claimed = drain.claim()
    (batch,) = claimed.batches
    for part in batch.parts:
        drain.convert(part)
    drain.validate(claimed)
    drain.publish(claimed)
    # As if the worker had died after its commits and before their record.
    forget_the_record(settings, batch.batch_id)
    for number in range(12):  # more than are kept for their number
        append(catalog, f"later {number}")
        row = {"submission_date": YESTERDAY, "raw_object": "another"}
        catalog.load_table(LIVE_REJECTED_PINGS).append(sample_rows(LIVE_REJECTED_PINGS, [row]))
    everything = DateRange(date(2020, 1, 1), date(2030, 1, 1))
    list(
        maintain(spark, everything, now=LATER, retention=NO_ORPHANS, tables=[LIVE_PINGS, LIVE_REJECTED_PINGS])
    )
    for table in (LIVE_PINGS, LIVE_REJECTED_PINGS):
        assert snapshot_of_batch(catalog.load_table(table), batch.batch_id) is None

    # Redelivered: whoever publishes it finds its rows. Without its record, the ledger is rebuilt from them.
    anew = LakeConnections(settings)
    publish(settings.drain, anew.catalog, anew.ledger, batch.batch_id, at=datetime.now(UTC))
    forget_the_record(settings, batch.batch_id)
    assert rebuild_ledger(LakeConnections(settings)).commitments.first == [batch.batch_id]
    assert document_ids(catalog) == sorted([*shipped.good, *(f"later {number}" for number in range(12))])


@pytest.fixture
def local_catalog(spark: SparkSession, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog of local files, whose age can be set."""
    properties = {"uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": (tmp_path / "warehouse").as_uri()}
    catalog = load_catalog("aged", type="sql", **properties)
    for name in (LIVE_PINGS, MAINTENANCE_RUNS):
        create_or_update_table(catalog, table_definition(name))
    before = str(spark.conf.get("spark.sql.defaultCatalog"))
    for key, value in {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
        ".uri": f"jdbc:sqlite:file:{tmp_path}/catalog.db",
        ".warehouse": properties["warehouse"],
        ".cache-enabled": "false",
    }.items():
        spark.conf.set(f"spark.sql.catalog.aged{key}", value)
    spark.conf.set("spark.sql.defaultCatalog", "aged")
    yield catalog
    spark.conf.set("spark.sql.defaultCatalog", before)


def test_only_old_files_that_no_snapshot_names_are_orphans(spark: SparkSession, local_catalog: Catalog):
    append(local_catalog, "a")
    table = local_catalog.load_table(LIVE_PINGS)
    (task,) = table.scan().plan_files()
    staged = Path(staging_area(table, "0" * 32).path)
    staged.mkdir(parents=True)
    ages = {
        Path(task.file.file_path.removeprefix("file://")): 100,
        staged / "forgotten.parquet": 10,
        staged / "of a slow backfill.parquet": ORPHAN_MIN_DAYS - 1,
        staged / "of a running drain.parquet": 0,
    }
    now = datetime.now(UTC)
    for file, days in ages.items():
        if not file.exists():
            file.write_bytes(b"staged")
        then = (now - timedelta(days=days)).timestamp()
        os.utime(file, (then, then))

    hasty = Retention(orphan_days=0)
    (done,) = maintain(spark, OF_YESTERDAY, now=now, tables=[LIVE_PINGS], retention=hasty)

    assert done.orphans_deleted == 1
    assert [file.name for file in ages if not file.exists()] == ["forgotten.parquet"]
    assert document_ids(local_catalog) == ["a"]
