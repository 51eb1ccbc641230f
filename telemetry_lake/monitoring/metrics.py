"""The closed list of metrics: what the exporter shows and what ingest nodes show. Nothing else exists.

Rules, dashboards and the page docs/metrics.md are made from it.
"""

from collections.abc import Mapping
from typing import Final

from telemetry_lake.monitoring.exporter_metrics import EXPORTER_METRICS
from telemetry_lake.monitoring.metric import Metric
from telemetry_lake.monitoring.node_metrics import NODE_METRICS

METRICS: Final[tuple[Metric, ...]] = (*EXPORTER_METRICS, *NODE_METRICS)
BY_NAME: Final[Mapping[str, Metric]] = {metric.name: metric for metric in METRICS}
EXPORTER_PORT: Final = 9108
"""Where the exporter listens unless it is told otherwise."""
