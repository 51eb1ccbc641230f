"""A batch gets into its tables once, over any catalog, whoever publishes it and whatever answer is lost."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from telemetry_lake.batch import Commitment, Publication
from telemetry_lake.catalog import load_lake_catalog
from telemetry_lake.drain import Drain
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.publish import NotDecided, commit_once, publish, snapshot_of_batch
from telemetry_lake.settings import Settings
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS
from tests.drain.lossy_proxy import lossy_proxy
from tests.drain.shipping import Shipped, assert_each_once, ship


def decided(settings: Settings, *, objects: int = 1, good: int = 3, bad: int = 1) -> tuple[str, Shipped]:
    """A batch that has come as far as its publication, and what was shipped for it."""
    drain, shipped = Drain(settings), ship(settings, objects=objects, good=good, bad=bad)
    claimed = drain.claim()
    (batch,) = claimed.batches
    for part in batch.parts:
        drain.convert(part)
    drain.validate(claimed)
    return batch.batch_id, shipped


def publish_as_a_new_process(settings: Settings, batch: str) -> Commitment:
    drain = Drain(settings)
    return publish(settings.drain, drain.catalog, drain.ledger, batch)


def test_publishing_again_gives_the_same_commitment(either_catalog_with_tables):
    settings = either_catalog_with_tables
    batch, shipped = decided(settings)
    first = publish_as_a_new_process(settings, batch)
    assert publish_as_a_new_process(settings, batch) == first
    assert_each_once(settings, shipped)


def test_a_commit_is_found_again_without_its_record(either_catalog_with_tables):
    settings = either_catalog_with_tables
    batch, shipped = decided(settings)
    publication = Drain(settings).ledger.publication(batch)
    assert publication is not None
    # A worker that died after its first commit: pings are in, rejected pings are not, nothing is recorded.
    without_rejected = publication.model_copy(update={"files": {LIVE_PINGS: publication.files[LIVE_PINGS]}})
    _publish_without_a_record(settings, without_rejected)
    publish_as_a_new_process(settings, batch)
    assert_each_once(settings, shipped)


def test_many_publish_one_batch_and_it_is_there_once(either_catalog_with_tables):
    settings = either_catalog_with_tables
    batch, shipped = decided(settings)
    publication = Drain(settings).ledger.publication(batch)
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
    drain = Drain(settings)
    publication = drain.ledger.publication(batch)
    assert publication is not None
    _publish_without_a_record(settings, publication)
    other, more = decided(settings)
    publish_as_a_new_process(settings, other)
    for name in (LIVE_PINGS, LIVE_REJECTED_PINGS):
        table = drain.catalog.load_table(name)
        snapshot = snapshot_of_batch(table, batch)
        assert snapshot is not None
        table.maintenance.expire_snapshots().by_id(snapshot.snapshot_id).commit()
        assert snapshot_of_batch(drain.catalog.load_table(name), batch) is None
    publish_as_a_new_process(settings, batch)
    assert_each_once(settings, shipped + more)


def test_a_batch_of_rejected_pings_only_has_no_snapshot_of_pings(settings):
    batch, shipped = decided(settings, good=0, bad=2)
    commitment = publish_as_a_new_process(settings, batch)
    assert_each_once(settings, shipped)
    assert list(commitment.snapshots) == [LIVE_REJECTED_PINGS]


def test_nothing_is_published_before_it_is_decided(settings):
    ship(settings)
    (batch,) = Drain(settings).claim().batches
    with pytest.raises(NotDecided):
        publish_as_a_new_process(settings, batch.batch_id)


def test_a_staged_file_that_is_gone_is_fatal_and_says_where_to_read_on(settings):
    batch, _ = decided(settings)
    drain = Drain(settings)
    publication = drain.ledger.publication(batch)
    assert publication is not None
    for uri in publication.files[LIVE_PINGS]:
        drain.catalog.load_table(LIVE_PINGS).io.delete(uri)
    with pytest.raises(FatalError, match=r"A staged file is gone"):
        publish_as_a_new_process(settings, batch)


def test_a_catalog_that_stays_away_is_retriable(settings, embedded_s3):
    batch, shipped = decided(settings)
    few = settings.drain.model_copy(update={"commit_max_attempts": 2})
    drain = Drain(settings)
    catalog = drain.catalog

    def refuse(request: str) -> bool:
        return "/tables/" not in request

    with lossy_proxy(settings.catalog.properties["uri"], refuse) as url:
        properties = {**settings.catalog.properties, "uri": url}
        away = settings.model_copy(
            update={"catalog": settings.catalog.model_copy(update={"properties": properties})}
        )
        with pytest.raises(RetriableError, match=batch):
            publish(few, Drain(away).catalog, drain.ledger, batch)
    publish(few, catalog, drain.ledger, batch)
    assert_each_once(settings, shipped)


def _publish_without_a_record(settings: Settings, publication: Publication) -> None:
    """Commit to the tables as `publish` does, and die before the commit record is written."""
    drain = Drain(settings)
    manifest = drain.ledger.manifest(publication.batch_id)
    for table in publication.files:
        commit_once(settings.drain, drain.catalog, table, publication, manifest.created_at)
