"""Replay a million rejected pings while the drain commits, and look for each of them afterwards.

    python -m benchmarks.mass_replay

Starts an S3, an SQS and a catalog of its own. Pings that cannot be converted are shipped and drained: that
many rows of `live.rejected_pings`. Then `python -m telemetry_lake replay rejected` takes all of them out and
sends them again, while this process ships further pings and drains both. The pings are still as they were, so
that each has to be a rejected row again, once, of a raw object of a replay.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.shipping import greeting, queue_is_empty, ship, ship_pings
from lake_testing.stack import DrivenStack
from telemetry_lake.columns import RAW_OBJECT
from telemetry_lake.drain.steps import DrainReport, drain_once
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.query.lake import open_lake
from telemetry_lake.settings import ENV_FILE_VARIABLE, Role
from telemetry_lake.storage.object_keys import REPLAY_NODE
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS

PINGS: Final = 1_000_000
PINGS_OF_A_RAW_OBJECT: Final = 10_000
HONEST_PINGS: Final = 100
"""Shipped before each drain while the replay runs."""

Say = Callable[[str], None]


def main() -> None:
    """Build, replay, count and record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mass_replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pings", type=int, default=PINGS, help=f"rejected pings (default {PINGS:,})")
    add_results_option(parser)
    arguments = parser.parse_args()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {text}", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="mass-replay-"))
    stack = DrivenStack(folder)
    try:
        with recording("mass_replay", arguments.results) as recorder:
            stack.command("start", "--only", "seaweedfs", "--only", "elasticmq")
            create_tables(load_lake_catalog(stack.settings(Role.MAINTENANCE)))
            reject(stack, arguments.pings, say)
            honest = replay(stack, arguments.pings, recorder, say)
            check(stack, arguments.pings, honest)
            recorder.add("pings that are not one row each", 0, "", at_most=0)
    finally:
        stack.command("stop")
        shutil.rmtree(folder, ignore_errors=True)


def reject(stack: DrivenStack, pings: int, say: Say) -> None:
    """Ship pings that cannot be converted, and drain them."""
    for first in range(0, pings, PINGS_OF_A_RAW_OBJECT):
        # A body of its own for each, as in life: what is alike would cost its column nothing.
        some = [
            greeting(str(uuid.UUID(int=number)), body=b'{"text": "%d' % number)
            for number in range(first, min(first + PINGS_OF_A_RAW_OBJECT, pings))
        ]
        ship_pings(stack.settings(Role.NODE), some)
    say(f"{pings:,} pings are shipped")
    for report in drains(stack):
        say(f"drained {sum(len(batch.held) for batch in report.claimed.batches)} raw objects")


def replay(stack: DrivenStack, pings: int, recorder: Recorder, say: Say) -> int:
    """Replay all of them while others are drained. Returns how many others there were."""
    began = time.monotonic()
    command = (sys.executable, "-m", "telemetry_lake", "replay", "rejected")
    environment = {**os.environ, ENV_FILE_VARIABLE: str(stack.layout.env_file)}
    honest = commits = 0
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment) as process:
        while process.poll() is None:
            ship(stack.settings(Role.NODE), good=HONEST_PINGS)
            honest += HONEST_PINGS
            report = drained(stack)
            commits += len(report.committed)
            raw_objects = sum(len(batch.held) for batch in report.claimed.batches)
            say(f"while the replay runs, {raw_objects} raw objects were drained")
        seconds = time.monotonic() - began
        if process.returncode:
            raise SystemExit(f"the replay ended with {process.returncode}")
    say(f"replayed {pings:,} rows in {seconds:.0f} s, beside {commits} batches")
    recorder.add("rows replayed", pings, "rows")
    recorder.add("until all rows have left the table", seconds, "s")
    recorder.add("rows that left", pings / seconds, "rows/s")
    recorder.add("batches committed meanwhile", commits, "batches")
    for _ in drains(stack):
        pass
    return honest


def drains(stack: DrivenStack) -> Iterator[DrainReport]:
    """Drain until the queue is empty."""
    while not queue_is_empty(stack.settings()):
        yield drained(stack)


def drained(stack: DrivenStack) -> DrainReport:
    """Drain once. Ends the benchmark when something fails."""
    report = drain_once(stack.settings())
    if report.failures:
        raise SystemExit("\n".join(report.failures))
    return report


def check(stack: DrivenStack, pings: int, honest: int) -> None:
    """Look for every ping. Ends the benchmark when one is missing or there twice."""
    count = "SELECT count(*), count(DISTINCT document_id) FROM"
    of_replays = f"count(*) FILTER ({RAW_OBJECT} LIKE '%/{REPLAY_NODE}/%')"
    with open_lake(stack.settings(Role.ANALYST)) as lake:
        rejected = lake.query(f"{count} {LIVE_REJECTED_PINGS}").fetchone()
        replayed = lake.query(f"SELECT {of_replays} FROM {LIVE_REJECTED_PINGS}").fetchone()
        live = lake.query(f"{count} {LIVE_PINGS}").fetchone()
    found = (rejected, replayed, live)
    if found != ((pings, pings), (pings,), (honest, honest)):
        raise SystemExit(f"rows, document ids; rows of replays; rows, document ids of others: {found}")


if __name__ == "__main__":
    main()
