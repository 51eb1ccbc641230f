"""The closed list of alarms, from which rules of Prometheus, alarms of CloudWatch and runbooks follow.

An alarm is about what users of the lake notice, or will notice when nobody acts. What explains it is on the
operations page and in its runbook. `telemetry_lake.monitoring.rules` says how expressions are written.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from telemetry_lake.monitoring.edge_alarms import EDGE_ALARMS
from telemetry_lake.monitoring.lake_alarms import (
    AWS_ALARMS,
    FLOW_ALARMS,
    RECORDED,
    WATCHER_ALARMS,
    WORK_ALARMS,
)
from telemetry_lake.monitoring.rules import Alarm, rule_file

ALARMS: Final[tuple[Alarm, ...]] = (
    *EDGE_ALARMS,
    *FLOW_ALARMS,
    *WORK_ALARMS,
    *WATCHER_ALARMS,
    *AWS_ALARMS,
)
BY_NAME: Final[Mapping[str, Alarm]] = {alarm.name: alarm for alarm in ALARMS}


def rules(names: Iterable[str] | None = None, *, factor: float = 1) -> dict[str, Any]:
    """Return the file of rules of these alarms, by default of all, with durations divided by `factor`."""
    chosen = set(BY_NAME if names is None else names)
    return rule_file([alarm for alarm in ALARMS if alarm.name in chosen], RECORDED, factor=factor)
