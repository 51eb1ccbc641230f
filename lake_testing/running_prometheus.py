"""Debian's Prometheus as a process of a test, with rules and targets of the test."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from lake_testing.stack import RunningProgram, free_ports
from local_stack.monitoring import prometheus_program
from local_stack.program import LOOPBACK

PROMETHEUS: Final = shutil.which("prometheus")
PROMTOOL: Final = shutil.which("promtool")
INTERVAL: Final = "1s"


class RunningPrometheus(RunningProgram):
    """`prometheus` in a folder and on a port of its own; `url` says where."""

    def __init__(self, folder: Path, targets: Mapping[str, str], rules: list[dict[str, object]]) -> None:
        """`targets` are addresses as host:port by the names of jobs."""
        port = free_ports(1)
        self.url = f"http://{LOOPBACK}:{port}"
        settings = {
            "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target]}]}
                for job, target in targets.items()
            ],
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "test", "rules": rules}]}))
        super().__init__(prometheus_program(folder, settings, port=port, log_file=folder / "prometheus.log"))
