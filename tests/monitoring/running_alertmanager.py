"""A real Alertmanager, and alerts as Prometheus posts them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from lake_testing.stack import RunningProgram, free_ports
from local_stack.monitoring import alertmanager_program
from local_stack.program import LOOPBACK


class RunningAlertmanager:
    """An Alertmanager with this configuration, on a free port; `url` is where it will be."""

    def __init__(self, directory: Path, configuration: dict[str, Any]) -> None:
        port = free_ports(1)
        file = directory / "alertmanager.yaml"
        self.url = f"http://{LOOPBACK}:{port}"
        program = alertmanager_program(directory, file, port=port, log_file=directory / "log")
        self._program = RunningProgram(replace(program, files={file: yaml.safe_dump(configuration)}))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it for the length of the block."""
        try:
            self._program.start()
            yield
        finally:
            self._program.kill()

    def tell(self, alert: str, *, ends_in: timedelta = timedelta(minutes=4), **more: dict[str, str]) -> None:
        """Tell it of an alert that holds until a moment; `more` are its labels and annotations."""
        now = datetime.now(UTC)
        content = {
            "labels": {"alertname": alert, **more.get("labels", {})},
            "annotations": more.get("annotations", {}),
            "startsAt": (now - timedelta(hours=1)).isoformat(),
            "endsAt": (now + ends_in).isoformat(),
        }
        answer = httpx.post(f"{self.url}/api/v2/alerts", json=[content], trust_env=False)
        answer.raise_for_status()
