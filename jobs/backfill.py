"""Copy the historic archive of the previous Hadoop backend into the lake, and prove that it arrived.

    plan → run → verify → publish

Each command takes the same range of dates and goes on where the one before stopped; docs/backfill.md says
how. The core (`telemetry_lake.backfill`) does the work, and Spark spreads it over the cluster
(`jobs.spark.backfill_steps`).
"""

import sys
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Final

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer
from pydantic import ValidationError

from jobs.spark.backfill_steps import PARALLEL_UNITS, backfill_session, publish, run, verify
from jobs.spark.command_line import chosen_dates, debug_option, program, reported_failures
from telemetry_lake.backfill.backfill import Backfill, journal_of, plan_backfill, publisher_of
from telemetry_lake.backfill.journal import AcceptedLoss
from telemetry_lake.backfill.plan import UNDATED, UNIT_MAX_BYTES, Archive, Selection
from telemetry_lake.backfill.progress import date_states, progress
from telemetry_lake.backfill.report import report_text
from telemetry_lake.backfill.verify import LOSSES, Verification
from telemetry_lake.failures import FatalError, GateFailed, RetriableError
from telemetry_lake.settings import Role, SourceSettings, load_settings
from telemetry_lake.units import MIB, DateRange

FAILURES_SHOWN: Final = 10

app = program(help=__doc__)

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
Debug = Annotated[bool, debug_option()]


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
        manifest = plan_backfill(backfill, unit_mib * MIB)
        for reference in manifest.dates:
            typer.echo(
                f"{reference.date or UNDATED}  {reference.files:,} files, {reference.bytes / MIB:,.1f} MiB, "
                f"{reference.units:,} units"
            )
            for problem in backfill.journal.plan(reference).problems:
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
        with backfill_session(backfill, "run", debug=debug) as session:
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
        with backfill_session(backfill, "verify", debug=debug) as session:
            reports = verify(session, backfill, _chosen_days(only))
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
            f"not a class of losses: {', '.join(unknown)}. There are {', '.join(sorted(LOSSES))}",
            param_hint="--accept-losses",
        )
    if losses and not because.strip():
        raise typer.BadParameter("say why the losses are accepted", param_hint="--because")
    with reported_failures(debug=debug):
        backfill = _backfill(dates, root, directories, label)
        days = backfill.days(backfill.read_tallies(), _chosen_days(only))
        _accept(backfill, days, losses, because.strip())
        stopped = []
        publisher = publisher_of(backfill)
        with backfill_session(backfill, "publish", debug=debug) as session:
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
        for day in backfill.days(backfill.read_tallies(), chosen):
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
        settings = load_settings(role=Role.JOBS)
        if dates:
            manifests = [_backfill(dates, root, directories, label).manifest()]
        else:
            manifests = journal_of(settings).manifests()
        for manifest in manifests:
            backfill = Backfill(settings, manifest.selection, journal_of(settings))
            tallies = backfill.read_tallies()
            selection = manifest.selection
            typer.echo(f"{selection} of {selection.archive.root_url} {selection.label}".rstrip())
            typer.echo(f"  {progress(manifest, tallies.values())}")
            for line in date_states(backfill.journal, manifest, backfill.days(tallies, None), tallies):
                typer.echo(f"  {line}")
        if not manifests:
            typer.echo("no backfill is planned", err=True)


def _backfill(dates: str, root: str, directories: str, label: str) -> Backfill:
    """Return the backfill that the options mean; raises typer.BadParameter for what they cannot be."""
    undated = dates.strip().lower() == UNDATED
    chosen = None if undated else chosen_dates(dates)
    settings = load_settings(role=Role.JOBS)
    source = settings.backfill.source
    changes: dict[str, object] = {"root_url": root} if root else {}
    if directories:
        changes["directories"] = tuple(part.strip() for part in directories.split(","))
    if changes:
        try:
            # Through the model, so that its rules hold for these options, too.
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
    return Backfill(settings, selection, journal_of(settings))


def _chosen_days(only: str) -> DateRange | None:
    return chosen_dates(only, option="--only") if only else None


def _accept(backfill: Backfill, days: Iterable[date], losses: Iterable[str], reason: str) -> None:
    """Keep for each day that those of `losses` that its report has are accepted, and why."""
    for day in days:
        report = backfill.journal.report(backfill.id, day, Verification)
        for loss in set(losses) & set(report.losses if report else ()):
            accepted = AcceptedLoss(loss=loss, reason=reason, accepted_at=datetime.now(UTC))
            backfill.journal.accept(backfill.id, day, accepted)


if __name__ == "__main__":
    app()
