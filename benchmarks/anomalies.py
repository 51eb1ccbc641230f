"""Measure how soon anomalies of volumes are found, and how often one is found that is none.

    python -m benchmarks.anomalies

Watches simulated fleets (`lake_testing.rhythm`) as the lake watches its tables, a look every five minutes:
eight weeks in which nothing happens, after the ten weeks of history that are needed, and then falls and rises
of one channel, or of all pings, that begin at any minute of these weeks. The thresholds were chosen on fleets
with the seeds 1 to 9; the fleets here have others. `--plot` draws what came of it.
"""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.rhythm import CHANNELS, TYPES, WEEK_MINUTES, Fleet, by_hour, make_fleet, with_levels
from lake_testing.watched_fleet import Watch, minutes_until_found, opened_in, with_factor
from telemetry_lake.monitoring.anomalies.findings import Change, ChangeKind
from telemetry_lake.monitoring.anomalies.series import EVERY, HOUR, MINUTE, Series, Table
from telemetry_lake.monitoring.anomalies.volumes import CLOSING
from telemetry_lake.project_files import PROJECT_ROOT

SEEDS: Final = (101, 102, 103, 104)
HISTORY_WEEKS: Final = 10
WATCHED_WEEKS: Final = 8
CHANGES_OF_A_CHANNEL: Final = 6
"""How often each channel of each fleet changes in each way."""
PLOT: Final = PROJECT_ROOT / "docs" / "images" / "anomalies.svg"


@dataclass(frozen=True, slots=True)
class Case:
    """A change of pings, and within how many minutes it should be found."""

    name: str
    factor: float
    within: int
    of_all: bool = False
    has_target: bool = True


CASES: Final = (
    Case("fall of 30 % in a channel", 0.7, 120),
    Case("fall of 100 % in a channel", 0.0, 15),
    Case("rise of 50 % in a channel", 1.5, 120),
    Case("rise of 100 % in a channel", 2.0, 30),
    Case("fall of 30 % of all pings", 0.7, 120, of_all=True),
    Case("fall of 100 % of all pings", 0.0, 15, of_all=True),
)


