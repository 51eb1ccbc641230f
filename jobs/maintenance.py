"""Keep the tables quick to read and no larger than they need be: the daily maintenance.

For each table, in this order:

1. **Compaction** of the partitions of some dates, yesterday's by default: small files become files of the
   target size, sorted as the table is meant to be. What is compacted already is left alone.
2. **Expiry** of snapshots older than some days, and of the files that only they needed.
3. **Manifests** are rewritten, so that a query reads few.
4. **Orphans**, files in the table's folder that no snapshot ever named, are deleted once they are old enough.

Readers and writers go on meanwhile: each step is an Iceberg commit of its own, and is tried again when
somebody else was quicker. Any step may be killed; the next run goes on.

**What the drain relies on.** It finds out whether a batch is committed by its commit record in the ledger,
else by the batch id in the summary of a snapshot, else, when the history does not reach back to the batch's
beginning, by the rows, which name their raw object (`telemetry_lake.publish`). So expiry never makes a
batch be committed twice. It only makes the question expensive, a scan of a column, for a batch that died
between its commit and its record and is older than what is kept; `rebuild-ledger`, which asks that of every
batch without a record, is slower by so many scans. That is why live tables keep `KEEP_LIVE_DAYS`: more than
the six hours in which the reconciler sends such a batch again.

**Staged files look like orphans** until their batch is committed, also those of a backfill that runs for
days. Therefore nothing is taken that is younger than `ORPHAN_MIN_DAYS`, whatever is asked for.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

if not __package__:  # started as a file: its folder is on the path, the project's is not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.command_line import chosen_dates, reported_failures
from jobs.date_range import DateRange
from jobs.made_dates import again_on_conflict
from jobs.table_checks import check_rows
from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.settings import MIB, Settings, load_settings
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition, table_names

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MAINTENANCE_RUNS: Final = "derived.maintenance_runs"
DEFAULT_DATES: Final = "yesterday"
TARGET_FILE_MAX_BYTES: Final = 256 * MIB
KEEP_LIVE_DAYS: Final = 2
"""The drain makes thousands of snapshots a day, and each commit writes the list of all of them."""
KEEP_DAYS: Final = 7
KEEP_SNAPSHOTS: Final = 10
ORPHAN_MIN_DAYS: Final = 3
ORPHAN_DAYS: Final = 7
COMPACTED_MIN_FILES: Final = 2

_LIVE: Final = frozenset({LIVE_PINGS, LIVE_REJECTED_PINGS})


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept: snapshots of live tables, those of others, and files that no snapshot names."""

    live_days: int = KEEP_LIVE_DAYS
    days: int = KEEP_DAYS
    orphan_days: int = ORPHAN_DAYS

    def snapshot_days(self, table: str) -> int:
        """How many days the snapshots of `table` are kept."""
        return self.live_days if table in _LIVE else self.days


