"""The command of `python -m telemetry_lake` that shows anomalies and looks for them."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def anomalies(
    check: Annotated[
        bool,
        typer.Option("--check", help="Look for anomalies once, before; writes down and tells as the DAG."),
    ] = False,
) -> None:
    """Show which anomalies are open, and since when: in volumes, rejected pings and distributions.

    derived.anomalies has those that are over. docs/anomalies.md says what is compared with what.

    \b
    python -m telemetry_lake anomalies
    python -m telemetry_lake anomalies --check
    """
    from telemetry_lake.monitoring.anomalies.look import Looker
    from telemetry_lake.monitoring.anomalies.notices import duration, page_of, sentence
    from telemetry_lake.query.row_output import write_records
    from telemetry_lake.settings import Role, load_settings

    settings, now = load_settings(role=Role.ANOMALIES), datetime.now(UTC)
    looker = Looker(settings)
    state = looker.look(now).state if check else looker.states.read().state
    if state.checked_at is None:
        typer.echo("Nobody has looked for anomalies yet: the DAG Anomalies does, and so does --check.")
        return
    if state.open:
        write_records(
            ("severity", "kind", "since (UTC)", "for", "what", "page"),
            [
                (
                    f"{each.severity}{' (silenced)' if each.silenced else ''}",
                    each.kind,
                    f"{each.since:%Y-%m-%d %H:%M}",
                    duration(each.since, now),
                    sentence(each),
                    page_of(each, settings.web.public_url),
                )
                for each in sorted(state.open, key=lambda each: (each.severity, each.since))
            ],
            sys.stdout,
        )
    typer.echo(
        f"{len(state.open)} open; looked {duration(state.checked_at, now)} ago, at distributions until "
        f"{state.distributions_until or 'never'}"
        + (f"; {len(state.pending)} changes are not told of yet" if state.pending else ""),
        err=True,
    )
