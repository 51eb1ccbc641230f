"""Iceberg tables: what `sql/` says they look like, the catalog they are in, their files, and commits."""
