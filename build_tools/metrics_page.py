"""Writes docs/metrics.md from the list of metrics: `python -m build_tools.metrics_page`."""

from collections.abc import Iterable, Iterator
from typing import Final

from telemetry_lake.monitoring.exporter_metrics import LABEL_SETS_MAX, SOURCES
from telemetry_lake.monitoring.metric import Label, Metric, Origin
from telemetry_lake.monitoring.metrics import EXPORTER_PORT, METRICS
from telemetry_lake.project_files import PROJECT_ROOT

PAGE: Final = PROJECT_ROOT / "docs" / "metrics.md"
_TITLES: Final = {
    "queue": "Queue",
    "batches": "Batches and rows",
    "tables": "Tables",
    "completeness": "Completeness: what was shipped and is in no table",
    "work": "Works",
    "analyses": "Analysis service",
    "airflow": "Airflow",
    "cost": "Cost",
    "anomalies": "Anomalies",
    "web": "Web pages",
}
_BEGINNING: Final = f"""\
# Metrics

<!-- Written by `python -m build_tools.metrics_page` from the list of metrics; a test compares. -->

Two kinds of programs show metrics to Prometheus, and nothing else does:

- **Ingest nodes**, on their private port ([ingest_spec.md](ingest_spec.md)).
- **The exporter**, `python -m telemetry_lake export-metrics`, on port {EXPORTER_PORT}. It reads *facts*:
  what the drain, the reconciler and the jobs leave in S3, in the queues and in the tables, and what
  Airflow's REST API answers. It acts as the role `monitor`, which may look and change nothing.

`make run` starts the exporter, and Prometheus and Alertmanager where Debian's packages `prometheus` and
`prometheus-alertmanager` are installed; `make status` has the addresses. `LOCAL_STACK_PROMETHEUS=false`
leaves the two out. Prometheus keeps 15 days, and 512 MB at most. Compose runs all three.

**A scrape reads nothing.** Each source is read in a thread of its own, every 15 to 60 seconds. One that
cannot be read keeps its last figures for three of its intervals; then its metrics are absent, and
`telemetry_lake_exporter_source_up` is 0 from the first failure on. A rule on a metric of the exporter
should say what holds when it is absent.

**Counters go on** after a new start of the exporter: they are kept in
`TELEMETRY_LAKE_MONITORING__STATE_DIRECTORY`, and what happened while it was down is counted then, for up to
a day. Without the files they begin at zero, as Prometheus expects of counters. **Ages** grow until
something newer is seen, also while a source cannot be read.

**Labels** are of closed sets, or of names that files of the project give: a namespace, type or channel that
a client invented is `other`. No metric has more than {LABEL_SETS_MAX} label sets, and no label holds an id
or an address.

**Cost** is an estimate: `TELEMETRY_LAKE_MONITORING__PRICES__…` (list prices by default) times what arrived
within the last hour and what the tables hold. `PRICES__MACHINES_DAY` is 0 until it is told what the
machines cost.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [_BEGINNING]
    for source in SOURCES:
        parts.append(f"\n## {_TITLES[source]}\n")
        parts += _entries(metric for metric in METRICS if metric.source == source)
    parts.append("\n## The exporter itself\n")
    parts += _entries(metric for metric in METRICS if not metric.source and metric.origin is Origin.EXPORTER)
    parts.append("\n## Ingest nodes\n")
    parts += _entries(metric for metric in METRICS if metric.origin is Origin.NODE)
    return "".join(parts)


def _entries(metrics: Iterable[Metric]) -> Iterator[str]:
    for metric in metrics:
        yield f"\n### {metric.name}\n\n"
        yield f"{metric.kind.capitalize()}, {metric.unit}. {metric.meaning}\n"
        if metric.labels:
            yield "\n"
            yield "".join(f"- `{label.name}`: {_values(label)}\n" for label in metric.labels)
        yield f"\n*When it moves:* {metric.action}\n"


def _values(label: Label) -> str:
    return ", ".join(f"`{value}`" for value in label.values) if label.values else label.bound


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
