"""The health checks that containers run, against real servers on this machine."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from lake_testing.stack import EmbeddedS3, free_ports
from local_stack.program import Unhealthy
from telemetry_lake.project_files import PROJECT_ROOT

HEALTHY: Final = PROJECT_ROOT / "docker" / "healthy.py"


def healthy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, HEALTHY, *arguments], capture_output=True, text=True, check=False)


def test_a_server_that_answers_is_healthy(embedded_s3: EmbeddedS3) -> None:
    embedded_s3.start()
    answer = healthy(f"{embedded_s3.service.s3_url}/healthz")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_an_error_is_not_healthy(embedded_s3: EmbeddedS3) -> None:
    embedded_s3.start()
    answer = healthy(f"{embedded_s3.service.s3_url}/raw/is-not-for-everybody")
    assert answer.returncode == 1
    assert "403" in answer.stderr


def test_a_port_that_is_not_listened_on_is_not_healthy() -> None:
    answer = healthy(f"http://127.0.0.1:{free_ports(1)}/")
    assert answer.returncode == 1
    assert "refused" in answer.stderr


def test_a_component_that_is_not_mentioned_is_not_healthy(embedded_s3: EmbeddedS3) -> None:
    embedded_s3.start()
    url = f"{embedded_s3.service.catalog_url}/v1/config?warehouse=s3://warehouse/"
    answer = healthy(url, "--component=scheduler")
    assert answer.returncode == 1
    assert "scheduler is None" in answer.stderr


@pytest.fixture
def process(
    embedded_service: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[bytes]]:
    """Stands for the service of a container: what is ended when the checks go on failing."""
    monkeypatch.setattr(embedded_service, "STATE_DIRECTORY", tmp_path)
    with subprocess.Popen(["sleep", "infinity"]) as sleeping:
        (tmp_path / "process_id").write_text(str(sleeping.pid))
        yield sleeping
        sleeping.kill()


def test_a_service_that_stays_unhealthy_is_ended(
    embedded_service: ModuleType, process: subprocess.Popen[bytes], embedded_s3: EmbeddedS3
) -> None:
    embedded_s3.start()
    gone = replace(embedded_s3.service, s3_port=free_ports(1))
    embedded_service.check(embedded_s3.service)
    for _ in range(embedded_service.MAX_FAILED_CHECKS - 1):
        with pytest.raises(Unhealthy):
            embedded_service.check(gone)
    # One good answer, and the count begins again.
    embedded_service.check(embedded_s3.service)
    for _ in range(embedded_service.MAX_FAILED_CHECKS - 1):
        with pytest.raises(Unhealthy):
            embedded_service.check(gone)
    assert process.poll() is None
    with pytest.raises(Unhealthy):
        embedded_service.check(gone)
    assert process.wait(timeout=10) == -signal.SIGTERM


def test_a_service_that_was_never_healthy_is_left_alone(
    embedded_service: ModuleType, process: subprocess.Popen[bytes], embedded_s3: EmbeddedS3
) -> None:
    embedded_s3.start()
    gone = replace(embedded_s3.service, s3_port=free_ports(1))
    for _ in range(embedded_service.MAX_FAILED_CHECKS + 1):
        with pytest.raises(Unhealthy):
            embedded_service.check(gone)
    assert process.poll() is None
