"""Runs DAGs in this process, without a scheduler, and prints the states of their tasks as JSON.

A program of its own, because Airflow reads its configuration when it is imported: the tests start it with an
environment that names an Airflow home and a lake of theirs.
"""

import json
import sys

from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import upgradedb

from telemetry_lake.project_files import PROJECT_ROOT


def main() -> None:
    """Run one DAG after the other: the argument is JSON, a list of pairs of a DAG id and a configuration."""
    upgradedb()
    runs = []
    for dag_id, conf in json.loads(sys.argv[1]):
        # A DAG keeps the configuration of its last run as its parameters: each run gets a new one.
        bag = DagBag(PROJECT_ROOT / "dags", bundle_name="test")
        assert not bag.import_errors, bag.import_errors
        run = bag.dags[dag_id].test(run_conf=conf)
        states: dict[str, list[str]] = {}
        for task in run.get_task_instances():
            states.setdefault(task.task_id, []).append(str(task.state))
        runs.append({"state": str(run.state), "tasks": states})
    print("\n" + json.dumps(runs))


if __name__ == "__main__":
    main()
