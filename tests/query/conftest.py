"""A lake whose tables hold a handful of known pings."""

from lake_testing.filled_lake import filled_lake

__all__ = ["filled_lake"]
