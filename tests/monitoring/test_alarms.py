"""The alarms: well formed, made of metrics that exist, tried by promtool, and each with its runbook."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import SecretStr

from build_tools.alarms import FOLDER, generated_files, text_of
from telemetry_lake.__main__ import app
from telemetry_lake.monitoring.alarms import ALARMS, BY_NAME, rules
from telemetry_lake.monitoring.alertmanager import alertmanager_configuration
from telemetry_lake.monitoring.lake_alarms import RECORDED
from telemetry_lake.monitoring.metrics import METRICS
from telemetry_lake.monitoring.rules import RUNBOOKS, Alarm, Severity, seconds_of, shortened
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import AlertSettings, MailSettings

OF_OTHERS = {
    "up": {"job", "instance"},
    "alertmanager_notifications_failed_total": {"integration", "instance"},
}
"""What Prometheus and Alertmanager say of themselves."""
ADDED_BY_PROMETHEUS = {"job", "instance", "le"}
TESTS = sorted((FOLDER / "tests").glob("*.yaml"))

every_alarm = pytest.mark.parametrize("alarm", ALARMS, ids=[alarm.name for alarm in ALARMS])
every_rule = pytest.mark.parametrize(
    "alarm",
    [alarm for alarm in ALARMS if alarm.expression is not None],
    ids=[alarm.name for alarm in ALARMS if alarm.expression is not None],
)


def installed(program: str, package: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: apt-get install {package}")
    return path


def selectors_in(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that an expression names, each with the labels that it asks for."""
    for match in re.finditer(r"\b(telemetry_lake[\w:]+|alertmanager_\w+|up)\b(?:\{([^}]*)\})?", expression):
        yield match[1], set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", match[2] or ""))


@pytest.mark.parametrize("path", generated_files(), ids=lambda path: path.name)
def test_generated_files_are_those_of_the_list(path: Path) -> None:
    assert path.read_text() == generated_files()[path], "run python -m build_tools.alarms"


def test_no_name_is_there_twice() -> None:
    assert len(BY_NAME) == len(ALARMS)


@every_alarm
def test_an_alarm_says_what_is_wrong(alarm: Alarm) -> None:
    assert re.fullmatch(r"([A-Z][a-z0-9]+)+", alarm.name)
    assert alarm.summary.endswith(".")
    assert alarm.expression is not None or alarm.cloudwatch is not None
    assert seconds_of(alarm.wait) >= 0


@every_alarm
def test_what_an_alarm_mutes_exists_and_is_not_itself(alarm: Alarm) -> None:
    assert set(alarm.mutes) <= BY_NAME.keys() - {alarm.name, "Watchdog"}
    assert not any(alarm.name in BY_NAME[muted].mutes for muted in alarm.mutes)


@every_rule
def test_every_metric_and_label_of_an_expression_is_listed(alarm: Alarm) -> None:
    labels = {sample: {*metric.label_names} for metric in METRICS for sample in metric.samples}
    labels |= OF_OTHERS | {name: set() for name in RECORDED}
    for expression in (alarm.expression or "", *RECORDED.values()):
        for name, asked in selectors_in(shortened(expression, 1)):
            assert name in labels
            assert asked <= labels[name] | ADDED_BY_PROMETHEUS


@every_rule
def test_values_of_labels_are_those_that_the_metric_can_have(alarm: Alarm) -> None:
    values = {
        (sample, label.name): label.values
        for metric in METRICS
        for sample in metric.samples
        for label in metric.labels
        if label.values
    }
    found = re.findall(r"(telemetry_lake_\w+)\{([^}]*)\}", alarm.expression or "")
    for name, matchers in found:
        for label, pattern in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers):
            known = values.get((name, label), ())
            for part in pattern.split("|"):
                assert any(re.fullmatch(part, value) for value in known), (name, label, part)


def test_durations_become_shorter_by_one_factor_and_not_shorter_than_they_may() -> None:
    expression = "rate(a[<5m>]) > <10m:s> and b > <5m:s|90s> and c[<30s|20s>] < 5 and d > 1"
    assert shortened(expression, 1) == "rate(a[5m]) > 600 and b > 300 and c[30s] < 5 and d > 1"
    assert shortened(expression, 120) == "rate(a[10s]) > 5 and b > 90 and c[20s] < 5 and d > 1"
    assert BY_NAME["IngestNodeDown"].rule(factor=120)["for"] == "1s"


def test_an_alarm_of_cloudwatch_only_is_not_a_rule() -> None:
    with pytest.raises(ValueError, match="alarm of CloudWatch only"):
        BY_NAME["BalancerErrors"].rule()
    names = {rule.get("alert") for rule in rules()["groups"][0]["rules"]}
    assert "BalancerErrors" not in names
    assert "Watchdog" in names


def test_rules_of_some_alarms_are_these_and_what_is_recorded() -> None:
    chosen = rules(["QueueOld"], factor=60)["groups"][0]["rules"]
    assert [rule.get("alert", rule.get("record")) for rule in chosen] == [*RECORDED, "QueueOld"]


