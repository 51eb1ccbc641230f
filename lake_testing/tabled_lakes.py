"""Lakes with tables, over both kinds of catalog."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lake_testing.stack import Lake
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog


@pytest.fixture
def tabled_lake(lake: Lake) -> Lake:
    """Return a lake with its tables."""
    create_tables(load_lake_catalog(lake.settings))
    return lake


@pytest.fixture
def settings(tabled_lake: Lake) -> Settings:
    """Return the settings of a lake with its tables."""
    return tabled_lake.settings


@pytest.fixture(params=["rest", "sql"])
def either_catalog(request: pytest.FixtureRequest, new_lake: Callable[[], Lake], tmp_path: Path) -> Settings:
    """Settings of a lake without tables: once over the REST catalog, once over a SQL catalog."""
    settings = new_lake().settings
    if request.param == "rest":
        return settings
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{tmp_path}/catalog.db",
        "warehouse": f"s3://{settings.s3.lake_bucket}/warehouse",
    }
    catalog = settings.catalog.model_copy(update={"properties": properties})
    return settings.model_copy(update={"catalog": catalog})


@pytest.fixture
def either_catalog_with_tables(either_catalog: Settings) -> Settings:
    """Return the same with its tables."""
    create_tables(load_lake_catalog(either_catalog))
    return either_catalog
