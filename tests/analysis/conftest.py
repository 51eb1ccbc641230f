"""A lake with all tables, and Spark to look at them."""

from lake_testing.analysed_lake import catalog, own_lake, settings, spark

__all__ = ["catalog", "own_lake", "settings", "spark"]
