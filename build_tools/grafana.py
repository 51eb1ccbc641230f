"""Write the dashboards for Grafana, monitoring/grafana/*.json, from the closed list of metrics.

    .venv/bin/python -m build_tools.grafana

They show what the operations page shows, for those who have a Grafana: import the files, and choose the
Prometheus that reads exporter and ingest nodes.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from telemetry_lake.monitoring.metric import Kind, Metric, Origin, Unit
from telemetry_lake.monitoring.metrics import BY_NAME, METRICS
from telemetry_lake.project_files import PROJECT_ROOT

DIRECTORY: Final = PROJECT_ROOT / "monitoring" / "grafana"
COLUMNS: Final = 24
"""Of Grafana's grid."""
SCHEMA_VERSION: Final = 39
WINDOW: Final = "$__rate_interval"
QUANTILES: Final = (0.5, 0.99)
_UNITS: Final = {
    Unit.SECONDS: "s",
    Unit.BYTES: "bytes",
    Unit.DOLLARS: "currencyUSD",
    Unit.COUNT: "short",
    Unit.YES_OR_NO: "bool_yes_no",
}
_DATA_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_LEAST: Final = ("spool_free_bytes", "spool_room_bytes", "s3_reachable", "sqs_reachable", "source_up")
"""Of these the lowest says most: the ends of the names of gauges."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One file; `stats` are shown as single values at its top."""

    name: str
    title: str
    description: str
    metrics: tuple[Metric, ...]
    stats: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.name}.json"


def _of_sources(*sources: str) -> tuple[Metric, ...]:
    return tuple(
        metric for metric in METRICS if metric.origin is Origin.EXPORTER and metric.source in sources
    )


DASHBOARDS: Final = (
    Dashboard(
        "overview",
        "Telemetry Lake: overview",
        "Whether pings become rows and rows become tables, what drives that, and what it costs.",
        _of_sources("airflow", "analyses", "anomalies", "cost", "web", ""),
        (
            "telemetry_lake_ingest_requests_total",
            "telemetry_lake_live_newest_row_age_seconds",
            "telemetry_lake_queue_messages",
            "telemetry_lake_overdue_raw_objects",
            "telemetry_lake_work_late_seconds",
            "telemetry_lake_cost_dollars_per_day",
        ),
    ),
    Dashboard(
        "ingest",
        "Telemetry Lake: ingest nodes",
        "What the edge answers, how fast pings become durable, and what waits in the spools.",
        tuple(metric for metric in METRICS if metric.origin is Origin.NODE),
        (
            "telemetry_lake_ingest_requests_total",
            "telemetry_lake_ingest_oldest_segment_age_seconds",
            "telemetry_lake_ingest_spool_free_bytes",
        ),
    ),
    Dashboard(
        "drain",
        "Telemetry Lake: drain",
        "The queue, the batches, and whether every raw object comes to its end.",
        _of_sources("queue", "batches", "completeness"),
        (
            "telemetry_lake_queue_oldest_age_seconds",
            "telemetry_lake_batches_open",
            "telemetry_lake_live_newest_row_age_seconds",
            "telemetry_lake_overdue_raw_objects",
        ),
    ),
    Dashboard(
        "tables",
        "Telemetry Lake: tables",
        "How fresh and how large tables are, and whether what is made again and again is on time.",
        _of_sources("tables", "work"),
        ("telemetry_lake_work_late_seconds",),
    ),
)
"""Every metric of the list is in one of them."""


def document(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    panels = [*_stats(dashboard), *_series(dashboard)]
    return {
        "uid": f"telemetry-lake-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["telemetry-lake"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "utc",
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
            ]
        },
        "links": [
            {
                "title": "Telemetry Lake",
                "type": "dashboards",
                "tags": ["telemetry-lake"],
                "asDropdown": True,
            }
        ],
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, start=1)],
    }


def _stats(dashboard: Dashboard) -> Iterable[dict[str, Any]]:
    width = COLUMNS // len(dashboard.stats)
    for place, name in enumerate(dashboard.stats):
        metric = BY_NAME[name]
        yield _panel(
            metric,
            "stat",
            {"h": 4, "w": width, "x": place * width, "y": 0},
            [(_single(metric), "")],
            {"colorMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
        )


def _series(dashboard: Dashboard) -> Iterable[dict[str, Any]]:
    height, width = 8, COLUMNS // 2
    for place, metric in enumerate(dashboard.metrics):
        grid = {"h": height, "w": width, "x": place % 2 * width, "y": 4 + place // 2 * height}
        yield _panel(
            metric,
            "timeseries",
            grid,
            expressions(metric),
            {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}},
        )


def _panel(
    metric: Metric,
    kind: str,
    grid: dict[str, int],
    queries: Sequence[tuple[str, str]],
    options: dict[str, Any],
) -> dict[str, Any]:
    unit = _UNITS[metric.unit]
    if metric.kind is Kind.COUNTER:
        unit = {"bytes": "Bps", "short": "cps"}.get(unit, unit)
    return {
        "type": kind,
        "title": _title(metric),
        "description": f"{metric.meaning}\n\n{metric.action}",
        "gridPos": grid,
        "datasource": _DATA_SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _DATA_SOURCE,
                "expr": expression,
                **_legend(legend),
            }
            for place, (expression, legend) in enumerate(queries)
        ],
    }


def _legend(legend: str) -> dict[str, str]:
    return {"legendFormat": legend} if legend else {"legendFormat": "__auto"}


def _title(metric: Metric) -> str:
    words = metric.name.removeprefix("telemetry_lake_").removeprefix("ingest_").removesuffix("_total")
    text = words.replace("_", " ")
    return f"{text[:1].upper()}{text[1:]}{' a second' if metric.kind is Kind.COUNTER else ''}"


def expressions(metric: Metric) -> list[tuple[str, str]]:
    """Return what is drawn of a metric: expressions, each with the form of its legend."""
    if metric.kind is Kind.HISTOGRAM:
        buckets = f"sum by (le) (rate({metric.name}_bucket[{WINDOW}]))"
        return [(f"histogram_quantile({share}, {buckets})", f"p{share * 100:g}") for share in QUANTILES]
    labels = list(metric.label_names)
    if metric.origin is Origin.NODE and metric.kind is Kind.GAUGE:
        labels.append("instance")
    inner = f"rate({metric.name}[{WINDOW}])" if metric.kind is Kind.COUNTER else metric.name
    by = f" by ({', '.join(labels)})" if labels else ""
    return [(f"{_together(metric)}{by} ({inner})", " ".join(f"{{{{{label}}}}}" for label in labels))]


def _single(metric: Metric) -> str:
    inner = f"rate({metric.name}[{WINDOW}])" if metric.kind is Kind.COUNTER else metric.name
    return f"{_together(metric)} ({inner})"


def _together(metric: Metric) -> str:
    """Return by which function one value is made of several."""
    if metric.name.endswith(_LEAST):
        return "min"
    if metric.kind is Kind.GAUGE and metric.unit is Unit.SECONDS:
        return "max"
    return "sum"


def written(dashboard: Dashboard) -> str:
    """Return the text of a dashboard's file."""
    return json.dumps(document(dashboard), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the files, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m build_tools.grafana",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where to write the files")
    directory: Path = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        directory.joinpath(dashboard.file_name).write_text(written(dashboard), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
