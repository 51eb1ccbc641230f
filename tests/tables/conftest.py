"""Lakes with tables, over both kinds of catalog."""

from lake_testing.tabled_lakes import either_catalog, either_catalog_with_tables, settings, tabled_lake

__all__ = ["either_catalog", "either_catalog_with_tables", "settings", "tabled_lake"]
