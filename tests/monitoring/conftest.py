"""Lakes with tables, and what the exporter shows of them."""

from lake_testing.tabled_lakes import tabled_lake

__all__ = ["tabled_lake"]
