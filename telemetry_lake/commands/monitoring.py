"""The command of `python -m telemetry_lake` that shows metrics."""

import logging
import signal
import threading
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def export_metrics(
    port: Annotated[
        int | None, typer.Option(help="Where to listen; by default 9108.", min=1, max=65_535)
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on; by default 127.0.0.1.")] = None,
) -> None:
    """Show metrics of facts to Prometheus: queue, batches, rows, tables, works, Airflow (docs/metrics.md)."""
    from telemetry_lake.monitoring.exporter import exporter_of, serve
    from telemetry_lake.settings import Role, load_settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # It says every request to Airflow.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stopping = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stopping.set())
    settings = load_settings(role=Role.MONITOR)
    monitoring = settings.monitoring
    serve(lambda: exporter_of(settings), host or monitoring.host, port or monitoring.port, stopping)
