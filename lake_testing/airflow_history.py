"""Fills the database of an Airflow with runs of the drain that never took place.

A program of its own, because Airflow reads its configuration when it is imported. Each run has what a real
one leaves behind: its tasks, their XComs and rendered fields, the asset event that started it, and lines of
the audit log.
"""

import argparse
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.settings import get_engine as engine_of_airflow
from airflow.utils.db import upgradedb
from sqlalchemy import Engine, func, insert, inspect, select, table

DAG: Final = "drain"
TASKS: Final = ("claim", "convert", "validate", "publish", "acknowledge")
RUNS_AT_ONCE: Final = 2_000
DOORBELL_ID: Final = 1

Row = dict[str, Any]


def fill(runs: Sequence[tuple[datetime, str]]) -> None:
    """Insert runs, each the aware time of its start and its state, and the doorbell that started them."""
    import_all_models()  # type: ignore[no-untyped-call]
    tables = Base.metadata.tables
    with _engine().begin() as connection:
        if not connection.scalar(select(func.count()).select_from(tables["trigger"])):
            old = min(start for start, _ in runs)
            doorbell = {
                "trigger": {"id": DOORBELL_ID, "classpath": "doorbell", "kwargs": "{}", "created_date": old},
                "asset": {"id": 1, "name": "raw_index", "uri": "raw_index", "group": "asset", "extra": {}},
                "asset_watcher": {"name": "doorbell", "asset_id": 1, "trigger_id": DOORBELL_ID},
                "job": {"job_type": "SchedulerJob", "state": "success", "latest_heartbeat": old},
            }
            for name, row in doorbell.items():
                connection.execute(insert(tables[name]), row)
        first = (connection.scalar(select(func.max(tables["dag_run"].c.id))) or 0) + 1
    for position in range(0, len(runs), RUNS_AT_ONCE):
        rows: dict[str, list[Row]] = {}
        for number, (start, state) in enumerate(runs[position : position + RUNS_AT_ONCE], first + position):
            for name, row in _rows_of_run(number, start, state):
                rows.setdefault(name, []).append(row)
        with _engine().begin() as connection:
            for name, rows_of_table in rows.items():
                connection.execute(insert(tables[name]), rows_of_table)


def _rows_of_run(number: int, start: datetime, state: str) -> list[tuple[str, Row]]:
    end = None if state == "running" else start + timedelta(seconds=10)
    run = {"dag_id": DAG, "run_id": f"asset_triggered__{start.isoformat()}_{number}"}
    rows: list[tuple[str, Row]] = [
        (
            "dag_run",
            run
            | {"id": number, "run_type": "asset_triggered", "run_after": start, "queued_at": start}
            | {"start_date": start, "end_date": end, "state": state, "clear_number": 0},
        ),
        ("asset_event", {"id": number, "asset_id": 1, "extra": {}, "timestamp": start}),
        ("dagrun_asset_event", {"dag_run_id": number, "event_id": number}),
    ]
    for task in TASKS:
        key = run | {"task_id": task, "map_index": -1}
        rows += [
            (
                "task_instance",
                key
                | {"id": uuid.uuid4(), "try_number": 1, "pool": "default_pool", "pool_slots": 1}
                | {"state": state, "start_date": start, "end_date": end, "operator": "@task"},
            ),
            ("rendered_task_instance_fields", key | {"rendered_fields": {}}),
            ("xcom", key | {"dag_run_id": number, "key": "return_value", "value": [], "timestamp": start}),
            ("log", {"dttm": start, "event": "running", "extra": "{}"} | run | {"task_id": task}),
        ]
    return rows


def _engine() -> Engine:
    engine: Engine = engine_of_airflow()  # type: ignore[no-untyped-call]
    return engine


def counts() -> dict[str, int]:
    """Return the number of rows of every table that is there."""
    with _engine().connect() as connection:
        return {
            name: connection.scalar(select(func.count()).select_from(table(name))) or 0
            for name in inspect(_engine()).get_table_names()
        }


def main() -> None:
    """Make the database, fill it with the runs given as JSON, and print the numbers of rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", help="a list of pairs: how many days ago a run was started, and its state")
    given = json.loads(parser.parse_args().runs)
    upgradedb()
    if given:
        now = datetime.now(UTC)
        fill([(now - timedelta(days=days), state) for days, state in given])
    print("\n" + json.dumps(counts()))


if __name__ == "__main__":
    main()
