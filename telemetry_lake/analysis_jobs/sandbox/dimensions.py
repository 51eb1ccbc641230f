"""Count the pings of a table by the columns that filters are made of.

`python -m telemetry_lake.analysis_jobs.sandbox.dimensions FILE` reads from standard input, as JSON, what is
asked for, and writes a Parquet file with a row for each combination of values and the number of its pings. It
acts as the role `script`, outside of any box. Of many pings it counts those of places all over the table, as
far as it gets in some seconds; the file's metadata says how many of how many.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry_lake.analysis_jobs.filter_fields import FILTER_COLUMNS
from telemetry_lake.analysis_jobs.sandbox.counting import PINGS, READ, TOTAL
from telemetry_lake.analysis_jobs.sandbox.try_it import dates_asked
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.reading.units import FilePart, plan_units
from telemetry_lake.settings import Role, load_settings
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.definitions import table_definition
from telemetry_lake.tables.files import READ_ONLY_FILE_IO, ReadOnlyFileIO, row_groups_between

COUNTING_MAX_SECONDS: Final = 10.0
COMBINATIONS_MAX_COUNT: Final = 200_000
"""Beyond these, those with fewest pings are left out: the counts are then a little low."""
STRIDE: Final = 61
"""Parts are taken in steps of this many, so that those that are reached are from all over the table."""


def count(asked: dict[str, Any], file: Path) -> None:
    """Write the counts of what is asked for to `file`."""
    settings = load_settings(role=Role.SCRIPT)
    definition = table_definition(asked["table"])
    dates = RowFilter((), *dates_asked(asked))
    with catalog_failures(f"looking up the table {definition.name}"):
        table = load_lake_catalog(settings, file_io=READ_ONLY_FILE_IO).load_table(definition.name)
        plan = plan_units(table, dates)
        parts = [part for unit in plan.units for part in unit]
        counts, read = _counted(parts, ReadOnlyFileIO(dict(table.io.properties)))
    said = {TOTAL: str(max(plan.rows, read)).encode(), READ: str(read).encode()}
    partial = file.with_suffix(".partial")
    pq.write_table(counts.replace_schema_metadata(said), partial, compression="zstd")
    partial.replace(file)


def _counted(parts: list[FilePart], io: ReadOnlyFileIO) -> tuple[pa.Table, int]:
    """Return the counts, and of how many rows they are."""
    types: list[tuple[str, pa.DataType]] = [(name, pa.string()) for name in FILTER_COLUMNS]
    schema = pa.schema([*types, (PINGS, pa.int64())])
    counts, read, started = schema.empty_table(), 0, time.monotonic()
    for start in range(min(STRIDE, len(parts))):
        for part in parts[start::STRIDE]:
            for rows in _row_groups(part, io):
                read += rows.num_rows
                ones = pa.repeat(pa.scalar(1, pa.int64()), rows.num_rows)
                counts = _added_up([counts, rows.append_column(PINGS, ones).cast(schema)])
            if time.monotonic() - started > COUNTING_MAX_SECONDS:
                return counts, read
    return counts, read


def _added_up(parts: list[pa.Table]) -> pa.Table:
    names = list(FILTER_COLUMNS)
    grouped = pa.concat_tables(parts).group_by(names).aggregate([(PINGS, "sum")])
    counts = grouped.select([*names, f"{PINGS}_sum"]).rename_columns([*names, PINGS])
    if counts.num_rows > COMBINATIONS_MAX_COUNT:
        counts = counts.sort_by([(PINGS, "descending")]).slice(0, COMBINATIONS_MAX_COUNT)
    return counts


def _row_groups(part: FilePart, io: ReadOnlyFileIO) -> Iterator[pa.Table]:
    names = list(FILTER_COLUMNS)
    with cast("pa.NativeFile", io.new_input(part.location).open()) as source:
        file = pq.ParquetFile(source)
        for number in row_groups_between(file.metadata, part.start, part.end):
            yield file.read_row_group(number, columns=names, use_threads=False).select(names)


def main() -> None:
    """Count what standard input asks for; an error is the last line of standard error."""
    try:
        count(json.load(sys.stdin), Path(sys.argv[1]))
    except TelemetryLakeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
