"""The closed list of metrics: well formed, and equal to what the programs know."""

import re
from collections.abc import Iterator

import pytest

from build_tools.metrics_page import PAGE, page
from ingest_server.counters import shared_counters
from ingest_server.health import NodeMetrics
from telemetry_lake.failures import ErrorType
from telemetry_lake.monitoring.exporter_metrics import DAGS, RAW_OBJECT_STATES, SOURCES
from telemetry_lake.monitoring.metric import Kind, Metric, Origin, Unit
from telemetry_lake.monitoring.metrics import BY_NAME, METRICS
from telemetry_lake.monitoring.node_metrics import NODE_METRICS
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.recovery.survey import State
from telemetry_lake.settings import IngestSettings

every_metric = pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])


def test_no_name_is_there_twice() -> None:
    assert len(BY_NAME) == len(METRICS)


@every_metric
def test_a_metric_is_named_as_prometheus_wants_it(metric: Metric) -> None:
    assert re.fullmatch(r"telemetry_lake_[a-z0-9_]+", metric.name)
    assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
    if metric.unit in (Unit.SECONDS, Unit.BYTES, Unit.DOLLARS):
        assert metric.unit in metric.name
    assert (metric.origin is Origin.NODE) is metric.name.startswith("telemetry_lake_ingest_")
    assert metric.source in ("", *SOURCES)


@every_metric
def test_every_label_has_a_closed_set_or_says_what_bounds_it(metric: Metric) -> None:
    assert all(bool(label.values) is not bool(label.bound) for label in metric.labels)
    assert not {"le", "instance", "job"} & set(metric.label_names)


@every_metric
def test_a_metric_says_what_it_means_and_what_to_do(metric: Metric) -> None:
    assert metric.meaning.endswith(".")
    assert len(metric.action) > 20


def shown_by_a_node() -> Iterator[tuple[str, Kind, dict[str, set[str]]]]:
    counters = shared_counters(1)
    for service in ("s3", "sqs"):
        counters.add(f"{service}_looks")
    for family in NodeMetrics(counters, IngestSettings()).collect():
        labels: dict[str, set[str]] = {}
        for sample in family.samples:
            for name, value in sample.labels.items():
                if name != "le":
                    labels.setdefault(name, set()).add(value)
        suffix = "_total" if family.type == "counter" else ""
        yield family.name + suffix, Kind(family.type), labels


def test_the_list_has_what_a_node_shows() -> None:
    listed = {
        metric.name: (metric.kind, {label.name: set(label.values) for label in metric.labels})
        for metric in NODE_METRICS
    }
    assert {name: (kind, labels) for name, kind, labels in shown_by_a_node()} == listed


def test_closed_sets_are_those_of_the_code() -> None:
    assert BY_NAME["telemetry_lake_rejected_rows_total"].labels[2].values == tuple(ErrorType)
    assert set(RAW_OBJECT_STATES) == {state.name.lower() for state in State}


def test_every_dag_is_listed() -> None:
    ids = {
        match[1]
        for file in (PROJECT_ROOT / "dags").glob("*.py")
        for match in re.finditer(r"^@dag\(.*?^def (\w+)\(", file.read_text(), re.MULTILINE | re.DOTALL)
    }
    assert len(ids) >= 14
    assert ids <= set(DAGS)


def test_the_page_is_made_of_the_list() -> None:
    assert PAGE.read_text() == page(), "run `python -m build_tools.metrics_page`"
