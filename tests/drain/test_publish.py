"""A batch gets into its tables once, over any catalog, whoever publishes it and whatever answer is lost."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from lake_testing.lossy_proxy import lossy_proxy
from lake_testing.shipping import Shipped, assert_each_once, ship
from telemetry_lake.drain.batch import Commitment
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.publish import NotDecided, publish
from telemetry_lake.drain.steps import Drain
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.commits import commit_once, snapshot_of_batch
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS
from telemetry_lake.tables.expiry import expire_appends
from telemetry_lake.tables.late_files import ORPHAN_MIN_DAYS, STAGED_MAX_AGE
from telemetry_lake.tables.staged import Publication

LATER = datetime.now(UTC) + timedelta(days=30)
"""When every snapshot of the tests is old."""


def decided(settings: Settings, *, objects: int = 1, good: int = 3, bad: int = 1) -> tuple[str, Shipped]:
    """A batch that has come as far as its publication, and what was shipped for it."""
    drain, shipped = Drain(LakeConnections(settings)), ship(settings, objects=objects, good=good, bad=bad)
    claimed = drain.claim()
    (batch,) = claimed.batches
    for part in batch.parts:
        drain.convert(part)
    drain.validate(claimed)
    return batch.batch_id, shipped


def publish_as_a_new_process(settings: Settings, batch: str, *, at: datetime | None = None) -> Commitment:
    drain = Drain(LakeConnections(settings))
    catalog, ledger = drain.connections.catalog, drain.connections.ledger
    return publish(settings.drain, catalog, ledger, batch, at=at or datetime.now(UTC))


def staged_files(settings: Settings, batch: str) -> dict[str, tuple[str, ...]]:
    publication = LakeConnections(settings).ledger.publication(batch)
    assert publication is not None
    return publication.files


def remove_staged_files(settings: Settings, batch: str, table: str) -> None:
    for uri in staged_files(settings, batch)[table]:
        LakeConnections(settings).catalog.load_table(table).io.delete(uri)


def test_publishing_again_gives_the_same_commitment(either_catalog_with_tables):
    settings = either_catalog_with_tables
    batch, shipped = decided(settings)
    first = publish_as_a_new_process(settings, batch)
    assert publish_as_a_new_process(settings, batch) == first
    assert_each_once(settings, shipped)


def test_a_commit_is_found_again_without_its_record(either_catalog_with_tables):
    settings = either_catalog_with_tables
    batch, shipped = decided(settings)
    publication = LakeConnections(settings).ledger.publication(batch)
    assert publication is not None
    # A worker that died after its first commit: pings are in, rejected pings are not, nothing is recorded.
    without_rejected = publication.model_copy(update={"files": {LIVE_PINGS: publication.files[LIVE_PINGS]}})
    _publish_without_a_record(settings, without_rejected)
    publish_as_a_new_process(settings, batch)
    assert_each_once(settings, shipped)


def test_many_publish_one_batch_and_it_is_there_once(either_catalog_with_tables):
    settings = either_catalog_with_tables
    batch, shipped = decided(settings)
    publication = LakeConnections(settings).ledger.publication(batch)
    assert publication is not None
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _publish_without_a_record(settings, publication), range(4)))
    assert_each_once(settings, shipped)


def test_different_batches_published_at_once_are_all_there(either_catalog_with_tables):
    settings = either_catalog_with_tables
    batches = [decided(settings) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda pair: publish_as_a_new_process(settings, pair[0]), batches))
    assert_each_once(settings, sum((shipped for _, shipped in batches), Shipped()))


@pytest.mark.parametrize("table", [LIVE_PINGS, LIVE_REJECTED_PINGS])
def test_a_commit_whose_answer_is_lost_is_looked_up(settings, table):
    batch, shipped = decided(settings)
    lost = threading.Event()

    def lose_one_commit(request: str) -> bool:
        if request.startswith("POST ") and f"/tables/{table.split('.')[1]} " in request and not lost.is_set():
            lost.set()
            return False
        return True

    with lossy_proxy(settings.catalog.properties["uri"], lose_one_commit) as url:
        properties = {**settings.catalog.properties, "uri": url}
        catalog = settings.catalog.model_copy(update={"properties": properties})
        publish_as_a_new_process(settings.model_copy(update={"catalog": catalog}), batch)
    assert lost.is_set()
    assert_each_once(settings, shipped)
    assert len(load_lake_catalog(settings).load_table(table).metadata.snapshots) == 1


def test_an_expired_snapshot_does_not_make_us_forget(either_catalog_with_tables):
    settings = either_catalog_with_tables
    batch, shipped = decided(settings)
    drain = Drain(LakeConnections(settings))
    publication = drain.connections.ledger.publication(batch)
    assert publication is not None
    _publish_without_a_record(settings, publication)
    other, more = decided(settings)
    publish_as_a_new_process(settings, other)
    for name in (LIVE_PINGS, LIVE_REJECTED_PINGS):
        table = drain.connections.catalog.load_table(name)
        assert snapshot_of_batch(table, batch) is not None
        assert expire_appends(settings.drain, drain.connections.catalog, name, now=LATER) == 1
        assert snapshot_of_batch(drain.connections.catalog.load_table(name), batch) is None
    publish_as_a_new_process(settings, batch)
    assert_each_once(settings, shipped + more)


def test_a_batch_of_rejected_pings_only_has_no_snapshot_of_pings(settings):
    batch, shipped = decided(settings, good=0, bad=2)
    commitment = publish_as_a_new_process(settings, batch)
    assert_each_once(settings, shipped)
    assert list(commitment.snapshots) == [LIVE_REJECTED_PINGS]


def test_nothing_is_published_before_it_is_decided(settings):
    ship(settings)
    (batch,) = Drain(LakeConnections(settings)).claim().batches
    with pytest.raises(NotDecided):
        publish_as_a_new_process(settings, batch.batch_id)


def test_a_batch_that_is_committed_late_names_no_file_that_orphan_removal_may_have_listed(
    either_catalog_with_tables,
):
    settings = either_catalog_with_tables
    batch, shipped = decided(settings)
    staged = staged_files(settings, batch)
    late = datetime.now(UTC) + timedelta(days=ORPHAN_MIN_DAYS)
    publish_as_a_new_process(settings, batch, at=late)
    # What an orphan removal does that has listed the files before the commit.
    for table, uris in staged.items():
        for uri in uris:
            LakeConnections(settings).catalog.load_table(table).io.delete(uri)
    assert_each_once(settings, shipped)
    publish_as_a_new_process(settings, batch, at=late)
    assert_each_once(settings, shipped)


def test_files_are_not_copied_for_a_batch_that_is_committed_in_time(settings):
    batch, _ = decided(settings)
    staged = staged_files(settings, batch)
    publish_as_a_new_process(settings, batch, at=datetime.now(UTC) + STAGED_MAX_AGE - timedelta(hours=1))
    catalog = LakeConnections(settings).catalog
    for table, uris in staged.items():
        assert [task.file.file_path for task in catalog.load_table(table).scan().plan_files()] == list(uris)


def test_a_batch_that_is_half_committed_is_completed_late(settings):
    batch, shipped = decided(settings)
    publication = LakeConnections(settings).ledger.publication(batch)
    assert publication is not None
    without_rejected = publication.model_copy(update={"files": {LIVE_PINGS: publication.files[LIVE_PINGS]}})
    _publish_without_a_record(settings, without_rejected)
    publish_as_a_new_process(settings, batch, at=LATER)
    assert_each_once(settings, shipped)


@pytest.mark.parametrize("table", [LIVE_PINGS, LIVE_REJECTED_PINGS])
def test_a_batch_whose_staged_files_are_gone_is_converted_and_decided_again(settings, table):
    batch, shipped = decided(settings)
    remove_staged_files(settings, batch, table)
    with pytest.raises(RetriableError, match="converted and decided again"):
        publish_as_a_new_process(settings, batch, at=LATER)
    with pytest.raises(NotDecided):
        publish_as_a_new_process(settings, batch)
    connections = LakeConnections(settings)
    for message in shipped.messages:
        connections.queue.send(message)
    drain = Drain(connections, clock=lambda: LATER)
    claimed = drain.claim()
    assert [len(claim.parts) for claim in claimed.batches] == [1]
    for part in claimed.batches[0].parts:
        drain.convert(part)
    drain.validate(claimed)
    drain.publish(claimed)
    assert [done.committed for done in drain.acknowledge(claimed)] == [True]
    assert_each_once(settings, shipped)


def test_a_decision_that_was_made_again_meanwhile_is_not_withdrawn(settings):
    batch, _ = decided(settings)
    ledger = LakeConnections(settings).ledger
    first = ledger.publication(batch)
    assert first is not None
    ledger.withdraw(first, "its files are gone")
    second = first.model_copy(update={"files": {LIVE_PINGS: ("s3://another/file",)}})
    assert ledger.decide(second) == second
    assert ledger.decide(first) == second
    ledger.withdraw(first, "its files are gone")
    assert ledger.publication(batch) == second


def test_a_staged_file_that_is_gone_of_a_half_committed_batch_is_fatal_and_says_where_to_read_on(settings):
    batch, _ = decided(settings)
    publication = LakeConnections(settings).ledger.publication(batch)
    assert publication is not None
    without_rejected = publication.model_copy(update={"files": {LIVE_PINGS: publication.files[LIVE_PINGS]}})
    _publish_without_a_record(settings, without_rejected)
    remove_staged_files(settings, batch, LIVE_REJECTED_PINGS)
    for at in (datetime.now(UTC), LATER):
        with pytest.raises(FatalError, match=r"A staged file is gone"):
            publish_as_a_new_process(settings, batch, at=at)
    assert LakeConnections(settings).ledger.publication(batch) == publication


def test_a_catalog_that_stays_away_is_retriable(settings, embedded_s3):
    batch, shipped = decided(settings)
    few = settings.drain.model_copy(update={"commit_max_attempts": 2})
    drain = Drain(LakeConnections(settings))
    catalog = drain.connections.catalog

    def refuse(request: str) -> bool:
        return "/tables/" not in request

    with lossy_proxy(settings.catalog.properties["uri"], refuse) as url:
        properties = {**settings.catalog.properties, "uri": url}
        away = settings.model_copy(
            update={"catalog": settings.catalog.model_copy(update={"properties": properties})}
        )
        with pytest.raises(RetriableError, match=batch):
            publish(few, LakeConnections(away).catalog, drain.connections.ledger, batch, at=LATER)
    publish(few, catalog, drain.connections.ledger, batch, at=LATER)
    assert_each_once(settings, shipped)


def _publish_without_a_record(settings: Settings, publication: Publication) -> None:
    """Commit to the tables as `publish` does, and die before the commit record is written."""
    drain = Drain(LakeConnections(settings))
    manifest = drain.connections.ledger.manifest(publication.batch_id)
    for table in publication.files:
        commit_once(settings.drain, drain.connections.catalog, table, publication, manifest.created_at)
