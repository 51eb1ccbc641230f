"""Some of the drills, the quick ones, on a real stack; `make drills` runs them all."""

import shutil
from pathlib import Path

import pytest

from benchmarks.drills.__main__ import alarms_of
from benchmarks.drills.drill import run_drill, wait_until_quiet
from benchmarks.drills.edge import EDGE_DRILLS
from benchmarks.drills.stage import Part, running_stage
from telemetry_lake.monitoring.alarms import BY_NAME

QUICK = ("IngestNodeDown", "IngestNodesMissing", "SegmentDamaged", "Watchdog")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("prometheus-alertmanager") is None,
    reason="Prometheus is not installed: apt-get install prometheus prometheus-alertmanager",
)
def test_what_is_broken_fires_and_what_is_mended_resolves(tmp_path: Path) -> None:
    with running_stage(Part.EDGE, tmp_path / "stage", factor=120, alarms=alarms_of(Part.EDGE)) as stage:
        wait_until_quiet(stage)
        rows = [
            row for drill in EDGE_DRILLS if drill.alarms[0] in QUICK for row in run_drill(stage, drill, print)
        ]
    assert {row.alarm for row in rows} == set(QUICK)
    by_alarm = {row.alarm: row for row in rows}
    assert by_alarm["IngestNodeDown"].labels.keys() == {"instance", "severity"}
    assert by_alarm["SegmentDamaged"].labels["state"] == "damaged"


def test_every_drill_is_of_an_alarm() -> None:
    assert {alarm for drill in EDGE_DRILLS for alarm in drill.alarms} <= BY_NAME.keys()
