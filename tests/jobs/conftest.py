"""One Spark session for all tests of jobs, on each kind of catalog in turn."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.spark_session import open_session
from telemetry_lake.settings import CatalogSettings, Settings
from tests.spark_lake import UNCACHED, empty_tables
from tests.stack_fixture import Lake

_CATALOG_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session", params=["rest", "sql"])
def settings(
    request: pytest.FixtureRequest, new_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """A lake whose catalog is served over REST, and one whose catalog is an SQLite file; files are in S3."""
    lake = new_lake().settings
    kind = request.param
    spark_properties = {**lake.catalog.spark_properties, **UNCACHED}
    if kind == "rest":
        properties = lake.catalog.properties
    else:
        file = tmp_path_factory.mktemp("catalog") / "catalog.db"
        warehouse = f"s3://{lake.s3.lake_bucket}/tables"
        properties = {"type": "sql", "uri": f"sqlite:///{file}", "warehouse": warehouse}
        of_files = {
            key: value for key, value in spark_properties.items() if key.startswith(("s3.", "client.", "io-"))
        }
        spark_properties = {
            **of_files,
            **UNCACHED,
            "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
            "uri": f"jdbc:sqlite:file:{file}",
            "warehouse": warehouse,
        }
    # Spark keeps a catalog under its name while the session lives, and pytest may come back to a kind.
    catalog = CatalogSettings(
        name=f"{kind}{next(_CATALOG_NUMBERS)}", properties=properties, spark_properties=spark_properties
    )
    return lake.model_copy(update={"catalog": catalog})


@pytest.fixture(scope="session")
def _session() -> Iterator[list[SparkSession]]:
    """Holds the session, once there is one, and ends it."""
    opened: list[SparkSession] = []
    yield opened
    for session in opened[:1]:
        session.stop()


@pytest.fixture(scope="session")
def spark(settings: Settings, _session: list[SparkSession]) -> SparkSession:
    """The session, in which names of tables mean those of `settings`."""
    _session.append(open_session(settings, "tests", short=True))
    return _session[-1]


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    """The catalog of `settings` with all tables of sql/, empty."""
    return empty_tables(settings)
