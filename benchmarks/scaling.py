"""Try the decision about workers on a simulated drain: a step to the peak, and a day of 2014 with an outage.

    python -m benchmarks.scaling

The drain is `lake_testing/drain_model.py`, on a clock of its own: the figures do not depend on the machine.
The day is drawn into docs/images/scaling.svg.
"""

import argparse
from pathlib import Path
from typing import Final

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.results import RESULTS_DIRECTORY, Recorder, add_results_option, recording
from lake_testing.drain_model import (
    BYTES_OF_PING,
    PEAK_PINGS_PER_SECOND,
    DrainModel,
    Moment,
    Shape,
    day_of_2014,
)
from telemetry_lake.deploy.scaling import AGE_MAX_SECONDS, CEILING_WORKERS, TARGET_BACKLOG_BYTES_PER_WORKER
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.units import MIB

PLOT: Final = PROJECT_ROOT / "docs" / "images" / "scaling.svg"
HOUR: Final = 3_600
DAY: Final = 24 * HOUR
QUIET_PINGS_PER_SECOND: Final = 100
OUTAGE_HOURS: Final = (9, 13)
REMOVALS: Final = 100
DRAWN_EVERY: Final = 4
"""Decisions: a point a minute."""
OVERLOAD: Final = 10
GIGABYTE: Final = 10**9
KEPT_UP_BYTES: Final = CEILING_WORKERS["2014"] * TARGET_BACKLOG_BYTES_PER_WORKER
LARGE_BATCH_BYTES: Final = 2_048 * MIB


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_results_option(parser)
    arguments = parser.parse_args()
    with recording("scaling", arguments.results) as recorder:
        step(recorder)
        day = day_with_outage(recorder)
        removals(recorder)
        backlog_of_an_hour(recorder)
        is_official = arguments.results == RESULTS_DIRECTORY
        draw(day, PLOT if is_official else arguments.results / PLOT.name)


def step(recorder: Recorder) -> None:
    """Go from a quiet hour to the peak at once."""
    model = DrainModel(Shape(), lambda at: QUIET_PINGS_PER_SECOND if at < HOUR else PEAK_PINGS_PER_SECOND)
    seen = list(model.run(2 * HOUR))
    added = next(m.seen.at_seconds for m in seen if m.decision.workers > m.seen.workers)
    old = [m.seen.at_seconds for m in seen if m.seen.oldest_age_seconds >= AGE_MAX_SECONDS]
    recorder.add("step to the peak: the first worker is added after", added - HOUR, "s")
    recorder.add("step to the peak: the oldest message, at most", _oldest(seen), "s")
    seconds = max(0.0, max(old, default=added) - added)
    recorder.add("step to the peak: below a minute after the addition in", seconds, "s", at_most=360)
    recorder.add("step to the peak: most workers", max(m.decision.workers for m in seen), "workers")


def day_with_outage(recorder: Recorder) -> list[Moment]:
    """Let a day pass in which nothing is claimed for four hours. Returns what was decided."""
    begins, ends = (hours * HOUR for hours in OUTAGE_HOURS)
    model = DrainModel(Shape(), day_of_2014, is_away=lambda at: begins <= at < ends)
    seen = list(model.run(DAY))
    after = [m for m in seen if m.seen.at_seconds >= ends]
    old = [m.seen.at_seconds for m in after if m.seen.oldest_age_seconds >= AGE_MAX_SECONDS]
    recorder.add("day: backlog of the outage", after[0].seen.backlog_bytes / GIGABYTE, "GB")
    recorder.add("day: minutes until it is worked off", (max(old) - ends) / 60, "minutes")
    workers = [m.decision.workers for m in seen]
    recorder.add("day: most workers", max(workers), "workers")
    recorder.add("day: most workers at night", max(workers[: len(workers) // 4]), "workers", at_most=1)
    recorder.add("day: worker-hours", sum(workers) / len(workers) * 24, "worker-hours")
    always = CEILING_WORKERS["2014"] * 24
    recorder.add("day: worker-hours if all ran all the time", always, "worker-hours")
    recorder.add("day: removals", model.removed, "removals")
    return seen


def removals(recorder: Recorder) -> None:
    """Let workers come and go."""
    model = DrainModel(
        Shape(), lambda at: 4_000 if at % (2 * HOUR) < HOUR / 4 else 3 * QUIET_PINGS_PER_SECOND
    )
    while model.removed < REMOVALS:
        list(model.run(2 * HOUR))
    recorder.add("removals of a worker", model.removed, "removals")
    recorder.add("removals of a worker that was busy", model.removed_busy, "removals", at_most=0)


def backlog_of_an_hour(recorder: Recorder) -> None:
    """Work off an hour of ten times the peak, with batches of the default size and with larger ones."""
    total = OVERLOAD * PEAK_PINGS_PER_SECOND * BYTES_OF_PING * HOUR
    for name, batch_bytes in (("512 MiB", Shape().batch_max_bytes), ("2 GiB", LARGE_BATCH_BYTES)):
        model = DrainModel(Shape(batch_max_bytes=batch_bytes), lambda _: PEAK_PINGS_PER_SECOND)
        model.add_backlog(total)
        for moment in model.run(DAY):
            if moment.seen.backlog_bytes < KEPT_UP_BYTES:
                break
        recorder.add(
            f"backlog of {total / GIGABYTE:.0f} GB at the peak, batches of {name}", model.now / 60, "minutes"
        )


def draw(seen: list[Moment], file: Path) -> None:
    """Draw arrivals, backlog, age and workers of the day."""
    # The same bytes from the same numbers, so that a change of the picture is a change of what it shows.
    mpl.rcParams["svg.hashsalt"] = "scaling"
    mpl.rcParams["svg.fonttype"] = "none"
    seen = seen[::DRAWN_EVERY]
    hours = [moment.seen.at_seconds / HOUR for moment in seen]
    rows = (
        ("pings/s", [day_of_2014(moment.seen.at_seconds) for moment in seen]),
        ("backlog, GB", [moment.seen.backlog_bytes / GIGABYTE for moment in seen]),
        ("oldest message,\nminutes", [moment.seen.oldest_age_seconds / 60 for moment in seen]),
        ("workers", [moment.decision.workers for moment in seen]),
    )
    figure, axes = plt.subplots(len(rows), sharex=True, figsize=(8, 6.5), layout="constrained")
    for axis, (label, values) in zip(axes, rows, strict=True):
        axis.plot(hours, values, linewidth=1.2, drawstyle="steps-post")
        axis.axvspan(*OUTAGE_HOURS, color="0.9")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("hour of the day; nothing is claimed in the grey hours")
    axes[-1].set_xlim(0, 24)
    axes[-1].set_xticks(range(0, 25, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _oldest(seen: list[Moment]) -> float:
    return max(moment.seen.oldest_age_seconds for moment in seen)


if __name__ == "__main__":
    main()
