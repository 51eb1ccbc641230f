"""Copy the historic archive of the previous Hadoop backend into the lake, and prove that it arrived.

    plan → run → verify → publish

Each command takes the same range of dates and goes on where the one before stopped; docs/backfill.md says
how. The core (`telemetry_lake.backfill`) does the work; here Spark spreads it over the cluster: units are
dealt out to processes, and the duplicates of a date are found with one shuffle of its document ids.
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

if not __package__:  # started as a file: its folder is on the path, the project's is not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer
from pydantic import ValidationError

from jobs.command_line import chosen_dates, reported_failures
from jobs.date_range import DateRange
from telemetry_lake.backfill.journal import AcceptedLoss, Decision, Journal
from telemetry_lake.backfill.plan import (
    UNDATED,
    UNIT_MAX_BYTES,
    Archive,
    DatePlan,
    Manifest,
    PlannedFile,
    Selection,
    Unit,
    directories_of,
    plan_dates,
)
from telemetry_lake.backfill.progress import date_states, progress
from telemetry_lake.backfill.report import report_text
from telemetry_lake.backfill.source import SourceFile, list_source
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.backfill.verify import LOSSES, Verification
from telemetry_lake.columns import DOCUMENT_ID, RAW_OBJECT, SUBMISSION_DATE
from telemetry_lake.failures import FatalError, GateFailed, RetriableError, TelemetryLakeError
from telemetry_lake.object_keys import HISTORIC_PREFIX, historic_raw_object
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.settings import MIB, PROJECT_ROOT, Settings, SourceSettings, load_settings
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS

if TYPE_CHECKING:
    from pyspark import RDD
    from pyspark.sql import DataFrame, SparkSession

    from telemetry_lake.backfill.on_executors import FailedUnit, SettledUnit
    from telemetry_lake.backfill.publish_date import DatePublisher
    from telemetry_lake.backfill.verify import Duplicates

PROGRESS_EVERY_SECONDS: Final = 10.0
PARALLEL_UNITS: Final = 8
FAILURES_SHOWN: Final = 10


@dataclass(slots=True)
class Backfill:
    """One backfill: what it copies, and where its records are."""

    settings: Settings
    selection: Selection
    journal: Journal
    tallies: dict[str, Tally] = field(default_factory=dict)
    """Those that were read so far; a tally never changes."""

    @property
    def id(self) -> str:
        """The backfill's id."""
        return self.selection.backfill_id

    def manifest(self) -> Manifest:
        """The manifest; FatalError when nothing is planned."""
        manifest = self.journal.manifest(self.id)
        if manifest is None:
            raise FatalError(
                f"no backfill of {self.selection} is planned for this archive and label: run `plan` first"
            )
        return manifest

    def read_tallies(self, units: Iterable[str] | None = None) -> dict[str, Tally]:
        """The tallies of the finished ones of `units`, by default of all."""
        names = self.journal.finished_units(self.id) if units is None else set(units)
        for tally in self.journal.tallies(self.id, names - set(self.tallies)):
            self.tallies[tally.unit] = tally
        return {name: self.tallies[name] for name in sorted(names) if name in self.tallies}


def plan(backfill: Backfill, unit_max_bytes: int = UNIT_MAX_BYTES) -> Manifest:
    """List the archive and keep the plan, unless that was done; the plan that is there.

    Raises ConfigurationError, RetriableError, and FatalError when another backfill copies the same files.
    """
    if (there := backfill.journal.manifest(backfill.id)) is not None:
        return there
    for other in backfill.journal.manifests():
        if backfill.selection.overlaps(other.selection):
            raise FatalError(
                f"the backfill {other.backfill_id} of {other.selection} copies files of the same dates from "
                f"{', '.join(other.selection.archive.directories)}; what is copied twice would be published "
                "twice. Give the same directories, or ones that have nothing in common"
            )
    dates = [
        backfill.journal.put_plan(backfill.id, of_date)
        for of_date in plan_dates(
            backfill.selection, backfill.settings.backfill.source, unit_max_bytes=unit_max_bytes
        )
    ]
    return backfill.journal.begin(
        Manifest(
            backfill_id=backfill.id,
            created_at=datetime.now(UTC),
            selection=backfill.selection,
            dates=tuple(dates),
        )
    )


