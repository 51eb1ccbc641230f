"""The page at which people begin: what this server shows, and the other programs of the lake."""

from collections.abc import Sequence

from fastapi import Request, Response

from telemetry_lake.settings import Settings
from web.layout import Layout, Link


def start_page(
    layout: Layout, request: Request, navigations: Sequence[Sequence[Link]], settings: Settings
) -> Response:
    """Return the page with the sections of this server and the programs whose address is set."""
    return layout.page(
        "start.html",
        request,
        title="Start",
        sections=[link for navigation in navigations for link in navigation],
        programs=programs(settings),
    )


def programs(settings: Settings) -> list[Link]:
    """Return the programs beside this server, as far as the settings say where people find them."""
    web, airflow = settings.web, settings.airflow.public_url or settings.airflow.url
    prometheus = web.prometheus_public_url or web.prometheus_url
    links = []
    if airflow is not None:
        airflow = airflow.rstrip("/")
        links += [
            Link("Airflow", airflow, about="What moves the pings and makes the tables, run by run."),
            Link("Audits", f"{airflow}/audits/", about="What the checks found in each batch and each date."),
            Link("Assets", f"{airflow}/assets", about="Every table, what makes it and what reads it."),
        ]
    if prometheus is not None:
        links.append(Link("Prometheus", prometheus, about="All figures of operations, and what they were."))
    if web.alertmanager_public_url is not None:
        about = "Who is told of which alarm; alarms are silenced here."
        links.append(Link("Alertmanager", web.alertmanager_public_url, about=about))
    return links
