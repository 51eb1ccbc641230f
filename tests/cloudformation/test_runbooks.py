"""The steps of docs/provisioning.md that need no AWS."""

from pathlib import Path

from pyiceberg.catalog import load_catalog

from telemetry_lake.tables.catalog import create_tables
from telemetry_lake.tables.definitions import LIVE_PINGS


def test_a_table_whose_entry_is_lost_comes_back_from_its_newest_metadata_file(tmp_path):
    catalog = load_catalog(
        "lake", type="sql", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}"
    )
    try:
        create_tables(catalog)
        table = catalog.load_table(LIVE_PINGS)
        with table.transaction() as change:
            change.set_properties({"changed": "last"})
        before = catalog.load_table(LIVE_PINGS)
        catalog.drop_table(LIVE_PINGS)
        assert not catalog.table_exists(LIVE_PINGS)
        folder = Path(before.location().removeprefix("file://")) / "metadata"
        newest = max(folder.glob("*.metadata.json"), key=lambda path: path.stat().st_mtime_ns)
        catalog.register_table(LIVE_PINGS, f"file://{newest}")
        after = catalog.load_table(LIVE_PINGS)
        assert after.metadata == before.metadata
        assert after.properties["changed"] == "last"
        assert create_tables(catalog)
    finally:
        catalog.close()
