"""SQL over the tables, answered by DuckDB.

- `lake`: the tables of a catalog, open for queries;
- `statements`: which SQL may be asked;
- `views`: a table as DuckDB sees it;
- `duckdb_files`: the file system of the tables' files;
- `row_output`: rows as a table, CSV or JSON.
"""
