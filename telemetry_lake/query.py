"""SQL over the tables of the lake, by DuckDB, in the time it takes to start it.

Tables are called by their full names: `live.pings`, `live.rejected_pings`, `derived.…`. pyiceberg reads
a table's metadata, DuckDB reads the Parquet files, and of those only what a query needs:

- A file's name, as DuckDB sees it, holds its partition values (`lakefile://live.pings/2026-11-23/main/7`).
  The partition columns of the view are made from the name, so that a condition on them leaves files out
  without opening them.
- A query that looks at nothing but partition columns, `count(*)` among them, opens no file at all: the
  table's metadata says how many rows there are with which values.
- Columns that a file does not have, because they are newer than the file, are null.

The dialect is DuckDB's: https://duckdb.org/docs/stable/sql/introduction. Times are in UTC.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import duckdb
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    ForbiddenError,
    NoSuchNamespaceError,
    NoSuchTableError,
    OAuthError,
    ServerError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)
from requests import RequestException

from telemetry_lake.catalog import load_lake_catalog
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import Settings
from telemetry_lake.table_files import READ_ONLY_FILE_IO, TableFile, TableFileSystem, snapshot_files

_NULL: Final = "!"
"""Stands for null in a file's name; a value never looks like it, because `!` is quoted."""
_EPOCH: Final = date(1970, 1, 1)
_FILENAME: Final = "lake_file"
"""The column in which DuckDB gives a row's file; not seen by queries."""
_FIRST_VALUE_PART: Final = 4
"""Which part of a file's name, split at `/`, is the first partition value."""

_DUCKDB_TYPES: Final[dict[type[IcebergType], str]] = {
    StringType: "VARCHAR",
    IntegerType: "INTEGER",
    LongType: "BIGINT",
    FloatType: "FLOAT",
    DoubleType: "DOUBLE",
    BooleanType: "BOOLEAN",
    DateType: "DATE",
    TimeType: "TIME",
    TimestampType: "TIMESTAMP",
    TimestamptzType: "TIMESTAMP WITH TIME ZONE",
    BinaryType: "BLOB",
    FixedType: "BLOB",
    UUIDType: "UUID",
}
_PARTITION_TYPES: Final = (StringType, IntegerType, LongType, DateType)
_UNKNOWN_TABLE: Final = re.compile(r"^Catalog Error: Table with name (\S+) does not exist")
# MULTI is PIVOT, for which DuckDB looks at the values first.
_QUERY_STATEMENTS: Final = frozenset(
    {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI}
)


class QueryError(FatalError):
    """The query itself is wrong; the message says where."""


@dataclass(frozen=True, slots=True)
class TableSummary:
    """What the metadata of one table's current snapshot says; all None when there is no snapshot."""

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


@dataclass(frozen=True, slots=True)
class _View:
    """A table as DuckDB gets it: the statement that reads files, and the one that reads only metadata."""

    reading_files: str
    from_metadata: str


