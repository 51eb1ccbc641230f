"""Rows for tables of `sql/`: the values of a test, and fitting ones in every other column."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from telemetry_lake.tables.definitions import ColumnType, table_definition

SOME_TIME = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

_SOMETHING: dict[str, Any] = {
    "string": "something",
    "int": 1,
    "long": 1,
    "double": 1.5,
    "boolean": True,
    "date": SOME_TIME.date(),
    "timestamptz": SOME_TIME,
    "binary": b"something",
    "list": [],
    "map": [],
}


def sample_rows(table: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return an Arrow table with a row for each of `rows`; submission timestamps are noon of their dates."""
    definition = table_definition(table)
    complete = []
    for number, row in enumerate(rows):
        filled = {column.name: _something(column) for column in definition.columns}
        filled["raw_object_position"] = number
        if isinstance(day := row.get("submission_date"), date):
            filled["submission_timestamp"] = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        unknown = set(row) - set(filled)
        assert not unknown, f"{table} has no columns {unknown}"
        maps = {name: list(row[name].items()) for name in ("headers",) if isinstance(row.get(name), dict)}
        complete.append({**filled, **row, **maps})
    schema = definition.arrow_schema()
    return pa.table(
        {field.name: pa.array([row[field.name] for row in complete], field.type) for field in schema},
        schema=schema,
    )


def _something(column: ColumnType) -> Any:
    if not column.required:
        return None
    if column.type == "struct":
        return {field.name: _something(field) for field in column.fields}
    return _SOMETHING[column.type]
