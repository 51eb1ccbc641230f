"""Keep the tables quick to read and no larger than they need be: the daily maintenance.

For each table, in this order:

1. **Compaction** of the partitions of some dates, yesterday's by default, and of a number of those before
   that have too many files, oldest first: small files become files of the target size, sorted as the table is
   meant to be. What is compacted already is left alone.
2. **Expiry** of snapshots older than some days, and of the files that only they needed.
3. **Manifests** are rewritten, so that a query reads few.
4. **Orphans**, files in the table's folder that no snapshot ever named, are deleted once they are old enough.

Readers and writers go on meanwhile: each step is an Iceberg commit of its own, and is tried again when
another commit came first. Any step may be killed; the next run goes on.

**What the drain relies on.** It finds out whether a batch is committed by its commit record in the ledger,
else by the batch id in the summary of a snapshot, else, when the history does not reach back to the batch's
beginning, by the rows, which name their raw object (`telemetry_lake.tables.commits`). So expiry never makes a
batch be committed twice. It only makes the answer expensive, a scan of a column, for a batch whose drain was
killed between commit and record and that is older than what is kept; `rebuild-ledger`, which needs the answer
for every batch without a record, is slower by as many scans. Snapshots of live tables that only appended
files are gone before this job comes: `telemetry_lake.tables.expiry` expires them within hours. Here those
follow that know the files which compaction has replaced, and with them these files.

**Staged files look like orphans** until their batch is committed, also those of a backfill that runs for
days. Therefore nothing is deleted that is younger than `ORPHAN_MIN_DAYS`, whatever the options say, and
nothing is committed that is nearly as old: `telemetry_lake.tables.late_files`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.spark.command_line import chosen_dates, dates_option, debug_option, program, reported_failures
from jobs.spark.date_job import in_turn, late_dates_option
from jobs.spark.made_dates import again_on_conflict, current_snapshot
from jobs.spark.table_checks import check_rows, date_audits
from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.settings import Role, Settings, load_settings
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition, table_names
from telemetry_lake.tables.expiry import COMPACTION_TAG
from telemetry_lake.tables.late_files import EXPIRED_MIN_DAYS, ORPHAN_MIN_DAYS
from telemetry_lake.units import MIB, DateRange

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from telemetry_lake.audits.dates import DateAudits

MAINTENANCE_RUNS: Final = "derived.maintenance_runs"
DEFAULT_DATES: Final = "yesterday"
TARGET_FILE_MAX_BYTES: Final = 256 * MIB
KEEP_LIVE_DAYS: Final = EXPIRED_MIN_DAYS
KEEP_DAYS: Final = 7
KEEP_SNAPSHOTS: Final = 10
ORPHAN_DAYS: Final = 7
COMPACTED_MIN_FILES: Final = 2
FILES_MAX_FACTOR: Final = 2
"""How many times as many files as its size needs a partition may have.

Sorting makes files smaller, so a partition may have more of them after its compaction than it needs then.
"""
LATE_DATES: Final = 7

_LIVE: Final = frozenset({LIVE_PINGS, LIVE_REJECTED_PINGS})
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long snapshots of live tables, those of other tables and files that no snapshot names are kept."""

    live_days: int = KEEP_LIVE_DAYS
    days: int = KEEP_DAYS
    orphan_days: int = ORPHAN_DAYS

    def snapshot_days(self, table: str) -> int:
        """Return how many days the snapshots of `table` are kept."""
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
    late_dates: int = 0,
    audits: "DateAudits | None" = None,
) -> Iterator[Maintained]:
    """Maintain `tables`, all by default, one after the other; record and yield what was done to each.

    Compacted are `dates`, and of the dates before that have too many files the first `late_dates`.

    A table that fails does not hold the others back: at the end the first failure is raised, FatalError or
    RetriableError. What the checks of the run's rows found is kept in `audits`.
    """
    failures: list[TelemetryLakeError] = []
    for table in tables or table_names():
        try:
            yield _maintain(session, table, dates, now, retention, target_file_bytes, late_dates)
        except TelemetryLakeError as error:
            typer.echo(f"{table}: {error}", err=True)
            failures.append(error)
    _step(lambda: _check(session, now, audits))
    if failures:
        raise failures[0]


def _maintain(
    session: "SparkSession",
    table: str,
    dates: DateRange,
    now: datetime,
    retention: Retention,
    target_file_bytes: int,
    late_dates: int,
) -> Maintained:
    from jobs.spark_session import spark_failures

    started = time.monotonic()
    before = _size(session, table)
    rewritten = compact_late(session, table, dates, target_file_bytes, late_dates)
    rewritten += compact(session, table, dates, target_file_bytes)
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


def _check(session: "SparkSession", now: datetime, audits: "DateAudits | None") -> None:
    from pyspark.sql.functions import col

    rows = session.table(MAINTENANCE_RUNS).where(col("run_at") == now)
    check_rows(rows, MAINTENANCE_RUNS, now.date(), audits)


