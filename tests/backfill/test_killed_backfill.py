"""A process that is killed with -9 after any of its writes loses nothing and doubles nothing."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from lake_testing.killer import Killer, points_to_kill_at, quick_workers, through_proxies
from lake_testing.lossy_proxy import lossy_proxy
from lake_testing.small_archive import FIRST_DAY, Line, SmallArchive, every_kind, rejects
from telemetry_lake.backfill.journal import Decision, Journal
from telemetry_lake.backfill.plan import DatePlan, Manifest, Selection, plan_dates
from telemetry_lake.backfill.publish_date import DatePublisher
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.backfill.units.check_unit import UnitChecker
from telemetry_lake.backfill.units.copy_unit import UnitCopier
from telemetry_lake.backfill.units.worker_entry import copy_units
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import historic_raw_object
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS
from telemetry_lake.units import MIB

PRELOADED = [
    "pyiceberg.catalog.rest",
    "pyiceberg.io.pyarrow",
    "telemetry_lake.backfill.units.copy_unit",
    "telemetry_lake.backfill.publish_date",
]
TABLES = (LIVE_PINGS, LIVE_REJECTED_PINGS)


@pytest.fixture(scope="module")
def workers() -> ForkServerContext:
    return quick_workers(PRELOADED)


class SmallBackfill:
    """A backfill of one date that is planned, without Spark: units one after another, nothing left out."""

    def __init__(self, settings: Settings, directory: Path, *, unit_max_bytes: int = MIB) -> None:
        self.lines: list[Line] = [*rejects()[:4], *every_kind()[:4], *every_kind()[:4]]
        lines = {"2014/03/01/a.txt": self.lines[:6], "2014/03/01/b.txt": self.lines[6:]}
        archive = SmallArchive(directory, lines)
        archive.write()
        self.settings = archive.settings(settings)
        self.selection = archive.selection(self.settings, last=FIRST_DAY)
        self.journal = Journal(ObjectStore(settings.s3), settings.s3.lake_bucket)
        (self.plan,) = plan_dates(
            self.selection, self.settings.backfill.source, unit_max_bytes=unit_max_bytes
        )
        self.journal.begin(
            Manifest(
                backfill_id=self.id,
                created_at=datetime.now(UTC),
                selection=self.selection,
                dates=(self.journal.put_plan(self.id, self.plan),),
            )
        )

    @property
    def id(self) -> str:
        return self.selection.backfill_id

    def tallies(self) -> list[Tally]:
        return list(self.journal.tallies(self.id, [unit.name for unit in self.plan.units]))

    def assert_each_once(self) -> None:
        """Every record is one row, whatever happened."""
        catalog = load_lake_catalog(self.settings)
        found = [catalog.load_table(name).scan().to_arrow().to_pylist() for name in TABLES]
        places = [(row["raw_object"], row["raw_object_position"]) for rows in found for row in rows]
        expected = Counter(content for _, content in self.lines[:4])
        assert Counter(row["body"] for row in found[1]) == expected
        assert sorted(row["document_id"] for row in found[0]) == sorted(
            name.lower() for name, _ in self.lines[4:]
        )
        assert len(places) == len(set(places)) == len(self.lines)


def whole_way(settings: Settings, selection: Selection, plan: DatePlan) -> None:
    """Copy what is missing, decide, commit, undo, and publish again: what a person and Airflow would do."""
    copier = UnitCopier(settings, selection.backfill_id, selection.archive)
    for unit in plan.units:
        copier.copy(unit)
    journal = Journal(ObjectStore(settings.s3), settings.s3.lake_bucket)
    publisher = DatePublisher(
        settings.drain, load_lake_catalog(settings), journal, selection.source_id, selection.backfill_id
    )
    while (decision := decided(publisher, journal, selection, plan)).number == 0:
        publisher.commit(decision)
        publisher.undo(FIRST_DAY)
    publisher.commit(decision)


def decided(publisher: DatePublisher, journal: Journal, selection: Selection, plan: DatePlan) -> Decision:
    there = publisher.decided(FIRST_DAY)
    if there is not None:
        return there
    tallies = list(journal.tallies(selection.backfill_id, [unit.name for unit in plan.units]))
    files = [file for tally in tallies for file in tally.files]
    parts = [part for unit in plan.units for part in unit.slices]
    return publisher.decide(
        Decision(
            backfill_id=selection.backfill_id,
            date=FIRST_DAY,
            number=publisher.next_number(FIRST_DAY),
            decided_at=datetime.now(UTC),
            files={name: tuple(file.uri for file in files if file.table == name) for name in TABLES},
            rows={name: sum(file.rows for file in files if file.table == name) for name in TABLES},
            raw_objects=tuple(
                historic_raw_object(selection.backfill_id, part.file.path, part.start) for part in parts
            ),
            left_out={},
        )
    )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_worker_killed_after_any_write_loses_and_doubles_nothing(lake, workers, tmp_path):
    create_tables(load_lake_catalog(lake.settings))
    first = SmallBackfill(lake.settings, tmp_path, unit_max_bytes=2_500)
    killer = Killer()
    with through_proxies(first.settings, killer) as proxied:
        killer.work(workers, whole_way, proxied, first.selection, first.plan)
        requests = list(killer.requests)
        first.assert_each_once()
        undisturbed = [(tally.unit, tally.dates) for tally in first.tallies()]
        for name in ("/tallies/", "/index/", "/decision.json", "/committed.json", "/undone.json"):
            assert any(name in request for request in requests), name

    points = points_to_kill_at(requests)
    assert len(points) >= 8
    _forget(first)
    with through_proxies(first.settings, killer) as proxied:
        for number in points:
            killer.work(workers, whole_way, proxied, first.selection, first.plan, fatal_request=number)
    whole_way(first.settings, first.selection, first.plan)
    first.assert_each_once()
    assert [(tally.unit, tally.dates) for tally in first.tallies()] == undisturbed


def test_two_copies_of_a_unit_count_once(lake, tmp_path):
    create_tables(load_lake_catalog(lake.settings))
    backfill = SmallBackfill(lake.settings, tmp_path)
    copiers = [UnitCopier(backfill.settings, backfill.id, backfill.selection.archive) for _ in range(2)]
    (unit,) = backfill.plan.units
    together = threading.Barrier(2)
    tallies: list[Tally] = []

    def copy(copier: UnitCopier) -> None:
        together.wait()
        tallies.append(copier.copy(unit))

    threads = [threading.Thread(target=copy, args=(copier,)) for copier in copiers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert tallies[0] == tallies[1] == backfill.tallies()[0]
    whole_way(backfill.settings, backfill.selection, backfill.plan)
    backfill.assert_each_once()


def test_a_unit_whose_tally_has_no_answer_fails_alone_and_counts_once(lake, tmp_path):
    create_tables(load_lake_catalog(lake.settings))
    backfill = SmallBackfill(lake.settings, tmp_path, unit_max_bytes=2_500)
    first, *others = backfill.plan.units
    assert others
    endpoint = backfill.settings.s3.endpoint_url
    assert endpoint is not None

    def lose(request: str) -> bool:
        return not (request.startswith("PUT") and f"/tallies/{first.name}" in request)

    with lossy_proxy(endpoint, lose) as url:
        s3 = backfill.settings.s3.model_copy(update={"endpoint_url": url, "max_attempts": 1})
        proxied = backfill.settings.model_copy(update={"s3": s3})
        failed = list(copy_units(proxied, backfill.id, backfill.selection.archive, None, backfill.plan.units))
    assert [unit.unit for unit in failed] == [first.name]
    assert "RetriableError" in failed[0].error
    assert {unit.name for unit in others} <= backfill.journal.finished_units(backfill.id)
    whole_way(backfill.settings, backfill.selection, backfill.plan)
    backfill.assert_each_once()


def test_what_is_not_as_it_was_written_is_found(lake, tmp_path):
    """Rows lost, doubled and changed in the staged files, and a file that is gone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    create_tables(load_lake_catalog(lake.settings))
    backfill = SmallBackfill(lake.settings, tmp_path)
    (unit,) = backfill.plan.units
    tally = UnitCopier(backfill.settings, backfill.id, backfill.selection.archive).copy(unit)
    checker = UnitChecker(backfill.settings, backfill.id)
    assert checker.check(tally, FIRST_DAY).differences == []

    file = max((file for file in tally.files if file.table == LIVE_PINGS), key=lambda file: file.rows)
    folder = checker._staged.folders[LIVE_PINGS]
    path = folder.path + file.uri.removeprefix(folder.uri)
    with folder.filesystem.open_input_file(path) as source:
        table = pq.read_table(source)

    def differences(changed: pa.Table | None) -> list[str]:
        if changed is None:
            folder.filesystem.delete_file(path)
        else:
            with folder.filesystem.open_output_stream(path) as sink:
                pq.write_table(changed, sink)
        check = checker.check(tally, FIRST_DAY)
        of_date = tally.dates[FIRST_DAY]
        assert str(check.written.converted_digest) != of_date.converted_digest
        assert str(check.written.rejected_digest) == of_date.rejected_digest
        return check.differences

    (lost,) = differences(table.slice(1))
    assert "no row was written" in lost
    (doubled,) = differences(pa.concat_tables([table, table.slice(0, 1)]))
    assert "a second one" in doubled
    document = table.schema.get_field_index("document")
    text = ['{"changed": 1}', *map(str, table.column("document").to_pylist()[1:])]
    lifted = table.schema.get_field_index("lifted")
    nothing = ["{}", *map(str, table.column("lifted").to_pylist()[1:])]
    changed = table.set_column(document, "document", pa.array(text)).set_column(
        lifted, "lifted", pa.array(nothing)
    )
    (other,) = differences(changed)
    assert "is not the record of the source" in other
    assert any("is not there any more" in sentence for sentence in differences(None))


