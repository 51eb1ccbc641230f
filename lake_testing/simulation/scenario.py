"""What happens in a world, drawn from its seed: running it to its end, and shrinking one that fails."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from random import Random
from typing import Final

from lake_testing.simulation.lake import BAD, GOOD, POISON, SimulatedLake
from lake_testing.simulation.world import START, Fault, Outage, Service, World

EVENTS_MAX_COUNT: Final = 16
FAULTS_MAX_COUNT: Final = 8
FAULTS_WITHIN_CALLS: Final = 500
"""Faults strike within this many calls; most scenarios make fewer."""
JUMPS_SECONDS: Final = (10, 360, 1_200, 5 * 3_600, 30 * 3_600, 3 * 86_400, 8 * 86_400, 30 * 86_400)
LATE_DAYS: Final = (1, 4, 20, 40)
"""How long a node may have kept a segment that it ships now."""
OUTAGES_SECONDS: Final = (30, 600, 7_200, 2 * 86_400, 5 * 86_400, 30 * 86_400)
REST_SECONDS: Final = (*[1_000] * 5, *[86_400] * 40)
"""The pauses between runs at the end, until nothing is left to do: first beyond the visibility timeout and
the grace period, then a day, the longest that a reconciler waits. An old day is counted again in a month."""


class Act(StrEnum):
    """What may happen next."""

    SHIP = "ship"
    SHIP_UNANNOUNCED = "ship unannounced"
    SHIP_LATE = "ship late"
    SHIP_LATE_UNANNOUNCED = "ship late, unannounced"
    SHIP_POISON = "ship poison"
    DRAIN = "drain"
    DRAIN_WITHOUT_RETRY = "drain without retry"
    DRAIN_TWICE = "two drains"
    DRAIN_AND_RECONCILE = "drain and reconcile"
    DRAIN_AND_REPLAY = "drain and replay rejected"
    DRAIN_AND_MAINTAIN = "drain and maintain"
    RECONCILE = "reconcile"
    COMPLETENESS = "check completeness"
    RECONCILE_AND_COMPLETENESS = "reconcile and check completeness"
    DRAIN_AND_COMPLETENESS = "drain and check completeness"
    REPLAY_REJECTED = "replay rejected"
    REPLAY_DEAD_LETTERS = "replay dead letters"
    MAINTAIN = "maintain"
    WAIT = "wait"


_WEIGHTS: Final = {Act.SHIP: 5, Act.SHIP_UNANNOUNCED: 1, Act.SHIP_POISON: 1, Act.DRAIN: 3, Act.DRAIN_TWICE: 4}
_WEIGHT: Final = 1
"""Of every other act."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A seed and what was drawn from it; parts of it may be taken out again."""

    seed: int
    acts: tuple[tuple[Act, int], ...]
    """What happens, and a number that says how much or how long."""
    faults: tuple[tuple[int, Fault], ...]
    outages: tuple[Outage, ...]
    delivers_twice: float

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, a message is delivered twice with a chance of {self.delivers_twice}"]
        lines += [f"  {act} {number}" for act, number in self.acts]
        lines += [f"  at call {call}: {fault}" for call, fault in self.faults]
        lines += [f"  {one.service} unavailable from {one.first} to {one.last}" for one in self.outages]
        return "\n".join(lines)


