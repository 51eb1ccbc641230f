"""Every drill, and the alarms that have none."""

from collections.abc import Mapping
from typing import Final

from benchmarks.drills.airflow import AIRFLOW_DRILLS
from benchmarks.drills.drill import Drill
from benchmarks.drills.edge import EDGE_DRILLS
from benchmarks.drills.lake import LAKE_DRILLS
from benchmarks.drills.stage import Part
from benchmarks.drills.works import WORK_DRILLS
from telemetry_lake.monitoring.alarms import ALARMS

DRILLS: Final[tuple[Drill, ...]] = (*EDGE_DRILLS, *WORK_DRILLS, *LAKE_DRILLS, *AIRFLOW_DRILLS)
NOT_DRILLED: Final[Mapping[str, str]] = {
    "QueueForgets": "ElasticMQ keeps a message until it is deleted, and has no time that could be too short",
    "SnapshotsKept": "it takes 5,001 commits to a table, which is more than an hour's work",
    "BalancerErrors": "only AWS sees it",
    "SpoolDiskBurst": "only AWS sees it",
    "DatabaseDisk": "only AWS sees it",
}
"""The alarms that no drill covers, with the reasons; promtool proves the rules of all that Prometheus has."""
_OF_AIRFLOW: Final = frozenset(alarm for drill in AIRFLOW_DRILLS for alarm in drill.alarms)


def drilled_in(part: Part) -> list[str]:
    """Return the alarms that have drills in a part."""
    return [alarm for drill in DRILLS if drill.part is part for alarm in drill.alarms]


def alarms_of(part: Part) -> list[str]:
    """Return the alarms whose parts run in a stage."""
    every = [alarm.name for alarm in ALARMS]
    match part:
        case Part.EDGE:
            return drilled_in(part)
        case Part.FLOW:
            return [alarm for alarm in every if alarm not in _OF_AIRFLOW]
        case Part.LAKE:
            return every
