"""Links into the lake lead somewhere, or are not shown."""

from types import SimpleNamespace
from typing import Any

import pytest

from plugins.lake_links import AuditLink, DashboardLink, LakeLinks, RowsLink

SERVICE_URL = "TELEMETRY_LAKE_ANALYSIS__SERVICE_URL"
KEY: Any = SimpleNamespace(dag_id="stable_tables", task_id="stable_pings", run_id="run", map_index=-1)


def writing(*names: str) -> Any:
    return SimpleNamespace(outlets=[SimpleNamespace(name=name) for name in names])


@pytest.fixture
def service(monkeypatch, tmp_path) -> None:
    """Settings that name the web pages."""
    settings = tmp_path / "settings.env"
    settings.write_text(f"{SERVICE_URL}='https://lake.example.org/'\n")
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(settings))


@pytest.mark.usefixtures("service")
def test_the_menu_leads_to_the_tables_and_to_each_part_of_the_web_pages():
    menu = {view["name"]: view["href"] for view in LakeLinks().external_views}
    assert menu == {
        "Tables": "/audits/tables/",
        "Lake: dashboard": "https://lake.example.org/",
        "Lake: analyses": "https://lake.example.org/analyses",
        "Lake: operations": "https://lake.example.org/operations",
        "Lake: runbooks": "https://lake.example.org/operations/runbooks",
    }


@pytest.mark.parametrize("text", ["", f"{SERVICE_URL}=lake.example.org\n"], ids=["none", "wrong"])
def test_without_the_address_of_the_web_pages_only_airflows_own_are_in_the_menu(monkeypatch, tmp_path, text):
    settings = tmp_path / "settings.env"
    settings.write_text(text)
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(settings))
    assert [view["name"] for view in LakeLinks().external_views] == ["Tables"]
    assert DashboardLink().get_link(writing("dashboard_cubes"), ti_key=KEY) == ""


@pytest.mark.usefixtures("service")
def test_a_task_links_to_the_first_table_that_it_writes_and_to_the_dashboard_if_it_shows_that():
    aggregates = writing("derived.histogram_aggregates", "derived.made_dates")
    assert RowsLink().get_link(aggregates, ti_key=KEY) == "/audits/tables/derived.histogram_aggregates"
    assert DashboardLink().get_link(aggregates, ti_key=KEY) == "https://lake.example.org/"
    assert DashboardLink().get_link(writing("stable.pings"), ti_key=KEY) == ""


def test_a_task_that_writes_no_table_has_no_links():
    for operator in (writing(), writing("dashboard_cubes"), SimpleNamespace(outlets=None)):
        assert RowsLink().get_link(operator, ti_key=KEY) == AuditLink().get_link(operator, ti_key=KEY) == ""
