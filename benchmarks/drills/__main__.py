"""Break each part of a real local stack, see its alarm fire with its labels, and resolve when it is mended.

    python -m benchmarks.drills
    python -m benchmarks.drills --only SegmentOld --quiet-minutes 0

First nothing may fire for a while. Then each part is broken for real and mended as its runbook says
(docs/runbooks.md). The rules are those of production with all durations divided by one factor. The command
exits with 1 when an alarm did not fire, did not resolve, or fired in quiet.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.drills.drill import Drill, DrillFailed, Row, run_drill, wait_until_quiet
from benchmarks.drills.every import DRILLS, alarms_of
from benchmarks.drills.stage import Part, Stage, running_stage
from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.local_lake import NotInTime

FACTOR = 120.0


def main() -> None:
    """Run the command line."""
    arguments = _arguments()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    chosen = [drill for drill in DRILLS if not arguments.only or set(arguments.only) & set(drill.alarms)]
    rows: list[Row] = []
    failures: list[str] = []
    with (
        recording("drills", arguments.results) as recorder,
        tempfile.TemporaryDirectory(prefix="drills-") as folder,
    ):
        for part in Part:
            drills = [drill for drill in chosen if drill.part is part]
            if drills:
                with running_stage(
                    part, Path(folder) / part, factor=arguments.factor, alarms=alarms_of(part)
                ) as stage:
                    failures += quiet(stage, arguments.quiet_minutes, say)
                    for drill in drills:
                        found, failed = attempt(stage, drill, say)
                        rows += found
                        failures += failed
        record(rows, recorder, quiet_minutes=arguments.quiet_minutes, factor=arguments.factor)
        for failure in failures:
            recorder.remark(f"Failed: {failure}")
    print(table(rows))
    if failures:
        print("\n".join(failures), file=sys.stderr)
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="ALARM",
        choices=list(dict.fromkeys(alarm for drill in DRILLS for alarm in drill.alarms)),
        help="run the drill of this alarm only; can be given more than once",
    )
    parser.add_argument(
        "--quiet-minutes", type=float, default=2.0, help="how long nothing may fire at first (default: 2)"
    )
    parser.add_argument(
        "--factor", type=float, default=FACTOR, help=f"what durations are divided by (default: {FACTOR:g})"
    )
    add_results_option(parser)
    return parser.parse_args()


def quiet(stage: Stage, minutes: float, say: Callable[[str], None]) -> list[str]:
    """Wait until the stack has settled, then see that nothing fires for some minutes. Returns what does."""
    wait_until_quiet(stage)
    began = time.monotonic()
    say(f"nothing fires; {minutes:g} minutes of quiet begin")
    while time.monotonic() < began + minutes * 60 and not stage.sink.fired_since(began):
        time.sleep(1)
    fired = [f"in quiet fired {told.alarm}: {told.summary}" for told in stage.sink.firing()]
    return fired or [f"in quiet fired {alarm}" for alarm in sorted(stage.sink.fired_since(began))]


def attempt(stage: Stage, drill: Drill, say: Callable[[str], None]) -> tuple[list[Row], list[str]]:
    """Run a drill. Returns its rows, and what failed."""
    say(f"drill {drill.alarms[0]}: {drill.broken}")
    try:
        return run_drill(stage, drill, say), []
    except (DrillFailed, NotInTime) as error:
        say(f"FAILED: {error}")
        return [], [f"{drill.alarms[0]}: {error}"]


def record(rows: Iterable[Row], recorder: Recorder, *, quiet_minutes: float, factor: float) -> None:
    """Add the seconds of each alarm to the result."""
    recorder.add("quiet minutes in which nothing fired", quiet_minutes, "min")
    recorder.add("factor that durations were divided by", factor, "times")
    for row in rows:
        recorder.add(f"{row.alarm}: {row.broken}", row.fired_seconds, "s", measure="fired after")
        recorder.add(f"{row.alarm}: {row.broken}", row.resolved_seconds, "s", measure="resolved after")


def table(rows: Iterable[Row]) -> str:
    """Return what happened, a line for each alarm."""
    lines = [
        "| alarm | severity | what was broken | fired after | resolved after | runbook | labels | also |",
        "| --- | --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    for row in rows:
        labels = ", ".join(f"{name}={value}" for name, value in row.labels.items() if name != "severity")
        lines.append(
            f"| {row.alarm} | {row.severity} | {row.broken} | {row.fired_seconds:.1f} s | "
            f"{row.resolved_seconds:.1f} s | {row.runbook} | {labels} | {', '.join(sorted(row.others))} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
