"""`python -m benchmarks.chaos`: kills processes of a local stack while a fleet posts; is anything lost?

Each victim gets SIGKILL; the stack's own supervision has to bring it back. Before the next one is killed, the
victim answers again and clients were acknowledged some pings more. At the end the fleet stops, the drain
goes on until every acknowledged document id is found, and the tally says whether each is in the lake exactly
as often as it was sent, in the table that it belongs to.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from benchmarks.local_lake import LocalLake, local_lake, running_fleet, wait_for
from benchmarks.proof_check import Verdict, wait_for_verdict
from local_stack.airflow import API_SERVER, DAG_PROCESSOR, SCHEDULER, TRIGGERER

UP_AGAIN_MAX_SECONDS: Final = 180.0
BUSY_MAX_SECONDS: Final = 120.0
"""How long to wait for a task to run that can be killed."""
RECOVERY_MAX_SECONDS: Final = 600.0
PINGS_BETWEEN_KILLS: Final = 20
VARIABLES: Final = {
    # A batch whose task was killed goes on when its messages come again.
    "TELEMETRY_LAKE_SQS__VISIBILITY_TIMEOUT_SECONDS": "20",
    # The outages made here must not use up the chances of a message.
    "TELEMETRY_LAKE_SQS__MAX_RECEIVE_COUNT": "50",
}

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
"""One of each kind of process that a ping passes, or that makes it pass."""
MORE_KINDS: Final = ("balancer", "postgres", API_SERVER)
"""Also killed by a run of the command; each of them stops the whole stack for a while."""


@dataclass(slots=True)
class ChaosReport:
    """What was killed how often, and what became of the pings."""

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

    Raises NotInTime when one of them does not come back.
    """
    report = ChaosReport()
    started = time.monotonic()
    habits = (
        "--duplicates",
        "0.02",
        "--late",
        "0.02",
        "--malformed",
        "0.05",
        "--oversized",
        "0.005",
        "--quiet",
    )
    with running_fleet(lake.url, proof, "--rate", f"{rate:g}", *habits) as fleet:
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
            say(f"{victim} was killed and is back; {fleet.acknowledged():,} pings acknowledged")
        fleet.stop()
    report.seconds = time.monotonic() - started
    say("the fleet has stopped; waiting until every acknowledged ping is found")
    report.verdict = wait_for_verdict(proof, lake.settings, deadline_seconds=recovery_max_seconds)
    return report


def kill(lake: LocalLake, victim: str) -> tuple[str, list[int]]:
    """Send SIGKILL to one kind of process; the program that it belongs to, and the ids of what was killed."""
    if victim == TASK:
        task = wait_for(lambda: _task(lake), deadline_seconds=BUSY_MAX_SECONDS, what="a task runs")
        return SCHEDULER, _kill([task])
    if victim == INGEST_CHILDREN:
        return INGEST_NODE, _kill(lake.processes(INGEST_NODE)[1:])
    return victim, _kill(lake.processes(victim)[:1])


def _kill(processes: list[psutil.Process]) -> list[int]:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    return [process.pid for process in processes]


def _task(lake: LocalLake) -> psutil.Process | None:
    """A process that runs a task at this moment: the child of a worker of the scheduler."""
    with suppress(psutil.NoSuchProcess):
        for scheduler in lake.processes(SCHEDULER)[:1]:
            for worker in scheduler.children():
                for task in worker.children():
                    return task
    return None


def _for_as_long_as(minutes: float, rng: random.Random) -> Iterator[str]:
    """All kinds in a random order, again and again."""
    ends = time.monotonic() + minutes * 60
    kinds = [*EVERY_KIND, *MORE_KINDS]
    while True:
        for kind in rng.sample(kinds, len(kinds)):
            if time.monotonic() > ends:
                return
            yield kind


def main() -> None:
    """Run the command line; exits with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to kill (default: 10)")
    parser.add_argument("--rate", type=float, default=30.0, help="pings per second (default: 30)")
    parser.add_argument("--seed", type=int, help="for the same order of victims again")
    given = parser.parse_args()
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, local_lake(VARIABLES) as lake:
        say(f"the stack is up; killing for {given.minutes:g} minutes with seed {seed}")
        report = chaos(
            lake,
            Path(folder) / "acknowledged",
            victims=_for_as_long_as(given.minutes, random.Random(seed)),
            rate=given.rate,
            recovery_max_seconds=RECOVERY_MAX_SECONDS,
            say=say,
        )
    print(report)
    sys.exit(0 if report.verdict.holds else 1)


if __name__ == "__main__":
    main()
