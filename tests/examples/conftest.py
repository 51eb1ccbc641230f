"""A lake with all tables, and Spark to look at them."""

from collections.abc import Callable, Iterator

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.spark_session import open_session
from telemetry_lake.settings import Settings
from tests.spark_lake import empty_tables, seen_anew
from tests.stack_fixture import Lake

CATALOG_NAME = "examples"
"""Of these tests' own: Spark keeps a catalog under its name for as long as its process lives."""
DEFAULT_CATALOG = "spark.sql.defaultCatalog"


@pytest.fixture(scope="session")
def own_lake(new_lake: Callable[[], Lake]) -> Lake:
    """The lake of the tests of this folder."""
    return new_lake()


@pytest.fixture(scope="session")
def settings(own_lake: Lake) -> Settings:
    """The lake's settings; Spark does not remember its tables, which the tests change from outside."""
    return seen_anew(own_lake.settings, name=CATALOG_NAME)


@pytest.fixture
def spark(settings: Settings) -> Iterator[SparkSession]:
    """The session of this test process, in which names of tables mean those of `settings` for one test."""
    running = SparkSession.getActiveSession()
    before = running.conf.get(DEFAULT_CATALOG) if running is not None else None
    session = open_session(settings, "tests", short=True)
    yield session
    if before is not None:
        session.conf.set(DEFAULT_CATALOG, before)


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    """The catalog of `settings` with all tables of sql/, empty."""
    return empty_tables(settings)