def run(
    session: "SparkSession",
    backfill: Backfill,
    *,
    parallel_units: int = PARALLEL_UNITS,
    bytes_per_second: float | None = None,
) -> "list[FailedUnit]":
    """Copy every unit that has no tally, `parallel_units` at a time; those that failed.

    `bytes_per_second` limits what is read from the archive, by all processes together.
    """
    from jobs.spark_session import spark_failures
    from telemetry_lake.backfill.on_executors import copy_units

    manifest = backfill.manifest()
    finished = backfill.journal.finished_units(backfill.id)
    units = [unit for unit in _units(backfill, manifest) if unit.name not in finished]
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
    """Verify dates, by default all; their reports, which are kept as well."""
    from jobs.spark_session import spark_failures
    from telemetry_lake.backfill.on_executors import check_units
    from telemetry_lake.backfill.verify import verify_date

    manifest = backfill.manifest()
    plans = {reference.date: backfill.journal.plan(reference) for reference in manifest.dates}
    tallies = backfill.read_tallies()
    listed = _listed_again(backfill, plans.values())
    reports: list[Verification] = []
    days = _days(manifest, tallies, dates)
    for day in days:
        of_date = plans.get(day) or plans.get(None)
        units = _units_of(of_date, tallies, day)
        copied = [tallies[unit.name] for unit in units if unit.name in tallies]
        with spark_failures(), ThreadPoolExecutor(1) as beside:
            # Spark takes seconds to plan this whatever there is to count; files are read meanwhile.
            counting = beside.submit(count_left_out, session, backfill.settings, day, copied)
            check = partial(check_units, backfill.settings, backfill.id, day)
            checks = _dealt(session, copied).mapPartitions(check).collect() if copied else []
            duplicates = counting.result()
        report = verify_date(
            backfill.id,
            of_date,
            day,
            units,
            tallies,
            {check.unit: check for check in checks},
            duplicates,
            listed.get(of_date.date, []) if of_date else [],
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
    """Publish a date that is verified, unless that was done; what it consists of.

    Raises GateFailed when the verification or a loss stops it, and what `DatePublisher` raises.
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
    """The records of a date: unit, raw_object, position, error_type, and why each is left out.

    `is_first` marks one record of each document id. `reason` is null for a record that goes into a table. Of
    records with the same document id (in lower case) and the same content, the first by path, offset and
    number stays, the others are `duplicate`. Of what then is left and was converted, the first of a document
    id stays, the others are `conflicting`; rejected records keep their bytes and conflict with nothing. Of
    what then is left and was converted, those that arrived live are `arrived_live`.
    """
    from pyspark.sql import Window
    from pyspark.sql.functions import col, lit, row_number
    from pyspark.sql.functions import when as case_when

    from telemetry_lake.backfill.on_executors import RECORDS_SPARK_SCHEMA, date_records
    from telemetry_lake.backfill.verify import LIVE_WINDOW_DAYS, LeftOut

    texts = session.createDataFrame([(tally.model_dump_json(),) for tally in tallies], "tally string")
    records = texts.repartition(_streams(session, tallies)).mapInArrow(
        partial(date_records, settings, day), RECORDS_SPARK_SCHEMA
    )
    # One shuffle does for all windows: each splits what this one keeps together.
    order = [col("path"), col("offset"), col("number")]
    of_id = Window.partitionBy("document_id").orderBy(*order)
    of_content = Window.partitionBy("document_id", "rejected", "content").orderBy(*order)
    of_contents = Window.partitionBy("document_id", "rejected", "nth").orderBy(*order)
    window = timedelta(days=LIVE_WINDOW_DAYS)
    live = (
        session.table(LIVE_PINGS)
        .where(col(SUBMISSION_DATE).between(lit(day - window), lit(day + window)))
        .where(~col(RAW_OBJECT).startswith(HISTORIC_PREFIX))
        .select(col(DOCUMENT_ID).cast("binary").alias("document_id"), lit(True).alias("is_live"))
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
        .withColumn("is_first", row_number().over(of_id) == 1)
        .withColumn("nth", row_number().over(of_content))
        .withColumn("nth_content", row_number().over(of_contents))
        .join(live, "document_id", "left")
        .select("unit", "raw_object", "position", "is_first", "error_type", reason.alias("reason"))
    )


def count_left_out(
    session: "SparkSession", settings: Settings, day: date, tallies: Sequence[Tally]
) -> "Duplicates":
    """How many records of each unit go into no table, and how many document ids the date has."""
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
    """The files of each unit for a date, without the records that are left out."""
    from pyspark.sql.functions import collect_list, struct

    from jobs.spark_session import spark_failures
    from telemetry_lake.backfill.on_executors import SettledUnit, settle_units

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
    """What a publication is to consist of."""
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
        raw_objects=_raw_objects(backfill, tallies),
        left_out=dict(sorted(reasons.items())),
    )


def _listed_again(backfill: Backfill, plans: Iterable[DatePlan]) -> dict[date | None, list[PlannedFile]]:
    """The files that are now, by date, in the directories that had files when the backfill was planned."""
    directories = directories_of(file for plan in plans for file in plan.files)
    source = backfill.selection.archive.settings(backfill.settings.backfill.source)
    listed: dict[date | None, list[PlannedFile]] = {}
    if directories:
        for found in list_source(source.model_copy(update={"directories": directories})):
            if isinstance(found, SourceFile):
                listed.setdefault(found.date, []).append(PlannedFile.of(found))
    return listed


def _units(backfill: Backfill, manifest: Manifest) -> Iterator[Unit]:
    """All units of a backfill."""
    for reference in manifest.dates:
        yield from backfill.journal.plan(reference).units


def _days(manifest: Manifest, tallies: Mapping[str, Tally], dates: DateRange | None) -> list[date]:
    """The dates of a backfill: those of its directories, or those that were found in files without one."""
    found = {reference.date for reference in manifest.dates} - {None}
    for tally in tallies.values():
        found |= tally.dates.keys() | tally.problem_counts.keys()
    days = sorted(day for day in found if day is not None)
    return [day for day in days if dates is None or dates.first <= day <= dates.last]


def _units_of(of_date: DatePlan | None, tallies: Mapping[str, Tally], day: date) -> list[Unit]:
    """The units of a date: all of its plan; of files without a date, those that found some of it."""
    if of_date is None:
        return []

    def may_have_some(unit: Unit) -> bool:
        tally = tallies.get(unit.name)
        return tally is None or day in tally.dates or day in tally.problem_counts

    return [unit for unit in of_date.units if of_date.date is not None or may_have_some(unit)]


def _raw_objects(backfill: Backfill, tallies: Sequence[Tally]) -> tuple[str, ...]:
    """What `raw_object` may say in the rows of these units."""
    copied = {tally.unit for tally in tallies}
    return tuple(
        historic_raw_object(backfill.id, part.file.path, part.start)
        for unit in _units(backfill, backfill.manifest())
        if unit.name in copied
        for part in unit.slices
    )


def _streams(session: "SparkSession", work: Sequence[object]) -> int:
    return max(1, min(session.sparkContext.defaultParallelism, len(work)))


def _dealt(session: "SparkSession", tallies: Sequence[Tally]) -> "RDD[Tally]":
    return session.sparkContext.parallelize(tallies, _streams(session, tallies))


@contextmanager
def _shown_progress(backfill: Backfill, manifest: Manifest) -> Iterator[None]:
    """Tell how far the backfill has come, now and then and at the end of the block."""
    over = threading.Event()

    def tell() -> None:
        typer.echo(str(progress(manifest, backfill.read_tallies().values())), err=True)

    def watch() -> None:
        while not over.wait(PROGRESS_EVERY_SECONDS):
            try:
                tell()
            except TelemetryLakeError as error:
                typer.echo(f"the progress cannot be read now: {error}", err=True)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    tell()


app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Dates = Annotated[
    str,
    typer.Option(
        help="Dates of the archive (UTC): FIRST..LAST or one date, YYYY-MM-DD; or `undated` for the files in "
        "whose path there is none. Give every command the same."
    ),
]
Root = Annotated[
    str,
    typer.Option(help="The archive's root instead of that of the settings: webhdfs://, s3:// or file:///."),
]
Directories = Annotated[
    str, typer.Option(help="Directories below the root, with commas, instead of those of the settings.")
]
Label = Annotated[str, typer.Option(help="Makes another backfill of the same dates.")]
Days = Annotated[str, typer.Option(help="Only these dates of the backfill: FIRST..LAST or one date.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show Spark's own log and whole traces.")]


@app.command(name="plan")
def plan_command(
    dates: Dates,
    root: Root = "",
    directories: Directories = "",
    label: Label = "",
    unit_mib: Annotated[
        int, typer.Option(min=1, help="The most that one unit of work reads, in MiB.")
    ] = UNIT_MAX_BYTES // MIB,
    debug: Debug = False,
) -> None:
    """List the archive once and cut it into units of work. Planning again changes nothing."""
    with reported_failures(debug=debug):
        backfill = _backfill(dates, root, directories, label)
        manifest = plan(backfill, unit_mib * MIB)
        for reference in manifest.dates:
            of_date = backfill.journal.plan(reference)
            typer.echo(
                f"{reference.date or UNDATED}  {reference.files:,} files, {reference.bytes / MIB:,.1f} MiB, "
                f"{reference.units:,} units"
            )
            for problem in of_date.problems:
                typer.echo(f"  {problem.kind.value}: {problem.path or 'the archive'}: {problem.message}")
        typer.echo(f"backfill {backfill.id} is planned; next: run", err=True)


@app.command(name="run")
def run_command(
    dates: Dates,
    root: Root = "",
    directories: Directories = "",
    label: Label = "",
    parallel_units: Annotated[
        int, typer.Option(min=1, help="How many units are copied at the same time, on all machines together.")
    ] = PARALLEL_UNITS,
    mib_per_second: Annotated[
        float, typer.Option(min=0, help="How much may be read from the archive; 0 for no limit.")
    ] = 0,
    debug: Debug = False,
) -> None:
    """Copy and convert every unit that is not copied yet. After any failure, run it again."""
    with reported_failures(debug=debug):
        backfill = _backfill(dates, root, directories, label)
        backfill.manifest()
        with _session(backfill, "run", debug=debug) as session:
            failed = run(
                session,
                backfill,
                parallel_units=parallel_units,
                bytes_per_second=mib_per_second * MIB or None,
            )
        for unit in failed[:FAILURES_SHOWN]:
            typer.echo(f"unit {unit.unit}: {unit.error}", err=True)
        if failed:
            raise RetriableError(f"{len(failed)} units were not copied; all others were. Run it again")
        typer.echo("every unit is copied; next: verify", err=True)


@app.command(name="verify")
def verify_command(
    dates: Dates,
    root: Root = "",
    directories: Directories = "",
    label: Label = "",
    only: Days = "",
    debug: Debug = False,
) -> None:
    """Prove for each date that everything arrived, or say what did not. Nothing is visible yet."""
    with reported_failures(debug=debug):
        backfill = _backfill(dates, root, directories, label)
        with _session(backfill, "verify", debug=debug) as session:
            reports = verify(session, backfill, chosen_dates(only, option="--only") if only else None)
        for report in reports:
            typer.echo(report_text(report, backfill.journal.accepted(backfill.id, report.day)) + "\n")
        if unexplained := [str(report.day) for report in reports if report.unexplained]:
            raise GateFailed(f"not explained: differences on {', '.join(unexplained)}; see the report")
        typer.echo(f"{len(reports)} dates add up; next: publish", err=True)


@app.command(name="publish")
def publish_command(
    dates: Dates,
    root: Root = "",
    directories: Directories = "",
    label: Label = "",
    only: Days = "",
    accept_losses: Annotated[
        str, typer.Option(metavar="CLASS,…", help="Classes of losses that you accept for these dates.")
    ] = "",
    because: Annotated[str, typer.Option(help="Why they are accepted; kept with the decision.")] = "",
    debug: Debug = False,
) -> None:
    """Make every date visible whose verification found nothing unexplained; each date at once."""
    losses = [loss.strip() for loss in accept_losses.split(",") if loss.strip()]
    if unknown := sorted(set(losses) - LOSSES):
        raise typer.BadParameter(
            f"no class of losses: {', '.join(unknown)}. There are {', '.join(sorted(LOSSES))}",
            param_hint="--accept-losses",
        )
    if losses and not because.strip():
        raise typer.BadParameter("say why the losses are accepted", param_hint="--because")
    with reported_failures(debug=debug):
        backfill = _backfill(dates, root, directories, label)
        days = _days(
            backfill.manifest(),
            backfill.read_tallies(),
            chosen_dates(only, option="--only") if only else None,
        )
        for day in days:
            report = backfill.journal.report(backfill.id, day, Verification)
            for loss in set(losses) & set(report.losses if report else ()):
                accepted = AcceptedLoss(loss=loss, reason=because.strip(), accepted_at=datetime.now(UTC))
                backfill.journal.accept(backfill.id, day, accepted)
        stopped = []
        publisher = publisher_of(backfill)
        with _session(backfill, "publish", debug=debug) as session:
            for day in days:
                try:
                    decision = publish(session, backfill, publisher, day)
                except FatalError as error:
                    stopped.append(str(error))
                    continue
                rows = ", ".join(f"{count:,} rows in {table}" for table, count in decision.rows.items())
                typer.echo(f"{day}  published: {rows}")
        if stopped:
            raise GateFailed("\n".join(["not published:", *stopped]))


@app.command(name="undo")
def undo_command(
    dates: Dates,
    only: Days,
    root: Root = "",
    directories: Directories = "",
    label: Label = "",
    debug: Debug = False,
) -> None:
    """Take the dates of --only out of the tables again, and nothing else. The copies stay staged."""
    chosen = chosen_dates(only, option="--only")
    with reported_failures(debug=debug):
        backfill = _backfill(dates, root, directories, label)
        publisher = publisher_of(backfill)
        for day in _days(backfill.manifest(), backfill.read_tallies(), chosen):
            typer.echo(f"{day}  undone: {publisher.undo(day):,} rows removed")


@app.command(name="status")
def status_command(
    dates: Annotated[str, typer.Option(help="As for the other commands; without it, all backfills.")] = "",
    root: Root = "",
    directories: Directories = "",
    label: Label = "",
    debug: Debug = False,
) -> None:
    """Show how far backfills have come: units, bytes, records a second, time left, and each date's state."""
    with reported_failures(debug=debug):
        settings = load_settings()
        if dates:
            manifests = [_backfill(dates, root, directories, label).manifest()]
        else:
            manifests = _journal(settings).manifests()
        for manifest in manifests:
            backfill = Backfill(settings, manifest.selection, _journal(settings))
            tallies = backfill.read_tallies()
            selection = manifest.selection
            typer.echo(f"{selection} of {selection.archive.root_url} {selection.label}".rstrip())
            typer.echo(f"  {progress(manifest, tallies.values())}")
            for line in date_states(backfill.journal, manifest, _days(manifest, tallies, None), tallies):
                typer.echo(f"  {line}")
        if not manifests:
            typer.echo("no backfill is planned", err=True)


def _backfill(dates: str, root: str, directories: str, label: str) -> Backfill:
    undated = dates.strip().lower() == UNDATED
    chosen = None if undated else chosen_dates(dates)
    settings = load_settings()
    source = settings.backfill.source
    changes: dict[str, object] = {"root_url": root} if root else {}
    if directories:
        changes["directories"] = tuple(part.strip() for part in directories.split(","))
    if changes:
        try:
            # Through the model, so that its rules hold for what is given here too.
            source = SourceSettings.model_validate({**source.model_dump(), **changes})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise typer.BadParameter(str(first["msg"]), param_hint="--root, --directories") from error
    selection = Selection(
        archive=Archive.of(source),
        first=chosen.first if chosen else None,
        last=chosen.last if chosen else None,
        undated=undated,
        label=label,
    )
    return Backfill(settings, selection, _journal(settings))


def _journal(settings: Settings) -> Journal:
    return Journal(ObjectStore(settings.s3), settings.s3.lake_bucket)


def publisher_of(backfill: Backfill) -> "DatePublisher":
    """What publishes and undoes dates of a backfill."""
    from telemetry_lake.backfill.publish_date import DatePublisher
    from telemetry_lake.catalog import load_lake_catalog

    return DatePublisher(
        backfill.settings.drain,
        load_lake_catalog(backfill.settings),
        backfill.journal,
        backfill.selection.source_id,
        backfill.id,
    )


@contextmanager
def _session(backfill: Backfill, step: str, *, debug: bool) -> "Iterator[SparkSession]":
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


if __name__ == "__main__":
    app()
