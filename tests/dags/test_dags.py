"""The DAGs say when and in what order: they parse quickly, say what they are, and run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lake_testing.airflow_runs import RUN_DEADLINE_SECONDS, airflow_environment, run_dags
from lake_testing.shipping import assert_each_once, queue_is_empty, ship, ship_bytes
from telemetry_lake.project_files import PROJECT_ROOT

HEAVY = ("great_expectations", "pandas", "pyiceberg", "polars", "pyspark", "boto3", "aiobotocore", "duckdb")
"""What no DAG file may import when it is parsed, which happens in every task, too."""


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


def test_every_dag_parses_without_heavy_imports_and_is_documented(airflow_home):
    code = f"""
import json, sys
from airflow.dag_processing.dagbag import DagBag
heavy_before = set({HEAVY!r}) & set(sys.modules)
bag = DagBag({str(PROJECT_ROOT / "dags")!r}, bundle_name="test")
print(json.dumps({{
    "errors": bag.import_errors,
    "heavy": sorted(set({HEAVY!r}) & set(sys.modules) - heavy_before),
    "seconds": max(stat.duration.total_seconds() for stat in bag.dagbag_stats),
    "undocumented": [name for name, dag in bag.dags.items() if not dag.doc_md or not dag.dag_display_name],
    "paused": [name for name, dag in bag.dags.items() if dag.is_paused_upon_creation is not False],
    "dags": sorted(bag.dags),
    "must_be_filled_in": [
        (name, param)
        for name, dag in bag.dags.items()
        for param, said in dag.params.items()
        if dag.params[param] in (None, "") and "null" not in dag.params.get_param(param).schema["type"]
    ],
    "drain_weights": sorted({{str(task.weight_rule) for task in bag.dags["drain"].tasks}}),
}}))
"""
    program = subprocess.run(
        [sys.executable, "-c", code],
        env=airflow_environment(airflow_home),
        capture_output=True,
        text=True,
        timeout=RUN_DEADLINE_SECONDS,
        check=True,
    )
    found = json.loads(program.stdout.splitlines()[-1])
    assert found["drain_weights"] == ["upstream"]  # what is begun, before anything is begun
    assert found["errors"] == {}
    assert found["heavy"] == []
    assert found["must_be_filled_in"] == []  # the browser's form has to be sendable as it opens
    assert found["undocumented"] == found["paused"] == []
    assert {"completeness", "drain", "reconcile", "replay"} <= set(found["dags"])


@pytest.mark.slow
def test_a_drain_is_green_with_and_without_messages_and_the_reconciler_leaves_it_alone(airflow_home, lake):
    shipped = ship(lake.settings, objects=2, good=3, bad=1)
    (full, empty, reconciled, complete), _ = run_dags(
        airflow_home, lake, ("drain", {}), ("drain", {}), ("reconcile", {}), ("completeness", {})
    )
    assert full["state"] == empty["state"] == reconciled["state"] == complete["state"] == "success"
    assert full["tasks"] == {
        name: ["success"] for name in ("claim", "convert", "validate", "publish", "acknowledge")
    }
    assert empty["tasks"]["convert"] == empty["tasks"]["validate"] == ["skipped"]
    assert_each_once(lake.settings, shipped)
    assert queue_is_empty(lake.settings)


@pytest.mark.slow
def test_a_poison_raw_object_turns_the_run_red_and_the_others_are_committed(airflow_home, lake):
    poison = ship_bytes(lake.settings, b"not Arrow")
    shipped = ship(lake.settings)
    (drained, replayed), output = run_dags(
        airflow_home, lake, ("drain", {}), ("replay", {"what": "dead letters"})
    )
    assert drained["state"] == "failed"
    assert drained["tasks"]["publish"] == ["success"]
    assert drained["tasks"]["acknowledge"] == ["failed"]
    assert f"in the dead letters: {poison.key}" in output
    assert_each_once(lake.settings, shipped)
    assert replayed["state"] == "success"
    assert not queue_is_empty(lake.settings)