def compact_late(
    session: "SparkSession", table: str, dates: DateRange, target_file_bytes: int, late_dates: int
) -> int:
    """Compact the first `late_dates` of the dates before `dates` that have too many files.

    These are dates that came late, that were made again, or whose maintenance did not run. Returns the number
    of files that were replaced.
    """
    if not late_dates or not _is_by_date(table):
        return 0
    late = _step(lambda: too_many_files(session, table, dates.first, target_file_bytes))

    def of_day(day: date) -> int:
        return compact(session, table, DateRange(day, day), target_file_bytes)

    return sum(in_turn(table, late, dates, of_day, late_dates=late_dates))


def too_many_files(session: "SparkSession", table: str, before: date, target_file_bytes: int) -> list[date]:
    """Return the dates before `before` that have a partition with many more files than its size needs.

    Read from manifests alone. What compaction leaves is never among them, or it would be done every day.
    """
    from pyspark.sql.functions import ceil, col, greatest, lit

    day = col("partition").getField(SUBMISSION_DATE)
    needed = greatest(lit(1), ceil(col("total_data_file_size_in_bytes") / target_file_bytes))
    found = (
        session.table(f"{table}.partitions")
        .where((day < before) & (col("file_count") > FILES_MAX_FACTOR * needed))
        .select(day.alias("day"))
        .distinct()
        .collect()
    )
    return sorted(row.day for row in found)


def compact(session: "SparkSession", table: str, dates: DateRange, target_file_bytes: int) -> int:
    """Rewrite small files of these dates as larger, sorted ones.

    Returns the number of files that were replaced.
    """
    where = f"{SUBMISSION_DATE} >= DATE '{dates.first}' AND {SUBMISSION_DATE} <= DATE '{dates.last}'"
    options = {"target-file-size-bytes": target_file_bytes, "min-input-files": COMPACTED_MIN_FILES}
    with _history_is_kept(session, table):
        result = _step(
            lambda: _call(
                session,
                "rewrite_data_files",
                table,
                strategy=_text("sort" if table_definition(table).metadata.sorted_by else "binpack"),
                options=_options(options),
                **({"where": _text(where)} if _is_by_date(table) else {}),
            )
        )
    return int(result["rewritten_data_files_count"])


def _is_by_date(table: str) -> bool:
    return SUBMISSION_DATE in (part.column for part in table_definition(table).metadata.partitioned_by)


@contextmanager
def _history_is_kept(session: "SparkSession", table: str) -> Iterator[None]:
    """Let `telemetry_lake.tables.expiry` expire nothing of the table that is newer than the present."""
    tagged = table in _LIVE and _step(lambda: current_snapshot(session, table)) is not None
    if tagged:
        tag = f"CREATE OR REPLACE TAG {COMPACTION_TAG} RETAIN 1 DAYS"
        _step(lambda: session.sql(f"ALTER TABLE {table} {tag}"))
    try:
        yield
    finally:
        if tagged:
            _step(lambda: session.sql(f"ALTER TABLE {table} DROP TAG IF EXISTS {COMPACTION_TAG}"))


def expire(session: "SparkSession", table: str, older_than: datetime) -> int:
    """Expire snapshots older than that, but keep the last `KEEP_SNAPSHOTS`.

    Returns the number of files that were deleted.
    """
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
    """Delete files in the table's folder that are older than that and that no snapshot names.

    Returns their number.
    """
    # Listing by prefix goes through Iceberg's own file access; Spark's wheel has no Hadoop file system for
    # S3.
    return len(
        _rows(session, "remove_orphan_files", table, older_than=_timestamp(older_than), prefix_listing="true")
    )


def _step(act: Callable[[], Result]) -> Result:
    from jobs.spark_session import spark_failures

    def once() -> Result:
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
    dates: Annotated[str, dates_option("compact")] = DEFAULT_DATES,
    table: Annotated[
        list[str] | None, typer.Option(help="Only this table; may be given more than once. [default: all]")
    ] = None,
    keep_live_days: Annotated[
        int,
        typer.Option(
            min=EXPIRED_MIN_DAYS,
            max=90,
            help="How many days snapshots of live tables that replaced files are kept.",
        ),
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
    late_dates: Annotated[int, late_dates_option("compacted")] = LATE_DATES,
    debug: Annotated[bool, debug_option()] = False,
) -> None:
    """Compact, expire snapshots, rewrite manifests and remove orphan files, and print what that saved.

    Readers and writers go on meanwhile, and it may be killed and run again at any time.

    \b
    python jobs/maintenance.py
    python jobs/maintenance.py --table stable.pings --dates 2026-11-01..2026-11-07
    """
    now = datetime.now(UTC)
    names = table_names()
    if unknown := [name for name in table or () if name not in names]:
        raise typer.BadParameter(
            f"no table {', '.join(unknown)}; there are {', '.join(names)}", param_hint="--table"
        )
    chosen = chosen_dates(dates, now=now)
    with reported_failures(debug=debug):
        _run(
            load_settings(role=Role.MAINTENANCE),
            chosen,
            table,
            Retention(keep_live_days, keep_days, orphan_days),
            target_file_bytes,
            late_dates,
            now=now,
            debug=debug,
        )


def _run(
    settings: Settings,
    dates: DateRange,
    tables: Sequence[str] | None,
    retention: Retention,
    target_file_bytes: int,
    late_dates: int,
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
            late_dates=late_dates,
            audits=date_audits(settings),
        ):
            typer.echo(str(done))
    finally:
        session.stop()


if __name__ == "__main__":
    program(main)()
