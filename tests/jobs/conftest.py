"""One Spark session for all tests of jobs, on each kind of catalog in turn."""

from collections.abc import Callable, Iterator

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from lake_testing.spark_lake import UNCACHED, empty_tables, spark_session, spark_settings
from lake_testing.stack import Lake
from telemetry_lake.settings import Settings


@pytest.fixture(scope="session", params=["rest", "sql"])
def settings(
    request: pytest.FixtureRequest, new_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """A lake whose catalog is served over REST, and one whose catalog is an SQLite file; files are in S3."""
    lake = new_lake().settings
    if request.param == "rest":
        return spark_settings(lake)
    file = tmp_path_factory.mktemp("catalog") / "catalog.db"
    warehouse = f"s3://{lake.s3.lake_bucket}/tables"
    of_files = {
        key: value
        for key, value in lake.catalog.spark_properties.items()
        if key.startswith(("s3.", "client.", "io-"))
    }
    spark_properties = {
        **of_files,
        **UNCACHED,
        "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
        "uri": f"jdbc:sqlite:file:{file}",
        "warehouse": warehouse,
    }
    properties = {"type": "sql", "uri": f"sqlite:///{file}", "warehouse": warehouse}
    return spark_settings(lake, properties=properties, spark_properties=spark_properties)


@pytest.fixture(scope="session")
def spark(settings: Settings) -> Iterator[SparkSession]:
    """The session, in which names of tables mean those of `settings`."""
    with spark_session(settings) as session:
        yield session


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    """The catalog of `settings` with all tables of sql/, empty."""
    return empty_tables(settings)
