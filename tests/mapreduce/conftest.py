"""A lake with pings of every kind in `stable.pings`, and a Spark session to run scripts over them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from lake_testing.sample_pings import sample_pings
from lake_testing.spark_lake import spark_session, spark_settings
from lake_testing.stack import Lake
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog

STABLE_PINGS = "stable.pings"


@pytest.fixture(scope="session")
def lake_of_pings(new_lake: Callable[[], Lake]) -> Lake:
    """A lake of the map-reduce tests' own."""
    return new_lake()


@pytest.fixture(scope="session")
def settings(lake_of_pings: Lake) -> Settings:
    """Its settings."""
    return spark_settings(lake_of_pings.settings)


@pytest.fixture(scope="session")
def catalog(settings: Settings) -> Catalog:
    """Its catalog, with all tables of sql/."""
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    return catalog


@pytest.fixture(scope="session")
def pings(catalog: Catalog) -> list[dict[str, Any]]:
    """The rows of `stable.pings`, in the order in which a run reads them: by date, type, and as appended."""
    rows = sample_pings()
    catalog.load_table(STABLE_PINGS).append(rows)
    in_order = rows.sort_by([("submission_date", "ascending"), ("document_type", "ascending")])
    return in_order.to_pylist()


@pytest.fixture(scope="session")
def spark(settings: Settings) -> Iterator[SparkSession]:
    """A Spark session on this machine."""
    with spark_session(settings) as session:
        yield session
