"""Add up the histograms and measures of stable.pings by date, into derived.histogram_aggregates.

Measures are the numbers and truth values that pings have beside histograms
(`telemetry_lake.histograms.measures`). Spark divides the work among its machines and moves what belongs
together to one place; what is added up is read by pyarrow and added up by numpy
(`telemetry_lake.histograms.aggregation`). Reading the nested column through Spark alone takes longer than
everything here together.

1. Each task reads some row groups of the date's files, only the columns that are needed, and adds them up.
   What their clients have to weigh is divided by client (`_read`).
2. All pings of a client meet in one share, where they are weighed (`_sum`). A client that sent more than
   `CLIENT_MAX_PINGS` on a date is not a browser: it weighs nothing, and a share does not hold it.
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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from jobs.spark.command_line import dates_option, debug_option, program
from jobs.spark.date_job import again_option, in_turn, late_dates_option, make_dates
from jobs.spark.made_dates import (
    MadeDate,
    again_on_conflict,
    current_snapshot,
    record,
    recorded,
    replace_date,
)
from jobs.spark.table_checks import check_date, date_audits
from telemetry_lake.columns import DOCUMENT, SUBMISSION_DATE
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import Settings
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES, STABLE_PINGS
from telemetry_lake.units import DateRange

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql import DataFrame, SparkSession

DEFAULT_DATES: Final = "yesterday"
LATE_DATES: Final = 14
CLIENT_MAX_PINGS: Final = 1_000
READ_MAX_PINGS: Final = 4_096
"""The most pings that a task holds while it reads, about 60 KB each."""
DOCUMENTS_READ_AT_ONCE: Final = 64
"""Their documents are read apart, a few at a time: one can be as large as a body may be."""
SHARE_PINGS: Final = 4_096
"""The average number of pings of a share, about 6 KB each."""
ROWS_OF_A_PIECE: Final = 2_048
MERGE_SHARDS_MAX: Final = 64
WORKER_IMPORTS: Final = (
    "pandas",
    "telemetry_lake.histograms.aggregation",
    "telemetry_lake.histograms.measures",
    "telemetry_lake.tables.files",
)
"""The imports of the workers, for `open_session`; pyarrow imports pandas when it first makes an array."""

Piece = tuple[int, tuple[bytes, ...]]
"""Where to, and either sums or pings of clients with their definitions."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """The row group of a Parquet file that begins at `offset`; without an offset, the whole file."""

    location: str
    offset: int | None


def histogram_aggregates(
    session: "SparkSession", settings: Settings, dates: DateRange, *, late_dates: int = 0, again: bool = False
) -> Iterator[MadeDate]:
    """Sum those of `dates` that are out of date, and `late_dates` of those before; yield each once summed.

    `again` sums all of `dates`. Each date is replaced in one commit. Raises FatalError and RetriableError.
    """
    from jobs.spark_session import spark_failures

    asked = dates.since_ever() if late_dates else dates
    with spark_failures():
        stable = recorded(session, STABLE_PINGS, asked)
        known = recorded(session, HISTOGRAM_AGGREGATES, asked)
    new = {day for day in stable if day not in known or known[day].source != _source(stable[day])}
    forced = set(dates) if again else set()

    def make(day: date) -> MadeDate:
        return again_on_conflict(lambda: _make(session, settings, day))

    yield from in_turn(HISTOGRAM_AGGREGATES, new | forced, dates, make, late_dates=late_dates)


def _make(session: "SparkSession", settings: Settings, day: date) -> MadeDate:
    from jobs.spark_session import spark_failures

    started = time.monotonic()
    with spark_failures():
        base = current_snapshot(session, HISTOGRAM_AGGREGATES)
        # The record before the rows: what it says is never newer than what is summed.
        stable = recorded(session, STABLE_PINGS, DateRange(day, day)).get(day)
        frame = aggregated(session, settings, day)
        rows = replace_date(frame, HISTOGRAM_AGGREGATES, day, base=base)
        check_date(session, HISTOGRAM_AGGREGATES, day, date_audits(settings))
        made = MadeDate(HISTOGRAM_AGGREGATES, day, _source(stable), rows, time.monotonic() - started)
        record(session, made)
    return made


def _source(stable: MadeDate | None) -> dict[str, object]:
    return {STABLE_PINGS: stable.digest if stable else None}


def aggregated(session: "SparkSession", settings: Settings, day: date) -> "DataFrame":
    """Return the rows of derived.histogram_aggregates for one date of stable.pings, without writing them."""
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
    """Return the properties by which the date's files are reached, their parts, and their number of pings."""
    from telemetry_lake.tables.catalog import load_lake_catalog
    from telemetry_lake.tables.catalog_failures import catalog_failures

    with catalog_failures(f"reading the table {STABLE_PINGS}"):
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
    """Yield the sums of these parts, and their clients' pings divided into shares."""
    from telemetry_lake.histograms.aggregation import count_pings, merge_sums, to_bytes

    counted = []
    for part in parts:
        for pings in read_part(part, properties):
            sums, client_pings = count_pings(pings)
            counted.append(sums)
            for share, some in client_pings.split(shares):
                yield share, (to_bytes(some.pings), to_bytes(some.definitions))
    if counted:
        yield partition % shares, (to_bytes(merge_sums(counted)),)