def test_a_publication_that_is_undone_meanwhile_leaves_nothing(lake, tmp_path):
    create_tables(load_lake_catalog(lake.settings))
    backfill = SmallBackfill(lake.settings, tmp_path)
    whole_way(backfill.settings, backfill.selection, backfill.plan)
    publisher = DatePublisher(
        backfill.settings.drain,
        load_lake_catalog(backfill.settings),
        backfill.journal,
        backfill.selection.source_id,
        backfill.id,
    )
    decision = publisher.decided(FIRST_DAY)
    assert decision is not None
    assert publisher.undo(FIRST_DAY) == len(backfill.lines)
    # Somebody who decided before, and commits only now.
    with pytest.raises(FatalError, match="was undone while it was published"):
        publisher.commit(decision)
    catalog = load_lake_catalog(backfill.settings)
    assert [catalog.load_table(name).scan().count() for name in TABLES] == [0, 0]


def test_units_that_were_copied_days_before_are_published_by_young_copies(lake, tmp_path, monkeypatch):
    """What orphan removal deletes that listed the units' files before they were published is not missed."""
    monkeypatch.setattr("telemetry_lake.tables.late_files.STAGED_MAX_AGE", timedelta(days=-1))
    create_tables(load_lake_catalog(lake.settings))
    backfill = SmallBackfill(lake.settings, tmp_path)
    whole_way(backfill.settings, backfill.selection, backfill.plan)
    catalog = load_lake_catalog(backfill.settings)
    for tally in backfill.tallies():
        for file in tally.files:
            catalog.load_table(file.table).io.delete(file.uri)
    backfill.assert_each_once()


def _forget(backfill: SmallBackfill) -> None:
    """Take back everything but the plan: tables and records are as before the first copy."""
    store, bucket = ObjectStore(backfill.settings.s3), backfill.settings.s3.lake_bucket
    client = store._s3
    for prefix in (f"backfill/{backfill.id}/tallies/", f"backfill/{backfill.id}/index/", "backfill-dates/"):
        for item in list(store.list_objects(bucket, prefix)):
            client.delete_object(Bucket=bucket, Key=item.key)
    catalog = load_lake_catalog(backfill.settings)
    for name in TABLES:
        catalog.drop_table(name)
    create_tables(catalog)
