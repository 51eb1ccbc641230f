"""A catalog that is lost comes back from the files of its tables: all rows once, and the drain goes on."""

import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pyiceberg.catalog import Catalog

from lake_testing.shipping import assert_each_once, live_document_ids, ship
from telemetry_lake.drain.steps import drain_once
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.recovery.restore_catalog import (
    NotRestored,
    Restored,
    raise_if_not_restored,
    restore_catalog,
    warehouse_of,
)
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, table_names

# A catalog whose loss leaves the files. That of SeaweedFS is part of the object store, and is lost with it.
pytestmark = pytest.mark.parametrize("either_catalog", ["sql"], indirect=True)


class Losable:
    """A lake whose catalog can be lost."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = ObjectStore(settings.s3)
        self.warehouse = warehouse_of(self.catalog, None)
        self.database = Path(settings.catalog.properties["uri"].removeprefix("sqlite:///"))

    @property
    def catalog(self) -> Catalog:
        return load_lake_catalog(self.settings)

    def restore(self, *names: str, metadata_file: str | None = None) -> dict[str, Restored]:
        found = restore_catalog(self.catalog, self.store, self.warehouse, names, metadata_file=metadata_file)
        return {each.name: each for each in found}

    def lose(self, name: str) -> str:
        """Take one table out of the catalog. Returns its metadata file."""
        location = self.catalog.load_table(name).metadata_location
        self.catalog.drop_table(name)
        return location

    def body(self, location: str) -> bytes:
        parts = urlsplit(location)
        return self.store.get(parts.netloc, parts.path.lstrip("/"))

    def write(self, location: str, body: bytes) -> None:
        parts = urlsplit(location)
        self.store.put(parts.netloc, parts.path.lstrip("/"), body)

    def delete(self, location: str) -> None:
        parts = urlsplit(location)
        self.store.delete(parts.netloc, [parts.path.lstrip("/")])


@pytest.fixture
def lake(either_catalog_with_tables: Settings) -> Losable:
    return Losable(either_catalog_with_tables)


def beside(location: str, version: Callable[[int], int]) -> str:
    """Return the address of another metadata file of the same table."""
    folder, _, name = location.rpartition("/")
    return f"{folder}/{version(int(name.partition('-')[0])):05d}-{uuid.uuid4()}.metadata.json"


def test_all_rows_are_there_once_and_a_drain_goes_on(lake):
    shipped = ship(lake.settings, objects=2, bad=1)
    drain_once(lake.settings)
    shipped += ship(lake.settings)
    drain_once(lake.settings)
    before = {name: lake.catalog.load_table(name).metadata_location for name in table_names()}

    lake.database.unlink()
    assert not lake.catalog.list_namespaces()
    restored = lake.restore()

    assert {name: lake.catalog.load_table(name).metadata_location for name in table_names()} == before
    assert str(restored[LIVE_PINGS]) == f"live.pings: registered with 9 rows at {before[LIVE_PINGS]}"
    assert str(restored[LIVE_REJECTED_PINGS]).startswith("live.rejected_pings: registered with 2 rows at")
    raise_if_not_restored(list(restored.values()))
    assert create_tables(lake.catalog) == table_names()
    assert_each_once(lake.settings, shipped)
    # Messages that come again, of batches that are committed, and new ones.
    IndexQueue(lake.settings.sqs).send_all(shipped.messages)
    shipped += ship(lake.settings, bad=1)
    assert drain_once(lake.settings).failures == []
    assert_each_once(lake.settings, shipped)
    assert {str(each).partition(": ")[2] for each in lake.restore().values()} == {
        "is in the catalog; left alone"
    }


def test_a_file_that_is_not_whole_is_not_taken_and_of_two_a_person_chooses(lake):
    shipped = ship(lake.settings)
    drain_once(lake.settings)
    newest = lake.lose(LIVE_PINGS)
    lake.delete(lake.lose(LIVE_REJECTED_PINGS))
    cut = beside(newest, lambda version: version + 1)
    lake.write(cut, lake.body(newest)[:-100])
    other = beside(newest, lambda version: version)
    lake.write(other, lake.body(newest))

    two = lake.restore(LIVE_PINGS)[LIVE_PINGS]
    assert two.failed
    assert {newest, other} == {word for word in str(two).split() if word.startswith("s3://")}
    with pytest.raises(NotRestored, match=r"1 tables are not restored: live\.pings"):
        raise_if_not_restored([two])
    assert not lake.catalog.table_exists(LIVE_PINGS)
    chosen = lake.restore(LIVE_PINGS, metadata_file=other)[LIVE_PINGS]
    assert str(chosen) == f"live.pings: registered with 3 rows at {other} (as chosen)"

    lake.lose(LIVE_PINGS)
    lake.delete(newest)
    taken = str(lake.restore(LIVE_PINGS)[LIVE_PINGS])
    assert f"registered with 3 rows at {other} ({cut} is not whole (" in taken
    assert live_document_ids(lake.settings) == sorted(shipped.good)

    # Of live.rejected_pings there was one version only.
    assert "has no metadata file below" in str(lake.restore(LIVE_REJECTED_PINGS)[LIVE_REJECTED_PINGS])
    create_tables(lake.catalog)
    assert "left alone" in str(lake.restore(LIVE_REJECTED_PINGS)[LIVE_REJECTED_PINGS])


def test_a_snapshot_whose_files_are_gone_is_not_taken(lake):
    ship(lake.settings)
    drain_once(lake.settings)
    first = lake.catalog.load_table(LIVE_PINGS)
    ship(lake.settings)
    drain_once(lake.settings)
    table = lake.catalog.load_table(LIVE_PINGS)
    snapshot = table.current_snapshot()
    (manifest, *_) = snapshot.manifests(table.io)
    lake.lose(LIVE_PINGS)
    lake.delete(manifest.manifest_path)
    taken = str(lake.restore(LIVE_PINGS)[LIVE_PINGS])
    assert f"registered with 3 rows at {first.metadata_location}" in taken
    assert f"{manifest.manifest_path} is missing" in taken
    lake.lose(LIVE_PINGS)
    lake.delete(first.current_snapshot().manifest_list)
    nothing = lake.restore(LIVE_PINGS)[LIVE_PINGS]
    assert not nothing.failed  # the version without rows is whole
    assert "registered with no rows" in str(nothing)


def test_what_cannot_be_meant_is_said(lake):
    with pytest.raises(ConfigurationError, match="'pings' is not the name of a table"):
        lake.restore("pings")
    with pytest.raises(ConfigurationError, match="chosen for one table"):
        lake.restore(metadata_file="s3://x/y")
    assert warehouse_of(lake.catalog, "s3://tables") == "s3://tables/"
    for wrong in ("123456789012", "s3://", "/tmp/warehouse"):
        with pytest.raises(ConfigurationError, match="give --warehouse"):
            warehouse_of(lake.catalog, wrong)
