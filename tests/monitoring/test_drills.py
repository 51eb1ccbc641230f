"""Some of the drills, the quick ones, on a real stack; `make drills` runs them all."""

import shutil
from pathlib import Path

import pytest

from benchmarks.drills.drill import run_drill, wait_until_quiet
from benchmarks.drills.edge import EDGE_DRILLS
from benchmarks.drills.every import DRILLS, NOT_DRILLED, alarms_of
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


def test_every_alarm_is_drilled_or_has_a_reason_why_not() -> None:
    drilled = {alarm for drill in DRILLS for alarm in drill.alarms}
    assert drilled | NOT_DRILLED.keys() == BY_NAME.keys()
    assert not drilled & NOT_DRILLED.keys()
    assert all(len(reason) > 10 for reason in NOT_DRILLED.values())


def test_a_stage_watches_what_its_drills_are_about_and_no_airflow_where_there_is_none() -> None:
    for drill in DRILLS:
        assert set(drill.alarms) <= set(alarms_of(drill.part))
    assert set(alarms_of(Part.LAKE)) == BY_NAME.keys()
    assert "AirflowUnreachable" not in alarms_of(Part.FLOW)
    assert "QueueOld" in alarms_of(Part.FLOW)
