"""What is expected of a series, and what is unusual: rules for all volumes, and a small simulation."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake_testing.rhythm import WEEK_MINUTES, Fleet, by_hour, make_fleet, with_levels
from lake_testing.watched_fleet import Watch, minutes_until_found, opened_in
from telemetry_lake.monitoring.anomalies.days import judge_day, judge_days
from telemetry_lake.monitoring.anomalies.findings import Kind
from telemetry_lake.monitoring.anomalies.rhythm import (
    HISTORY_HOURS,
    SPREAD_MIN,
    WEEK_HOURS,
    WEEKS_MIN,
    Rhythm,
    Span,
    medians_of_others,
    rhythm_at,
    unusual_until,
)
from telemetry_lake.monitoring.anomalies.series import (
    ALL,
    EVERY,
    HOUR,
    MINUTE,
    Series,
    Table,
    floor_hour,
    levels_of,
    table_of,
)
from telemetry_lake.monitoring.anomalies.volumes import (
    DISPERSION,
    MINIMUM_PINGS,
    NARROW,
    WINDOWS,
    Direction,
    findings_of,
    judge,
    link_of,
)

MAIN = Series("telemetry", "main", "release")
NOW = datetime(2026, 3, 18, 12, tzinfo=UTC)
FIRST = NOW - HISTORY_HOURS * HOUR
SMALL = [("telemetry", "release"), ("telemetry", "nightly")]


def steady(hours: int, pings: float = 600.0) -> Table:
    """The same number of pings in every hour before NOW."""
    return Table((MAIN,), NOW - hours * HOUR, HOUR, np.full((1, hours), pings))


def minutes(pings: float, expected_end: datetime = NOW, count: int = 180) -> Table:
    return Table((MAIN,), expected_end - count * MINUTE, MINUTE, np.full((1, count), pings))


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return make_fleet(11, 7, channels=SMALL)


@pytest.fixture(scope="module")
def fleet_minutes(fleet: Fleet) -> Table:
    return with_levels(fleet.series, fleet.pings(0, fleet.rates.shape[1]), fleet.first, MINUTE)


@given(st.floats(min_value=1, max_value=1e7), st.integers(0, 59))
@settings(max_examples=8)
def test_what_never_changes_is_expected_to_go_on(pings: float, minute: int) -> None:
    rhythm = rhythm_at(steady(HISTORY_HOURS, pings), NOW + minute * MINUTE)
    assert rhythm.pings(NOW - HOUR, NOW) == pytest.approx([pings], rel=1e-6)
    assert rhythm.pings(NOW, NOW + 15 * MINUTE) == pytest.approx([pings / 4], rel=1e-6)
    assert rhythm.spread == pytest.approx([SPREAD_MIN])


@given(st.lists(st.integers(100, 100_000), min_size=WEEK_HOURS, max_size=WEEK_HOURS), st.floats(0.98, 1.03))
@settings(max_examples=4)
def test_a_rhythm_that_repeats_and_grows_is_expected_as_it_will_be(week: list[int], growth: float) -> None:
    hours = np.arange(HISTORY_HOURS + 2)
    # Every week is the one before, times its growth.
    counts = np.array(week)[hours % WEEK_HOURS] * growth ** (hours // WEEK_HOURS)
    history = Table((MAIN,), FIRST, HOUR, counts[None, :HISTORY_HOURS])
    rhythm = rhythm_at(history, NOW)
    place = (NOW - rhythm.first) // HOUR
    step = abs(growth - 1) * 2 + 0.02
    assert rhythm.expected[0, place] == pytest.approx(counts[HISTORY_HOURS], rel=step)


@given(st.floats(0.01, 100), st.integers(2, 6))
@settings(max_examples=4)
def test_all_volumes_times_a_factor_are_expected_times_that_factor(factor: float, seed: int) -> None:
    counts = np.random.default_rng(seed).uniform(1e6, 2e6, (1, HISTORY_HOURS))
    one = rhythm_at(Table((MAIN,), FIRST, HOUR, counts), NOW)
    other = rhythm_at(Table((MAIN,), FIRST, HOUR, counts * factor), NOW)
    assert other.expected == pytest.approx(one.expected * factor, rel=1e-3)
    assert other.spread == pytest.approx(one.spread, rel=1e-2)


def test_too_few_weeks_expect_nothing() -> None:
    known = (WEEKS_MIN + 1) * WEEK_HOURS
    assert not np.isnan(rhythm_at(steady(known), NOW).pings(NOW - HOUR, NOW)).any()
    rhythm = rhythm_at(steady(known - WEEK_HOURS), NOW)
    assert np.isnan(rhythm.pings(NOW - HOUR, NOW)).all()
    assert judge(minutes(0.0), rhythm, NOW) == []


def test_an_outage_of_three_weeks_ago_and_one_of_yesterday_do_not_count() -> None:
    history = steady(HISTORY_HOURS)
    place = HISTORY_HOURS - 3 * WEEK_HOURS
    history.counts[:, place - 5 : place + 5] = 0
    rhythm = rhythm_at(history, NOW)
    assert rhythm.pings(NOW - HOUR, NOW) == pytest.approx([600], rel=1e-6)
    history.counts[:, -26:-2] = 0
    assert rhythm_at(history, NOW).pings(NOW, NOW + HOUR)[0] < 60
    spans = [Span(MAIN, NOW - 26 * HOUR, NOW - 2 * HOUR)]
    assert rhythm_at(history, NOW, spans).pings(NOW, NOW + HOUR) == pytest.approx([600], rel=1e-6)
    wider = [Span(ALL, NOW - 26 * HOUR, NOW - 2 * HOUR)]
    assert rhythm_at(history, NOW, wider).pings(NOW, NOW + HOUR) == pytest.approx([600], rel=1e-6)


@given(st.lists(st.one_of(st.floats(-5, 5), st.just(float("nan"))), min_size=8, max_size=8))
def test_the_median_of_the_others_is_that_of_what_is_left(values: list[float]) -> None:
    found = medians_of_others(np.array(values)[None, :, None])[0, :, 0]
    for place, value in enumerate(values):
        others = [each for number, each in enumerate(values) if number != place and not np.isnan(each)]
        if np.isnan(value) or len(others) < WEEKS_MIN:
            assert np.isnan(found[place])
        else:
            assert found[place] == pytest.approx(np.median(others))


def test_spans_are_forgotten_when_nothing_looks_at_their_hours_any_more() -> None:
    old, new = (Span(MAIN, end - HOUR, end) for end in (FIRST, FIRST + MINUTE))
    assert unusual_until(NOW, [old, new]) == (new,)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("direction", Direction)
def test_a_window_is_unusual_from_its_limit_on(window, direction) -> None:
    rhythm = rhythm_at(steady(HISTORY_HOURS, 60_000), NOW)
    sign = -1 if direction is Direction.FALL else 1
    deviation = NARROW * float(np.sqrt(SPREAD_MIN**2 + DISPERSION / (1000 * (window.length // MINUTE))))
    limit = window.limit(direction, deviation)
    for distance, found in ((limit * 0.995, []), (limit * 1.005, [(MAIN, direction)])):
        pings = minutes(1_000 * float(np.exp(sign * distance)))
        judged = judge(pings, rhythm, NOW, [window])
        assert [(each.series, each.direction) for each in judged] == found


def test_a_quiet_series_is_not_judged() -> None:
    for pings, found in ((MINIMUM_PINGS - 0.01, 0), (MINIMUM_PINGS + 0.01, 1)):
        rhythm = Rhythm((MAIN,), NOW - 22 * HOUR, np.full((1, 24), pings * 4), np.array([SPREAD_MIN]))
        assert len(judge(minutes(0.0), rhythm, NOW, WINDOWS[:1])) == found


def test_what_is_open_ends_far_below_what_opened_it() -> None:
    rhythm = rhythm_at(steady(HISTORY_HOURS, 60_000), NOW)
    window = WINDOWS[1]
    limit = window.limit(Direction.FALL, 0.03 * NARROW)
    for distance, found in ((0.6 * limit, [True]), (0.4 * limit, [])):
        pings = minutes(1_000 * float(np.exp(-distance)))
        judged = judge(pings, rhythm, NOW, is_open={MAIN: Direction.FALL})
        assert [each.is_still for each in judged] == found
        assert judge(pings, rhythm, NOW, is_open={MAIN: Direction.RISE}) == []


def test_what_falls_everywhere_is_one_anomaly_and_what_falls_in_one_channel_another(
    fleet: Fleet, fleet_minutes: Table
) -> None:
    start = 10 * WEEK_MINUTES + 100
    end = fleet.at(start)
    rhythm = rhythm_at(by_hour(fleet_minutes), end)
    for changed, found in (
        (fleet.series, ALL),
        ([each for each in fleet.series if each.channel == "nightly"], Series("telemetry", EVERY, "nightly")),
    ):
        first = start - 240
        counts = np.array(
            [fleet_minutes.counts[fleet_minutes.series.index(each), first:start] for each in fleet.series]
        )
        counts[[each in changed for each in fleet.series], -60:] *= 0.4
        recent = with_levels(fleet.series, counts, fleet.at(first), MINUTE)
        (finding,) = findings_of(judge(recent, rhythm, end), end)
        assert (finding.kind, finding.series) == (Kind.VOLUME_FALL, str(found))
        assert finding.link == link_of(found)


def test_a_fall_of_all_is_found_within_a_quarter_of_an_hour_and_of_a_third_within_two(
    fleet: Fleet, fleet_minutes: Table
) -> None:
    nightly = [each for each in fleet.series if each.channel == "nightly"]
    for minute in (0, 733):
        start = 10 * WEEK_MINUTES + minute
        gone = minutes_until_found(fleet, fleet_minutes, nightly, start, 0.0, within=15)
        third = minutes_until_found(fleet, fleet_minutes, nightly, start, 0.7, within=120)
        risen = minutes_until_found(fleet, fleet_minutes, nightly, start, 1.5, within=120)
        assert gone is not None
        assert third is not None
        assert risen is not None


def test_a_quiet_day_opens_nothing(fleet: Fleet, fleet_minutes: Table) -> None:
    start = 10 * WEEK_MINUTES
    assert list(opened_in(fleet, fleet_minutes, start, start + 8 * 60, Watch())) == []


def test_the_links_of_volumes_name_the_parts() -> None:
    assert link_of(ALL) == "/operations"
    assert link_of(Series("telemetry", EVERY, "beta")) == "/operations?namespace=telemetry&channel=beta"
    assert link_of(MAIN) == "/operations?namespace=telemetry&type=main&channel=release"


def test_a_ping_is_counted_on_three_levels_and_an_unknown_hour_is_unknown_on_all() -> None:
    table = table_of(
        {(MAIN, NOW): 5, (MAIN, NOW + 3 * HOUR): 7}, NOW, NOW + 2 * HOUR, HOUR, unknown=[NOW + HOUR]
    )
    assert table.series == levels_of(MAIN)
    assert table.counts[:, 0].tolist() == [5, 5, 5]
    assert np.isnan(table.counts[:, 1]).all()
    assert Series.parse(str(MAIN)) == MAIN
    assert MAIN.is_within(ALL)
    assert not ALL.is_within(MAIN)
    assert not MAIN.is_within(MAIN)
    with pytest.raises(ValueError, match="unpack"):
        Series.parse("telemetry/main")


def test_a_part_of_a_table_is_nan_outside_and_0_for_a_series_that_it_lacks() -> None:
    table = steady(2, 5.0)
    other = Series("telemetry", "crash", "beta")
    part = table.between(NOW - 3 * HOUR, NOW + HOUR, [MAIN, other])
    assert np.isnan(part[:, [0, 3]]).all()
    assert part[:, 1:3].tolist() == [[5, 5], [0, 0]]
    assert floor_hour(NOW + timedelta(minutes=59)) == NOW


@given(st.integers(10, 10_000), st.integers(0, 1_000_000))
@settings(max_examples=4)
def test_days_of_chance_are_usual_and_halves_and_doubles_are_not(pings: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    days = generator.poisson(pings * 2, (10, 24)).astype(float)
    assert judge_day(days[0], list(days[1:])) is None
    assert judge_day(days[0] / 4, list(days[1:])) is Direction.FALL
    assert judge_day(days[0] * 4, list(days[1:])) is Direction.RISE
    # More than two days have to say so.
    assert judge_day(days[0] / 4, list(days[1:3])) is None
    assert judge_day(days[0] / 4, list(days[1:4])) is Direction.FALL


def test_the_last_day_is_compared_with_the_same_weekday() -> None:
    history = steady(HISTORY_HOURS)
    hours = np.arange(HISTORY_HOURS)
    sundays = (hours // 24 - HISTORY_HOURS // 24) % 7 == 6
    history.counts[:, sundays] /= 4
    assert judge_days(history, NOW) == []
    history.counts[:, -24:] /= 4
    assert [(each.series, each.direction) for each in judge_days(history, NOW)] == [(MAIN, Direction.FALL)]
