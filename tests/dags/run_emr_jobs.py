"""Runs the DAGs of emr_jobs/ in this process and prints what became of their tasks as JSON.

A program of its own, as `run_dag` is. The argument is JSON: a list of pairs of a DAG id and a configuration.
"""

import json
import sys
from pathlib import Path
from typing import Any, cast

from airflow.dag_processing.dagbag import DagBag
from airflow.models.xcom import XComModel
from airflow.utils.db import upgradedb
from airflow.utils.session import create_session


def main() -> None:
    """Run one DAG after the other."""
    upgradedb()
    bag = DagBag(Path(__file__).with_name("emr_jobs"), bundle_name="test")
    assert not bag.import_errors, bag.import_errors
    runs = []
    for dag_id, conf in json.loads(sys.argv[1]):
        run = bag.dags[dag_id].test(run_conf=conf)
        (task,) = run.get_task_instances()
        with create_session() as session:
            found = XComModel.get_many(run_id=run.run_id, dag_ids=dag_id)
            left = {row.key: XComModel.deserialize_value(row) for row in cast("Any", session.scalars(found))}
        runs.append({"run_id": run.run_id, "state": str(task.state), "xcom": left})
    print("\n" + json.dumps(runs))


if __name__ == "__main__":
    main()