class Lake:
    """The tables of a catalog, open for reading. `open_lake` makes it; not for several threads at once."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._uri = catalog.properties.get("uri", "")
        self._files = TableFileSystem()
        self._duckdb = duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        )
        self._duckdb.execute("SET TimeZone = 'UTC'; SET validate_external_file_cache = 'NO_VALIDATION'")
        self._duckdb.register_filesystem(self._files)

    def close(self) -> None:
        """Forget everything that was read."""
        self._duckdb.close()

    def table_names(self) -> list[str]:
        """The names of all tables of the catalog, sorted."""
        with _catalog_failures(self._uri):
            return sorted(
                ".".join(name)
                for namespace in self._catalog.list_namespaces()
                for name in self._catalog.list_tables(namespace)
            )

    def summary(self, name: str) -> TableSummary:
        """Rows, bytes, time and description of one table; QueryError when there is none of that name."""
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
        """The columns of one table; QueryError when there is none of that name."""
        table = self._load(name)
        partitioned = {field.source_id for field in table.spec().fields}
        return [
            ColumnSummary(
                field.name,
                _duckdb_type(field.field_type),
                field.required,
                field.field_id in partitioned,
                field.doc or "",
            )
            for field in table.schema().fields
        ]

    def query(self, sql: str) -> duckdb.DuckDBPyConnection:
        """The result of one query, to fetch from, with the snapshots that are current now.

        Raises QueryError when it is not one query, not SQL, or names what is not there; RetriableError
        when the catalog does not answer or a file cannot be read.
        """
        query = self._single_query(sql)
        self._create_views(query)
        with self._query_failures():
            return self._duckdb.execute(query)

    def write_parquet(self, sql: str, file: Path, *, limit: int | None = None) -> int:
        """Write at most `limit` rows of a result to a Parquet file; how many. Raises as `query` does."""
        query = self._single_query(sql)
        self._create_views(query)
        with self._query_failures():
            copied = self._duckdb.execute(
                f"COPY (FROM (\n{query}\n) {f'LIMIT {limit}' if limit else ''}) "
                f"TO {_literal(str(file))} (FORMAT parquet, COMPRESSION zstd)"
            ).fetchone()
        return int(copied[0]) if copied else 0

    @property
    def files_opened(self) -> frozenset[str]:
        """The names of the tables' files that were read so far."""
        return frozenset(self._files.opened)

    def _single_query(self, sql: str) -> str:
        with self._query_failures():
            statements = self._duckdb.extract_statements(sql)
        if len(statements) != 1:
            raise QueryError(f"one query at a time: this is {len(statements)} statements")
        if statements[0].type not in _QUERY_STATEMENTS:
            raise QueryError(
                f"{statements[0].type.name} is not possible here, only queries are: the drain writes the "
                "live tables, and jobs write the derived ones"
            )
        return statements[0].query.strip().rstrip(";")

    def _create_views(self, query: str) -> None:
        views = {name: self._view(name) for name in self.table_names() if _may_name(query, name)}
        for name, view in views.items():
            self._create_view(name, view.reading_files)
        if views and self._looks_at_partitions_only(query):
            for name, view in views.items():
                self._create_view(name, view.from_metadata)

    def _create_view(self, name: str, select: str) -> None:
        namespace, _, table = name.rpartition(".")
        self._duckdb.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(namespace)}")
        self._duckdb.execute(f"CREATE OR REPLACE VIEW {_quoted(namespace)}.{_quoted(table)} AS {select}")

    def _looks_at_partitions_only(self, query: str) -> bool:
        """Whether no scan in DuckDB's plan needs anything of a file but its name."""
        try:
            plan = self._duckdb.execute(f"EXPLAIN (FORMAT json) {query}").fetchone()
        except duckdb.Error:
            return False  # not for EXPLAIN itself; and what is wrong with a query is said when it runs
        scans = list(_scans(json.loads(plan[1]))) if plan else []
        return bool(scans) and all(
            "Filters" not in scan and scan.get("Projections") in ("", _FILENAME, [_FILENAME])
            for scan in scans
        )

    def _view(self, name: str) -> _View:
        table = self._load(name)
        with _catalog_failures(self._uri):
            files = snapshot_files(table)
        types = {field.name: _duckdb_type(field.field_type) for field in table.schema().fields}
        if not files:
            nothing = ", ".join(
                f"CAST(NULL AS {type_}) AS {_quoted(column)}" for column, type_ in types.items()
            )
            return _View(f"SELECT {nothing} WHERE false", f"SELECT {nothing} WHERE false")
        partitions = _partition_columns(table, files)
        names: list[str] = []
        rows_by_folder: dict[str, int] = {}
        for file in files:
            values = (
                _name_part(file.partition[index], types[column]) for column, index in partitions.items()
            )
            folder = "/".join([f"{self._files.protocol}:/", quote(name), *values])
            rows_by_folder[folder] = rows_by_folder.get(folder, 0) + file.rows
            names.append(self._files.add(folder, file, table.io.properties))
        return _View(
            _select_from_files(types, list(partitions), names),
            _select_from_metadata(types, list(partitions), rows_by_folder),
        )

    def _load(self, name: str) -> Table:
        try:
            with _catalog_failures(self._uri):
                return self._catalog.load_table(name)
        except (NoSuchTableError, NoSuchNamespaceError) as error:
            raise self._unknown_table(name) from error

    def _unknown_table(self, name: str) -> QueryError:
        known = self.table_names()
        listed = (
            ", ".join(known) if known else "none yet (`python -m telemetry_lake create-tables` makes them)"
        )
        return QueryError(f"there is no table {name}; tables: {listed}")

    @contextmanager
    def _query_failures(self) -> Iterator[None]:
        """Turn what DuckDB raises into our errors."""
        try:
            yield
        except duckdb.CatalogException as error:
            unknown = _UNKNOWN_TABLE.search(str(error))
            raise (
                self._unknown_table(unknown[1].replace('"', "")) if unknown else QueryError(str(error))
            ) from error
        except (duckdb.IOException, duckdb.HTTPException) as error:
            raise RetriableError(f"a file of a table cannot be read: {error}") from error
        except duckdb.Error as error:
            raise QueryError(str(error)) from error


@contextmanager
def open_lake(settings: Settings) -> Iterator[Lake]:
    """The tables of the catalog that the settings name.

    Raises ConfigurationError when they name none, RetriableError when the catalog does not answer.
    """
    with _catalog_failures(settings.catalog.properties.get("uri", "")):
        catalog = load_lake_catalog(settings, file_io=READ_ONLY_FILE_IO)
    lake = Lake(catalog)
    try:
        yield lake
    finally:
        lake.close()


def _may_name(query: str, table: str) -> bool:
    """Whether the name occurs in the query, quoted or not; in a comment or a string does no harm."""
    parts = (f'"?{re.escape(part)}"?' for part in table.split("."))
    return re.search(r"(?<!\w)" + r"\s*\.\s*".join(parts) + r"(?!\w)", query, re.IGNORECASE) is not None


