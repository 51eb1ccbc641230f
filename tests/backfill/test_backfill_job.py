"""The whole way of a small archive, through Spark, into the tables, and everything that may be in the way."""

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.spark import backfill_steps as job
from lake_testing.hdfs import Hdfs
from lake_testing.historic_archive import FORMS, HistoricArchive, write_archive
from lake_testing.ping_builders import DEFINITIONS
from lake_testing.sample_rows import sample_rows
from lake_testing.small_archive import (
    FIRST_DAY,
    SECOND_DAY,
    Line,
    SmallArchive,
    every_kind,
    new_id,
    rejects,
    unified,
)
from lake_testing.spark_lake import spark_session, spark_settings
from lake_testing.stack import Lake
from telemetry_lake.backfill.backfill import Backfill, plan_backfill, publisher_of
from telemetry_lake.backfill.journal import AcceptedLoss, Journal
from telemetry_lake.backfill.plan import Archive, Selection
from telemetry_lake.backfill.publish_date import DatePublisher
from telemetry_lake.backfill.report import report_text
from telemetry_lake.backfill.verify import Verification
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.failures import FatalError, GateFailed
from telemetry_lake.settings import Settings, SourceSettings
from telemetry_lake.storage.object_keys import verification_report_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS

pytestmark = pytest.mark.slow

THIRD_DAY = date(2014, 3, 3)
UNIT_BYTES = 3_000

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def settings(new_lake: Callable[[], Lake]) -> Settings:
    return spark_settings(new_lake().settings)


@pytest.fixture(scope="module")
def spark(settings: Settings) -> Iterator[SparkSession]:
    # Compiling plans and starting processes for eight partitions takes longer than these few rows.
    configuration = {"spark.sql.shuffle.partitions": "2", "spark.sql.codegen.wholeStage": "false"}
    with spark_session(settings, configuration) as session:
        yield session


@pytest.fixture(scope="module")
def catalog(settings: Settings) -> Catalog:
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    return catalog


def of_archive(settings: Settings, archive: SmallArchive, **selection: Any) -> Backfill:
    configured = archive.settings(settings)
    journal = Journal(ObjectStore(settings.s3), settings.s3.lake_bucket)
    return Backfill(configured, archive.selection(configured, **selection), journal)


def rows(catalog: Catalog, table: str, backfill: Backfill) -> Rows:
    """The rows of a backfill in a table."""
    found: Rows = catalog.load_table(table).scan().to_arrow().to_pylist()
    return [row for row in found if row["raw_object"].startswith(f"historic/{backfill.id}/")]


def accept(backfill: Backfill, day: date, *losses: str) -> None:
    for loss in losses:
        accepted = AcceptedLoss(loss=loss, reason="the tests say so", accepted_at=datetime.now(UTC))
        backfill.journal.accept(backfill.id, day, accepted)


@dataclass
class Copied:
    """An archive of three dates that is copied, verified and published, and what it was made of."""

    backfill: Backfill
    publisher: DatePublisher
    archive: SmallArchive
    reports: dict[date, Verification]
    good: dict[date, list[Line]]
    bad: dict[date, list[Line]]
    live_id: str
    conflicting: Line


@pytest.fixture(scope="module")
def copied(
    settings: Settings, spark: SparkSession, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory
) -> Copied:
    first, second, bad = [*every_kind(), *every_kind()], every_kind(), rejects()
    conflict = (first[0][0], unified(first[0][0], later=True))
    # One document id in two types is two documents.
    twin = (first[1][0], unified(first[1][0]).replace(b'"main"', b'"event"'))
    live_id = new_id()
    live = (live_id, unified(live_id))
    archive = SmallArchive(
        tmp_path_factory.mktemp("archive"),
        {
            "2014/03/01/a.txt": [*first[:5], *bad, (first[1][0].upper(), first[1][1])],
            "2014/03/01/b.txt.gz": [*first[5:], twin, conflict, bad[0], first[0], bad[2], bad[0]],
            "2014/03/02/a.txt": [*second, live, *second, first[0]],
        },
    )
    archive.write()
    received = [
        {
            "document_id": document_id,
            "namespace": namespace,
            "document_type": document_type,
            "submission_date": day,
            "raw_object": "raw/v1/x",
        }
        for document_id, namespace, document_type, day in (
            (live_id, "telemetry", "main", THIRD_DAY),
            (second[0][0], "telemetry", "main", date(2014, 3, 4)),
            (first[0][0], "telemetry", "of-another-type", SECOND_DAY),
            (first[0][0], "of-another-application", "main", SECOND_DAY),
        )
    ]
    catalog.load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, received))
    backfill = of_archive(settings, archive, last=THIRD_DAY)
    plan_backfill(backfill, UNIT_BYTES)
    assert job.run(spark, backfill, parallel_units=2) == []
    reports = {report.day: report for report in job.verify(spark, backfill, None)}
    publisher = publisher_of(backfill)
    accept(backfill, FIRST_DAY, "conflicting")
    accept(backfill, THIRD_DAY, "missing_directory")
    for day in reports:
        job.publish(spark, backfill, publisher, day)
    return Copied(
        backfill,
        publisher,
        archive,
        reports,
        {FIRST_DAY: [*first, twin], SECOND_DAY: [*second, first[0]]},
        {FIRST_DAY: bad},
        live_id,
        conflict,
    )


