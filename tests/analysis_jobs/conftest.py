"""Jobs and runs of a lake of the test's own."""

from collections.abc import Callable
from typing import Any

import pytest

from lake_testing.analysts import SCRIPT
from lake_testing.lake_of_scripts import lake_of_scripts
from telemetry_lake.analysis_jobs.documents import JobDraft, read_draft
from telemetry_lake.analysis_jobs.runs import Runs
from telemetry_lake.analysis_jobs.store import JobStore
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore

__all__ = ["lake_of_scripts"]


@pytest.fixture
def jobs(lake_settings: Settings) -> JobStore:
    """The jobs of a new lake."""
    return JobStore(ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket)


@pytest.fixture
def runs(jobs: JobStore, lake_settings: Settings) -> Runs:
    """Its runs, without an Airflow."""
    return Runs(jobs, lake_settings, None)


@pytest.fixture
def draft(jobs: JobStore) -> Callable[..., JobDraft]:
    """Makes drafts of jobs whose code is there."""
    digest = jobs.put_code({"script.py": SCRIPT})

    def make(name: str = "os", **fields: Any) -> JobDraft:
        code = {"kind": "text", "digest": digest, "entry": "script.py"}
        return read_draft({"name": name, "code": code, **fields})

    return make
