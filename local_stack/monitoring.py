"""What watches the stack: the exporter always, Prometheus and Alertmanager where Debian's are installed."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local_stack.ingest_nodes import IngestNode
from local_stack.layout import Layout
from local_stack.program import LOOPBACK, Program, find_server, probe, required

EXPORTER: Final = "metrics-exporter"
PROMETHEUS: Final = "prometheus"
ALERTMANAGER: Final = "alertmanager"
PROMETHEUS_PACKAGES: Final = ("prometheus", "prometheus-alertmanager")
"""The packages of Debian, and the programs in them."""
SCRAPE_SECONDS: Final = 15
RETENTION_DAYS: Final = 15
RETENTION_MEGABYTES: Final = 512
"""Prometheus drops the oldest data when the first of the two is reached."""
ALERT_RETENTION_HOURS: Final = 120
NICENESS: Final = 10
"""The exporter loads its libraries while the stack starts: it gives way to what people wait for."""
JOB_OF_NODES: Final = "ingest"
JOB_OF_EXPORTER: Final = "exporter"
JOB_OF_ALERTMANAGER: Final = "alertmanager"


def installed_prometheus() -> bool:
    """Return whether both programs of Debian are installed."""
    return all(find_server(name) is not None for name in PROMETHEUS_PACKAGES)


@dataclass(frozen=True, slots=True)
class Monitoring:
    """The exporter, Prometheus and Alertmanager of a stack."""

    exporter_port: int
    prometheus_port: int
    alertmanager_port: int
    nodes: Sequence[IngestNode]
    layout: Layout
    project_root: Path

    @property
    def exporter_url(self) -> str:
        """Where the exporter shows its metrics."""
        return f"http://{LOOPBACK}:{self.exporter_port}/metrics"

    @property
    def prometheus_url(self) -> str:
        """Where Prometheus is."""
        return f"http://{LOOPBACK}:{self.prometheus_port}"

    @property
    def alertmanager_url(self) -> str:
        """Where Alertmanager is."""
        return f"http://{LOOPBACK}:{self.alertmanager_port}"

    def exporter(self, *, after: tuple[str, ...]) -> Program:
        """Return the exporter's process."""
        return Program(
            name=EXPORTER,
            command=("nice", "-n", str(NICENESS), sys.executable, "-m", "telemetry_lake", "export-metrics"),
            directory=self.project_root,
            log_file=self.layout.log(EXPORTER),
            check_health=lambda: _probe("the exporter", self.exporter_url),
            environment={
                "TELEMETRY_LAKE_MONITORING__PORT": str(self.exporter_port),
                "TELEMETRY_LAKE_MONITORING__STATE_DIRECTORY": str(self.layout.data("monitoring")),
            },
            after=after,
            ports={self.exporter_port: "LOCAL_STACK_EXPORTER_PORT"},
        )

    def servers(self) -> tuple[Program, Program]:
        """Return Prometheus and Alertmanager. Raises ConfigurationError when one is not installed."""
        return self._prometheus(), self._alertmanager()

    def _prometheus(self) -> Program:
        data = self.layout.data(PROMETHEUS)
        file = data / "prometheus.yaml"
        return Program(
            name=PROMETHEUS,
            command=(
                _installed(0),
                f"--config.file={file}",
                f"--storage.tsdb.path={data / 'tsdb'}",
                f"--storage.tsdb.retention.time={RETENTION_DAYS}d",
                f"--storage.tsdb.retention.size={RETENTION_MEGABYTES}MB",
                f"--web.listen-address={LOOPBACK}:{self.prometheus_port}",
            ),
            directory=data,
            log_file=self.layout.log(PROMETHEUS),
            check_health=lambda: _probe("Prometheus", f"{self.prometheus_url}/-/ready"),
            files={file: json.dumps(self.prometheus_configuration(), indent=2)},
            ports={self.prometheus_port: "LOCAL_STACK_PROMETHEUS_PORT"},
        )

    def _alertmanager(self) -> Program:
        data = self.layout.data(ALERTMANAGER)
        given = self.project_root / "monitoring" / "alertmanager.yaml"
        without = data / "alertmanager.yaml"
        return Program(
            name=ALERTMANAGER,
            command=(
                _installed(1),
                f"--config.file={given if given.exists() else without}",
                f"--storage.path={data / 'storage'}",
                f"--data.retention={ALERT_RETENTION_HOURS}h",
                f"--web.listen-address={LOOPBACK}:{self.alertmanager_port}",
                # Alone, it needs no port for others of its kind.
                "--cluster.listen-address=",
            ),
            directory=data,
            log_file=self.layout.log(ALERTMANAGER),
            check_health=lambda: _probe("Alertmanager", f"{self.alertmanager_url}/-/ready"),
            files={without: json.dumps(_TELLS_NOBODY, indent=2)},
            ports={self.alertmanager_port: "LOCAL_STACK_ALERTMANAGER_PORT"},
        )

    def prometheus_configuration(self) -> Mapping[str, Any]:
        """Return Prometheus's configuration: JSON, which is YAML."""
        rules = self.project_root / "monitoring" / "rules.yaml"
        return {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
            "rule_files": [str(rules)] if rules.exists() else [],
            "alerting": {
                "alertmanagers": [{"static_configs": [{"targets": [f"{LOOPBACK}:{self.alertmanager_port}"]}]}]
            },
            "scrape_configs": [
                {
                    "job_name": JOB_OF_NODES,
                    "static_configs": [
                        {"targets": [f"{LOOPBACK}:{node.private_port}"], "labels": {"node": node.node}}
                        for node in self.nodes
                    ],
                },
                {
                    "job_name": JOB_OF_EXPORTER,
                    "static_configs": [{"targets": [f"{LOOPBACK}:{self.exporter_port}"]}],
                },
                # Whether mails and web hooks could be told.
                {
                    "job_name": JOB_OF_ALERTMANAGER,
                    "static_configs": [{"targets": [f"{LOOPBACK}:{self.alertmanager_port}"]}],
                },
            ],
        }


_TELLS_NOBODY: Final = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
"""Alerts are shown and sent nowhere."""


def _installed(number: int) -> str:
    name = PROMETHEUS_PACKAGES[number]
    return required(name, package=name)


def _probe(what: str, url: str) -> None:
    probe(what, url)