def test_every_document_is_a_row_that_gives_it_back(copied: Copied, catalog: Catalog):
    found = rows(catalog, LIVE_PINGS, copied.backfill)
    for day, lines in copied.good.items():
        of_day = [row for row in found if row["submission_date"] == day]
        assert sorted(row["document_id"] for row in of_day) == sorted(name.lower() for name, _ in lines)
        for name, content in lines:
            sent = json.loads(content if content[:1] == b"{" else gzip.decompress(content))
            (row,) = (
                row for row in of_day if row["document_id"] == name.lower() and restore_document(row) == sent
            )
            assert row["submission_timestamp"] == datetime(day.year, day.month, day.day, tzinfo=UTC)
            assert row["country"] == "??"
    assert len(found) == sum(map(len, copied.good.values()))


def test_every_rejected_record_keeps_its_bytes_and_its_id(copied: Copied, catalog: Catalog):
    found = rows(catalog, LIVE_REJECTED_PINGS, copied.backfill)
    assert {row["origin"] for row in found} == {"backfill"}
    assert Counter(row["body"] for row in found) == Counter(content for _, content in copied.bad[FIRST_DAY])
    assert {row["error_type"] for row in found} == {
        "invalid_json",
        "invalid_document_id",
        "not_an_object",
        "schema_violation",
        "empty_body",
    }


def test_a_place_in_the_tables_is_a_place_in_the_archive(copied: Copied, catalog: Catalog):
    found = rows(catalog, LIVE_PINGS, copied.backfill) + rows(catalog, LIVE_REJECTED_PINGS, copied.backfill)
    places = [(row["raw_object"], row["raw_object_position"]) for row in found]
    assert len(set(places)) == len(places)
    assert {place.rpartition("@")[0].rpartition("2014/")[2] for place, _ in places} == {
        "03/01/a.txt",
        "03/01/b.txt.gz",
        "03/02/a.txt",
    }


def test_the_report_adds_up_and_names_every_difference(copied: Copied):
    report = copied.reports[FIRST_DAY]
    assert report.unexplained == ()
    assert report.total("records") == 10 + 5 + 1 + 5 + 1
    assert report.total("converted") == 11
    assert report.total("rejected") == 5
    # A record with the id in capitals, and one in another file; rejected ones that came twice and thrice.
    assert report.left_out == {"duplicate": 5, "conflicting": 1}
    assert report.losses == {"conflicting": 1}
    assert report.document_ids == 15
    assert report.converted_digest.source == report.converted_digest.written != "0" * 32
    assert report.rejected_digest.source == report.rejected_digest.written != "0" * 32
    assert (report.first_date, report.last_date) == (FIRST_DAY, FIRST_DAY)

    report = copied.reports[SECOND_DAY]
    assert (report.total("records"), report.total("converted")) == (12, 6)
    assert report.left_out == {"duplicate": 5, "arrived_live": 1}
    assert report.losses == {}

    report = copied.reports[THIRD_DAY]
    assert (report.total("records"), report.losses) == (0, {"missing_directory": 1})


