"""The assets of Airflow, each defined here once: every table, and what is made before and after the tables.

A task names what it reads as `inlets` and what it writes as `outlets`, by the names of this module. Airflow
draws its asset graph from these, keeps an event each time that a task that writes has ended well, and starts
the DAGs that are scheduled on an asset. docs/airflow.md shows the graph.

Tables are those that have a folder in `sql/`. Their definitions are not read through `telemetry_lake.tables`,
which imports Arrow: DAG files are parsed in every task.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml
from airflow.sdk import Asset, AssetWatcher
from pydantic import JsonValue

from dags.doorbell import IndexQueueDoorbell
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT

SQL_DIRECTORY: Final = PROJECT_ROOT / "sql"
RAW_INDEX: Final = "raw_index"
FINISHED_DATES: Final = "finished_dates"
DASHBOARD_CUBES: Final = "dashboard_cubes"


def _table(metadata_file: Path) -> Asset:
    namespace, table = metadata_file.parent.relative_to(SQL_DIRECTORY).parts
    metadata: dict[str, Any] = yaml.load(metadata_file.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    about: dict[str, JsonValue] = {
        "description": str(metadata["description"]).strip(),
        "one row is": str(metadata["grain"]).strip(),
        "filled by": str(metadata["filled_by"]),
    }
    return Asset(f"{namespace}.{table}", group=namespace, extra=about)


_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader of plain data takes 3 ms for all tables, and the one in Python 18."""

_OTHERS: Final = (
    Asset(
        RAW_INDEX,
        group="raw",
        watchers=[AssetWatcher(name="doorbell", trigger=IndexQueueDoorbell())],
        extra={"description": "The queue of index messages. Each names a raw object that a node shipped."},
    ),
    Asset(
        FINISHED_DATES,
        group="live",
        extra={
            "description": "The dates of the live tables that are over and have everything that arrived for "
            "them. An event names the dates that are finished now, or again."
        },
    ),
    Asset(
        DASHBOARD_CUBES,
        group="dashboard",
        extra={"description": "What the dashboard shows, in the lake bucket: sums of the aggregates."},
    ),
)
_TABLES: Final = map(_table, sorted(SQL_DIRECTORY.glob("*/*/metadata.yaml")))
ASSETS: Final[Mapping[str, Asset]] = MappingProxyType({each.name: each for each in (*_OTHERS, *_TABLES)})
"""All assets, by name."""


def assets(*names: str) -> list[Asset]:
    """Return the assets of these names. Raises ConfigurationError when there is no such asset."""
    if unknown := [name for name in names if name not in ASSETS]:
        raise ConfigurationError(
            f"no asset is called {', '.join(unknown)}: a table needs a folder in sql/, anything else a line "
            "in dags/assets.py"
        )
    return [ASSETS[name] for name in names]