@dataclass(frozen=True, slots=True)
class Size:
    """What a table consists of at one moment."""

    files: int
    bytes: int
    manifests: int
    snapshots: int


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done to one table: the columns of derived.maintenance_runs, in their order."""

    run_date: date
    run_at: datetime
    table_name: str
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    manifests_before: int
    manifests_after: int
    snapshots_before: int
    snapshots_after: int
    files_rewritten: int
    files_deleted: int
    orphans_deleted: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.table_name}: {self.files_before:,} files, {self.bytes_before / MIB:,.1f} MiB -> "
            f"{self.files_after:,} files, {self.bytes_after / MIB:,.1f} MiB "
            f"({self.files_rewritten:,} rewritten); "
            f"{self.snapshots_before:,} -> {self.snapshots_after:,} snapshots; {self.manifests_before:,} -> "
            f"{self.manifests_after:,} manifests; {self.files_deleted:,} files and "
            f"{self.orphans_deleted:,} orphans deleted; {self.seconds:.1f} s"
        )


def maintain(
    session: "SparkSession",
    dates: DateRange,
    *,
    now: datetime,
    tables: Sequence[str] | None = None,
    retention: Retention = Retention(),
    target_file_bytes: int = TARGET_FILE_MAX_BYTES,
) -> Iterator[Maintained]:
    """Maintain `tables`, all by default, one after the other; what was done to each, which is also recorded.

    A table that fails does not hold the others back: at the end the first failure is raised, FatalError or
    RetriableError.
    """
    failures: list[TelemetryLakeError] = []
    for table in tables or table_names():
        try:
            yield _maintain(session, table, dates, now, retention, target_file_bytes)
        except TelemetryLakeError as error:
            typer.echo(f"{table}: {error}", err=True)
            failures.append(error)
    _step(lambda: _check(session, now))
    if failures:
        raise failures[0]


def _maintain(
    session: "SparkSession",
    table: str,
    dates: DateRange,
    now: datetime,
    retention: Retention,
    target_file_bytes: int,
) -> Maintained:
    from jobs.spark_session import spark_failures

    started = time.monotonic()
    before = _size(session, table)
    rewritten = _step(lambda: compact(session, table, dates, target_file_bytes))
    deleted = _step(lambda: expire(session, table, now - timedelta(days=retention.snapshot_days(table))))
    _step(lambda: _call(session, "rewrite_manifests", table))
    orphan_days = max(retention.orphan_days, ORPHAN_MIN_DAYS)
    orphans = _step(lambda: remove_orphans(session, table, now - timedelta(days=orphan_days)))
    after = _size(session, table)
    done = Maintained(
        now.date(),
        now,
        table,
        before.files,
        after.files,
        before.bytes,
        after.bytes,
        before.manifests,
        after.manifests,
        before.snapshots,
        after.snapshots,
        rewritten,
        deleted,
        orphans,
        round(time.monotonic() - started, 3),
    )
    with spark_failures():
        row = tuple(getattr(done, field.name) for field in fields(Maintained))
        schema = session.table(MAINTENANCE_RUNS).schema
        session.createDataFrame([row], schema).coalesce(1).writeTo(MAINTENANCE_RUNS).append()
    return done


def _check(session: "SparkSession", now: datetime) -> None:
    from pyspark.sql.functions import col

    rows = session.table(MAINTENANCE_RUNS).where(col("run_at") == now)
    for warning in check_rows(rows, MAINTENANCE_RUNS, f"{now:%Y-%m-%d %H:%M}"):
        typer.echo(f"warning: {warning}", err=True)


def compact(session: "SparkSession", table: str, dates: DateRange, target_file_bytes: int) -> int:
    """Rewrite small files of these dates as larger, sorted ones; how many were replaced."""
    metadata = table_definition(table).metadata
    by_date = SUBMISSION_DATE in (part.column for part in metadata.partitioned_by)
    where = f"{SUBMISSION_DATE} >= DATE '{dates.first}' AND {SUBMISSION_DATE} <= DATE '{dates.last}'"
    result = _call(
        session,
        "rewrite_data_files",
        table,
        strategy=_text("sort" if metadata.sorted_by else "binpack"),
        options=_options(
            {"target-file-size-bytes": target_file_bytes, "min-input-files": COMPACTED_MIN_FILES}
        ),
        **({"where": _text(where)} if by_date else {}),
    )
    return int(result["rewritten_data_files_count"])


def expire(session: "SparkSession", table: str, older_than: datetime) -> int:
    """Expire snapshots older than that, but for the last few; how many files were deleted."""
    result = _call(
        session,
        "expire_snapshots",
        table,
        older_than=_timestamp(older_than),
        retain_last=str(KEEP_SNAPSHOTS),
        stream_results="true",
    )
    return sum(int(count or 0) for name, count in result.items() if name.startswith("deleted_"))


def remove_orphans(session: "SparkSession", table: str, older_than: datetime) -> int:
    """Delete files in the table's folder that are older than that and that no snapshot names; how many."""
    # Listing by prefix goes through Iceberg's own file access; Spark's wheel has no Hadoop file system for
    # S3.
    return len(
        _rows(session, "remove_orphan_files", table, older_than=_timestamp(older_than), prefix_listing="true")
    )


def _step(act: Callable[[], Any]) -> Any:
    from jobs.spark_session import spark_failures

    def once() -> Any:
        with spark_failures():
            return act()

    return again_on_conflict(once)


