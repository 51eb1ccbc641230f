"""The operations page over HTTP: who sees it, what it shows, and what it says when something is away."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from lake_testing.running_prometheus import PROMETHEUS
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import S3Settings, Settings, WebSettings
from web.application import create_app

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None, reason="Prometheus is not installed: the page was not tested with its alarms"
)


def text_of(page: str) -> str:
    """Return what a page says."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@pytest.mark.parametrize("path", ["/operations", "/operations?span=week", "/operations/runbooks"])
def test_a_stranger_is_sent_to_the_log_in_and_back(site: Any, stranger: httpx.Client, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/analyses/log-in?next=%2Foperations")
    assert "live.pings" not in answer.text
    page = stranger.get(answer.headers["location"])
    assert f'value="{path}"' in page.text


def test_every_part_has_its_figures_with_their_age(site: Any, operator: httpx.Client) -> None:
    page = text_of(site.wait_for(operator, "dead letters: 0"))
    # The exporter read it 100 seconds before the server read the exporter.
    assert re.search(r"Messages 7 1 min \d+ s old", page)
    assert "Newest ping 42 s" in page
    assert "Answers 5xx since its program began 5" in page
    assert re.search(r"stable\.pings 3\d s", page)
    assert "$12.50" in page
    assert "4,321 pings became rows, 0 were rejected (0.00 %)" in page


def test_a_runbook_that_is_not_there_is_a_page_that_is_not_there(site: Any, operator: httpx.Client) -> None:
    assert operator.get("/operations/runbooks").status_code == 200
    answer = operator.get("/operations/runbooks/..%2f..%2fREADME")
    assert answer.status_code == 404


def test_labels_of_strangers_stay_text(site: Any, operator: httpx.Client) -> None:
    page = site.page(operator)
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "invalid_json" in page


@pytest.mark.parametrize("span", ["day", "week", "year", "decade"])
def test_volumes_are_shown_for_a_day_a_week_and_a_year(site: Any, operator: httpx.Client, span: str) -> None:
    answer = operator.get(f"/operations?span={span}")
    assert answer.status_code == (400 if span == "decade" else 200)
    if span in ("day", "week"):
        assert "1,234" in answer.text
        assert "invalid_json" in answer.text
    if span == "year":
        assert "4,321" in answer.text
        assert "None in this time." in answer.text


def test_the_page_works_while_the_exporter_is_away(site: Any, operator: httpx.Client) -> None:
    site.wait_for(operator, "dead letters: 0")
    site.exporter.stop()
    try:
        page = text_of(site.wait_for(operator, "The exporter does not answer since"))
        assert "its figures are those of then" in page
        assert "Newest ping 42 s" in page
    finally:
        site.exporter.start()
    site.wait_for(operator, "Nothing is red." if site.prometheus else "no Prometheus is set")


@needs_prometheus
def test_an_alarm_is_red_with_its_part_since_when_and_gone_again(site: Any, operator: httpx.Client) -> None:
    site.wait_for(operator, "Nothing is red.")
    site.exporter.show("queue_messages", 3, queue="dead_letters", state="waiting")
    try:
        page = text_of(site.wait_for(operator, "Red: Queue (red since"))
        assert "3 messages are dead letters." in page
        assert "Watchdog" not in page
    finally:
        site.exporter.show("queue_messages", 0, queue="dead_letters", state="waiting")
    site.wait_for(operator, "Nothing is red.")


@needs_prometheus
def test_an_alarm_with_hostile_labels_is_escaped(site: Any, operator: httpx.Client) -> None:
    site.exporter.show("analysis_jobs", 1_000, outcome='<img src=x onerror="alert(1)">')
    try:
        page = site.wait_for(operator, "is odd.")
        assert "&lt;img src=x onerror=" in page
        assert "<img" not in page
        assert "Odd" in page
    finally:
        site.exporter.show("analysis_jobs", 0, outcome='<img src=x onerror="alert(1)">')


def test_the_start_page_leads_everywhere(site: Any, stranger: httpx.Client) -> None:
    page = stranger.get("/").text
    for path in ("/distribution", "/analyses", "/operations", "/docs"):
        assert f'href="{path}"' in page
    if site.prometheus is not None:
        assert f'href="{site.prometheus.url}"' in page
    documents = re.findall(r'href="(/docs/[a-z_]+)"', stranger.get("/docs").text)
    assert "/docs/drain" in documents
    assert "acknowledge" in stranger.get("/docs/architecture").text
    assert stranger.get("/docs/..%2fREADME").status_code == 404


def test_operations_without_the_log_in_of_the_analyses_are_refused() -> None:
    settings = Settings(web=WebSettings(operations=True, analyses=False))
    with pytest.raises(ConfigurationError, match="WEB__OPERATIONS needs TELEMETRY_LAKE_WEB__ANALYSES"):
        create_app(settings)


def test_a_dashboard_that_stands_alone_has_no_start_page(tmp_path: Path) -> None:
    nowhere = S3Settings(
        endpoint_url="http://127.0.0.1:1", access_key_id="none", secret_access_key=SecretStr("none")
    )
    application = create_app(Settings(s3=nowhere, web=WebSettings(cubes_directory=tmp_path)))

    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(application)
        async with (
            application.router.lifespan_context(application),
            httpx.AsyncClient(transport=transport, base_url="http://lake.example") as client,
        ):
            return [await client.get(path) for path in ("/", "/docs", "/operations")]

    start, documents, operations = asyncio.run(answers())
    assert (start.status_code, start.headers["location"]) == (307, "/distribution")
    assert (documents.status_code, operations.status_code) == (404, 404)
