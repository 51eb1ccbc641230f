"""The DAGs say when and in what order: they parse quickly, say what they are, and run."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from build_tools.airflow_page import PAGE
from dags.assets import DASHBOARD_CUBES, FINISHED_DATES, RAW_INDEX, assets
from dags.owners import ANALYSIS_SERVICE, ENGINEERS, OPERATORS
from lake_testing.airflow_runs import RUN_DEADLINE_SECONDS, airflow_environment, run_dags
from lake_testing.shipping import assert_each_once, queue_is_empty, ship, ship_bytes
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.monitoring.sources.airflow import WITHIN
from telemetry_lake.monitoring.sources.work import RULES
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.tables.definitions import (
    HISTOGRAM_AGGREGATES,
    LIVE_PINGS,
    LIVE_REJECTED_PINGS,
    STABLE_PINGS,
    table_definition,
    table_names,
)

HEAVY = ("great_expectations", "pandas", "pyiceberg", "polars", "pyspark", "boto3", "aiobotocore", "duckdb")
"""What no DAG file may import when it is parsed, which happens in every task, too."""


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def parsed(airflow_home) -> dict[str, Any]:
    """What a process finds in the DAG files that does nothing but parse them."""
    code = f"""
import json, sys
from dataclasses import asdict
from airflow.dag_processing.dagbag import DagBag
from build_tools.airflow_page import facts_of, generated_part, page_with
heavy_before = set({HEAVY!r}) & set(sys.modules)
bag = DagBag({str(PROJECT_ROOT / "dags")!r}, bundle_name="test")
from dags.assets import ASSETS
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
    "owners": {{name: {{task.owner for task in dag.tasks}} for name, dag in bag.dags.items()}},
    "drain_weights": sorted({{str(task.weight_rule) for task in bag.dags["drain"].tasks}}),
    "facts": [asdict(facts) for facts in facts_of(bag.dags)],
    "assets": sorted(ASSETS),
    "descriptions": {{name: asset.extra["description"] for name, asset in ASSETS.items()}},
    "page": page_with(generated_part(facts_of(bag.dags))),
}}, default=sorted))
"""
    program = subprocess.run(
        [sys.executable, "-c", code],
        env=airflow_environment(airflow_home),
        capture_output=True,
        text=True,
        timeout=RUN_DEADLINE_SECONDS,
        check=True,
    )
    found: dict[str, Any] = json.loads(program.stdout.splitlines()[-1])
    return found


def test_every_dag_parses_without_heavy_imports_and_is_documented(parsed):
    assert parsed["drain_weights"] == ["upstream"]  # what is begun, before anything is begun
    assert parsed["errors"] == {}
    assert parsed["heavy"] == []
    assert parsed["must_be_filled_in"] == []  # the browser's form has to be sendable as it opens
    assert parsed["undocumented"] == parsed["paused"] == []
    assert {"completeness", "drain", "reconcile", "replay"} <= set(parsed["dags"])


def test_every_dag_has_one_owner_and_tags(parsed):
    known = {OPERATORS, ENGINEERS, ANALYSIS_SERVICE}
    assert {dag: owners for dag, owners in parsed["owners"].items() if len(owners) != 1} == {}
    assert {owners[0] for owners in parsed["owners"].values()} == known
    assert [facts["dag_id"] for facts in parsed["facts"] if not facts["tags"]] == []


def test_every_table_is_an_asset_that_a_dag_writes(parsed):
    written = {name for facts in parsed["facts"] for name in facts["writes"]}
    assert set(table_names()) <= set(parsed["assets"])
    assert written | {RAW_INDEX} == set(parsed["assets"])
    assert parsed["descriptions"][LIVE_PINGS] == table_definition(LIVE_PINGS).metadata.description.strip()


def test_a_name_that_is_no_asset_is_refused_with_what_to_do():
    with pytest.raises(ConfigurationError, match=r"no asset is called live\.ping: a table needs a folder"):
        assets("live.pings", "live.ping")


def test_the_chain_of_assets_goes_from_the_raw_index_to_the_dashboard(parsed):
    edges = {facts["dag_id"]: facts for facts in parsed["facts"]}
    for dag, read, written in (
        ("drain", RAW_INDEX, LIVE_PINGS),
        ("drain", RAW_INDEX, LIVE_REJECTED_PINGS),
        ("reconcile", RAW_INDEX, FINISHED_DATES),
        ("stable_tables", LIVE_PINGS, STABLE_PINGS),
        ("stable_tables", FINISHED_DATES, HISTOGRAM_AGGREGATES),
        ("fresh_aggregates", LIVE_PINGS, HISTOGRAM_AGGREGATES),
        ("ping_volumes", LIVE_REJECTED_PINGS, "derived.ping_volumes"),
        ("dashboard", HISTOGRAM_AGGREGATES, DASHBOARD_CUBES),
    ):
        assert read in edges[dag]["reads"], dag
        assert written in edges[dag]["writes"], dag


def test_no_dag_starts_itself_or_at_every_batch_and_all_but_the_drain_also_start_by_the_clock(parsed):
    """An event can be missed; what the drain commits comes every few seconds."""
    started = {facts["dag_id"]: facts for facts in parsed["facts"] if facts["starts_with"]}
    assert set(started) == {"drain", "stable_tables", "dashboard"}
    for dag, facts in started.items():
        assert not set(facts["starts_with"]) & set(facts["writes"]), dag
        assert not set(facts["starts_with"]) & {LIVE_PINGS, LIVE_REJECTED_PINGS}, dag
        assert facts["clock"] or dag == "drain"


def test_no_dag_and_no_work_counts_as_late_before_the_clock_could_start_it_again(parsed):
    clocks = {facts["dag_id"]: _period(facts["clock"]) for facts in parsed["facts"] if facts["clock"]}
    assert set(WITHIN) == set(clocks)
    assert {dag: period for dag, period in clocks.items() if WITHIN[dag] <= period} == {}
    written = {facts["dag_id"]: facts["writes"] for facts in parsed["facts"]}
    for work, rule in RULES.items():
        makers = {dag for dag in clocks if dag == work or {work, rule.table} & set(written[dag])}
        if work == "completeness":
            makers = {"reconcile"}  # which keeps the same figures, more often than the DAG of that name
        assert makers or work == "backfill", work
        assert all(rule.within > clocks[dag] for dag in makers), work


def _period(clock: str) -> timedelta:
    """Return the time between two starts, of a clock as the page about Airflow shows it."""
    if clock.startswith("every "):
        return timedelta(minutes=int(clock.split()[1]))
    minutes, hours, *others = clock.strip("`").split()
    assert others == ["*"] * 3, clock
    if hours != "*":
        assert hours.isdigit(), clock
        return timedelta(days=1)
    every, _, step = minutes.partition("/")
    return timedelta(minutes=int(step)) if step else timedelta(hours=1) / len(every.split(","))


def test_the_page_about_airflow_shows_these_dags(parsed):
    assert PAGE.read_text(encoding="utf-8") == parsed["page"], "run python -m build_tools.airflow_page"


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
    assert {empty["tasks"][name][0] for name in ("convert", "validate", "publish")} == {"skipped"}
    assert reconciled["tasks"] == {"send_again": ["success"], "tell_finished_dates": ["skipped"]}
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
    # The last line of the failed task, behind its traceback.
    assert "Traceback" in output[: output.index("What to do: ")]
    assert "What to do: do what the message above says" in output
    assert_each_once(lake.settings, shipped)
    assert replayed["state"] == "success"
    assert not queue_is_empty(lake.settings)
