"""The tables of the lake, read from their folders in `sql/`.

A folder `sql/<namespace>/<table>/` holds `metadata.yaml` (what the table is for, partitioning, sort
order, Iceberg properties) and `schema.yaml` (a list of columns, each with its type and description). Where
a table has the columns of another one, `schema_of` in its metadata names that one instead.
Types are those of the Iceberg specification (https://iceberg.apache.org/spec/#schemas-and-data-types):
`string`, `int`, `long`, `double`, `boolean`, `date`, `timestamptz`, `binary`, and the nested `struct`
(with `fields`), `list` (with `element`) and `map` (with `key` and `value`).

This module makes Arrow schemas of them; `catalog` makes Iceberg schemas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import pyarrow as pa
import yaml
from pydantic import Field, ValidationError, model_validator

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.storage.records import Record

SQL_DIRECTORY: Final = PROJECT_ROOT / "sql"
LIVE_PINGS: Final = "live.pings"
LIVE_REJECTED_PINGS: Final = "live.rejected_pings"
STABLE_PINGS: Final = "stable.pings"
HISTOGRAM_AGGREGATES: Final = "derived.histogram_aggregates"
MADE_DATES: Final = "derived.made_dates"
PING_VOLUMES: Final = "derived.ping_volumes"
ANOMALIES: Final = "derived.anomalies"

_ARROW_TYPES: Final[dict[str, pa.DataType]] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "binary": pa.binary(),
}

PrimitiveName = Literal["string", "int", "long", "double", "boolean", "date", "timestamptz", "binary"]


class ColumnType(Record):
    """A type and, where it is nested, the types inside it."""

    type: PrimitiveName | Literal["struct", "list", "map"]
    required: bool = False
    fields: tuple["Column", ...] = ()
    element: "ColumnType | None" = None
    key: "ColumnType | None" = None
    value: "ColumnType | None" = None

    @model_validator(mode="after")
    def _parts_fit_the_type(self) -> Self:
        expected = {
            "struct": (True, False, False, False),
            "list": (False, True, False, False),
            "map": (False, False, True, True),
        }.get(self.type, (False, False, False, False))
        found = (bool(self.fields), self.element is not None, self.key is not None, self.value is not None)
        if found != expected:
            raise ValueError(
                "a struct has `fields`, a list `element`, a map `key` and `value`, all else none of them"
            )
        return self

    def arrow_type(self) -> pa.DataType:
        """Return the same type in Arrow."""
        if self.type == "struct":
            return pa.struct([column.arrow_field() for column in self.fields])
        if self.element is not None:
            return pa.list_(
                pa.field("element", self.element.arrow_type(), nullable=not self.element.required)
            )
        if self.key is not None and self.value is not None:
            return pa.map_(  # type: ignore[no-any-return, call-overload]  # the stubs know no fields here
                pa.field("key", self.key.arrow_type(), nullable=False),
                pa.field("value", self.value.arrow_type(), nullable=not self.value.required),
            )
        return _ARROW_TYPES[self.type]


class Column(ColumnType):
    """A named column, or a field of a struct, with what it means."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    description: Annotated[str, Field(min_length=1)]

    def arrow_field(self) -> "pa.Field[pa.DataType]":
        """Return the column as a field of an Arrow schema."""
        return pa.field(self.name, self.arrow_type(), nullable=not self.required)


class PartitionField(Record):
    """One part of the partitioning: a column and an Iceberg transform of it."""

    column: str
    transform: Literal["identity", "day", "hour"]


class TableMetadata(Record):
    """What `metadata.yaml` says."""

    description: str
    grain: str
    filled_by: str
    """The program that writes its rows, from the project's root."""
    schema_of: str | None = None
    partitioned_by: tuple[PartitionField, ...]
    sorted_by: tuple[str, ...]
    properties: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """One table: its name with the namespace, what it is for, and its columns."""

    name: str
    metadata: TableMetadata
    columns: tuple[Column, ...]

    def arrow_schema(self, columns: Sequence[str] | None = None) -> pa.Schema:
        """Return the table's columns, or the named ones in the given order, as an Arrow schema."""
        by_name = {column.name: column for column in self.columns}
        return pa.schema([by_name[name].arrow_field() for name in columns or by_name])


@cache
def table_definition(name: str) -> TableDefinition:
    """Return the definition of the table `name`, such as `live.pings`.

    Raises ConfigurationError, which names the file and what is wrong in it.
    """
    folder = SQL_DIRECTORY.joinpath(*name.split("."))
    try:
        metadata = TableMetadata.model_validate(_read(folder / "metadata.yaml"))
        definition = TableDefinition(name, metadata, _columns(folder, metadata))
    except (ValidationError, TypeError) as error:
        raise ConfigurationError(f"{folder}: {error}") from error
    names = [column.name for column in definition.columns]
    used = [part.column for part in definition.metadata.partitioned_by] + list(definition.metadata.sorted_by)
    if unknown := [name for name in used if name not in names]:
        raise ConfigurationError(
            f"{folder}/metadata.yaml names columns that schema.yaml does not have: {unknown}"
        )
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{folder}/schema.yaml: two columns have the same name")
    return definition


def table_names() -> list[str]:
    """Return the names of all tables, sorted."""
    return sorted(
        ".".join(path.parent.relative_to(SQL_DIRECTORY).parts)
        for path in SQL_DIRECTORY.glob("*/*/metadata.yaml")
    )


def _columns(folder: Path, metadata: TableMetadata) -> tuple[Column, ...]:
    file = folder / "schema.yaml"
    if metadata.schema_of is None:
        return tuple(Column.model_validate(entry) for entry in _read(file))
    if file.exists():
        raise ConfigurationError(f"{file}: its metadata says that the columns are {metadata.schema_of}'s")
    return table_definition(metadata.schema_of).columns


def _read(file: Path) -> list[dict[str, object]]:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"the definition of a table cannot be read: {error}") from error
