"""Rows of a query's result, written for a person or for a program.

A table for a person cuts wide values; CSV and JSON (one object a line) have them whole. Times are ISO 8601 in
UTC, bytes are Base64 in JSON and CSV, nested values are JSON in CSV.
"""

import base64
import csv
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TextIO

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FETCHED_ROWS: Final = 1_000
"""How many rows are fetched, and in memory, at once."""
CELL_MAX_CHARACTERS: Final = 60
"""The width to which values are cut in a table."""
RECORD_VALUE_MAX_CHARACTERS: Final = 1_000
"""The width to which values are cut where rows are written one below the other."""
COLUMN_MIN_CHARACTERS: Final = 9
"""With less room than this for each column, rows are written one below the other."""
UNLIMITED_WIDTH: Final = 100_000
"""The width of a table that goes to a file or a pipe, in characters."""


class Rows:
    """The rows of a result, fetched while they are read; at most `limit` of them."""

    def __init__(self, result: "DuckDBPyConnection", *, limit: int | None = None) -> None:
        self._result = result
        self._limit = limit
        self.names: list[str] = [column[0] for column in result.description or ()]
        self.written = 0
        """How many rows were read so far."""
        self.more = False
        """Whether rows beyond the limit were seen."""

    def __iter__(self) -> Iterator[tuple[object, ...]]:
        while fetched := self._result.fetchmany(FETCHED_ROWS):
            for row in fetched:
                if self.written == self._limit:
                    self.more = True
                    return
                self.written += 1
                yield row


def write_csv(rows: Rows, file: TextIO) -> None:
    """Write the rows as CSV with a header line; null is an empty field."""
    writer = csv.writer(file)
    writer.writerow(rows.names)
    for row in rows:
        writer.writerow([_text(value) for value in row])


def write_json(rows: Rows, file: TextIO) -> None:
    """Write the rows as JSON, one object a line."""
    for row in rows:
        file.write(_json(dict(zip(rows.names, row, strict=True))))
        file.write("\n")


def write_table(rows: Rows, file: TextIO) -> None:
    """Write the rows as a table, or one below the other where the terminal is too narrow for that."""
    console = _console(file)
    fetched = list(rows)
    if console.width < len(rows.names) * (COLUMN_MIN_CHARACTERS + 3):
        for number, row in enumerate(fetched, start=1):
            console.rule(f"row {number:,}", align="left")
            record = Table.grid(padding=(0, 2))
            for name, value in zip(rows.names, row, strict=True):
                record.add_row(name, _cell(value, RECORD_VALUE_MAX_CHARACTERS))
            console.print(record)
        return
    table = Table()
    numbers = [
        all(isinstance(row[index], int | float | Decimal) or row[index] is None for row in fetched)
        for index in range(len(rows.names))
    ]
    for name, is_number in zip(rows.names, numbers, strict=True):
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in fetched:
        table.add_row(*(_cell(value, CELL_MAX_CHARACTERS) for value in row))
    console.print(table)


def write_records(names: Sequence[str], records: Sequence[Sequence[object]], file: TextIO) -> None:
    """Write a small table whose last column is prose and wraps."""
    table = Table()
    for index, name in enumerate(names):
        is_number = all(isinstance(record[index], int) for record in records)
        table.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=index == 0,
            overflow="fold",
        )
    for record in records:
        table.add_row(*(Text(f"{value:,}" if isinstance(value, int) else str(value)) for value in record))
    _console(file).print(table)


def utc_time(milliseconds: int) -> str:
    """Return milliseconds since 1970 UTC as a date and a time of day, to the second."""
    return f"{datetime.fromtimestamp(milliseconds / 1_000, UTC):%Y-%m-%d %H:%M:%S}"


def cut(text: str, max_characters: int = CELL_MAX_CHARACTERS) -> str:
    """Return the text, its end replaced by an ellipsis when it is longer than `max_characters`."""
    return text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"


def _console(file: TextIO) -> Console:
    return Console(file=file, highlight=False) if file.isatty() else Console(file=file, width=UNLIMITED_WIDTH)


def _cell(value: object, max_characters: int) -> Text:
    if value is None:
        return Text("null", style="dim")
    text = repr(value) if isinstance(value, bytes) else _text(value)
    return Text(cut(text, max_characters))


def _text(value: object) -> str:
    """Return a value as it is written in CSV."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return _json(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _json(value: object) -> str:
    return orjson.dumps(value, default=_json_value, option=orjson.OPT_NON_STR_KEYS).decode()


def _json_value(value: object) -> object:
    """Return a value that JSON has no type for as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")
