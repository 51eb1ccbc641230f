"""A lake for tests that look at tables through Spark and change them from outside.

A test process has one Spark session, whichever tests it runs, and Spark keeps a catalog under its name for as
long as that session lives. So each lake gets a catalog of its own name, and nobody ends the session: the
tests that come next in the process use it, and its JVM ends with the process.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.spark_session import open_session
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import table_names

UNCACHED = {"cache-enabled": "false"}
"""Spark would show a table as it was when a session first saw it."""


_DEFAULT_CATALOG = "spark.sql.defaultCatalog"
_CATALOG_NUMBERS = itertools.count(1)


def spark_settings(settings: Settings, **catalog: object) -> Settings:
    """Return settings whose catalog has a new name and which Spark asks anew each time.

    `catalog` changes more of the catalog.
    """
    before = settings.catalog
    changes = {
        "name": f"lake{next(_CATALOG_NUMBERS)}",
        "spark_properties": {**before.spark_properties, **UNCACHED},
        **catalog,
    }
    return settings.model_copy(update={"catalog": before.model_copy(update=changes)})


@contextmanager
def spark_session(
    settings: Settings, configuration: Mapping[str, str] | None = None
) -> Iterator[SparkSession]:
    """Yield the process's Spark session, in which names of tables mean those of `settings` meanwhile.

    `settings` come from `spark_settings`; `configuration` (Spark's keys and their values) holds as long.
    """
    configured = {_DEFAULT_CATALOG: settings.catalog.name, **(configuration or {})}
    running = SparkSession.getActiveSession()
    before: dict[str, str | None] = {}
    if running is not None:
        before = {key: running.conf.get(key, None) for key in configured}
    session = open_session(settings, "tests", short=True)
    for key, value in configured.items():
        session.conf.set(key, value)
    yield session
    for key, earlier in before.items():
        if earlier is None:
            session.conf.unset(key)
        else:
            session.conf.set(key, earlier)


def empty_tables(settings: Settings) -> Catalog:
    """Return the catalog of `settings` with all tables of sql/, empty."""
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    for name in table_names():
        table = catalog.load_table(name)
        if table.scan().count():
            table.delete()
    return catalog