def main() -> None:
    """Watch the fleets, and write down and draw what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--weeks", type=int, default=WATCHED_WEEKS, help="weeks to watch each fleet")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="fleets to watch at a time")
    parser.add_argument("--changes", type=int, default=CHANGES_OF_A_CHANNEL, help="of each channel and kind")
    parser.add_argument(
        "--plot", type=Path, nargs="?", const=PLOT, help=f"draw into a file, by default {PLOT}"
    )
    add_results_option(parser)
    chosen = parser.parse_args()
    with recording("anomalies", chosen.results) as recorder:
        watch = partial(_watched, weeks=chosen.weeks, changes=chosen.changes)
        with ProcessPoolExecutor(chosen.processes) as processes:
            watched = list(processes.map(watch, chosen.seeds))
        found = {case.name: [took for _, by_case in watched for took in by_case[case.name]] for case in CASES}
        false_alarms = sum(opened for opened, _ in watched)
        _record(recorder, found, false_alarms, chosen.weeks * len(chosen.seeds))
    if chosen.plot:
        _draw(chosen.plot, *_fleet(chosen.seeds[0], chosen.weeks), found)


def _fleet(seed: int, weeks: int) -> tuple[Fleet, Table]:
    fleet = make_fleet(HISTORY_WEEKS + weeks, seed)
    return fleet, with_levels(fleet.series, fleet.pings(0, fleet.rates.shape[1]), fleet.first, MINUTE)


def _watched(seed: int, weeks: int, changes: int) -> tuple[int, dict[str, list[float | None]]]:
    """Return the false alarms of quiet weeks, and after how many minutes changes were found."""
    fleet, minutes = _fleet(seed, weeks)
    false_alarms = len(list(_quiet(fleet, minutes, weeks)))
    return false_alarms, {case.name: _changed(fleet, minutes, case, weeks, changes) for case in CASES}


def _quiet(fleet: Fleet, minutes: Table, weeks: int) -> Iterable[Change]:
    start = HISTORY_WEEKS * WEEK_MINUTES
    for change in opened_in(fleet, minutes, start, start + weeks * WEEK_MINUTES, Watch()):
        each = change.anomaly
        print(
            f"seed {fleet.seed}: {change.changed_at:%Y-%m-%d %H:%M} {each.kind} {each.series}: "
            f"{each.value:,.0f} where {each.expected:,.0f} were expected",
            flush=True,
        )
        yield change


def _changed(fleet: Fleet, minutes: Table, case: Case, weeks: int, changes: int) -> list[float | None]:
    generator = np.random.default_rng((fleet.seed, CASES.index(case)))
    found, hours = [], by_hour(minutes)
    for channel in [None] if case.of_all else list(CHANNELS):
        series = [each for each in fleet.series if channel in (None, (each.namespace, each.channel))]
        first = HISTORY_WEEKS * WEEK_MINUTES
        end = first + weeks * WEEK_MINUTES - 5 * 60
        for start in generator.integers(first, end, changes * (len(CHANNELS) if case.of_all else 1)):
            took = minutes_until_found(
                fleet, minutes, series, int(start), case.factor, within=case.within, hours=hours
            )
            if took is None:
                print(
                    f"seed {fleet.seed}: {case.name} {channel} at {fleet.at(int(start))}: not found",
                    flush=True,
                )
            found.append(took)
    return found


def _record(
    recorder: Recorder,
    found: Mapping[str, Sequence[float | None]],
    false_alarms: int,
    weeks: int,
) -> None:
    recorder.add(
        "quiet weeks", false_alarms / weeks, "false alarms", measure="a week, over all series", at_most=1
    )
    recorder.add("quiet weeks", weeks, "weeks", measure="watched")
    for case in CASES:
        took = np.array([np.nan if each is None else each for each in found[case.name]])
        recorder.add(
            case.name,
            float(np.mean(~np.isnan(took)) * 100),
            "%",
            measure=f"found within {case.within} minutes",
            at_least=99,
        )
        recorder.add(case.name, len(took), "changes", measure="tried")
        recorder.add(case.name, float(np.nanmedian(took)), "minutes", measure="until it is found, median")
        recorder.add(case.name, float(np.nanmax(took)), "minutes", measure="until it is found, at most")
    types = sum(len(TYPES[namespace]) for namespace, _ in CHANNELS)
    recorder.remark(
        f"A fleet has {types} series of a document type in a channel, and {len(CHANNELS) + 1} wider ones, "
        "from 1 to 11,000 pings a minute; the thresholds were chosen on fleets of other seeds."
    )


def _draw(file: Path, fleet: Fleet, minutes: Table, found: Mapping[str, Sequence[float | None]]) -> None:
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[3, 2])
    _draw_fall(above, fleet, minutes)
    for case in CASES:
        took = sorted(each for each in found[case.name] if each is not None)
        share = np.arange(1, len(took) + 1) / len(found[case.name]) * 100
        below.step([0, *took], [0, *share], where="post", label=case.name)
    for limit in (15, 120):
        below.axvline(limit, color="0.6", linestyle=":")
    below.set(
        xscale="symlog", xlim=(5, 130), ylim=(0, 102), xlabel="minutes since it began", ylabel="% found"
    )
    below.set_xticks([5, 10, 15, 30, 60, 120], labels=["5", "10", "15", "30", "60", "120"])
    below.legend(loc="center right", fontsize="small")
    below.set_title("How soon changes are found", loc="left")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


def _draw_fall(axes: Axes, fleet: Fleet, minutes: Table) -> None:
    """Draw four days of a channel, in which a third of its pings is missing for some hours."""
    channel = Series("telemetry", EVERY, "beta")
    changed = [each for each in fleet.series if each.is_within(channel)]
    start = HISTORY_WEEKS * WEEK_MINUTES + 2 * 24 * 60 + 9 * 60 + 20
    first, end = start - 50 * 60, start + 46 * 60
    fallen = with_factor(fleet, minutes, changed, start, start + 9 * 60, 0.7)
    counts = minutes.counts.copy()
    place = (fallen.first - minutes.first) // MINUTE
    counts[:, place : place + fallen.counts.shape[1]] = fallen.counts
    table = Table(minutes.series, minutes.first, MINUTE, counts)
    watch, hours, row = Watch(), by_hour(table), table.series.index(channel)
    expected, spread = [], []
    for minute in range(first, end, 5):
        watch.look(table, hours, fleet.at(minute))
        if minute % 60 == 0 and watch.rhythm is not None:
            at = fleet.at(minute)
            expected.append((at, watch.rhythm.pings(at - HOUR, at)[row]))
            spread.append(watch.rhythm.spread[row])
    begun = fleet.at(start)
    times = np.array([(at - begun) / HOUR for at, _ in expected])
    values = np.array([value for _, value in expected])
    off = CLOSING.deviations * np.array(spread)
    axes.fill_between(times, values * np.exp(-off), values * np.exp(off), color="tab:blue", alpha=0.15, lw=0)
    axes.plot(times, values, color="tab:blue", label="expected")
    shown = [hours.counts[row, hours.column(at) - 1] for at, _ in expected]
    axes.plot(times, shown, color="black", lw=1, label="pings of the hour")
    for change in watch.changes:
        if change.anomaly.series == str(channel):
            colour = "tab:red" if change.change is ChangeKind.OPENED else "tab:green"
            axes.axvline((change.changed_at - begun) / HOUR, color=colour, label=str(change.change))
    axes.set(ylim=(0, None), ylabel="pings an hour")
    axes.set(xlabel="hours since it began")
    axes.legend(loc="lower left", fontsize="small")
    axes.set_title("telemetry, beta: 30 % are missing for nine hours", loc="left")


if __name__ == "__main__":
    main()
