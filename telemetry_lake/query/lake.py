"""SQL over the tables of the lake, by DuckDB, in the time it takes to start it.

Tables are called by their full names: `live.pings`, `live.rejected_pings`, `derived.…`. pyiceberg reads
a table's metadata, DuckDB reads the Parquet files, and of those only what a query needs:

- A condition on the day leaves manifests out without reading them (`asked_days`), and a condition on any
  partition column leaves files out without opening them (`views`).
- A query that looks at nothing but partition columns, `count(*)` among them, opens no file at all: the
  table's metadata says how many rows there are with which values.
- Columns that a file does not have, because they are newer than the file, are null.

A query can read the tables and nothing else: only statements that read are accepted (`statements`), and
DuckDB is locked to our own file system, in which only tables' files are.

The dialect is DuckDB's: https://duckdb.org/docs/stable/sql/introduction. Times are in UTC.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.table import Table

from telemetry_lake.failures import RetriableError
from telemetry_lake.query.asked_days import asked_days
from telemetry_lake.query.duckdb_files import PROTOCOL, TableFileSystem
from telemetry_lake.query.statements import QueryError, single_query
from telemetry_lake.query.views import (
    View,
    duckdb_type,
    literal,
    may_name,
    quoted,
    reads_only_file_names,
    table_view,
)
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.catalog_failures import catalog_failures, refusal
from telemetry_lake.tables.files import READ_ONLY_FILE_IO, snapshot_files, span_of_days

_UNKNOWN_TABLE: Final = re.compile(r"^Catalog Error: Table with name (\S+) does not exist")
LOCKED: Final = f"""
SET TimeZone = 'UTC';
SET validate_external_file_cache = 'NO_VALIDATION';
SET allowed_directories = ['{PROTOCOL}://'];
SET enable_external_access = false;
SET lock_configuration = true;
"""
"""Let DuckDB use our own file system and no other, and refuse to change that."""


@dataclass(frozen=True, slots=True)
class TableSummary:
    """What the metadata of a table's current snapshot says; all None when there is no snapshot."""

    name: str
    rows: int | None
    bytes: int | None
    snapshot_time_ms: int | None
    """When the snapshot was committed, in milliseconds since 1970 UTC."""
    description: str


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """One column of a table."""

    name: str
    type: str
    required: bool
    partitions: bool
    """Whether conditions on it leave whole files out."""
    description: str