def drawn(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    chance = Random(seed)
    acts = list(Act)
    weights = [_WEIGHTS.get(act, _WEIGHT) for act in acts]
    chosen = chance.choices(acts, weights, k=chance.randint(3, EVENTS_MAX_COUNT))
    faults = {
        chance.randrange(1, FAULTS_WITHIN_CALLS): chance.choice(list(Fault))
        for _ in range(chance.randint(0, FAULTS_MAX_COUNT))
    }
    outages = []
    if chance.random() < 0.3:
        first = START + timedelta(seconds=chance.randrange(0, 86_400))
        last = first + timedelta(seconds=chance.choice(OUTAGES_SECONDS))
        outages.append(Outage(chance.choice(list(Service)), first, last))
    return Scenario(
        seed,
        tuple((act, chance.randrange(1 << 16)) for act in chosen),
        tuple(sorted(faults.items())),
        tuple(outages),
        chance.choice((0.0, 0.0, 0.2)),
    )


def failures(scenario: Scenario) -> list[str]:
    """Run a scenario and bring its world to rest.

    Returns a line for every ping that is lost or doubled then, for what must never be done and was, and when
    messages are never finished; nothing when all is well.
    """
    try:
        return _unaccounted(scenario)
    except AssertionError as error:
        return [str(error)]


def _unaccounted(scenario: Scenario) -> list[str]:
    world = World(scenario.seed, dict(scenario.faults), scenario.outages)
    lake = SimulatedLake(world)
    lake.sqs.delivers_twice = scenario.delivers_twice
    for act, number in scenario.acts:
        _perform(lake, act, number)
    world.faults.clear()
    world.outages.clear()
    lake.sqs.delivers_twice = 0.0
    return _come_to_rest(lake)


def killed_after_each_call(acts: Sequence[tuple[Act, int]], *, calls: int) -> Iterator[Scenario]:
    """Yield these acts once for each of the first `calls` calls, with a process killed after that call."""
    for call in range(1, calls + 1):
        yield Scenario(0, tuple(acts), ((call, Fault.KILLED_AFTER),), (), 0.0)


def shrunk(scenario: Scenario) -> Scenario:
    """Return the smallest scenario that still fails, taking out one thing after the other."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in without_one(scenario):
            if failures(candidate):
                scenario, smaller = candidate, True
                break
    return scenario


def without_one(scenario: Scenario) -> Iterator[Scenario]:
    """Yield the scenario without each of its parts in turn."""
    for place in range(len(scenario.acts)):
        yield replace(scenario, acts=scenario.acts[:place] + scenario.acts[place + 1 :])
    for place in range(len(scenario.faults)):
        yield replace(scenario, faults=scenario.faults[:place] + scenario.faults[place + 1 :])
    for place in range(len(scenario.outages)):
        yield replace(scenario, outages=scenario.outages[:place] + scenario.outages[place + 1 :])
    if scenario.delivers_twice:
        yield replace(scenario, delivers_twice=0.0)


def _perform(lake: SimulatedLake, act: Act, number: int) -> None:
    kinds = [BAD if number >> place & 1 else GOOD for place in range(1 + number % 3)]
    late = timedelta(days=LATE_DAYS[number % len(LATE_DAYS)])
    side_by_side: Mapping[Act, Sequence[Callable[[], object]]] = {
        Act.SHIP: [lambda: lake.ship(kinds)],
        Act.SHIP_UNANNOUNCED: [lambda: lake.ship(kinds, announced=False)],
        Act.SHIP_LATE: [lambda: lake.ship(kinds, after=late)],
        Act.SHIP_LATE_UNANNOUNCED: [lambda: lake.ship(kinds, announced=False, after=late)],
        Act.SHIP_POISON: [lambda: lake.ship([*kinds, POISON])],
        Act.DRAIN: [lake.drain],
        Act.DRAIN_WITHOUT_RETRY: [lambda: lake.drain(attempts=1)],
        Act.DRAIN_TWICE: [lake.drain, lake.drain],
        Act.DRAIN_AND_RECONCILE: [lake.drain, lake.reconcile],
        Act.DRAIN_AND_REPLAY: [lake.drain, lake.replay_rejected],
        Act.DRAIN_AND_MAINTAIN: [lake.drain, lake.maintain],
        Act.RECONCILE: [lake.reconcile],
        Act.COMPLETENESS: [lake.check_completeness],
        Act.RECONCILE_AND_COMPLETENESS: [lake.reconcile, lake.check_completeness],
        Act.DRAIN_AND_COMPLETENESS: [lake.drain, lake.check_completeness],
        Act.REPLAY_REJECTED: [lake.replay_rejected],
        Act.REPLAY_DEAD_LETTERS: [lake.replay_dead_letters],
        Act.MAINTAIN: [lake.maintain],
    }
    if act is Act.WAIT:
        lake.world.wait(JUMPS_SECONDS[number % len(JUMPS_SECONDS)])
    else:
        lake.world.run(side_by_side[act])


def _come_to_rest(lake: SimulatedLake) -> list[str]:
    """Let all that runs by itself run, without faults, until nothing is left and each day is complete."""
    for seconds in REST_SECONDS:
        lake.world.wait(seconds)
        lake.world.run([lake.check_completeness])
        lake.world.run([lake.reconcile])
        lake.world.run([lake.drain])
        if lake.is_quiet() and not lake.unaccounted():
            return _not_complete(lake)
    return lake.unaccounted() or ["messages are left on the index queue"]


def _not_complete(lake: SimulatedLake) -> list[str]:
    """Return what is wrong unless every day is complete once it is over."""
    lake.world.wait(3 * 86_400)
    lake.world.run([lake.check_completeness])
    found = lake.connections().days.completeness()
    return [] if found is not None and found.open_days == found.unfinished == 0 else [str(found)]
