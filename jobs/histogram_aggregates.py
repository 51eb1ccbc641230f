"""Add up the histograms of stable.pings by date, into derived.histogram_aggregates.

Spark divides the work among its machines and moves what belongs together to one place; the histograms
themselves are read and added up by pyarrow and numpy (`telemetry_lake.histogram_aggregation`). Reading the
nested column through Spark alone takes longer than everything here together.

1. Each task reads some row groups of the date's files, only the columns that are needed, and adds them up.
   What their clients have to weigh is divided by client (`_read`).
2. All pings of a client meet in one share, where they are weighed (`_sum`). A client that sent more than
   `CLIENT_MAX_PINGS` on a date is nobody's browser: it weighs nothing, and a share does not hold it.
3. Sums of one histogram meet and are merged (`_merge`), and Spark writes them in one commit.

A date is out of date when stable.pings of that date was made from something else than when it was summed,
which `derived.made_dates` says. So a run costs what is new, however large the tables are.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

if not __package__:  # started as a file: its folder is on the path, the project's is not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.date_job import again_option, dates_option, debug_option, late_days_option, make_dates
from jobs.date_range import DateRange
from jobs.made_dates import MadeDate, again_on_conflict, current_snapshot, record, recorded, replace_date
from jobs.table_checks import check_date
from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import Settings
from telemetry_lake.tables import STABLE_PINGS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

HISTOGRAM_AGGREGATES: Final = "derived.histogram_aggregates"
DEFAULT_DATES: Final = "yesterday"
LATE_DAYS: Final = 7
CLIENT_MAX_PINGS: Final = 1_000
READ_MAX_PINGS: Final = 4_096
"""How many pings a task holds at once while it reads; some 60 KB each."""
SHARE_PINGS: Final = 4_096
"""How many pings a share has on average; some 6 KB each."""
ROWS_OF_A_PIECE: Final = 2_048
MERGE_SHARDS_MAX: Final = 64
WORKER_IMPORTS: Final = ("pandas", "telemetry_lake.histogram_aggregation", "telemetry_lake.table_files")
"""What the workers need, for `open_session`; pyarrow imports pandas when it first makes an array."""

Piece = tuple[int, tuple[bytes, ...]]
"""Where to, and either sums or pings of clients with their definitions."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """The row group of a Parquet file that begins at `offset`; the whole file without one."""

    location: str
    offset: int | None


def histogram_aggregates(
    session: "SparkSession", settings: Settings, dates: DateRange, *, late_days: int = 0, again: bool = False
) -> Iterator[MadeDate]:
    """Sum those of `dates` and of the `late_days` before them that are out of date; each once it is summed.

    `again` sums all of `dates`. Each date is replaced in one commit. Raises FatalError and RetriableError.
    """
    from jobs.spark_session import spark_failures

    asked = dates.reaching_back(late_days)
    with spark_failures():
        stable = recorded(session, STABLE_PINGS, asked)
        known = recorded(session, HISTOGRAM_AGGREGATES, asked)
    for day in asked:
        forced = again and day >= dates.first
        is_new = day in stable and (day not in known or known[day].source != _source(stable[day]))
        if forced or is_new:
            yield again_on_conflict(lambda day=day: _make(session, settings, day))  # type: ignore[misc]


def _make(session: "SparkSession", settings: Settings, day: date) -> MadeDate:
    from jobs.spark_session import spark_failures

    started = time.monotonic()
    with spark_failures():
        base = current_snapshot(session, HISTOGRAM_AGGREGATES)
        # The record before the rows: what it says is never newer than what is summed.
        stable = recorded(session, STABLE_PINGS, DateRange(day, day)).get(day)
        frame = aggregated(session, settings, day)
        rows = replace_date(frame, HISTOGRAM_AGGREGATES, day, base=base)
        for warning in check_date(session, HISTOGRAM_AGGREGATES, day):
            typer.echo(f"warning: {warning}", err=True)
        made = MadeDate(HISTOGRAM_AGGREGATES, day, _source(stable), rows, time.monotonic() - started)
        record(session, made)
    return made


def _source(stable: MadeDate | None) -> dict[str, object]:
    return {STABLE_PINGS: stable.digest if stable else None}


def aggregated(session: "SparkSession", settings: Settings, day: date) -> "DataFrame":
    """The rows of derived.histogram_aggregates for one date of stable.pings, not written anywhere."""
    from pyspark.sql.functions import col, lit

    schema = session.table(HISTOGRAM_AGGREGATES).schema
    properties, parts, pings = _parts(settings, day)
    shares = max(1, round(pings / SHARE_PINGS))
    shards = min(MERGE_SHARDS_MAX, max(session.sparkContext.defaultParallelism, shares // 8))
    pieces = (
        session.sparkContext.parallelize(parts, max(1, len(parts)))
        .mapPartitionsWithIndex(partial(_read, properties=properties, shares=shares))
        .partitionBy(shares, int)
        .mapPartitions(partial(_sum, shards=shards))
        .partitionBy(shards, int)
        .mapPartitions(_merge)
    )
    fields = [field for field in schema if field.name != SUBMISSION_DATE]
    types = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in fields)
    finish = partial(_rows, names=[field.name for field in fields])
    rows = session.createDataFrame(pieces, "piece binary").mapInArrow(finish, types)
    return rows.select(lit(day).alias(SUBMISSION_DATE), *(col(field.name) for field in fields))


def _parts(settings: Settings, day: date) -> tuple[dict[str, str], list[FilePart], int]:
    """How the date's files are reached, the parts that they are read in, and how many pings they hold."""
    from telemetry_lake.catalog import load_lake_catalog

    table = load_lake_catalog(settings).load_table(STABLE_PINGS)
    parts, pings = [], 0
    for task in table.scan(row_filter=f"{SUBMISSION_DATE} = '{day.isoformat()}'").plan_files():
        if task.delete_files:
            raise FatalError(
                f"rows of {STABLE_PINGS} are deleted by separate files. Make the date again: "
                f"python jobs/stable_pings.py --dates {day} --again"
            )
        pings += task.file.record_count
        parts += [FilePart(task.file.file_path, offset) for offset in task.file.split_offsets or (None,)]
    return dict(table.io.properties), parts, pings


