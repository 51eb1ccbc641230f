"""The dashboards for Grafana: its form, and no query that Prometheus or the list of metrics does not know."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from build_tools.grafana import COLUMNS, DASHBOARDS, DIRECTORY, WINDOW, Dashboard, document, written
from lake_testing.running_prometheus import PROMTOOL
from telemetry_lake.monitoring.metrics import METRICS

every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=[each.name for each in DASHBOARDS])
SAMPLES = {sample for metric in METRICS for sample in metric.samples}


def expressions(dashboard: Dashboard) -> list[str]:
    return [target["expr"] for panel in document(dashboard)["panels"] for target in panel["targets"]]


@every_dashboard
def test_the_file_is_what_the_list_of_metrics_makes(dashboard: Dashboard) -> None:
    assert DIRECTORY.joinpath(dashboard.file_name).read_text() == written(dashboard), (
        "run python -m build_tools.grafana"
    )


def test_there_are_no_other_files() -> None:
    assert {file.name for file in DIRECTORY.iterdir()} == {each.file_name for each in DASHBOARDS}


@every_dashboard
def test_grafana_can_take_it(dashboard: Dashboard) -> None:
    made: dict[str, Any] = json.loads(written(dashboard))
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", made["uid"])
    panels = made["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert cells
        assert not cells & taken
        taken |= cells
        assert panel["title"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["expr"]
            assert target["datasource"]["uid"] == "${datasource}"
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
    assert [variable["name"] for variable in made["templating"]["list"]] == ["datasource"]


def test_every_uid_is_there_once_and_every_metric_is_drawn() -> None:
    assert len({document(each)["uid"] for each in DASHBOARDS}) == len(DASHBOARDS)
    drawn = {metric.name for each in DASHBOARDS for metric in each.metrics}
    assert drawn == {metric.name for metric in METRICS}


@every_dashboard
def test_every_metric_of_a_query_exists(dashboard: Dashboard) -> None:
    for expression in expressions(dashboard):
        names = set(re.findall(r"telemetry_lake_\w+", expression))
        assert names
        assert names <= SAMPLES


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: no query was parsed")
def test_prometheus_can_parse_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:query:{number}", "expr": expression.replace(WINDOW, "5m")}
        for number, expression in enumerate(
            expression for dashboard in DASHBOARDS for expression in expressions(dashboard)
        )
    ]
    file = tmp_path / "rules.yaml"

    def checked() -> subprocess.CompletedProcess[str]:
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
        assert PROMTOOL is not None
        return subprocess.run([PROMTOOL, "check", "rules", file], capture_output=True, text=True, check=False)

    assert checked().returncode == 0, checked().stderr
    rules.append({"record": "dashboard:query:bad", "expr": "sum by (x (y)"})
    assert checked().returncode != 0
