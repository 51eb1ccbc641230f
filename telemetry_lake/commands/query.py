"""The commands that query the tables, list them and create them."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from telemetry_lake.query.lake import Lake


DISPLAYED_ROWS: Final = 50
"""How many rows `query` shows as a table without --limit."""
_CHEAP: Final = " Conditions on it are cheap: the table is partitioned by it."


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


app = typer.Typer()


@app.command(no_args_is_help=True)
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One query; - reads it from standard input.")],
    format_: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="How rows are written: by default as --output ends, else table."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file to write to: .csv, .json or .parquet.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"The most rows to write; 0 writes all. By default {DISPLAYED_ROWS} for a table, else all.",
        ),
    ] = None,
) -> None:
    """Answer SQL over all tables: live.pings, live.rejected_pings and derived.…, by their full names.

    The dialect is DuckDB's, times are UTC. A condition on submission_date or document_type makes a query
    faster, because files of other days and types are not read. sql/examples/ has queries to start from.

    \b
    python -m telemetry_lake query "SELECT document_type, count(*) FROM live.pings GROUP BY ALL"
    python -m telemetry_lake query "FROM live.pings WHERE submission_date = current_date" -o today.parquet
    python -m telemetry_lake query - --format csv < sql/examples/pings_by_channel.sql
    """
    started = time.monotonic()
    from telemetry_lake.query.lake import open_lake
    from telemetry_lake.settings import Role, load_settings

    chosen = _format(format_, output)
    text = sys.stdin.read() if sql == "-" else sql
    with open_lake(load_settings(role=Role.ANALYST)) as lake:
        if chosen is Format.PARQUET and output is not None:
            rows = lake.write_parquet(text, output, limit=limit or None)
            typer.echo(f"{rows:,} rows written to {output}", err=True)
        else:
            _write_rows(lake, text, chosen, output, limit, started)


@app.command()
def tables(
    name: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="Show the columns of this table.")
    ] = None,
) -> None:
    """List the tables with their rows, size, last change and purpose, or the columns of one of them."""
    from telemetry_lake.query.lake import open_lake
    from telemetry_lake.settings import Role, load_settings

    with open_lake(load_settings(role=Role.ANALYST)) as lake:
        if name is None:
            _list_tables(lake)
        else:
            _list_columns(lake, name)


@app.command(name="create-tables")
def create_tables() -> None:
    """Create the tables of sql/ that are missing and add new columns to the others; safe to run again."""
    from telemetry_lake.settings import Role, load_settings
    from telemetry_lake.tables import catalog

    for name in catalog.create_tables(catalog.load_lake_catalog(load_settings(role=Role.MAINTENANCE))):
        typer.echo(name)


def _format(format_: Format | None, output: Path | None) -> Format:
    by_suffix = {".csv": Format.CSV, ".json": Format.JSON, ".parquet": Format.PARQUET}
    if output is None:
        if format_ is Format.PARQUET:
            raise typer.BadParameter("Parquet goes to a file: give --output FILE.parquet")
        return format_ or Format.TABLE
    if format_ is None and output.suffix not in by_suffix:
        raise typer.BadParameter(f"--output {output}: end it in .csv, .json or .parquet, or give --format")
    return format_ or by_suffix[output.suffix]


def _write_rows(
    lake: "Lake", sql: str, format_: Format, output: Path | None, limit: int | None, started: float
) -> None:
    from telemetry_lake.query import row_output

    result = lake.query(sql)
    if limit is None and format_ is Format.TABLE:
        limit = DISPLAYED_ROWS
    rows = row_output.Rows(result, limit=limit or None)
    write = {Format.TABLE: row_output.write_table, Format.CSV: row_output.write_csv}.get(
        format_, row_output.write_json
    )
    if output is None:
        write(rows, sys.stdout)
    else:
        with output.open("w", encoding="utf-8", newline="") as file:
            write(rows, file)
    if format_ is Format.TABLE or output is not None:
        more = "; there are more: --limit 0 shows all" if rows.more else ""
        typer.echo(f"{rows.written:,} rows in {time.monotonic() - started:.1f} s{more}", err=True)


def _list_tables(lake: "Lake") -> None:
    from telemetry_lake.query import row_output

    names = lake.table_names()
    if not names:
        typer.echo("There are no tables yet; `python -m telemetry_lake create-tables` creates them.")
        return
    row_output.write_records(
        ("table", "rows", "bytes", "last change (UTC)", "what it is"),
        [
            (
                summary.name,
                summary.rows or 0,
                summary.bytes or 0,
                row_output.utc_time(summary.snapshot_time_ms) if summary.snapshot_time_ms else "never",
                summary.description,
            )
            for summary in map(lake.summary, names)
        ],
        sys.stdout,
    )


def _list_columns(lake: "Lake", name: str) -> None:
    from telemetry_lake.query import row_output

    row_output.write_records(
        ("column", "type", "null", "what it is"),
        [
            (
                column.name,
                row_output.cut(column.type),
                "" if column.required else "possible",
                f"{column.description}{_CHEAP if column.partitions else ''}",
            )
            for column in lake.columns(name)
        ],
        sys.stdout,
    )
