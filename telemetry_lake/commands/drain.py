"""The commands of `python -m telemetry_lake` that drain, replay, reconcile, rebuild and expire."""

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from telemetry_lake.failures import FatalError

if TYPE_CHECKING:
    from telemetry_lake.drain.connections import LakeConnections
    from telemetry_lake.recovery.replay import Replayed

T = TypeVar("T")

app = typer.Typer(rich_markup_mode=None)
replay_app = typer.Typer(
    help="Let the drain see again what was set aside; never doubles what is live.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(replay_app, name="replay")

Waive = Annotated[
    str | None,
    typer.Option(metavar="REASON", help="Publish batches that gates stopped, for this reason."),
]
SkipComplete = Annotated[bool, typer.Option(help="Leave out the days that are marked complete.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A UTC day, such as 2026-11-23.")]


@app.command()
def drain() -> None:
    """Drain once, in this process and without Airflow: claim, convert, validate, publish, acknowledge."""
    from telemetry_lake.drain.steps import drain_once, raise_if_unfinished
    from telemetry_lake.settings import Role, load_settings

    report = drain_once(load_settings(role=Role.DRAIN))
    typer.echo(
        f"{len(report.committed)} batches committed, {report.claimed.already_committed} messages of raw "
        "objects that had been committed before deleted"
    )
    for failure in report.failures:
        typer.echo(failure, err=True)
    raise_if_unfinished(report.claimed, report.acknowledged)


@app.command()
def reconcile() -> None:
    """Send the index message again of every raw object that the drain seems to have lost."""
    from telemetry_lake.recovery.reconcile import raise_if_damaged, reconcile

    result = reconcile(_lake(), now=datetime.now(UTC))
    typer.echo("\n".join(result.lines()))
    raise_if_damaged(result)


@app.command(name="expire-snapshots")
def expire_snapshots() -> None:
    """Shorten the history of the live tables, which every commit reads; deletes no file."""
    from telemetry_lake.tables.commits import TABLES_IN_ORDER
    from telemetry_lake.tables.expiry import expire_appends

    lake, now = _lake(), datetime.now(UTC)
    for table in TABLES_IN_ORDER:
        expired = expire_appends(lake.settings.drain, lake.catalog, table, now=now)
        typer.echo(f"{table}: {expired:,} snapshots expired")


@app.command()
def completeness() -> None:
    """Prove that every raw object is in the tables or set aside; say which are not, and what to do."""
    from telemetry_lake.recovery.completeness import check_completeness, raise_if_incomplete

    now = datetime.now(UTC)
    found = check_completeness(_lake(), now=now)
    typer.echo("\n".join(found.lines(now)))
    raise_if_incomplete(found)


@app.command(name="dead-letters")
def dead_letters() -> None:
    """Show what lies in the dead-letter queue, and why; it stays there."""
    from telemetry_lake.recovery.replay import dead_letters
    from telemetry_lake.settings import Role, load_settings

    letters = dead_letters(load_settings(role=Role.DRAIN))
    for letter in letters:
        typer.echo(f"{letter}\n  batch {letter.batch or '-'}, last error {letter.last_error or '-'}")
    typer.echo(f"{len(letters)} dead letters", err=True)


@replay_app.command(name="dead-letters")
def replay_dead_letters(
    waive_gates: Waive = None,
    delete_foreign: Annotated[
        bool, typer.Option("--delete-foreign", help="Delete what is not an index message.")
    ] = False,
) -> None:
    """Put the dead letters that are there now back on the queue."""
    from telemetry_lake.recovery.replay import replay_dead_letters

    _print_replayed(replay_dead_letters(_lake(), waive_gates=waive_gates, delete_foreign=delete_foreign))


@replay_app.command(name="raw-objects")
def replay_raw_objects(first_day: Day, last_day: Day = None, waive_gates: Waive = None) -> None:
    """Send the index messages of the raw objects of some days that are not committed."""
    from telemetry_lake.recovery.replay import replay_raw_objects

    if first_day is None:
        raise typer.BadParameter("give --first-day; `rebuild-queue` looks at all days")
    first, last = first_day.date(), (last_day or first_day).date()
    result = replay_raw_objects(_lake(), first, last, waive_gates=waive_gates, watch=_bar("days"))
    _print_replayed(result)


@replay_app.command(name="rejected")
def replay_rejected(
    error_type: Annotated[str | None, typer.Option(help="Only pings rejected for this.")] = None,
    document_type: Annotated[str | None, typer.Option(help="Only pings of this document type.")] = None,
    first_day: Day = None,
    last_day: Day = None,
) -> None:
    """Take rejected pings out of live.rejected_pings and send them through the drain again."""
    from telemetry_lake.recovery.replay_rejected import RejectedSelection, replay_rejected

    selection = RejectedSelection(
        error_type,
        document_type,
        first_day.date() if first_day else None,
        last_day.date() if last_day else None,
    )
    typer.echo(f"{replay_rejected(_lake(), selection)} rejected pings sent again")


@app.command(name="rebuild-queue")
def rebuild_queue(skip_complete: SkipComplete = False) -> None:
    """Send the index message of every raw object in the raw bucket that is not committed."""
    from telemetry_lake.recovery.replay import replay_raw_objects

    _print_replayed(replay_raw_objects(_lake(), skip_complete=skip_complete, watch=_bar("days")))


@app.command(name="rebuild-ledger")
def rebuild_ledger(skip_complete: SkipComplete = False) -> None:
    """Write lost claims and commit records again, from manifests and the tables; stop the drain before."""
    from telemetry_lake.recovery.rebuild import rebuild_ledger

    result = rebuild_ledger(_lake(), skip_complete=skip_complete, watch=_bar("batches"))
    typer.echo(
        f"{result.claims} claims of {result.batches} batches are there, {result.commitments.count} commit "
        f"records were written again, {result.undecided.count} batches had not been decided, "
        f"{result.skipped} were skipped"
    )
    if result.foreign.count:
        typer.echo(
            f"{result.foreign.count} keys are not those of a batch's records and were skipped:\n"
            + result.foreign.lines(),
            err=True,
        )


@app.command(name="restore-catalog")
def restore_catalog(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE]...", help="Only these tables; by default all of sql/."),
    ] = None,
    warehouse: Annotated[
        str | None,
        typer.Option(
            metavar="s3://BUCKET/FOLDER", help="Where the tables are; by default as the catalog says."
        ),
    ] = None,
    metadata_file: Annotated[
        str | None,
        typer.Option(metavar="s3://…", help="The metadata file for the one table that is named."),
    ] = None,
) -> None:
    """Put tables that the catalog has lost back into it, each with its newest metadata file that is whole.

    What is in the catalog is left alone. Pause the DAGs before it, and run `create-tables` after it.
    """
    from telemetry_lake.recovery.restore_catalog import (
        raise_if_not_restored,
        restore_catalog,
        warehouse_of,
    )
    from telemetry_lake.settings import Role, load_settings
    from telemetry_lake.storage.object_store import ObjectStore
    from telemetry_lake.tables.catalog import load_lake_catalog

    settings = load_settings(role=Role.MAINTENANCE)
    catalog = load_lake_catalog(settings)
    found = restore_catalog(
        catalog,
        ObjectStore(settings.s3),
        warehouse_of(catalog, warehouse),
        names or (),
        metadata_file=metadata_file,
        observe=lambda restored: typer.echo(str(restored)),
    )
    raise_if_not_restored(found)


def _lake() -> "LakeConnections":
    from telemetry_lake.drain.connections import LakeConnections
    from telemetry_lake.settings import Role, load_settings

    return LakeConnections(load_settings(role=Role.DRAIN))


def _print_replayed(result: "Replayed") -> None:
    typer.echo(f"{result.sent.count} sent again, {result.already_committed} were committed already")
    if result.foreign.count:
        typer.echo(
            f"{result.foreign.count} keys in the bucket are not those of raw objects and were skipped:\n"
            + result.foreign.lines(),
            err=True,
        )
    if result.deleted.count:
        typer.echo(
            f"{result.deleted.count} were no index messages and are deleted:\n" + result.deleted.lines()
        )
    if result.left_alone.count:
        raise FatalError(
            f"{result.left_alone.count} cannot be replayed and were left where they are:\n"
            + result.left_alone.lines()
        )


def _bar(label: str) -> Callable[[Sequence[T]], Iterator[T]]:
    """Return what yields the items of a sequence, and shows on a terminal how far they have come."""

    def watch(items: Sequence[T]) -> Iterator[T]:
        with typer.progressbar(items, label=label, file=sys.stderr) as bar:
            yield from bar

    return watch
