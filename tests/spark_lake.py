"""A lake for tests that look at tables through Spark and change them from outside."""

from pyiceberg.catalog import Catalog

from telemetry_lake.catalog import create_tables, load_lake_catalog
from telemetry_lake.settings import Settings
from telemetry_lake.tables import table_names

UNCACHED = {"cache-enabled": "false"}
"""Spark would show a table as it was when a session first saw it."""


def seen_anew(settings: Settings, **catalog: object) -> Settings:
    """The same settings, but Spark remembers no table; `catalog` changes more of the catalog's settings."""
    before = settings.catalog
    changes = {"spark_properties": {**before.spark_properties, **UNCACHED}, **catalog}
    return settings.model_copy(update={"catalog": before.model_copy(update=changes)})


def empty_tables(settings: Settings) -> Catalog:
    """The catalog of `settings` with all tables of sql/, empty."""
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    for name in table_names():
        table = catalog.load_table(name)
        if table.scan().count():
            table.delete()
    return catalog
