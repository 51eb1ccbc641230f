"""A lake with all tables, and Spark to look at them."""

from collections.abc import Callable, Iterator

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from lake_testing.spark_lake import empty_tables, spark_session, spark_settings
from lake_testing.stack import Lake
from telemetry_lake.settings import Settings


@pytest.fixture(scope="session")
def own_lake(new_lake: Callable[[], Lake]) -> Lake:
    """Return the lake of the tests of this folder."""
    return new_lake()


@pytest.fixture(scope="session")
def settings(own_lake: Lake) -> Settings:
    """Return the lake's settings; Spark does not remember its tables, which the tests change from outside."""
    return spark_settings(own_lake.settings)


@pytest.fixture
def spark(settings: Settings) -> Iterator[SparkSession]:
    """Yield the test process's session, in which names of tables mean those of `settings` for one test."""
    with spark_session(settings) as session:
        yield session


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    """Return the catalog of `settings` with all tables of sql/, empty."""
    return empty_tables(settings)
