"""Runs of map-reduce without Spark: both sides in this process, over a table in a local file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from lake_testing.compact_documents import value_of
from lake_testing.sample_pings import sample_pings
from telemetry_lake.mapreduce.map_phase import MAPPED, MapTask, columns_read, map_unit
from telemetry_lake.mapreduce.pickles import unpickled
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.reading.units import plan_units
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.reduce_phase import ReduceTask, reduce_rows
from telemetry_lake.mapreduce.script.script import load_script
from telemetry_lake.mapreduce.summaries import UnitSummary
from telemetry_lake.tables.catalog import create_or_update_table
from telemetry_lake.tables.definitions import table_definition

STABLE_PINGS = "stable.pings"
EVERYTHING = RowFilter()


def local_table(folder: Path, rows: pa.Table | None = None) -> Table:
    """Return stable.pings in local files of several row groups, with `rows` or the samples of type main."""
    catalog = load_catalog("here", type="sql", uri=f"sqlite:///{folder}/c.db", warehouse=folder.as_uri())
    definition = table_definition(STABLE_PINGS)
    create_or_update_table(catalog, definition)
    table = catalog.load_table(STABLE_PINGS)
    with table.transaction() as transaction:
        transaction.set_properties({"write.parquet.row-group-limit": "8"})
    if rows is None:
        main = sample_pings().filter(pc.field("document_type") == "main")
        rows = main.sort_by([("app_update_channel", "ascending")])
    table.append(rows)
    return table


def task_of(table: Table, script: Path, row_filter: RowFilter = EVERYTHING, *, lazy: bool = True) -> MapTask:
    """Return the task of the map side of a run over `table`."""
    loaded = load_script(script)
    return MapTask(
        loaded.source,
        plan_units(table, row_filter).units,
        columns_read(loaded, table_definition(STABLE_PINGS), row_filter, lazy=lazy),
        row_filter,
        dict(table.io.properties),
        None if loaded.reduce else OutputFormat.TEXT,
        0,
        lazy,
    )


def mapped(task: MapTask) -> tuple[list[pa.RecordBatch], UnitSummary]:
    """Return what the map side sends, and the sum of its summaries."""
    sent, summed = [], UnitSummary()
    for number in range(len(task.units)):
        for batch in map_unit(task, number):
            assert batch.schema == MAPPED
            if batch.column("summary").null_count:
                sent.append(batch)
            else:
                summed.add(unpickled(batch.column("summary")[0].as_py()))
    return sent, summed


def run(
    table: Table, script: Path, row_filter: RowFilter = EVERYTHING, *, lazy: bool = True
) -> tuple[str, UnitSummary]:
    """Return the output of a run, in which nothing may fail, and the summary of its map side."""
    task = task_of(table, script, row_filter, lazy=lazy)
    sent, summed = mapped(task)
    assert summed.fatal is None
    assert summed.failures == 0, summed.described
    if task.output_format is not None:
        payloads: list[Any] = [payload for batch in sent for payload in batch.column("content").to_pylist()]
        return b"".join(payloads).decode(), summed
    in_order = pa.Table.from_batches(sent, MAPPED).sort_by(
        [(name, "ascending") for name in ("key", "unit", "number")]
    )
    output = b""
    for batch in reduce_rows(ReduceTask(task.source, OutputFormat.TEXT, 0), in_order.to_batches(7)):
        for row in batch.to_pylist():
            output += row["content"] or b""
            if row["summary"] is not None:
                summary = unpickled(row["summary"])
                assert summary.fatal is None
                assert summary.failures == 0, summary.described
    return output.decode(), summed


def rows_of(table: Table) -> Iterator[tuple[str, list[str], str]]:
    """Yield the arguments of `map` for each row of `table`, as `mapreduce_reference` takes them."""
    for row in table.scan().to_arrow().to_pylist():
        dimensions = [
            row[name] for name in ("reason", "app_name", "app_update_channel", "app_version", "app_build_id")
        ]
        yield row["document_id"], [*dimensions, row["submission_date"].strftime("%Y%m%d")], value_of(row)
