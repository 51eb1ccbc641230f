"""The commands of `python -m telemetry_lake` that drain, replay, reconcile and rebuild."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from telemetry_lake.failures import FatalError

if TYPE_CHECKING:
    from telemetry_lake.drain import Drain
    from telemetry_lake.replay import Replayed

app = typer.Typer(rich_markup_mode=None)
replay_app = typer.Typer(
    help="Let the drain see again what was set aside; never doubles what is live.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(replay_app, name="replay")

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A UTC day, such as 2026-11-23.")]


@app.command()
def drain() -> None:
    """Drain once, in this process and without Airflow: claim, convert, validate, publish, acknowledge."""
    from telemetry_lake.drain import drain_once, raise_if_unfinished
    from telemetry_lake.settings import load_settings

    report = drain_once(load_settings())
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
    from telemetry_lake.reconcile import raise_if_damaged, reconcile

    result = reconcile(_lake(), now=datetime.now(UTC))
    typer.echo(
        f"sent again: {len(result.never_claimed)} never claimed, {len(result.never_committed)} claimed and "
        f"never committed; {len(result.replays_finished)} replays finished"
    )
    raise_if_damaged(result)


@app.command(name="dead-letters")
def dead_letters() -> None:
    """Show what lies in the dead-letter queue, and why; it stays there."""
    from telemetry_lake.replay import dead_letters
    from telemetry_lake.settings import load_settings

    letters = dead_letters(load_settings())
    for letter in letters:
        typer.echo(f"{letter}\n  batch {letter.batch or '-'}, last error {letter.last_error or '-'}")
    typer.echo(f"{len(letters)} dead letters", err=True)


@replay_app.command(name="dead-letters")
def replay_dead_letters(
    waive_gates: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Publish batches that gates stopped, for this reason."),
    ] = None,
) -> None:
    """Put the dead letters that are there now back on the queue."""
    from telemetry_lake.replay import replay_dead_letters

    _tell(replay_dead_letters(_lake(), waive_gates=waive_gates))


@replay_app.command(name="raw-objects")
def replay_raw_objects(first_day: Day, last_day: Day = None) -> None:
    """Send the index messages of the raw objects of some days that are not committed."""
    from telemetry_lake.replay import replay_raw_objects

    if first_day is None:
        raise typer.BadParameter("give --first-day; `rebuild-queue` looks at all days")
    _tell(replay_raw_objects(_lake(), first_day.date(), (last_day or first_day).date()))


@replay_app.command(name="rejected")
def replay_rejected(
    error_type: Annotated[str | None, typer.Option(help="Only pings rejected for this.")] = None,
    document_type: Annotated[str | None, typer.Option(help="Only pings of this document type.")] = None,
    first_day: Day = None,
    last_day: Day = None,
) -> None:
    """Take rejected pings out of live.rejected_pings and send them through the drain again."""
    from telemetry_lake.replay_rejected import RejectedSelection, replay_rejected

    selection = RejectedSelection(
        error_type,
        document_type,
        first_day.date() if first_day else None,
        last_day.date() if last_day else None,
    )
    typer.echo(f"{replay_rejected(_lake(), selection)} rejected pings sent again")


@app.command(name="rebuild-queue")
def rebuild_queue() -> None:
    """Send the index message of every raw object in the raw bucket that is not committed."""
    from telemetry_lake.replay import replay_raw_objects

    _tell(replay_raw_objects(_lake()))


@app.command(name="rebuild-ledger")
def rebuild_ledger() -> None:
    """Write lost claims and commit records again, from manifests and the tables; stop the drain before."""
    from telemetry_lake.rebuild import rebuild_ledger

    result = rebuild_ledger(_lake())
    typer.echo(
        f"{result.claims} claims of {result.batches} batches are there, {len(result.commitments)} commit "
        f"records were written again, {len(result.undecided)} batches had not been decided"
    )


def _lake() -> "Drain":
    from telemetry_lake.drain import Drain
    from telemetry_lake.settings import load_settings

    return Drain(load_settings())


def _tell(result: "Replayed") -> None:
    typer.echo(f"{len(result.sent)} sent again, {len(result.already_committed)} were committed already")
    if result.left_alone:
        raise FatalError(
            f"{len(result.left_alone)} cannot be replayed and were left where they are:\n"
            + "\n".join(result.left_alone)
        )
