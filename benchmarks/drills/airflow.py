"""Drills of Airflow, its DAGs and what they start, on the whole stack."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from benchmarks.drills.drill import Drill
from benchmarks.drills.stage import OVERDUE_AFTER, Part, Stage, hanging
from lake_testing.airflow_user import AirflowUser, administrator
from lake_testing.analysts import ANN, SCRIPT
from lake_testing.local_lake import wait_for
from lake_testing.shipping import greeting, ship_pings
from local_stack.airflow import API_SERVER, DAG_PROCESSOR, TRIGGERER
from telemetry_lake.analysis_jobs.documents import read_draft
from telemetry_lake.analysis_jobs.store import JobStore
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role

FOREIGN_DAG: Final = PROJECT_ROOT / "dags" / "left_by_a_drill.py"
FOREIGN_TEXT: Final = "from airflow.sdk import dag\nimport a_package_that_is_not_there\n"
NOT_RUN_FOR: Final = timedelta(hours=2)
MENDED_SECONDS: Final = 300.0


@contextmanager
def user(stage: Stage) -> Iterator[AirflowUser]:
    """Yield the administrator of the stack's Airflow."""
    with administrator(stage.lake) as client:
        yield AirflowUser(client)


@contextmanager
def triggerer_hangs(stage: Stage) -> Iterator[None]:
    with hanging(process.pid for process in stage.lake.processes(TRIGGERER)):
        yield


@contextmanager
def dag_file_is_foreign(stage: Stage) -> Iterator[None]:
    # Airflow looks for new files every five minutes, and when it starts.
    with stage.without(DAG_PROCESSOR):
        FOREIGN_DAG.write_text(FOREIGN_TEXT)
    try:
        yield
    finally:
        with stage.without(DAG_PROCESSOR):
            FOREIGN_DAG.unlink()


@contextmanager
def dag_is_off(stage: Stage) -> Iterator[None]:
    long_ago = (datetime.now(UTC) - NOT_RUN_FOR).isoformat()
    with user(stage) as admin:
        with admin.switched_off("reconcile"):
            stage.exporter_remembers("airflow", last_success={"reconcile": long_ago})
            yield
        admin.run("reconcile")


@contextmanager
def proof_fails(stage: Stage) -> Iterator[None]:
    now = datetime.now(UTC)
    ship_pings(stage.settings(Role.NODE), [greeting(str(uuid4()), at=now)], first=now, send=False)
    wait_for(
        lambda: datetime.now(UTC) > now + OVERDUE_AFTER,
        deadline_seconds=2 * OVERDUE_AFTER.total_seconds(),
        what="the raw object is overdue",
    )
    with user(stage) as admin:
        admin.run("completeness")
        yield
        # What the last line of its log says.
        stage.command("rebuild-queue", "--skip-complete")
        wait_for(
            lambda: admin.run("completeness") == "success",
            deadline_seconds=MENDED_SECONDS,
            what="Completeness succeeds",
        )


@contextmanager
def analyses_do_not_begin(stage: Stage) -> Iterator[None]:
    store = JobStore.of(stage.settings(Role.ANALYSES))
    code = {"kind": "text", "digest": store.put_code({"script.py": SCRIPT}), "entry": "script.py"}
    draft = read_draft({"name": "drill", "code": code, "schedule": {"every": "daily"}})
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with user(stage) as admin:
        with admin.switched_off("scheduled_analyses"):
            job = store.create(ANN, draft, scheduled_since=yesterday)
            yield
        admin.run("scheduled_analyses")
    store.delete(ANN, job.name, job.version)


@contextmanager
def api_server_is_away(stage: Stage) -> Iterator[None]:
    with stage.without(API_SERVER):
        yield


AIRFLOW_DRILLS: Final = (
    Drill(
        ("AirflowComponentDead",), "all processes of the triggerer get SIGSTOP", triggerer_hangs, Part.LAKE
    ),
    Drill(
        ("DagLate",),
        "the DAG reconcile is off, and ran two hours ago, says the exporter's record",
        dag_is_off,
        Part.LAKE,
    ),
    Drill(("AnalysesLate",), "the DAG scheduled_analyses is off", analyses_do_not_begin, Part.LAKE),
    Drill(("DagUnreadable",), "a file in dags/ imports what is not there", dag_file_is_foreign, Part.LAKE),
    Drill(("DagFailed",), "completeness finds a raw object that is overdue", proof_fails, Part.LAKE),
    Drill(("AirflowUnreachable",), "the api-server is stopped", api_server_is_away, Part.LAKE),
)
