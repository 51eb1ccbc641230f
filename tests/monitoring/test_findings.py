"""Errors, distributions, and what opens and closes an anomaly."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry_lake.failures import ErrorType
from telemetry_lake.monitoring.anomalies.distributions import (
    DAYS_AFTER,
    DISTANCE_MIN,
    REFERENCE_DAYS,
    SAMPLES_MIN,
    Counts,
    distance,
    has_enough,
    recent_shift,
    shift_at,
)
from telemetry_lake.monitoring.anomalies.errors import (
    ALL_ERRORS,
    ALL_SHARE_MAX,
    BORING,
    NEW_PINGS_MIN,
    PINGS_MIN,
    SHARE_MAX,
    errors_off,
    new_errors,
)
from telemetry_lake.monitoring.anomalies.findings import (
    CLOSE_AFTER,
    NEW_LEVEL_AFTER,
    Anomaly,
    Change,
    ChangeKind,
    Finding,
    Kind,
    Severity,
    changes_by,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
FIRST = date(2026, 11, 1)
histograms = st.lists(st.integers(0, 10_000), min_size=5, max_size=5).filter(any).map(np.array)


def found(kind: Kind = Kind.VOLUME_FALL, series: str = "a/b/c", *, is_still: bool = False) -> Finding:
    return Finding(kind, series, NOW, 5.0, 10.0, Severity.WARNING, "/operations", is_still)


def look(
    is_open: tuple[Anomaly, ...],
    *findings: Finding,
    after: timedelta = timedelta(),
    silenced: tuple[str, ...] = (),
) -> tuple[tuple[Anomaly, ...], tuple[Change, ...]]:
    kinds = (Kind.VOLUME_FALL, Kind.NEW_ERROR)
    return changes_by(is_open, findings, kinds, NOW + after, silenced=silenced)


def test_an_anomaly_is_opened_once_and_closed_once() -> None:
    is_open, (opened,) = look((), found())
    assert (opened.change, opened.changed_date) == (ChangeKind.OPENED, NOW.date())
    again, changes = look(is_open, found(), after=timedelta(minutes=5))
    assert changes == ()
    assert again[0].last_seen == NOW + timedelta(minutes=5)
    assert again[0].opened_at == NOW
    wait = CLOSE_AFTER[Kind.VOLUME_FALL]
    still, changes = look(again, after=timedelta(minutes=4, seconds=59) + wait)
    assert (len(still), changes) == (1, ())
    none, (closed,) = look(still, after=timedelta(minutes=5) + wait)
    assert (none, closed.change, closed.why) == ((), ChangeKind.CLOSED, "it is usual again")
    assert closed.change_id != opened.change_id
    _, (same,) = look((), found())
    assert same == opened, "the same decision has the same id, whoever makes it"


def test_what_is_near_keeps_an_anomaly_open_and_opens_none() -> None:
    assert look((), found(is_still=True)) == ((), ())
    is_open, _ = look((), found())
    kept, changes = look(is_open, found(is_still=True), after=timedelta(hours=5))
    assert (len(kept), changes) == (1, ())


def test_other_kinds_are_left_alone_and_errors_close_at_once() -> None:
    shift, _ = changes_by((), [found(Kind.DAY_SHIFT)], tuple(Kind), NOW)
    error, _ = look((), found(Kind.NEW_ERROR))
    kept, changes = look((*shift, *error), after=timedelta(minutes=1))
    assert kept == shift
    assert [(each.change, each.anomaly.kind) for each in changes] == [(ChangeKind.CLOSED, Kind.NEW_ERROR)]


def test_what_has_been_off_for_a_week_is_usual() -> None:
    is_open, _ = look((), found())
    assert len(look(is_open, found(), after=NEW_LEVEL_AFTER - timedelta(seconds=1))[0]) == 1
    none, (closed,) = look(is_open, found(), after=NEW_LEVEL_AFTER)
    assert none == ()
    assert "usual now" in closed.why


@pytest.mark.parametrize(
    "pattern, silent",
    [("volume_* a/*", True), ("* a/b/?", True), ("volume_rise a/*", False), ("a/b/c", False)],
)
def test_a_pattern_silences_what_it_fits(pattern: str, silent: bool) -> None:
    (anomaly,), changes = look((), found(), silenced=(pattern,))
    assert anomaly.silenced is silent
    assert len(changes) == 1, "it is written down all the same"


@pytest.mark.parametrize(
    "reason, limit", [(ErrorType.INVALID_JSON, SHARE_MAX), (ErrorType.BARE_DOCUMENT_ID, ALL_SHARE_MAX)]
)
def test_a_share_of_errors_is_found_above_its_limit(reason: ErrorType, limit: float) -> None:
    pings = 100_000
    for more, number in ((0, 0), (1, 1)):
        rejected = int(limit * pings) + more
        findings = errors_off({reason: rejected}, pings - rejected, NOW)
        assert len(findings) == number
    series = ALL_ERRORS if reason in BORING else reason
    assert (findings[0].series, findings[0].expected) == (series, limit)
    near = errors_off(
        {reason: int(limit * pings * 0.9)}, pings - int(limit * pings * 0.9), NOW, is_open={series}
    )
    assert [each.is_still for each in near] == [True]
    far = errors_off(
        {reason: int(limit * pings * 0.7)}, pings - int(limit * pings * 0.7), NOW, is_open={series}
    )
    assert far == []


def test_a_share_above_a_tenth_is_critical_and_few_pings_say_nothing() -> None:
    findings = errors_off({ErrorType.INVALID_JSON: 200}, PINGS_MIN - 200, NOW)
    assert [each.severity for each in findings] == [Severity.CRITICAL, Severity.CRITICAL]
    assert errors_off({ErrorType.INVALID_JSON: 200}, PINGS_MIN - 201, NOW) == []


def test_a_reason_is_new_when_there_were_none() -> None:
    for pings, number in ((NEW_PINGS_MIN - 1, 0), (NEW_PINGS_MIN, 1)):
        assert len(new_errors({"too_large": pings}, {}, NOW)) == number
    assert new_errors({"too_large": 50}, {"too_large": 10}, NOW) == []
    assert len(new_errors({"too_large": 50}, {"too_large": 9}, NOW)) == 1
    assert [each.is_still for each in new_errors({"too_large": 1}, {}, NOW, is_open={"too_large"})] == [True]


@given(histograms, histograms, st.integers(1, 1_000))
@settings(max_examples=30)
def test_a_distance_is_one_of_a_metric(one: Counts, other: Counts, factor: int) -> None:
    found = distance(one, other)
    assert 0 <= found <= 1
    assert found == pytest.approx(distance(other, one))
    assert distance(one, one * factor) == pytest.approx(0, abs=1e-7)
    assert distance(one * factor, other) == pytest.approx(found, abs=1e-7)


def test_distances_that_are_known() -> None:
    assert distance(np.array([5, 0]), np.array([0, 7])) == 1
    assert distance(np.array([1, 1]), np.array([1, 0])) == pytest.approx((1 - 0.5**0.5) ** 0.5)


def normal(middle: float, samples: int, seed: int) -> Counts:
    drawn = np.random.default_rng(seed).normal(middle, 1.0, samples)
    return np.histogram(drawn, np.linspace(-6, 6, 25))[0].astype(np.int64)


def days(*middles: float, samples: int = 100_000) -> dict[date, Counts]:
    return {
        FIRST + timedelta(days=number): normal(middle, samples, number)
        for number, middle in enumerate(middles)
    }


@given(st.integers(0, 2**31))
@settings(max_examples=5)
def test_chance_alone_is_no_shift(seed: int) -> None:
    same = {FIRST + timedelta(days=n): normal(0, 20_000, seed + n) for n in range(10)}
    assert recent_shift(same) is None


def test_a_shift_is_found_when_it_has_lasted() -> None:
    usual, moved = (0.0,) * REFERENCE_DAYS, (0.5,) * (DAYS_AFTER + 1)
    shifted = days(*usual, *moved)
    day = FIRST + timedelta(days=REFERENCE_DAYS)
    shift = shift_at(shifted, day)
    assert shift is not None
    assert (shift.day, shift.reference) == (day, day - timedelta(days=1))
    assert shift.distance > DISTANCE_MIN
    assert recent_shift(shifted) == shift
    later = days(*usual, *moved, 0.5, 0.5)
    assert recent_shift(later) == shift, "it is shown for a week"
    assert recent_shift(days(*usual, *moved[1:])) is None, "two days after have to be known"
    assert recent_shift(days(*usual, 0.5, 0.0, 0.0)) is None, "one bad day is none"
    assert recent_shift(days(*usual, 0.3, 0.3, 0.3)) is None, "0.3 of a deviation is nearer than 0.12"
    wild = days(0, 0.5, -0.5, 0.7, -0.7, 0.3, 0, *(1.5,) * 3)
    assert recent_shift(wild) is None, "days that differ among each other tell nothing"
    assert recent_shift({}) is None


def test_few_samples_and_few_days_tell_nothing() -> None:
    assert not has_enough(np.array([SAMPLES_MIN - 1, SAMPLES_MIN - 1]))
    assert has_enough(np.array([SAMPLES_MIN]))
    usual, moved = (0.0,) * (REFERENCE_DAYS // 2), (1.0,) * (DAYS_AFTER + 1)
    assert recent_shift(days(*usual, *moved)) is None
    assert recent_shift(days(0.0, *usual, *moved)) is not None
