"""A lake with tables."""

from lake_testing.tabled_lakes import settings, tabled_lake

__all__ = ["settings", "tabled_lake"]