def _call(session: "SparkSession", procedure: str, table: str, **arguments: str) -> dict[str, Any]:
    rows = _rows(session, procedure, table, **arguments)
    return rows[0] if rows else {}


def _rows(session: "SparkSession", procedure: str, table: str, **arguments: str) -> list[dict[str, Any]]:
    catalog = session.conf.get("spark.sql.defaultCatalog")
    given = ", ".join(f"{name} => {value}" for name, value in {"table": _text(table), **arguments}.items())
    return [row.asDict() for row in session.sql(f"CALL {catalog}.system.{procedure}({given})").collect()]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _options(options: Mapping[str, int]) -> str:
    return f"map({', '.join(f'{_text(name)}, {_text(str(value))}' for name, value in options.items())})"


def _timestamp(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC'"


def _size(session: "SparkSession", table: str) -> Size:
    from pyspark.sql.functions import count
    from pyspark.sql.functions import sum as total

    from jobs.spark_session import spark_failures

    with spark_failures():
        session.sql(f"REFRESH TABLE {table}")
        (files,) = (
            session.table(f"{table}.files")
            .agg(count("*").alias("files"), total("file_size_in_bytes").alias("bytes"))
            .collect()
        )
        return Size(
            int(files.files),
            int(files.bytes or 0),
            session.table(f"{table}.manifests").count(),
            session.table(f"{table}.snapshots").count(),
        )


def main(
    dates: Annotated[
        str,
        typer.Option(
            help="Submission dates (UTC) to compact: FIRST..LAST or one date; YYYY-MM-DD, today or yesterday."
        ),
    ] = DEFAULT_DATES,
    table: Annotated[
        list[str] | None, typer.Option(help="Only this table; may be given more than once. [default: all]")
    ] = None,
    keep_live_days: Annotated[
        int, typer.Option(min=1, max=90, help="How many days the snapshots of live tables are kept.")
    ] = KEEP_LIVE_DAYS,
    keep_days: Annotated[
        int, typer.Option(min=1, max=365, help="How many days the snapshots of other tables are kept.")
    ] = KEEP_DAYS,
    orphan_days: Annotated[
        int,
        typer.Option(
            min=ORPHAN_MIN_DAYS,
            max=365,
            help="How old a file has to be that no snapshot names, to be deleted.",
        ),
    ] = ORPHAN_DAYS,
    target_file_bytes: Annotated[
        int, typer.Option(min=MIB, help="How large files are that compaction makes.")
    ] = TARGET_FILE_MAX_BYTES,
    debug: Annotated[bool, typer.Option("--debug", help="Show Spark's own log and whole traces.")] = False,
) -> None:
    """Compact, expire snapshots, rewrite manifests and remove orphan files; says what it saved.

    Readers and writers go on meanwhile, and it may be killed and run again at any time.

    \b
    python jobs/maintenance.py
    python jobs/maintenance.py --table stable.pings --dates 2026-11-01..2026-11-07
    """
    now = datetime.now(UTC)
    known = table_names()
    if unknown := [name for name in table or () if name not in known]:
        raise typer.BadParameter(
            f"no table {', '.join(unknown)}; there are {', '.join(known)}", param_hint="--table"
        )
    chosen = chosen_dates(dates, now=now)
    with reported_failures(debug=debug):
        _run(
            load_settings(),
            chosen,
            table,
            Retention(keep_live_days, keep_days, orphan_days),
            target_file_bytes,
            now=now,
            debug=debug,
        )


def _run(
    settings: Settings,
    dates: DateRange,
    tables: Sequence[str] | None,
    retention: Retention,
    target_file_bytes: int,
    *,
    now: datetime,
    debug: bool,
) -> None:
    from jobs.spark_session import open_session

    typer.echo("starting Spark", err=True)
    session = open_session(settings, f"maintenance {dates}", debug=debug)
    try:
        for done in maintain(
            session,
            dates,
            now=now,
            tables=tables,
            retention=retention,
            target_file_bytes=target_file_bytes,
        ):
            typer.echo(str(done))
    finally:
        session.stop()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
