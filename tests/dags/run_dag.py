"""Runs one DAG in this process, without a scheduler, and prints the state of its tasks as JSON.

A program of its own, because Airflow reads its configuration when it is imported: the tests start it with an
environment that names an Airflow home and a lake of theirs.
"""

import json
import sys

from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import upgradedb

from telemetry_lake.settings import PROJECT_ROOT


def main() -> None:
    """Run the DAG named by the first argument, with the JSON of the second as its configuration."""
    dag_id, conf = sys.argv[1], json.loads(sys.argv[2])
    upgradedb()
    bag = DagBag(PROJECT_ROOT / "dags", bundle_name="test")
    assert not bag.import_errors, bag.import_errors
    run = bag.dags[dag_id].test(run_conf=conf)
    states: dict[str, list[str]] = {}
    for task in run.get_task_instances():
        states.setdefault(task.task_id, []).append(str(task.state))
    print("\n" + json.dumps({"state": str(run.state), "tasks": states}))


if __name__ == "__main__":
    main()
