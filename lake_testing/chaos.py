"""Kill processes of a local stack while a fleet posts, and check that no ping is lost or doubled.

Each victim gets SIGKILL, and the supervision of the stack has to start it again. The next victim is killed
when the last one answers again and some more pings were acknowledged. At the end the fleet stops, the drain
runs until every acknowledged document id is found, and the verdict says whether each is in the lake exactly
as often as it was sent, in the table where it belongs. `python -m benchmarks.chaos` is the command.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from lake_testing.local_lake import LocalLake, running_fleet, wait_for
from lake_testing.proof_check import Verdict, wait_for_verdict
from local_stack.airflow import API_SERVER, DAG_PROCESSOR, SCHEDULER, TRIGGERER
from local_stack.celery_workers import WORKER_PREFIX
from local_stack.scale_workers import tasks_of

UP_AGAIN_MAX_SECONDS: Final = 180.0
BUSY_MAX_SECONDS: Final = 120.0
"""How long to wait for a running task that can be killed."""
PINGS_BETWEEN_KILLS: Final = 20
VARIABLES: Final = {
    # A batch whose task was killed goes on when its messages come again.
    "TELEMETRY_LAKE_SQS__VISIBILITY_TIMEOUT_SECONDS": "20",
    # The outages of this run must not use up the attempts of a message.
    "TELEMETRY_LAKE_SQS__MAX_RECEIVE_COUNT": "50",
}

FLEET_OPTIONS: Final = (
    *("--duplicates", "0.02", "--late", "0.02", "--malformed", "0.05", "--oversized", "0.005"),
    "--quiet",
)
INGEST_NODE: Final = "ingest-node-1"
INGEST_CHILDREN: Final = "accept worker and shipper of ingest-node-1"
TASK: Final = "a task process"
EVERY_KIND: Final = (
    INGEST_NODE,
    INGEST_CHILDREN,
    "seaweedfs",
    TASK,
    "elasticmq",
    DAG_PROCESSOR,
    TRIGGERER,
    SCHEDULER,
)
"""One of each kind of process that a ping passes, or that moves it on."""
MORE_KINDS: Final = ("balancer", "postgres", API_SERVER)
"""Processes whose death stops the whole stack for a while; `benchmarks.chaos` kills them, too."""


@dataclass(slots=True)
class ChaosReport:
    """How often each victim was killed, in how many seconds, and the verdict on the pings."""

    killed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    def __str__(self) -> str:
        killed = ", ".join(f"{name} {count}x" for name, count in sorted(self.killed.items()))
        return f"killed in {self.seconds:.0f} s: {killed}\n{self.verdict}"


def chaos(
    lake: LocalLake,
    proof: Path,
    *,
    victims: Iterable[str],
    rate: float,
    recovery_max_seconds: float,
    say: Callable[[str], None] = lambda _: None,
) -> ChaosReport:
    """Kill `victims` one after the other while a fleet posts `rate` pings per second.

    Returns the report. Raises NotInTime when a victim does not answer again.
    """
    report = ChaosReport()
    started = time.monotonic()
    with running_fleet(lake.url, proof, "--rate", f"{rate:g}", *FLEET_OPTIONS) as fleet:
        for victim in victims:
            before = fleet.acknowledged()
            wait_for(
                lambda: fleet.acknowledged() >= before + PINGS_BETWEEN_KILLS,  # noqa: B023
                deadline_seconds=UP_AGAIN_MAX_SECONDS,
                what=f"{PINGS_BETWEEN_KILLS} more pings are acknowledged",
            )
            program, killed = kill(lake, victim)
            report.killed[victim] += 1
            wait_for(
                lambda: lake.is_up(program) and lake.leader(program) not in killed,  # noqa: B023
                deadline_seconds=UP_AGAIN_MAX_SECONDS,
                what=f"{program} is up again",
            )
            say(f"{victim} was killed and answers again; {fleet.acknowledged():,} pings acknowledged")
        fleet.stop()
    report.seconds = time.monotonic() - started
    say("the fleet has stopped; waiting until every acknowledged ping is found")
    report.verdict = wait_for_verdict(proof, lake.settings, deadline_seconds=recovery_max_seconds)
    return report


def kill(lake: LocalLake, victim: str) -> tuple[str, list[int]]:
    """Send SIGKILL to one kind of process. Returns its program, and the ids of the killed processes."""
    if victim == TASK:
        program, task = wait_for(lambda: _task(lake), deadline_seconds=BUSY_MAX_SECONDS, what="a task runs")
        return program, kill_all([task])
    if victim == INGEST_CHILDREN:
        return INGEST_NODE, kill_all(lake.processes(INGEST_NODE)[1:])
    return victim, kill_all(lake.processes(victim)[:1])


def kill_all(processes: list[psutil.Process]) -> list[int]:
    """Send SIGKILL to these processes, in their order. Returns their ids."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    return [process.pid for process in processes]


def workers_of(lake: LocalLake) -> list[str]:
    """Return the names of the stack's Celery workers; none when the scheduler runs the tasks itself."""
    return [item.name for item in lake.plan.programs if item.name.startswith(WORKER_PREFIX)]


def _task(lake: LocalLake) -> tuple[str, psutil.Process] | None:
    """Return a process that runs a task at this moment, and its program: the scheduler or a Celery worker."""
    for program in workers_of(lake) or [SCHEDULER]:
        for task in tasks_of(lake.leader(program)):
            return program, task
    return None
