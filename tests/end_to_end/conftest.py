"""One local stack for all tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lake_testing.chaos import VARIABLES as CHAOS_VARIABLES
from lake_testing.local_lake import LocalLake, local_lake
from telemetry_lake.project_files import PROJECT_ROOT

DEFINITIONS = PROJECT_ROOT / "lake_testing" / "data" / "definitions"


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalLake]:
    """The whole local stack, in a folder of its own; stopped before other modules start theirs."""
    variables = {
        "TELEMETRY_LAKE_CONVERSION__HISTOGRAM_DEFINITIONS_DIRECTORY": str(DEFINITIONS),
        # A date is finished when its claims have been there for so long.
        "TELEMETRY_LAKE_DRAIN__RECONCILE_GRACE_SECONDS": "20",
    }
    with local_lake({**CHAOS_VARIABLES, **variables}) as lake:
        yield lake


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """Where a fleet may write its proof."""
    return tmp_path / "acknowledged"
