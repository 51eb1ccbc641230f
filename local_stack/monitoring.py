"""What watches the stack: the exporter always, Prometheus and Alertmanager where Debian's are installed."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    web_url: str
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
            check_health=lambda: probe("the exporter", self.exporter_url),
            environment={
                "TELEMETRY_LAKE_MONITORING__PORT": str(self.exporter_port),
                "TELEMETRY_LAKE_MONITORING__STATE_DIRECTORY": str(self.layout.data("monitoring")),
                "TELEMETRY_LAKE_MONITORING__WEB_URL": self.web_url,
            },
            after=after,
            ports={self.exporter_port: "LOCAL_STACK_EXPORTER_PORT"},
        )

    def servers(self) -> tuple[Program, Program]:
        """Return Prometheus and Alertmanager. Raises ConfigurationError when one is not installed."""
        return self._prometheus(), self._alertmanager()

    def _prometheus(self) -> Program:
        program = prometheus_program(
            self.layout.data(PROMETHEUS),
            self.prometheus_configuration(),
            f"--storage.tsdb.retention.time={RETENTION_DAYS}d",
            f"--storage.tsdb.retention.size={RETENTION_MEGABYTES}MB",
            port=self.prometheus_port,
            log_file=self.layout.log(PROMETHEUS),
        )
        return replace(program, ports={self.prometheus_port: "LOCAL_STACK_PROMETHEUS_PORT"})

    def _alertmanager(self) -> Program:
        program = alertmanager_program(
            self.layout.data(ALERTMANAGER),
            self.project_root / "monitoring" / "alertmanager.yaml",
            f"--data.retention={ALERT_RETENTION_HOURS}h",
            port=self.alertmanager_port,
            log_file=self.layout.log(ALERTMANAGER),
        )
        return replace(program, ports={self.alertmanager_port: "LOCAL_STACK_ALERTMANAGER_PORT"})

    def prometheus_configuration(self) -> Mapping[str, Any]:
        """Return Prometheus's configuration: JSON, which is YAML."""
        return {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
            "rule_files": [str(self.project_root / "monitoring" / "rules.yaml")],
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


def prometheus_program(
    directory: Path, configuration: Mapping[str, Any], *flags: str, port: int, log_file: Path
) -> Program:
    """Return a Prometheus that keeps its data in a folder.

    Raises ConfigurationError when none is installed.
    """
    file = directory / "prometheus.yaml"
    return Program(
        name=PROMETHEUS,
        command=(
            _installed(0),
            f"--config.file={file}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            *flags,
        ),
        directory=directory,
        log_file=log_file,
        check_health=lambda: probe("Prometheus", f"http://{LOOPBACK}:{port}/-/ready"),
        # JSON is YAML.
        files={file: json.dumps(configuration, indent=2)},
    )


def alertmanager_program(directory: Path, file: Path, *flags: str, port: int, log_file: Path) -> Program:
    """Return an Alertmanager with the configuration in a file, which keeps its data in a folder.

    Raises ConfigurationError when none is installed.
    """
    return Program(
        name=ALERTMANAGER,
        command=(
            _installed(1),
            f"--config.file={file}",
            f"--storage.path={directory / 'storage'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            # Alone, it needs no port for others of its kind.
            "--cluster.listen-address=",
            *flags,
        ),
        directory=directory,
        log_file=log_file,
        check_health=lambda: probe("Alertmanager", f"http://{LOOPBACK}:{port}/-/ready"),
    )


def _installed(number: int) -> str:
    name = PROMETHEUS_PACKAGES[number]
    return required(name, package=name)