def test_promtool_accepts_the_rules_also_when_they_are_shortened(tmp_path: Path) -> None:
    promtool = installed("promtool", "prometheus")
    short = tmp_path / "rules.yaml"
    short.write_text(text_of(rules(factor=120)))
    command = [promtool, "check", "rules", str(FOLDER / "rules.yaml"), str(short)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_accepts_the_configuration() -> None:
    promtool = installed("promtool", "prometheus")
    command = [promtool, "check", "config", str(FOLDER / "prometheus.yaml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    jobs = {
        job["job_name"] for job in yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    }
    asked = {job for alarm in ALARMS for job in re.findall(r'job="(\w+)"', alarm.expression or "")}
    assert asked <= jobs


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_the_rules_fire_when_they_have_to(file: Path) -> None:
    promtool = installed("promtool", "prometheus")
    # It flushes a database for each case, which takes a minute on a disk that others use.
    memory = {"TMPDIR": "/dev/shm"} if Path("/dev/shm").is_dir() else {}
    tested = subprocess.run(
        [promtool, "test", "rules", file],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **memory},
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


@cache
def fired_by_promtool() -> set[str]:
    fired = set()
    for file in TESTS:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for query in case.get("promql_expr_test", []):
                for sample in query["exp_samples"]:
                    fired |= set(re.findall(r'alertname="(\w+)"', sample["labels"]))
            for query in case.get("alert_rule_test", []):
                fired |= {query["alertname"]} if query["exp_alerts"] else set()
    return fired


@every_rule
def test_every_alarm_is_seen_firing_by_promtool(alarm: Alarm) -> None:
    assert alarm.name in fired_by_promtool()


def check_alertmanager(file: Path) -> None:
    amtool = installed("amtool", "prometheus-alertmanager")
    checked = subprocess.run([amtool, "check-config", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_amtool_accepts_the_configuration_without_addresses() -> None:
    check_alertmanager(FOLDER / "alertmanager.yaml")


def test_amtool_accepts_the_configuration_with_addresses(tmp_path: Path) -> None:
    hook = SecretStr("https://hooks.example.org/secret")
    configuration = alertmanager_configuration(
        MailSettings(host="mail.example.org", user="lake", password=SecretStr("secret")),
        AlertSettings(
            page_mails=("a@example.org", "b@example.org"),
            ticket_mails=("c@example.org",),
            page_webhooks=(hook,),
            ticket_webhooks=(hook,),
            watchdog_webhooks=(hook,),
        ),
    )
    file = tmp_path / "alertmanager.yaml"
    file.write_text(text_of(configuration))
    check_alertmanager(file)
    receivers = {receiver["name"]: receiver for receiver in configuration["receivers"]}
    assert [mail["to"] for mail in receivers["page"]["email_configs"]] == ["a@example.org", "b@example.org"]
    assert receivers["watchdog"].keys() == {"name", "webhook_configs"}


def test_every_severity_has_its_way_and_the_repository_holds_no_address() -> None:
    configuration = yaml.safe_load((FOLDER / "alertmanager.yaml").read_text())
    routes = {route["receiver"] for route in configuration["route"]["routes"]}
    assert routes == {receiver["name"] for receiver in configuration["receivers"]} == set(Severity)
    assert not re.search(r"://|@", (FOLDER / "alertmanager.yaml").read_text())


def runbooks() -> dict[str, str]:
    text = (PROJECT_ROOT / RUNBOOKS).read_text()
    return dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


def test_every_alarm_has_a_runbook_and_no_runbook_is_left_over() -> None:
    assert list(runbooks()) == list(BY_NAME)


@every_alarm
def test_a_runbook_says_how_to_see_decide_and_mend(alarm: Alarm) -> None:
    section = runbooks()[alarm.name]
    assert re.findall(r"^- \*\*(\w+)\*\*: ", section, re.MULTILINE) == ["See", "Decide", "Mend"]
    assert alarm.runbook == f"{RUNBOOKS}#{alarm.name.lower()}"


def commands_in_runbooks() -> list[str]:
    text = (PROJECT_ROOT / RUNBOOKS).read_text()
    return sorted(set(re.findall(r"-m telemetry_lake ([^`]+)`", text)))


@pytest.mark.parametrize("command", commands_in_runbooks())
def test_every_command_line_of_a_runbook_is_one_of_ours(command: str) -> None:
    found: Any = typer.main.get_command(app)
    parts = command.split()
    while hasattr(found, "commands"):
        found = found.commands[parts.pop(0)]
    options = {option for parameter in found.params for option in parameter.opts}
    assert {part for part in parts if part.startswith("--")} <= options


def test_every_metric_that_a_runbook_names_exists() -> None:
    text = (PROJECT_ROOT / RUNBOOKS).read_text()
    known = {re.sub("^telemetry_lake_(ingest_)?", "", metric.name) for metric in METRICS}
    endings = "seconds|total|messages|reachable|segments|snapshots|waiting|day|room_bytes"
    named = set(re.findall(rf"`([a-z0-9_]+_(?:{endings}))(?:\{{[^`]*\}})?`", text))
    assert len(named) > 15
    assert named <= known | {"keep_alive_seconds"}
