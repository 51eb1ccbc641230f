"""The drill of what is made again and again, by Spark and by the proofs, on a stack without Airflow."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from benchmarks.drills.drill import Drill, DrillFailed
from benchmarks.drills.stage import Part, Stage

IDLE: Final = timedelta(days=3)
OF_TODAY: Final = ("stable_pings", "histogram_aggregates", "ping_volumes", "count_pings", "maintenance")
"""The jobs that are told which dates; there are no others yet."""


@contextmanager
def nothing_is_made(stage: Stage) -> Iterator[None]:
    """Let the exporter believe that the lake is three days old, in which no job and no proof ran.

    It is the first drill of its stage, as only a new lake has no trace of them.
    """
    stage.exporter_remembers("work", first_seen_at=(datetime.now(UTC) - IDLE).isoformat())
    yield
    # By the runbooks: by hand, each of them.
    for command in ("reconcile", "completeness"):
        stage.command(command)
    for job in OF_TODAY:
        _run_job(stage, job, "--dates", "today")
    _run_job(stage, "dashboard_cubes")


def _run_job(stage: Stage, job: str, *arguments: str) -> None:
    """Run a job. Raises DrillFailed."""
    ended = stage.python(f"jobs/{job}.py", *arguments)
    if ended.returncode != 0:
        raise DrillFailed(f"jobs/{job}.py ended with {ended.returncode}")


WORK_DRILLS: Final = (
    Drill(
        ("ProofLate", "MaintenanceLate", "DerivedStale"),
        f"no job and no proof has run for {IDLE.days} days, says the exporter's record",
        nothing_is_made,
        Part.FLOW,
    ),
)
