"""The program that SeaweedFS and ElasticMQ are started with in containers, as a module."""

import importlib.util
import sys
from types import ModuleType

import pytest

from telemetry_lake.project_files import PROJECT_ROOT


@pytest.fixture
def embedded_service(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = PROJECT_ROOT / "docker" / "embedded_service.py"
    spec = importlib.util.spec_from_file_location("embedded_service", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