def read_part(part: FilePart, properties: Mapping[str, str]) -> "Iterator[pa.Table]":
    """Yield the columns of a part that are needed, with the measures of the pings in place of documents."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from telemetry_lake.histograms.aggregation import MEASURES, READ, READ_AS_DICTIONARY, with_build_date
    from telemetry_lake.histograms.measures import read_measures
    from telemetry_lake.tables.files import ReadOnlyFileIO, row_group_offset

    source: Any
    with ReadOnlyFileIO(dict(properties)).new_input(part.location).open() as source:
        file = pq.ParquetFile(source, pre_buffer=True, read_dictionary=list(READ_AS_DICTIONARY))
        starts = [row_group_offset(file.metadata.row_group(number)) for number in range(file.num_row_groups)]
        groups = [number for number, start in enumerate(starts) if part.offset in (None, start)]
        if not groups:
            raise FatalError(
                f"{part.location} has no row group at {part.offset}, where its table expects one"
            )
        documents = _documents(file, groups)
        for batch in file.iter_batches(READ_MAX_PINGS, groups, columns=list(READ), use_threads=False):
            pings = with_build_date(pa.Table.from_batches([batch]))
            measures = read_measures(islice(documents, pings.num_rows))
            yield pings.append_column(MEASURES, measures)


def _documents(file: "pq.ParquetFile", groups: list[int]) -> Iterator[bytes]:
    """Yield the document of each ping; few are held at once."""
    for batch in file.iter_batches(DOCUMENTS_READ_AT_ONCE, groups, columns=[DOCUMENT], use_threads=False):
        documents: Any = batch.column(0)
        yield from documents.cast("binary").to_pylist()


def _sum(pieces: Iterable[Piece], *, shards: int) -> Iterator[Piece]:
    """Yield the sums of one share, divided by the shard that merges them."""
    from telemetry_lake.histograms.aggregation import (
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
    """Yield the sums of one shard, added up, in pieces that Spark hands on."""
    from telemetry_lake.histograms.aggregation import finished, from_bytes, merge_sums, to_bytes

    tables = from_bytes(table for _, piece in pieces for table in piece)
    if tables:
        rows = finished(merge_sums(tables))
        for start in range(0, rows.num_rows, ROWS_OF_A_PIECE):
            yield (bytearray(to_bytes(rows.slice(start, ROWS_OF_A_PIECE))),)


def _rows(batches: "Iterable[pa.RecordBatch]", *, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of pieces, with their columns in the order of `names`."""
    from telemetry_lake.histograms.aggregation import from_bytes

    for batch in batches:
        pieces: list[Any] = batch.column(0).to_pylist()
        for table in from_bytes(pieces):
            yield from table.select(list(names)).to_batches()


def main(
    dates: Annotated[str, dates_option("sum")] = DEFAULT_DATES,
    late_dates: Annotated[int, late_dates_option("summed")] = LATE_DATES,
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
        lambda session, settings, chosen: histogram_aggregates(
            session, settings, chosen, late_dates=late_dates, again=again
        ),
        lambda made: f"{made.rows:,} rows",
        # Python does the long loops: Java's optimising compiler took more CPU time than the rest of Java.
        short=True,
        worker_imports=WORKER_IMPORTS,
        debug=debug,
    )


if __name__ == "__main__":
    program(main)()
