"""A table as DuckDB sees it: the SELECT that its view consists of, and the types of its columns.

A file's name holds its partition values (`lakefile://live.pings/2026-11-23/main/7`), and the view takes the
partition columns from there. So a condition on them leaves files out without opening them, and a query of
nothing else can be answered from the table's metadata.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, TypedDict
from urllib.parse import quote

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

from telemetry_lake.failures import FatalError
from telemetry_lake.query.duckdb_files import PROTOCOL
from telemetry_lake.tables.files import TableFile

_EPOCH: Final = date(1970, 1, 1)
_NULL: Final = "!"
"""Stands for null in a file's name; a value never looks like it, because `!` is quoted."""
_FILENAME: Final = "lake_file"
"""The column in which DuckDB gives a row's file; queries do not see it."""
_FIRST_VALUE_PART: Final = 4
"""Which part of a file's name, split at `/` and counted from 1, is the first partition value."""
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


@dataclass(frozen=True, slots=True)
class View:
    """A table's view: the SELECT that reads files, and the one that needs only metadata."""

    reading_files: str
    from_metadata: str


class PlanNode(TypedDict, total=False):
    """One operator of a plan, as DuckDB's `EXPLAIN (FORMAT json)` writes it."""

    extra_info: dict[str, object]
    children: "list[PlanNode]"


def table_view(
    name: str, table: Table, files: Sequence[TableFile], show: Callable[[str, TableFile], str]
) -> View:
    """Return the view of a table that consists of `files`.

    `show` makes a file visible to DuckDB in a folder, and returns the file's path there.
    """
    types = {field.name: duckdb_type(field.field_type) for field in table.schema().fields}
    if not files:
        nulls = ", ".join(f"CAST(NULL AS {type_}) AS {quoted(column)}" for column, type_ in types.items())
        return View(f"SELECT {nulls} WHERE false", f"SELECT {nulls} WHERE false")
    partitions = _partition_columns(table, files)
    paths: list[str] = []
    rows_by_folder: dict[str, int] = {}
    for file in files:
        values = (_name_part(file.partition[index], types[column]) for column, index in partitions.items())
        folder = "/".join([f"{PROTOCOL}:/", quote(name), *values])
        rows_by_folder[folder] = rows_by_folder.get(folder, 0) + file.rows
        paths.append(show(folder, file))
    return View(
        _select_from_files(types, list(partitions), paths),
        _select_from_metadata(types, list(partitions), rows_by_folder),
    )


def may_name(query: str, table: str) -> bool:
    """Return whether the table's name occurs in `query`, quoted or not.

    An occurrence in a comment or a string counts too: a view that is not used does no harm.
    """
    parts = (f'"?{re.escape(part)}"?' for part in table.split("."))
    return re.search(r"(?<!\w)" + r"\s*\.\s*".join(parts) + r"(?!\w)", query, re.IGNORECASE) is not None


def reads_only_file_names(plan: Sequence[PlanNode]) -> bool:
    """Return whether the plan scans files, and no scan needs anything of a file but its name."""
    scans = list(_scans(plan))
    return bool(scans) and all(
        "Filters" not in scan and scan.get("Projections") in ("", _FILENAME, [_FILENAME]) for scan in scans
    )


def duckdb_type(type_: IcebergType) -> str:
    """Return what DuckDB calls an Iceberg type; raises FatalError when it has no such type."""
    if isinstance(type_, StructType):
        fields = (f"{quoted(field.name)} {duckdb_type(field.field_type)}" for field in type_.fields)
        return f"STRUCT({', '.join(fields)})"
    if isinstance(type_, ListType):
        return f"{duckdb_type(type_.element_type)}[]"
    if isinstance(type_, MapType):
        return f"MAP({duckdb_type(type_.key_type)}, {duckdb_type(type_.value_type)})"
    if isinstance(type_, DecimalType):
        return f"DECIMAL({type_.precision}, {type_.scale})"
    try:
        return _DUCKDB_TYPES[type(type_)]
    except KeyError:
        raise FatalError(f"a column of the type {type_} cannot be queried from here; Spark can") from None


def quoted(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _scans(plan: Sequence[PlanNode]) -> Iterator[dict[str, object]]:
    for node in plan:
        information = node.get("extra_info", {})
        if information.get("Function") == "READ_PARQUET":
            yield information
        yield from _scans(node.get("children", []))


def _partition_columns(table: Table, files: Sequence[TableFile]) -> dict[str, int]:
    """Return the columns that have one value in each file, with their index in `TableFile.partition`.

    There are none when the table has files of an earlier partitioning.
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


def _select_from_files(types: dict[str, str], partitions: Sequence[str], paths: Sequence[str]) -> str:
    """Return a SELECT of all columns: partition columns from the files' names, others from the files."""
    inside = {column: type_ for column, type_ in types.items() if column not in partitions}
    # Columns are found by name; the files of one table agree on names, and not all of them have ids.
    entries = ", ".join(
        f"{literal(column)}: {{name: {literal(column)}, type: {literal(type_)}, default_value: NULL}}"
        for column, type_ in (inside or types).items()
    )
    columns = ", ".join(
        f"{_value_in_name(partitions.index(column), type_)} AS {quoted(column)}"
        if column in partitions
        else quoted(column)
        for column, type_ in types.items()
    )
    return (
        f"SELECT {columns} FROM "  # noqa: S608 (names and values are quoted)
        f"read_parquet([{', '.join(map(literal, paths))}], "
        f"filename = {literal(_FILENAME)}, schema = MAP {{{entries}}})"
    )


def _select_from_metadata(
    types: dict[str, str], partitions: Sequence[str], rows_by_folder: Mapping[str, int]
) -> str:
    """Return a SELECT of as many rows as the files have, null in all columns but those of partitions."""
    columns = ", ".join(
        f"{_value_in_name(partitions.index(column), type_)} AS {quoted(column)}"
        if column in partitions
        else f"CAST(NULL AS {type_}) AS {quoted(column)}"
        for column, type_ in types.items()
    )
    folders = ", ".join(f"({literal(folder)}, {rows})" for folder, rows in rows_by_folder.items())
    return (
        f"SELECT {columns} FROM "  # noqa: S608 (names and values are quoted)
        f"(VALUES {folders}) AS folders({quoted(_FILENAME)}, lake_rows), range(lake_rows)"
    )


def _value_in_name(index: int, type_: str) -> str:
    """Return the SQL that takes a partition value out of a file's name."""
    part = f"split_part({quoted(_FILENAME)}, '/', {_FIRST_VALUE_PART + index})"
    return f"CAST(url_decode(nullif({part}, '{_NULL}')) AS {type_})"


def _name_part(value: object, type_: str) -> str:
    """Return a partition value as part of a file's name; Iceberg keeps dates as days since 1970."""
    if value is None:
        return _NULL
    if type_ == "DATE" and isinstance(value, int):
        value = _EPOCH + timedelta(days=value)
    return quote(str(value), safe="")