def _scans(plan: Any) -> Iterator[dict[str, Any]]:
    for node in plan:
        information = node.get("extra_info", {})
        if information.get("Function") == "READ_PARQUET":
            yield information
        yield from _scans(node.get("children", []))


def _partition_columns(table: Table, files: Sequence[TableFile]) -> dict[str, int]:
    """The columns whose value a file has only one of, and where it is in `TableFile.partition`.

    None when the table has files of an earlier partitioning.
    """
    spec, schema = table.spec(), table.schema()
    if any(file.spec_id != spec.spec_id for file in files):
        return {}
    return {
        source.name: index
        for index, field in enumerate(spec.fields)
        if isinstance(field.transform, IdentityTransform)
        and isinstance((source := schema.find_field(field.source_id)).field_type, _PARTITION_TYPES)
    }


def _select_from_files(types: dict[str, str], partitions: Sequence[str], names: Sequence[str]) -> str:
    """A SELECT of all columns from the named files, partition columns by name, others as in the files."""
    inside = {column: type_ for column, type_ in types.items() if column not in partitions}
    # Columns are found by name; the files of one table agree on names, and not all of them have ids.
    entries = ", ".join(
        f"{_literal(column)}: {{name: {_literal(column)}, type: {_literal(type_)}, default_value: NULL}}"
        for column, type_ in (inside or types).items()
    )
    columns = ", ".join(
        f"{_value_in_name(partitions.index(column), type_)} AS {_quoted(column)}"
        if column in partitions
        else _quoted(column)
        for column, type_ in types.items()
    )
    return (
        f"SELECT {columns} FROM "  # noqa: S608 (names and values are quoted)
        f"read_parquet([{', '.join(map(_literal, names))}], "
        f"filename = {_literal(_FILENAME)}, schema = MAP {{{entries}}})"
    )


def _select_from_metadata(
    types: dict[str, str], partitions: Sequence[str], rows_by_folder: Mapping[str, int]
) -> str:
    """A SELECT of as many rows as the files have, with partition values, and null in all other columns."""
    columns = ", ".join(
        f"{_value_in_name(partitions.index(column), type_)} AS {_quoted(column)}"
        if column in partitions
        else f"CAST(NULL AS {type_}) AS {_quoted(column)}"
        for column, type_ in types.items()
    )
    folders = ", ".join(f"({_literal(folder)}, {rows})" for folder, rows in rows_by_folder.items())
    return (
        f"SELECT {columns} FROM "  # noqa: S608 (names and values are quoted)
        f"(VALUES {folders}) AS folders({_quoted(_FILENAME)}, lake_rows), range(lake_rows)"
    )


def _value_in_name(index: int, type_: str) -> str:
    """The SQL that takes a partition value out of a file's name."""
    part = f"split_part({_quoted(_FILENAME)}, '/', {_FIRST_VALUE_PART + index})"
    return f"CAST(url_decode(nullif({part}, '{_NULL}')) AS {type_})"


def _name_part(value: Any, type_: str) -> str:
    """A partition value as part of a file's name; Iceberg keeps dates as days since 1970."""
    if value is None:
        return _NULL
    if type_ == "DATE" and isinstance(value, int):
        value = _EPOCH + timedelta(days=value)
    return quote(str(value), safe="")


def _duckdb_type(type_: IcebergType) -> str:
    """What DuckDB calls an Iceberg type; FatalError when it has no such type."""
    if isinstance(type_, StructType):
        fields = (f"{_quoted(field.name)} {_duckdb_type(field.field_type)}" for field in type_.fields)
        return f"STRUCT({', '.join(fields)})"
    if isinstance(type_, ListType):
        return f"{_duckdb_type(type_.element_type)}[]"
    if isinstance(type_, MapType):
        return f"MAP({_duckdb_type(type_.key_type)}, {_duckdb_type(type_.value_type)})"
    if isinstance(type_, DecimalType):
        return f"DECIMAL({type_.precision}, {type_.scale})"
    try:
        return _DUCKDB_TYPES[type(type_)]
    except KeyError:
        raise FatalError(f"a column of the type {type_} cannot be queried from here; Spark can") from None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def _catalog_failures(uri: str) -> Iterator[None]:
    """Turn a catalog or an object store that does not answer into an error that says what to do."""
    try:
        yield
    except (RequestException, ServerError, ServiceUnavailableError) as error:
        raise RetriableError(
            f"the Iceberg catalog at {uri} does not answer ({type(error).__name__}). `make run` starts the "
            "local stack, `make status` shows what runs"
        ) from error
    except (OAuthError, UnauthorizedError, ForbiddenError) as error:
        raise FatalError(f"the Iceberg catalog at {uri} refuses the credentials: {error}") from error
    except FileNotFoundError as error:
        raise RetriableError(f"a file of a table went away while it was read; try again: {error}") from error
    except OSError as error:
        raise RetriableError(f"the metadata of a table cannot be read: {error}") from error
