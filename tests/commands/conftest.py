"""A lake whose tables hold a handful of known pings."""

from lake_testing.filled_lake import filled_lake
from lake_testing.tabled_lakes import settings, tabled_lake

__all__ = ["filled_lake", "settings", "tabled_lake"]