def test_the_report_can_be_read(copied: Copied):
    text = report_text(
        copied.reports[FIRST_DAY], copied.backfill.journal.accepted(copied.backfill.id, FIRST_DAY)
    )
    assert "loss: 1 conflicting, accepted: the tests say so" in text
    assert "left out without loss: 5 duplicate" in text
    assert "digest of converted records: " in text
    assert text.splitlines()[1].split()[:4] == ["unit", "records", "converted", "rejected"]
    assert "NOT ACCEPTED" in report_text(copied.reports[THIRD_DAY], {})


def test_classes_add_up_to_totals_in_every_line(copied: Copied):
    """Among duplicates, too, that are rejected: in the table, in the lines below it, and for machines."""
    report = copied.reports[FIRST_DAY]
    assert report.rejected == dict.fromkeys(
        ("empty_body", "invalid_document_id", "invalid_json", "not_an_object", "schema_violation"), 1
    )
    _, header, *lines = report_text(report, {}).splitlines()
    assert header.split()[1:6] == ["records", "converted", "rejected", "left", "out"]
    units = len(report.units)
    assert (units > 1, lines[units].split()[0]) == (True, "total")
    table = [[int(cell.replace(",", "")) for cell in line.split()[1:5]] for line in lines[: units + 1]]
    assert all(line[0] == sum(line[1:]) for line in table)
    assert [sum(column) for column in zip(*table[:-1], strict=True)] == table[-1]
    *_, rejected, left_out = table[-1]

    def of_class(*starts: str) -> int:
        return sum(int(line.split(": ")[1].split()[0]) for line in lines if line.startswith(starts))

    assert of_class("rejected, kept in live.rejected_pings: ") == rejected == 5
    assert of_class("left out without loss: ", "loss: ") == left_out == 6

    key = verification_report_key(copied.backfill.id, FIRST_DAY)
    store, bucket = ObjectStore(copied.backfill.settings.s3), copied.backfill.settings.s3.lake_bucket
    stored = json.loads(store.get(bucket, key))
    for unit in stored["units"]:
        assert unit["records"] == unit["converted"] + unit["rejected"] + sum(unit["left_out"].values())
    assert sum(stored["rejected"].values()) == sum(unit["rejected"] for unit in stored["units"])
    reasons: Counter[str] = Counter()
    for unit in stored["units"]:
        reasons.update(unit["left_out"])
    assert stored["left_out"] == reasons
    assert stored["losses"]["conflicting"] == reasons["conflicting"]


def test_the_first_of_two_contents_stays(copied: Copied, catalog: Catalog):
    (row,) = (
        row
        for row in rows(catalog, LIVE_PINGS, copied.backfill)
        if row["document_id"] == copied.conflicting[0] and row["submission_date"] == FIRST_DAY
    )
    assert "/2014/03/01/a.txt@0" in row["raw_object"]


def test_what_arrived_live_is_not_doubled(copied: Copied, catalog: Catalog):
    found = catalog.load_table(LIVE_PINGS).scan(selected_fields=("document_id",)).to_arrow()
    assert found.column("document_id").to_pylist().count(copied.live_id) == 1


def test_running_and_publishing_again_changes_nothing(copied: Copied, spark: SparkSession, catalog: Catalog):
    before = {table: catalog.load_table(table).metadata for table in (LIVE_PINGS, LIVE_REJECTED_PINGS)}
    finished = copied.backfill.journal.finished_units(copied.backfill.id)
    assert plan_backfill(copied.backfill, 1) == copied.backfill.manifest()
    assert job.run(spark, copied.backfill) == []
    for day in copied.reports:
        job.publish(spark, copied.backfill, copied.publisher, day)
    assert copied.backfill.journal.finished_units(copied.backfill.id) == finished
    assert {table: catalog.load_table(table).metadata for table in before} == before


def test_a_second_backfill_of_a_published_date_is_refused(
    copied: Copied, settings: Settings, spark: SparkSession
):
    other = of_archive(settings, copied.archive, last=THIRD_DAY, label="again")
    assert other.id != copied.backfill.id
    with pytest.raises(FatalError, match=f"published by the backfill {copied.backfill.id}"):
        job.publish(spark, other, publisher_of(other), FIRST_DAY)


