"""The outer watcher, against a real Alertmanager."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from lake_testing.stack import RunningProgram, free_ports
from local_stack.program import LOOPBACK, Program, probe
from telemetry_lake.monitoring.watchdog import WATCHDOG, WatchersSilent, check_watchdog
from telemetry_lake.project_files import PROJECT_ROOT

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None,
    reason="Alertmanager is not installed: apt-get install prometheus-alertmanager",
)


def tell(url: str, name: str, *, ends_in: timedelta) -> None:
    now = datetime.now(UTC)
    alert = {
        "labels": {"alertname": name, "severity": "watchdog"},
        "startsAt": (now - timedelta(hours=1)).isoformat(),
        "endsAt": (now + ends_in).isoformat(),
    }
    httpx.post(f"{url}/api/v2/alerts", json=[alert], trust_env=False).raise_for_status()


def test_it_complains_unless_the_watchdog_holds_now(tmp_path: Path) -> None:
    port = free_ports(1)
    url = f"http://{LOOPBACK}:{port}"
    alertmanager = RunningProgram(
        Program(
            name="alertmanager",
            command=(
                "prometheus-alertmanager",
                f"--config.file={PROJECT_ROOT / 'monitoring' / 'alertmanager.yaml'}",
                f"--storage.path={tmp_path}",
                f"--web.listen-address={LOOPBACK}:{port}",
                "--cluster.listen-address=",
            ),
            directory=tmp_path,
            log_file=tmp_path / "log",
            check_health=lambda: (probe("Alertmanager", f"{url}/-/ready"), None)[1],
        )
    )
    try:
        with pytest.raises(WatchersSilent, match=f"does not answer at {url}"):
            check_watchdog(url)
        alertmanager.start()
        tell(url, "QueueOld", ends_in=timedelta(minutes=4))
        tell(url, WATCHDOG, ends_in=timedelta(seconds=-1))
        with pytest.raises(WatchersSilent, match="has not heard of Watchdog"):
            check_watchdog(url)
        tell(url, WATCHDOG, ends_in=timedelta(minutes=4))
        check_watchdog(f"{url}/")
    finally:
        alertmanager.kill()