class Lake:
    """The tables of a catalog, open for reading. `open_lake` makes it. Not for several threads at once."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._reading = _reading(catalog.properties.get("uri", catalog.name))
        self._files = TableFileSystem()
        self._duckdb = duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        )
        self._duckdb.register_filesystem(self._files)
        self._duckdb.execute(LOCKED)

    def close(self) -> None:
        """Forget everything that was read."""
        self._duckdb.close()

    def table_names(self) -> list[str]:
        """Return the names of all tables of the catalog, sorted."""
        with catalog_failures(self._reading):
            return sorted(
                ".".join(name)
                for namespace in self._catalog.list_namespaces()
                for name in self._catalog.list_tables(namespace)
            )

    def summary(self, name: str) -> TableSummary:
        """Return rows, bytes, time and description of a table; raises QueryError when it does not exist."""
        table = self._load(name)
        description = " ".join(table.properties.get("comment", "").split())
        snapshot = table.current_snapshot()
        if snapshot is None or snapshot.summary is None:
            return TableSummary(name, None, None, None, description)
        rows, size = snapshot.summary["total-records"], snapshot.summary["total-files-size"]
        return TableSummary(
            name,
            int(rows) if rows is not None else None,
            int(size) if size is not None else None,
            snapshot.timestamp_ms,
            description,
        )

    def columns(self, name: str) -> list[ColumnSummary]:
        """Return the columns of a table; raises QueryError when it does not exist."""
        table = self._load(name)
        partitioned = {field.source_id for field in table.spec().fields}
        return [
            ColumnSummary(
                field.name,
                duckdb_type(field.field_type),
                field.required,
                field.field_id in partitioned,
                field.doc or "",
            )
            for field in table.schema().fields
        ]

    def query(self, sql: str) -> duckdb.DuckDBPyConnection:
        """Ask one query of the snapshots that are current now, and return its result, to fetch from.

        Raises QueryError when it is not one query, not SQL, does more than read, or names what does not
        exist; RetriableError when the catalog does not answer or a file cannot be read.
        """
        query = self._prepared(sql)
        with self._query_failures():
            return self._duckdb.execute(query)

    def write_parquet(self, sql: str, file: Path, *, limit: int | None = None) -> int:
        """Write at most `limit` rows of a query's result to a local Parquet file; None writes them all.

        Returns how many rows were written. Raises as `query` does.
        """
        query = self._prepared(sql)
        with self._query_failures(), self._files.written_to(file) as path:
            copied = self._duckdb.execute(
                f"COPY (FROM (\n{query}\n) {f'LIMIT {limit}' if limit else ''}) "
                f"TO {literal(path)} (FORMAT parquet, COMPRESSION zstd)"
            ).fetchone()
        return int(copied[0]) if copied else 0

    @property
    def files_opened(self) -> frozenset[str]:
        """The names of the tables' files that were read so far."""
        return frozenset(self._files.opened)

    def _prepared(self, sql: str) -> str:
        """Return the query of `sql`, after making a view of every table that it may name."""
        with self._query_failures():
            query = single_query(self._duckdb, sql)
        views = {name: self._view(name, query) for name in self.table_names() if may_name(query, name)}
        for name, view in views.items():
            self._create_view(name, view.reading_files)
        if views and self._looks_at_partitions_only(query):
            for name, view in views.items():
                self._create_view(name, view.from_metadata)
        return query

    def _create_view(self, name: str, select: str) -> None:
        namespace, _, table = name.rpartition(".")
        self._duckdb.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(namespace)}")
        self._duckdb.execute(f"CREATE OR REPLACE VIEW {quoted(namespace)}.{quoted(table)} AS {select}")

    def _looks_at_partitions_only(self, query: str) -> bool:
        """Return whether no scan in DuckDB's plan needs anything of a file but its name."""
        try:
            plan = self._duckdb.execute(f"EXPLAIN (FORMAT json) {query}").fetchone()
        except duckdb.Error:
            return False  # EXPLAIN cannot be explained; what is wrong with a query is reported when it runs
        return plan is not None and reads_only_file_names(json.loads(plan[1]))

    def _view(self, name: str, query: str) -> View:
        table = self._load(name)
        with catalog_failures(self._reading):
            span = span_of_days(table)
            days = None if span is None else asked_days(self._duckdb, query, name, *span)
            files = snapshot_files(table, days)
        return table_view(
            name, table, files, lambda folder, file: self._files.add(folder, file, table.io.properties)
        )

    def _load(self, name: str) -> Table:
        with catalog_failures(self._reading):
            try:
                return self._catalog.load_table(name)
            except (NoSuchTableError, NoSuchNamespaceError) as error:
                raise self._unknown_table(name) from error

    def _unknown_table(self, name: str) -> QueryError:
        listed = ", ".join(self.table_names()) or (
            "none yet (`python -m telemetry_lake create-tables` creates them)"
        )
        return QueryError(f"there is no table {name}; tables: {listed}")

    @contextmanager
    def _query_failures(self) -> Iterator[None]:
        """Turn what DuckDB raises into errors of this project."""
        try:
            yield
        except duckdb.CatalogException as error:
            unknown = _UNKNOWN_TABLE.search(str(error))
            raise (
                self._unknown_table(unknown[1].replace('"', "")) if unknown else QueryError(str(error))
            ) from error
        except duckdb.PermissionException as error:
            raise QueryError(f"a query can read the tables of the lake and nothing else: {error}") from error
        except (duckdb.IOException, duckdb.HTTPException) as error:
            raise RetriableError(f"a file cannot be read or written: {error}") from error
        except duckdb.Error as error:
            if type(error) is duckdb.Error:  # an exception of our file system, as text with its traceback
                reason = str(error).strip().splitlines()[-1]
                if (refused := refusal("reading a file of a table", OSError(reason))) is not None:
                    raise refused from error
                raise RetriableError(f"a file cannot be read or written: {reason}") from error
            raise QueryError(str(error)) from error


@contextmanager
def open_lake(settings: Settings) -> Iterator[Lake]:
    """Open the tables of the catalog that the settings name, and close them at the end of the block.

    Raises ConfigurationError when the settings name no catalog, RetriableError when it does not answer.
    """
    lake = Lake(load_lake_catalog(settings, file_io=READ_ONLY_FILE_IO))
    try:
        yield lake
    finally:
        lake.close()


def _reading(uri: str) -> str:
    return f"reading tables of the Iceberg catalog {uri}"
