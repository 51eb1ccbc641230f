"""The steps of a backfill that Spark spreads over a cluster, or that need all records of a date at once.

Units are dealt out to processes, and the duplicates of a date are found with one shuffle of its document ids.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import typer

from telemetry_lake.backfill.backfill import Backfill, units_of_day
from telemetry_lake.backfill.journal import Decision
from telemetry_lake.backfill.plan import Manifest
from telemetry_lake.backfill.progress import progress
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.backfill.verify import Verification
from telemetry_lake.columns import DOCUMENT_ID, DOCUMENT_TYPE, NAMESPACE, RAW_OBJECT, SUBMISSION_DATE
from telemetry_lake.failures import FatalError, TelemetryLakeError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.raw.submission_path import TELEMETRY_NAMESPACE
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import HISTORIC_PREFIX
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS
from telemetry_lake.units import DateRange

if TYPE_CHECKING:
    from pyspark import RDD
    from pyspark.sql import DataFrame, SparkSession

    from telemetry_lake.backfill.publish_date import DatePublisher
    from telemetry_lake.backfill.units.worker_entry import FailedUnit, SettledUnit
    from telemetry_lake.backfill.verify import Duplicates

PROGRESS_EVERY_SECONDS: Final = 10.0
PARALLEL_UNITS: Final = 8


def run(
    session: "SparkSession",
    backfill: Backfill,
    *,
    parallel_units: int = PARALLEL_UNITS,
    bytes_per_second: float | None = None,
) -> "list[FailedUnit]":
    """Copy every unit that has no tally, `parallel_units` at a time.

    `bytes_per_second` limits what is read from the archive by all processes together. Returns the units that
    failed.
    """
    from jobs.spark_session import spark_failures
    from telemetry_lake.backfill.units.worker_entry import copy_units

    manifest = backfill.manifest()
    finished = backfill.journal.finished_units(backfill.id)
    units = [unit for unit in backfill.units() if unit.name not in finished]
    if not units:
        return []
    streams = min(parallel_units, len(units))
    share = bytes_per_second / streams if bytes_per_second else None
    work = partial(copy_units, backfill.settings, backfill.id, backfill.selection.archive, share)
    with spark_failures(), _shown_progress(backfill, manifest):
        # Dealt out one by one, so that each process has some of every date.
        dealt = [unit for start in range(streams) for unit in units[start::streams]]
        return session.sparkContext.parallelize(dealt, streams).mapPartitions(work).collect()


def verify(session: "SparkSession", backfill: Backfill, dates: DateRange | None) -> list[Verification]:
    """Verify `dates`, by default all, and keep their reports.

    Returns the reports.
    """
    from jobs.spark_session import spark_failures
    from telemetry_lake.backfill.units.worker_entry import check_units
    from telemetry_lake.backfill.verify import verify_date

    manifest = backfill.manifest()
    plans = {reference.date: backfill.journal.plan(reference) for reference in manifest.dates}
    tallies = backfill.read_tallies()
    listed = backfill.list_again(plans.values())
    reports: list[Verification] = []
    days = backfill.days(tallies, dates)
    for day in days:
        plan = plans.get(day) or plans.get(None)
        units = units_of_day(plan, tallies, day)
        copied = [tallies[unit.name] for unit in units if unit.name in tallies]
        with spark_failures(), ThreadPoolExecutor(1) as beside:
            # Spark takes seconds to plan this whatever there is to count; files are read meanwhile.
            counting = beside.submit(count_left_out, session, backfill.settings, day, copied)
            check = partial(check_units, backfill.settings, backfill.id, day)
            checks = _dealt(session, copied).mapPartitions(check).collect() if copied else []
            duplicates = counting.result()
        report = verify_date(
            backfill.id,
            plan,
            day,
            units,
            tallies,
            {check.unit: check for check in checks},
            duplicates,
            listed.get(plan.date, []) if plan else [],
            verified_at=datetime.now(UTC),
        )
        backfill.journal.put_report(backfill.id, day, report)
        reports.append(report)
        typer.echo(
            f"{day} is verified, {report.total('records'):,} records; {len(reports)} of {len(days)} dates",
            err=True,
        )
    return reports


def publish(session: "SparkSession", backfill: Backfill, publisher: "DatePublisher", day: date) -> Decision:
    """Publish a date that is verified, unless that was done.

    Returns what the date consists of. Raises GateFailed when the verification or a loss stops it, and what
    `DatePublisher` raises.
    """
    from telemetry_lake.backfill.publish_date import raise_if_stopped

    decision = publisher.decided(day)
    if decision is None:
        report = backfill.journal.report(backfill.id, day, Verification)
        raise_if_stopped(report, backfill.journal.accepted(backfill.id, day), day)
        decision = publisher.decide(_settle(session, backfill, publisher.next_number(day), day))
    publisher.commit(decision)
    return decision


def judged_records(
    session: "SparkSession", settings: Settings, day: date, tallies: Sequence[Tally]
) -> "DataFrame":
    """Return the records of a date: unit, raw_object, position, error_type, and why each is left out.

    `is_first` marks one record of each document id. `reason` is null for a record that goes into a table. Of
    records with the same document id (in lower case) and the same content, the first by path, offset and
    number stays, the others are `duplicate`. Of what then is left and was converted, the first of a document
    id and type stays, the others are `conflicting`; rejected records keep their bytes and conflict with
    nothing. Of what then is left and was converted, those that arrived live are `arrived_live`. Types do not
    count where a unit was copied by a version that did not note them.
    """
    from pyspark.sql import Window
    from pyspark.sql.functions import col, lit, row_number
    from pyspark.sql.functions import when as case_when

    from telemetry_lake.backfill.units.worker_entry import RECORDS_SPARK_SCHEMA, date_records
    from telemetry_lake.backfill.verify import LIVE_WINDOW_DAYS, LeftOut

    texts = session.createDataFrame([(tally.model_dump_json(),) for tally in tallies], "tally string")
    records = texts.repartition(_streams(session, tallies)).mapInArrow(
        partial(date_records, settings, day), RECORDS_SPARK_SCHEMA
    )
    # One shuffle serves all windows: each splits what the first keeps together.
    order = [col("path"), col("offset"), col("number")]
    same_id = Window.partitionBy("document_id").orderBy(*order)
    same_content = Window.partitionBy("document_id", "rejected", "content").orderBy(*order)
    document = ["document_id", *(["document_type"] if all(tally.has_types for tally in tallies) else [])]
    same_rank = Window.partitionBy(*document, "rejected", "nth").orderBy(*order)
    window = timedelta(days=LIVE_WINDOW_DAYS)
    live = (
        session.table(LIVE_PINGS)
        .where(col(SUBMISSION_DATE).between(lit(day - window), lit(day + window)))
        .where(~col(RAW_OBJECT).startswith(HISTORIC_PREFIX))
        .where(col(NAMESPACE) == TELEMETRY_NAMESPACE)
        .select(col(DOCUMENT_ID).cast("binary").alias("document_id"), DOCUMENT_TYPE)
        .select(*document, lit(True).alias("is_live"))
        .distinct()
    )
    reason = (
        case_when(col("nth") > 1, LeftOut.DUPLICATE.value)
        .when(~col("rejected") & (col("nth_content") > 1), LeftOut.CONFLICTING.value)
        .when(~col("rejected") & col("is_live"), LeftOut.ARRIVED_LIVE.value)
    )
    return (
        records.repartition("document_id")
        .withColumn("rejected", col("error_type").isNotNull())
        .withColumn("is_first", row_number().over(same_id) == 1)
        .withColumn("nth", row_number().over(same_content))
        .withColumn("nth_content", row_number().over(same_rank))
        .join(live, document, "left")
        .select("unit", "raw_object", "position", "is_first", "error_type", reason.alias("reason"))
    )


def count_left_out(
    session: "SparkSession", settings: Settings, day: date, tallies: Sequence[Tally]
) -> "Duplicates":
    """Count the records of each unit that go into no table, and the document ids of the date."""
    from pyspark.sql.functions import col, count, count_if, lit

    from telemetry_lake.backfill.verify import Duplicates, LeftOut, LeftOutCount

    if not tallies:
        return Duplicates(left_out=(), document_ids=0)
    counts = (
        judged_records(session, settings, day, tallies)
        .groupBy("unit", "reason", "error_type")
        .agg(count(lit(1)).alias("records"), count_if(col("is_first")).alias("document_ids"))
        .collect()
    )
    return Duplicates(
        left_out=tuple(
            LeftOutCount(
                unit=row["unit"],
                reason=LeftOut(row["reason"]),
                error_type=row["error_type"],
                count=row["records"],
            )
            for row in counts
            if row["reason"] is not None
        ),
        document_ids=sum(row["document_ids"] for row in counts),
    )


def settled_units(
    session: "SparkSession", backfill: Backfill, day: date, tallies: Sequence[Tally]
) -> "list[SettledUnit]":
    """Return the files of each unit for a date, without the records that are left out."""
    from pyspark.sql.functions import collect_list, struct

    from jobs.spark_session import spark_failures
    from telemetry_lake.backfill.units.worker_entry import SettledUnit, settle_units

    if not tallies:
        return []
    with spark_failures():
        judged = judged_records(session, backfill.settings, day, tallies)
        left_out = (
            judged.where(judged.reason.isNotNull())
            .groupBy("unit")
            .agg(collect_list(struct("raw_object", "position", "reason")).alias("left_out"))
        )
        texts = [(tally.unit, tally.model_dump_json()) for tally in tallies]
        answers = (
            session.createDataFrame(texts, "unit string, tally string")
            .join(left_out, "unit", "left")
            .select("tally", "left_out")
            .repartition(_streams(session, tallies))
            .mapInArrow(partial(settle_units, backfill.settings, backfill.id, day), "settled string")
            .collect()
        )
    return [SettledUnit.model_validate_json(row[0]) for row in answers]


def _settle(session: "SparkSession", backfill: Backfill, number: int, day: date) -> Decision:
    """Return what a publication is to consist of.

    Raises FatalError when rows and records that are left out do not add up to the records of the units.
    """
    tallies = [tally for tally in backfill.read_tallies().values() if day in tally.dates]
    settled = settled_units(session, backfill, day, tallies)
    files = [file for unit in settled for file in unit.files]
    reasons = Counter[str]()
    for unit in settled:
        reasons.update(unit.left_out)
    tables = (LIVE_PINGS, LIVE_REJECTED_PINGS)
    rows = {table: sum(file.rows for file in files if file.table == table) for table in tables}
    records = sum(tally.dates[day].records for tally in tallies)
    if records != sum(rows.values()) + reasons.total():
        raise FatalError(
            f"{day}: {records} records are not {rows} rows and {dict(reasons)} left out: nothing is published"
        )
    return Decision(
        backfill_id=backfill.id,
        date=day,
        number=number,
        decided_at=datetime.now(UTC),
        files={table: tuple(sorted(file.uri for file in files if file.table == table)) for table in tables},
        rows=rows,
        raw_objects=backfill.raw_objects(tallies),
        left_out=dict(sorted(reasons.items())),
    )


def _streams(session: "SparkSession", work: Sequence[object]) -> int:
    return max(1, min(session.sparkContext.defaultParallelism, len(work)))


def _dealt(session: "SparkSession", tallies: Sequence[Tally]) -> "RDD[Tally]":
    return session.sparkContext.parallelize(tallies, _streams(session, tallies))


@contextmanager
def _shown_progress(backfill: Backfill, manifest: Manifest) -> Iterator[None]:
    """Print how far the backfill has come every `PROGRESS_EVERY_SECONDS` and at the end of the block."""
    over = threading.Event()

    def show() -> None:
        typer.echo(str(progress(manifest, backfill.read_tallies().values())), err=True)

    def watch() -> None:
        while not over.wait(PROGRESS_EVERY_SECONDS):
            try:
                show()
            except TelemetryLakeError as error:
                typer.echo(f"the progress cannot be read now: {error}", err=True)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    show()


@contextmanager
def backfill_session(backfill: Backfill, step: str, *, debug: bool) -> "Iterator[SparkSession]":
    """Start Spark for a step of a backfill, and stop it at the end of the block."""
    from jobs.spark_session import open_session

    typer.echo("starting Spark", err=True)
    session = open_session(
        backfill.settings, f"backfill {step} {backfill.selection}", short=True, debug=debug
    )
    # Python processes of this machine find the project as this one did, whatever folder it was started in.
    session.sparkContext.environment.setdefault("PYTHONPATH", str(PROJECT_ROOT))
    try:
        yield session
    finally:
        session.stop()
