"""The commands of `python -m telemetry_lake` about alarms."""

from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command(name="alertmanager-config")
def alertmanager_config() -> None:
    """Print Alertmanager's configuration with the addresses of the settings; it holds secrets."""
    import yaml

    from telemetry_lake.monitoring.alertmanager import alertmanager_configuration
    from telemetry_lake.settings import load_settings

    settings = load_settings()
    configuration = alertmanager_configuration(settings.mail, settings.alerts)
    typer.echo(yaml.safe_dump(configuration, sort_keys=False), nl=False)


@app.command(name="check-watchdog")
def check_watchdog(
    alertmanager: Annotated[str, typer.Option(help="Where Alertmanager is.")] = "http://127.0.0.1:9093",
) -> None:
    """Say nothing while alarms would be told; exit with 1 and a sentence when they would not (for cron)."""
    from telemetry_lake.monitoring import watchdog

    watchdog.check_watchdog(alertmanager)
