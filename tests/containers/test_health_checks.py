"""The health checks that containers run, against real servers on this machine."""

import subprocess
import sys
from typing import Final

from telemetry_lake.settings import PROJECT_ROOT
from tests.stack_fixture import EmbeddedS3, free_ports

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


def test_nobody_there_is_not_healthy() -> None:
    answer = healthy(f"http://127.0.0.1:{free_ports(1)}/")
    assert answer.returncode == 1
    assert "refused" in answer.stderr


def test_a_component_that_is_not_mentioned_is_not_healthy(embedded_s3: EmbeddedS3) -> None:
    embedded_s3.start()
    url = f"{embedded_s3.service.catalog_url}/v1/config?warehouse=s3://warehouse/"
    answer = healthy(url, "--component=scheduler")
    assert answer.returncode == 1
    assert "scheduler is None" in answer.stderr
