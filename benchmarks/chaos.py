"""Kill processes of a whole local stack at random while a fleet posts, and count what was lost or doubled.

    python -m benchmarks.chaos --minutes 60

`lake_testing.chaos` says how a victim is killed and when the next one follows. All kinds of processes are
killed in a random order, again and again. The command exits with 1 when an acknowledged ping was lost,
doubled or misplaced.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.chaos import EVERY_KIND, MORE_KINDS, VARIABLES, ChaosReport, chaos
from lake_testing.local_lake import local_lake

RECOVERY_MAX_SECONDS = 600.0


def main() -> None:
    """Run the command line. Exits with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to kill (default: 10)")
    parser.add_argument("--rate", type=float, default=30.0, help="pings per second (default: 30)")
    parser.add_argument("--seed", type=int, help="repeats the order of victims of another run")
    add_results_option(parser)
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    with (
        recording("chaos", arguments.results) as recorder,
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        local_lake(VARIABLES) as lake,
    ):
        say(f"the stack is up; killing for {arguments.minutes:g} minutes with seed {seed}")
        report = chaos(
            lake,
            Path(folder) / "acknowledged",
            victims=victims(arguments.minutes * 60, random.Random(seed)),
            rate=arguments.rate,
            recovery_max_seconds=RECOVERY_MAX_SECONDS,
            say=say,
        )
        record(report, recorder)
    print(report)
    sys.exit(0 if report.verdict.holds else 1)


def victims(seconds: float, chance: random.Random) -> Iterator[str]:
    """Yield all kinds of processes in a random order, repeatedly, for `seconds`."""
    ends = time.monotonic() + seconds
    kinds = [*EVERY_KIND, *MORE_KINDS]
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            if time.monotonic() > ends:
                return
            yield kind


def record(report: ChaosReport, recorder: Recorder) -> None:
    """Add what was killed and what was found to the result."""
    verdict = report.verdict
    recorder.add("killed processes", report.killed.total(), "kills")
    recorder.add("seconds of killing", report.seconds, "s")
    recorder.add("acknowledged pings", verdict.acknowledged, "pings")
    recorder.add("lost document ids", len(verdict.lost), "document ids", at_most=0)
    recorder.add("doubled document ids", len(verdict.doubled), "document ids", at_most=0)
    recorder.add("misplaced document ids", len(verdict.misplaced), "document ids", at_most=0)
    recorder.add("stored pings with more than one row", verdict.rows_doubled, "pings", at_most=0)


if __name__ == "__main__":
    main()
