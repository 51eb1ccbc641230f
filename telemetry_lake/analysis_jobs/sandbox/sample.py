"""Take about a thousand pings of a table, for scripts that are tried on them.

`python -m telemetry_lake.analysis_jobs.sandbox.sample FILE` reads from standard input, as JSON, what is asked
for, and writes a Parquet file with all columns of the table. It acts as the role `script`, outside of any
box.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry_lake.analysis_jobs.sandbox.try_it import FILTER_NAME, PINGS, dates_asked
from telemetry_lake.failures import FatalError, TelemetryLakeError
from telemetry_lake.histograms.list_kernels import read_lists
from telemetry_lake.mapreduce.form import SAMPLE_PERCENT_MAX
from telemetry_lake.mapreduce.reading.filter_rules import FilterRule, read_filter
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.reading.units import FilePart, plan_units
from telemetry_lake.settings import Role, load_settings
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.definitions import TableDefinition, table_definition
from telemetry_lake.tables.files import READ_ONLY_FILE_IO, ReadOnlyFileIO, row_groups_between
from telemetry_lake.units import MIB

PARTS: Final = 8
"""Pings come from this many places of the table, if it has them: one place may have one kind only."""
LOOK_MAX_SECONDS: Final = 20.0
"""A filter that fits few pings is looked for that long."""
SAMPLE_MAX_BYTES: Final = 64 * MIB
_BATCH_ROWS: Final = 256
_BUFFER_BYTES: Final = 1 * MIB


def take(asked: dict[str, Any], file: Path) -> int:
    """Write the pings that are asked for to `file`; returns their number.

    Raises FatalError when the filter is wrong or nothing fits.
    """
    settings = load_settings(role=Role.SCRIPT)
    definition = table_definition(asked["table"])
    row_filter = _filter(asked, definition)
    with catalog_failures(f"looking up the table {definition.name}"):
        table = load_lake_catalog(settings, file_io=READ_ONLY_FILE_IO).load_table(definition.name)
        plan = plan_units(table, row_filter)
        parts = [part for unit in plan.units for part in unit]
        schema = definition.arrow_schema([column.name for column in definition.columns])
        io = ReadOnlyFileIO(dict(table.io.properties))
        rows = _rows(parts, row_filter, schema, io)
    if rows.num_rows == 0:
        raise FatalError(f"no pings of {definition.name} fit the dates and the filter: none could be tried")
    compile_kernels()
    partial = file.with_suffix(".partial")
    pq.write_table(rows, partial, compression="zstd", row_group_size=_BATCH_ROWS)
    partial.replace(file)
    return rows.num_rows


def compile_kernels() -> None:
    """Compile what a script may call when it asks for histograms, unless that was done before.

    In a box it would be done each time anew.
    """
    read_lists(pa.array(["1"]))


def _filter(asked: dict[str, Any], definition: TableDefinition) -> RowFilter:
    rules: tuple[FilterRule, ...] = ()
    if asked["filter"]:
        text = asked["filter"].encode()
        rules = read_filter(text, definition, has_dates=asked["first"] is not None, name=FILTER_NAME)
    sample = None if asked["sample"] == SAMPLE_PERCENT_MAX else asked["sample"]
    return RowFilter(rules, *dates_asked(asked), sample)


def _rows(parts: list[FilePart], row_filter: RowFilter, schema: pa.Schema, io: ReadOnlyFileIO) -> pa.Table:
    """Return wanted rows from places all over the table, and then from wherever there are more."""
    stride = max(1, len(parts) // PARTS)
    chosen = [*range(0, len(parts), stride)]
    order = chosen + [number for number in range(len(parts)) if number not in set(chosen)]
    share = -(-PINGS // max(1, min(PARTS, len(parts))))
    found: list[pa.Table] = []
    room, size, started = PINGS, 0, time.monotonic()
    for number in order:
        wanted = min(share, room)
        for rows in _wanted(parts[number], row_filter, schema, io):
            found.append(rows.slice(0, wanted))
            wanted -= found[-1].num_rows
            room -= found[-1].num_rows
            size += found[-1].nbytes
            is_late = time.monotonic() - started > LOOK_MAX_SECONDS
            if size > SAMPLE_MAX_BYTES or is_late:
                return pa.concat_tables(found)
            if wanted <= 0:
                break
        if room <= 0:
            break
    return pa.concat_tables(found) if found else schema.empty_table()


def _wanted(
    part: FilePart, row_filter: RowFilter, schema: pa.Schema, io: ReadOnlyFileIO
) -> Iterator[pa.Table]:
    with cast("pa.NativeFile", io.new_input(part.location).open()) as source:
        file = pq.ParquetFile(source, buffer_size=_BUFFER_BYTES)
        names = set(file.schema_arrow.names)
        groups = row_groups_between(file.metadata, part.start, part.end)
        if not groups:
            return
        for batch in file.iter_batches(_BATCH_ROWS, groups, use_threads=False):
            mask = row_filter.mask(batch)
            rows = pa.Table.from_batches([batch])
            kept = rows if mask is None else rows.filter(pa.array(mask))
            yield pa.table(
                [
                    kept.column(field.name).cast(field.type)
                    if field.name in names
                    else pa.nulls(kept.num_rows, field.type)
                    for field in schema
                ],
                schema=schema,
            )


def main() -> None:
    """Take what standard input asks for; an error is the last line of standard error."""
    try:
        take(json.load(sys.stdin), Path(sys.argv[1]))
    except TelemetryLakeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