def test_a_date_is_undone_and_published_again(copied: Copied, spark: SparkSession, catalog: Catalog):
    def of(day: date) -> list[tuple[str, int]]:
        found = chain.from_iterable(
            rows(catalog, table, copied.backfill) for table in (LIVE_PINGS, LIVE_REJECTED_PINGS)
        )
        return sorted(
            (row["raw_object"], row["raw_object_position"]) for row in found if row["submission_date"] == day
        )

    before, others = of(FIRST_DAY), of(SECOND_DAY)
    live = catalog.load_table(LIVE_PINGS).scan(row_filter="raw_object = 'raw/v1/x'").count()
    assert copied.publisher.undo(FIRST_DAY) == len(before) == 16
    assert of(FIRST_DAY) == []
    assert copied.publisher.undo(FIRST_DAY) == 0
    assert (of(SECOND_DAY), catalog.load_table(LIVE_PINGS).scan("raw_object = 'raw/v1/x'").count()) == (
        others,
        live,
    )
    assert job.publish(spark, copied.backfill, copied.publisher, FIRST_DAY).number == 1
    assert of(FIRST_DAY) == before


def test_a_date_is_not_published_before_it_is_verified_and_its_losses_are_accepted(
    settings: Settings, spark: SparkSession, catalog: Catalog, tmp_path
):
    """Every kind of damage that lines of text can have is a line of the report, and the rest arrives."""
    good = every_kind()[:4]
    archive = SmallArchive(tmp_path, {"2014/03/01/good.txt": good, "2014/03/01/cut.txt.gz": every_kind()[:4]})
    archive.write()
    folder = tmp_path / "2014" / "03" / "01"
    (folder / "cut.txt.gz").write_bytes((folder / "cut.txt.gz").read_bytes()[:-20])
    (folder / "empty.txt").write_bytes(b"")
    (folder / "_hidden.txt").write_bytes(b"x")
    (folder / "lines.txt").write_bytes(b"no tab\n")
    (folder / "changed.txt").write_bytes(b"")
    (folder / "gone.txt").write_bytes(b"x\ty\n")
    backfill = of_archive(settings, archive, last=FIRST_DAY)
    publisher = publisher_of(backfill)
    plan_backfill(backfill)
    (folder / "gone.txt").unlink()
    (folder / "changed.txt").write_bytes(b"x\ty\n")
    (folder / "added.txt").write_bytes(b"x\ty\n")
    with pytest.raises(GateFailed, match="run `verify` first"):
        job.publish(spark, backfill, publisher, FIRST_DAY)
    assert job.verify(spark, backfill, None)[0].unexplained
    with pytest.raises(GateFailed, match="without an explanation"):
        job.publish(spark, backfill, publisher, FIRST_DAY)

    assert job.run(spark, backfill, parallel_units=1, bytes_per_second=1_000_000) == []
    (report,) = job.verify(spark, backfill, None)
    assert report.unexplained == ()
    found = {(problem.path.rpartition("/")[2], problem.kind.value) for problem in report.problems}
    assert found >= {
        ("cut.txt.gz", "truncated"),
        ("empty.txt", "empty_file"),
        ("_hidden.txt", "hidden_file"),
        ("lines.txt", "malformed_line"),
        ("changed.txt", "source_changed"),
        ("gone.txt", "missing_file"),
        ("added.txt", "source_changed"),
    }
    assert set(report.losses) == {kind for _, kind in found}
    with pytest.raises(GateFailed, match=r"are not accepted: .*truncated \(1\)"):
        job.publish(spark, backfill, publisher, FIRST_DAY)
    accept(backfill, FIRST_DAY, *report.losses)
    decision = job.publish(spark, backfill, publisher, FIRST_DAY)
    assert decision.rows[LIVE_PINGS] == report.total("converted") >= len(good)
    assert {name.lower() for name, _ in good} <= {
        row["document_id"] for row in rows(catalog, LIVE_PINGS, backfill)
    }