def _read(
    partition: int, parts: Iterable[FilePart], *, properties: Mapping[str, str], shares: int
) -> Iterator[Piece]:
    """The sums of these parts, and their clients' pings divided into shares."""
    from telemetry_lake.histogram_aggregation import count_histograms, merge_sums, to_bytes

    counted = []
    for part in parts:
        for pings in read_part(part, properties):
            sums, of_clients = count_histograms(pings)
            counted.append(sums)
            for share, some in of_clients.split(shares):
                yield share, (to_bytes(some.pings), to_bytes(some.definitions))
    if counted:
        yield partition % shares, (to_bytes(merge_sums(counted)),)


def read_part(part: FilePart, properties: Mapping[str, str]) -> "Iterator[pa.Table]":
    """The columns of a part that are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from telemetry_lake.histogram_aggregation import READ, READ_AS_DICTIONARY, with_build_date
    from telemetry_lake.table_files import ReadOnlyFileIO

    source: Any
    with ReadOnlyFileIO(dict(properties)).new_input(part.location).open() as source:
        file = pq.ParquetFile(source, pre_buffer=True, read_dictionary=list(READ_AS_DICTIONARY))
        starts = [_offset(file.metadata.row_group(number)) for number in range(file.num_row_groups)]
        groups = [number for number, start in enumerate(starts) if part.offset in (None, start)]
        if not groups:
            raise FatalError(
                f"{part.location} has no row group at {part.offset}, where its table expects one"
            )
        for batch in file.iter_batches(READ_MAX_PINGS, groups, columns=list(READ), use_threads=False):
            yield with_build_date(pa.Table.from_batches([batch]))


def _offset(row_group: Any) -> int:
    """Where a row group begins, as Iceberg's split offsets say it."""
    column = row_group.column(0)
    return int(column.dictionary_page_offset or column.data_page_offset)


def _sum(pieces: Iterable[Piece], *, shards: int) -> Iterator[Piece]:
    """The sums of one share, divided by who merges them."""
    from telemetry_lake.histogram_aggregation import (
        ClientPings,
        ClientShare,
        from_bytes,
        merge_sums,
        shard_of,
        to_bytes,
    )

    share = ClientShare(CLIENT_MAX_PINGS)
    sums = []
    for _, piece in pieces:
        tables = from_bytes(piece)
        if len(tables) == 1:
            sums += tables
        else:
            share.add(ClientPings(*tables))
    if share.held:
        sums.append(share.sums())
    if sums:
        for shard, some in shard_of(merge_sums(sums), shards):
            yield shard, (to_bytes(some),)


def _merge(pieces: Iterable[Piece]) -> Iterator[tuple[bytearray]]:
    """The sums of one shard, added up, in pieces that Spark hands on."""
    from telemetry_lake.histogram_aggregation import finished, from_bytes, merge_sums, to_bytes

    tables = from_bytes(table for _, piece in pieces for table in piece)
    if tables:
        rows = finished(merge_sums(tables))
        for start in range(0, rows.num_rows, ROWS_OF_A_PIECE):
            yield (bytearray(to_bytes(rows.slice(start, ROWS_OF_A_PIECE))),)


def _rows(batches: "Iterable[pa.RecordBatch]", *, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    """The rows of pieces, with their columns in the order of `names`."""
    from telemetry_lake.histogram_aggregation import from_bytes

    for batch in batches:
        pieces: list[Any] = batch.column(0).to_pylist()
        for table in from_bytes(pieces):
            yield from table.select(list(names)).to_batches()


def main(
    dates: Annotated[str, dates_option("sum")] = DEFAULT_DATES,
    late_days: Annotated[int, late_days_option("summed again when they were made again")] = LATE_DAYS,
    again: Annotated[bool, again_option("sum")] = False,
    debug: Annotated[bool, debug_option()] = False,
) -> None:
    """Add up the histograms of stable.pings by date, into derived.histogram_aggregates.

    Only what is out of date is summed, each date in one commit: it may be run at any time, also beside
    itself.

    \b
    python jobs/histogram_aggregates.py
    python jobs/histogram_aggregates.py --dates 2026-11-01..2026-11-07
    python jobs/histogram_aggregates.py --dates 2026-11-07 --again
    """
    make_dates(
        "histogram_aggregates",
        dates,
        late_days,
        lambda session, settings, chosen: histogram_aggregates(
            session, settings, chosen, late_days=late_days, again=again
        ),
        lambda made: f"{made.rows:,} rows",
        # Python does the long loops: Java's optimising compiler took more CPU time than the rest of Java.
        short=True,
        worker_imports=WORKER_IMPORTS,
        debug=debug,
    )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
