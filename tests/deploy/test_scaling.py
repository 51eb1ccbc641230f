"""How many workers the drain gets: the decision by itself, and on a drain that has a clock of its own."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake_testing.drain_model import BYTES_OF_PING, DrainModel, Moment, Shape, day_of_2014
from telemetry_lake.deploy.scaling import (
    AGE_MAX_SECONDS,
    BUSY_SHARE_MAX_AFTER_REMOVAL,
    CALM_AGE_SECONDS,
    CALM_SECONDS,
    CEILING_ALARM_SECONDS,
    CEILING_WORKERS,
    DECIDE_EVERY_SECONDS,
    OUT_FACTOR_MAX,
    OUT_WAIT_SECONDS,
    PERSISTS_SECONDS,
    TARGET_BACKLOG_BYTES_PER_WORKER,
    WORKER_START_SECONDS,
    WORKERS_MIN,
    Decision,
    History,
    Observation,
    decide,
    worker_to_remove,
)

HOUR = 3_600
CEILING = 8
CALM = Observation(0, 0, 0, workers=4, busy_workers=0)
BEHIND = Observation(0, 3 * TARGET_BACKLOG_BYTES_PER_WORKER, 30, workers=2, busy_workers=2)

observations = st.builds(
    lambda at, backlog, age, workers, share: Observation(at, backlog, age, workers, round(workers * share)),
    st.floats(0, 1e6),
    st.integers(0, 10**12),
    st.floats(0, 1e6),
    st.integers(0, 20),
    st.floats(0, 1),
)


def decisions(*seen: Observation, history: History = History(), ceiling: int = CEILING) -> list[Decision]:  # noqa: B008
    """Decide one after the other."""
    made = []
    for now in seen:
        made.append(decide(now, history, ceiling_workers=ceiling))
        history = made[-1].history
    return made


def every(seconds: float, seen: Observation, *, until: float) -> list[Observation]:
    """Return the same moment again and again, from 0 up to `until`."""
    return [replace(seen, at_seconds=number * seconds) for number in range(int(until / seconds) + 1)]


@given(st.lists(observations, max_size=20), st.integers(WORKERS_MIN, 20))
def test_whatever_is_seen_a_busy_worker_stays_and_steps_are_small(seen, ceiling) -> None:
    ordered = sorted(seen, key=lambda now: now.at_seconds)
    for now, made in zip(ordered, decisions(*ordered, ceiling=ceiling), strict=True):
        assert made.workers >= max(WORKERS_MIN, now.busy_workers)
        assert made.workers <= max(OUT_FACTOR_MAX * now.workers, WORKERS_MIN)
        assert made.workers <= max(ceiling, now.workers)
        assert made.workers >= min(now.workers - 1, ceiling)
        assert made.why


def test_workers_are_added_at_once_and_then_get_time_to_show_their_effect() -> None:
    first = decide(BEHIND, History(), ceiling_workers=CEILING)
    assert first.workers == 3
    assert first.why == "960 MiB wait or are in work, the oldest for 30 s, which is work for 3 workers; 2 run"
    more = replace(BEHIND, workers=3, busy_workers=3, backlog_bytes=100 * TARGET_BACKLOG_BYTES_PER_WORKER)
    early, due = decisions(
        replace(more, at_seconds=OUT_WAIT_SECONDS - 1),
        replace(more, at_seconds=OUT_WAIT_SECONDS),
        history=first.history,
    )
    assert (early.workers, due.workers) == (3, 6)


@pytest.mark.parametrize("age_seconds, workers", [(AGE_MAX_SECONDS, 2), (AGE_MAX_SECONDS + 0.1, 3)])
def test_one_more_works_while_a_message_is_too_old(age_seconds, workers) -> None:
    seen = Observation(0, 1, age_seconds, workers=2, busy_workers=2)
    assert decide(seen, History(), ceiling_workers=CEILING).workers == workers


@pytest.mark.parametrize("busy, workers", [(1, 3), (0, 2)])
def test_a_backlog_that_leaves_workers_idle_adds_none(busy, workers) -> None:
    made = decide(replace(BEHIND, busy_workers=busy), History(), ceiling_workers=CEILING)
    assert made.workers == workers
    assert ("more would not help" in made.why) == (workers == 2)


def test_one_is_removed_after_a_calm_quarter_of_an_hour_and_one_after_the_next() -> None:
    made = decisions(*every(DECIDE_EVERY_SECONDS, CALM, until=CALM_SECONDS))
    assert {decision.workers for decision in made[:-1]} == {4}
    assert made[-1].workers == 3
    three = [
        replace(now, workers=3, at_seconds=now.at_seconds + CALM_SECONDS + DECIDE_EVERY_SECONDS)
        for now in every(DECIDE_EVERY_SECONDS, CALM, until=CALM_SECONDS)
    ]
    later = decisions(*three, history=made[-1].history)
    assert {decision.workers for decision in later[:-1]} == {3}
    assert later[-1].workers == 2


@pytest.mark.parametrize(
    "disturbance",
    [
        {"backlog_bytes": 2 * TARGET_BACKLOG_BYTES_PER_WORKER + 1},
        {"oldest_age_seconds": CALM_AGE_SECONDS + 1},
        {"workers": 5},
    ],
)
def test_one_moment_that_is_not_calm_begins_the_quarter_anew(disturbance) -> None:
    seen = every(DECIDE_EVERY_SECONDS, CALM, until=CALM_SECONDS)
    seen[10] = replace(seen[10], **disturbance)
    assert decisions(*seen)[-1].workers == 4


@pytest.mark.parametrize("more, workers", [(0, 3), (1, 4)])
def test_none_is_removed_whose_work_the_others_could_not_do(more, workers) -> None:
    seen = every(DECIDE_EVERY_SECONDS, CALM, until=CALM_SECONDS)
    busy = int(BUSY_SHARE_MAX_AFTER_REMOVAL * 3 * len(seen)) + more
    for index in range(len(seen) - 1):
        at_work = min(4, busy)
        busy -= at_work
        seen[index] = replace(seen[index], busy_workers=at_work)
    assert decisions(*seen)[-1].workers == workers


def test_none_is_removed_while_all_are_busy_and_the_last_stays() -> None:
    seen = every(DECIDE_EVERY_SECONDS, CALM, until=CALM_SECONDS)
    busy = replace(seen[-1], busy_workers=4)
    idle = replace(seen[-1], at_seconds=CALM_SECONDS + DECIDE_EVERY_SECONDS)
    made = decisions(*seen[:-1], busy, idle)
    assert [decision.workers for decision in made[-2:]] == [4, 3]
    last = every(DECIDE_EVERY_SECONDS, replace(CALM, workers=1), until=2 * CALM_SECONDS)
    assert {decision.workers for decision in decisions(*last)} == {1}


def test_the_ceiling_holds_and_is_an_alarm_after_a_while() -> None:
    at_most = replace(BEHIND, backlog_bytes=10**12)
    made = decisions(*every(DECIDE_EVERY_SECONDS, at_most, until=CEILING_ALARM_SECONDS), ceiling=2)
    assert {decision.workers for decision in made} == {2}
    assert [decision.at_ceiling for decision in made] == [False] * (len(made) - 1) + [True]
    fine = replace(CALM, workers=2, at_seconds=CEILING_ALARM_SECONDS + 1)
    assert not decide(fine, made[-1].history, ceiling_workers=2).at_ceiling


def test_a_batch_that_is_worked_off_within_half_a_minute_adds_none() -> None:
    batch = replace(BEHIND, at_seconds=PERSISTS_SECONDS)
    before, after = (
        replace(batch, backlog_bytes=0, at_seconds=at_seconds) for at_seconds in (0, PERSISTS_SECONDS - 0.1)
    )
    assert decisions(before, batch)[-1].workers == BEHIND.workers
    assert decisions(after, batch)[-1].workers == BEHIND.workers
    assert decisions(before, replace(batch, at_seconds=PERSISTS_SECONDS + 0.1))[-1].workers == 3


def test_a_lowered_ceiling_takes_idle_workers_alone() -> None:
    seen = Observation(0, 0, 0, workers=6, busy_workers=4)
    assert decide(seen, History(), ceiling_workers=2).workers == 4
    assert decide(replace(seen, busy_workers=6), History(), ceiling_workers=2).workers == 6


def test_a_drain_without_workers_gets_one() -> None:
    assert decide(Observation(0, 0, 0, 0, 0), History(), ceiling_workers=CEILING).workers == WORKERS_MIN


def test_only_an_idle_worker_is_named_for_removal() -> None:
    assert worker_to_remove({"w1": False, "w2": False, "w3": True}) == "w2"
    assert worker_to_remove({"w1": True, "w2": True}) is None


def test_impossible_numbers_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="3 workers are busy, of 2"):
        Observation(0, 0, 0, workers=2, busy_workers=3)
    with pytest.raises(ValueError, match="finite and not negative"):
        Observation(0, 0, math.nan, workers=2, busy_workers=2)
    with pytest.raises(ValueError, match="below the minimum of 1"):
        decide(CALM, History(), ceiling_workers=WORKERS_MIN - 1)
    with pytest.raises(ValueError, match="the clock went back from 5 to 4 seconds"):
        decisions(replace(CALM, at_seconds=5), replace(CALM, at_seconds=4))


def moments(model: DrainModel, seconds: float) -> list[Moment]:
    """Let it run."""
    return list(model.run(seconds))


def additions(seen: list[Moment]) -> int:
    """Return how often workers were added."""
    return sum(moment.decision.workers > moment.seen.workers for moment in seen)


@settings(max_examples=6, deadline=None)
@given(st.floats(1, 2_500), st.sampled_from([0.5, 1, 2]), st.integers(1, CEILING))
def test_under_a_constant_load_no_worker_that_was_removed_is_missed(pings_per_second, speed, workers) -> None:
    shape = Shape(worker_bytes_per_second=13_400_000 * speed)
    model = DrainModel(shape, lambda _: pings_per_second, workers=workers)
    moments(model, HOUR)
    assert additions(moments(model, 3 * HOUR)) == 0


@settings(max_examples=6, deadline=None)
@given(st.floats(50, 200), st.floats(200, 1_500), st.sampled_from([0.7, 1, 2]))
def test_after_a_step_the_drain_keeps_up_with_few_workers_too_many(before, after, speed) -> None:
    shape = Shape(worker_bytes_per_second=13_400_000 * speed, ceiling_workers=100)
    model = DrainModel(shape, lambda at: before if at < HOUR else after)
    moments(model, HOUR)
    seen = moments(model, HOUR)
    needed = math.ceil(after * BYTES_OF_PING / shape.worker_bytes_per_second)
    assert max(moment.decision.workers for moment in seen) <= 3 * needed + 1
    assert max(moment.seen.oldest_age_seconds for moment in seen[len(seen) // 3 :]) < AGE_MAX_SECONDS


def test_a_step_to_the_peak_is_below_a_minute_within_five_minutes_of_having_the_workers() -> None:
    model = DrainModel(Shape(), lambda at: 100 if at < HOUR else 732)
    moments(model, HOUR)
    seen = moments(model, HOUR)
    added = [moment.seen.at_seconds for moment in seen if moment.decision.workers > moment.seen.workers]
    assert added
    too_old = [moment.seen.at_seconds for moment in seen if moment.seen.oldest_age_seconds >= AGE_MAX_SECONDS]
    assert max(too_old, default=0) < added[0] + WORKER_START_SECONDS + 300


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 100), st.floats(100, 732))
def test_a_backlog_is_gone_in_the_time_that_its_bytes_take(gigabytes, pings_per_second) -> None:
    shape = Shape()
    model = DrainModel(shape, lambda _: pings_per_second)
    model.add_backlog(gigabytes * 10**9)
    # Half of what the workers of the ceiling convert: the rest of a run are steps that one worker does.
    spare = shape.ceiling_workers * shape.worker_bytes_per_second / 2 - pings_per_second * BYTES_OF_PING
    doublings = math.ceil(math.log2(shape.ceiling_workers)) * OUT_WAIT_SECONDS
    deadline = doublings + WORKER_START_SECONDS + gigabytes * 10**9 / spare
    moments(model, deadline)
    assert model.observe().oldest_age_seconds < AGE_MAX_SECONDS
    assert model.observe().backlog_bytes < shape.ceiling_workers * TARGET_BACKLOG_BYTES_PER_WORKER


def test_an_outage_adds_nothing_and_its_backlog_is_worked_off_within_two_hours() -> None:
    model = DrainModel(Shape(), day_of_2014, is_away=lambda at: 9 * HOUR <= at < 13 * HOUR)
    seen = moments(model, 24 * HOUR)
    away = [moment for moment in seen if 9 * HOUR + 60 <= moment.seen.at_seconds < 13 * HOUR]
    assert {moment.decision.workers for moment in away} == {away[0].decision.workers}
    late = [moment for moment in seen if moment.seen.at_seconds >= 15 * HOUR]
    assert max(moment.seen.oldest_age_seconds for moment in late) < AGE_MAX_SECONDS
    assert max(moment.decision.workers for moment in seen) == CEILING_WORKERS["2014"]
    night = [moment.decision.workers for moment in seen if moment.seen.at_seconds < 6 * HOUR]
    assert set(night) == {WORKERS_MIN}


def test_a_hundred_removals_find_an_idle_worker_each_time() -> None:
    # A quarter of an hour of load, and then two hours with little: workers come and go all day.
    model = DrainModel(Shape(), lambda at: 4_000 if at % (2 * HOUR) < HOUR / 4 else 300)
    while model.removed < 100:
        moments(model, 2 * HOUR)
        assert model.now < 100 * 2 * HOUR
    assert model.removed_busy == 0