def test_documents_of_files_without_a_date_go_to_the_dates_they_say(
    settings: Settings, spark: SparkSession, catalog: Catalog, tmp_path
):
    first, second = new_id(), new_id()
    archive = SmallArchive(
        tmp_path, {"old/a.txt": [(first, unified(first)), (second, unified(second))], "2014/03/01/b.txt": []}
    )
    archive.lines["old/a.txt"][1] = (
        second,
        archive.lines["old/a.txt"][1][1].replace(b"2026-11-23", b"2015-05-06"),
    )
    archive.write()
    (tmp_path / "old" / "empty.txt").write_bytes(b"")
    os.utime(tmp_path / "old" / "empty.txt", (0, 0))
    backfill = of_archive(settings, archive)
    backfill.selection = backfill.selection.model_copy(update={"undated": True, "first": None, "last": None})
    plan_backfill(backfill)
    assert job.run(spark, backfill, parallel_units=1) == []
    reports = job.verify(spark, backfill, None)
    empty, *others = reports
    # What is wrong with a file that has neither a date nor a document belongs to the date of the file itself.
    assert (empty.day, empty.losses) == (date(1970, 1, 1), {"empty_file": 1})
    assert [report.day for report in others] == [date(2015, 5, 6), date(2026, 11, 23)]
    assert [report.losses for report in others] == [{}, {}]
    for report in others:
        job.publish(spark, backfill, publisher_of(backfill), report.day)
    assert {row["document_id"]: row["submission_date"] for row in rows(catalog, LIVE_PINGS, backfill)} == {
        first: date(2026, 11, 23),
        second: date(2015, 5, 6),
    }


@pytest.mark.long
def test_a_real_hdfs_that_loses_a_data_node_and_every_replica_of_a_block(
    settings: Settings, spark: SparkSession, catalog: Catalog, hdfs: Hdfs, hdfs_directory: str
):
    """SequenceFiles that Hadoop wrote: one date arrives whole, of the other what can be read."""

    def generated() -> HistoricArchive:
        return HistoricArchive(days=2, records_per_day=80, files_per_day=2, real_every=10)

    totals = write_archive(
        f"{hdfs.default_fs}{hdfs_directory}", FORMS["sequence-bytes-block-gzip"], generated()
    )
    whole, damaged = totals.by_date
    source = SourceSettings(root_url=hdfs.url(hdfs_directory))
    conversion = settings.conversion.model_copy(update={"histogram_definitions_directory": DEFINITIONS})
    configured = settings.model_copy(
        update={
            "backfill": settings.backfill.model_copy(update={"source": source}),
            "conversion": conversion,
        }
    )
    selection = Selection(archive=Archive.of(source), first=whole, last=damaged)
    backfill = Backfill(configured, selection, Journal(ObjectStore(settings.s3), settings.s3.lake_bucket))
    plan_backfill(backfill, 30_000)
    assert sum(reference.units for reference in backfill.manifest().dates) > 4

    path = f"{hdfs_directory}/{damaged:%Y/%m/%d}/part-00001"
    (of_file,) = (
        file for file in backfill.journal.plan(backfill.manifest().dates[1]).files if path.endswith(file.path)
    )
    hdfs.corrupt_block(path, of_file.bytes // 2)
    hdfs.kill_data_node(0)
    assert job.run(spark, backfill, parallel_units=2) == []
    reports = {report.day: report for report in job.verify(spark, backfill, None)}
    assert [report.unexplained for report in reports.values()] == [(), ()]
    assert reports[whole].losses == {}
    assert reports[whole].total("records") == totals.by_date[whole]
    assert set(reports[damaged].losses) == {"unreadable_bytes"}
    assert 0 < reports[damaged].total("records") < totals.by_date[damaged]
    assert {problem.path for problem in reports[damaged].problems} == {
        path.removeprefix(f"{hdfs_directory}/")
    }

    publisher = publisher_of(backfill)
    job.publish(spark, backfill, publisher, whole)
    with pytest.raises(GateFailed, match=r"unreadable_bytes \(\d+\)"):
        job.publish(spark, backfill, publisher, damaged)
    accept(backfill, damaged, "unreadable_bytes")
    job.publish(spark, backfill, publisher, damaged)

    written: dict[date, set[str]] = {whole: set(), damaged: set()}
    for day, found in generated().files():
        written[date.fromisoformat(day[:10].replace("/", "-"))] |= {name.decode() for name, _ in found}
    live = rows(catalog, LIVE_PINGS, backfill)
    rejected = rows(catalog, LIVE_REJECTED_PINGS, backfill)
    arrived = {
        day: {
            row["document_id"] or row["request"]["path"].split("/")[3]
            for row in live + rejected
            if row["submission_date"] == day
        }
        for day in written
    }
    assert arrived[whole] == written[whole]
    assert arrived[damaged] < written[damaged]
    assert len(live) + len(rejected) == sum(
        report.total("converted") + report.total("rejected") for report in reports.values()
    )
