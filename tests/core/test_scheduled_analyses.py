"""Analyses are repeated for each period once, from their creation on, until they are removed."""

import itertools
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.analysis_runs import Schedule, prepare_run, read_request
from telemetry_lake.failures import FatalError
from telemetry_lake.object_keys import scheduled_analysis_key
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.scheduled_analyses import (
    PERIODS_MAX_COUNT,
    due_runs,
    ended_periods,
    record_started,
    remove,
    save,
    scheduled,
)

MONDAY = date(2026, 11, 23)
SCRIPT = "def map(key, dimensions, value, context):\n    context.write(key, 1)\n"
DAYS = st.dates(date(2020, 1, 1), date(2030, 12, 31))
REPEATED = st.sampled_from([Schedule.DAILY, Schedule.WEEKLY, Schedule.MONTHLY])


@pytest.mark.parametrize(
    "schedule, since, today, expected",
    [
        (Schedule.DAILY, MONDAY, MONDAY, []),
        (Schedule.DAILY, MONDAY, date(2026, 11, 25), ["2026-11-23..2026-11-23", "2026-11-24..2026-11-24"]),
        (Schedule.WEEKLY, date(2026, 11, 25), date(2026, 11, 29), []),
        (Schedule.WEEKLY, date(2026, 11, 25), date(2026, 11, 30), ["2026-11-23..2026-11-29"]),
        (Schedule.MONTHLY, MONDAY, date(2026, 12, 31), ["2026-11-01..2026-11-30"]),
        (
            Schedule.MONTHLY,
            date(2027, 1, 31),
            date(2027, 3, 1),
            ["2027-01-01..2027-01-31", "2027-02-01..2027-02-28"],
        ),
    ],
)
def test_periods_that_have_ended(schedule, since, today, expected):
    assert [str(period) for period in ended_periods(schedule, since, today)] == expected


@given(REPEATED, DAYS, st.integers(0, 400))
def test_periods_follow_each_other_and_none_is_left_out(schedule, since, days):
    today = since + timedelta(days=days)
    periods = list(ended_periods(schedule, since, today))
    for one, following in itertools.pairwise(periods):
        assert following.first == one.last + timedelta(days=1)
    if periods:
        assert periods[0].first <= since <= periods[0].last
        assert periods[-1].last < today
    # What is left has not ended.
    assert not list(ended_periods(schedule, today, today))


@pytest.fixture
def kept(lake_settings):
    """Saves an analysis as the form does."""
    store, bucket = ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket

    def keep(name="os", schedule="daily", run="manual__1", today=MONDAY):
        request = read_request({"script_text": SCRIPT, "schedule": schedule, "name": name, "sample": 10})
        return save(store, bucket, request, prepare_run(lake_settings, request, run), run, today)

    return store, bucket, keep


def test_an_analysis_is_due_once_for_each_period(kept):
    store, bucket, keep = kept
    keep()
    assert due_runs(store, bucket, MONDAY) == []
    tuesday = MONDAY + timedelta(days=1)
    (run,) = due_runs(store, bucket, tuesday)
    assert run.run_id == "scheduled__os__2026-11-23"
    assert read_request(run.form).dates == "2026-11-23..2026-11-23"
    assert run.form["sample"] == 10
    assert "schedule" not in run.form, "it would be saved again"
    # The copy of the script is used, not the text: Airflow would take what is in it for a template.
    assert "script_text" not in run.form
    assert (
        store.get(bucket, str(run.form["script"]).removeprefix(f"s3://{bucket}/")).decode() == f"{SCRIPT}\n"
    )
    record_started(store, bucket, run)
    assert due_runs(store, bucket, tuesday) == []


def test_what_was_missed_is_made_up_for_a_few_periods_at_a_time(kept):
    store, bucket, keep = kept
    keep()
    runs = due_runs(store, bucket, MONDAY + timedelta(days=30))
    assert [run.period.first for run in runs] == [
        MONDAY + timedelta(days=n) for n in range(PERIODS_MAX_COUNT)
    ]


def test_a_name_is_taken_until_it_is_removed(kept):
    store, bucket, keep = kept
    first = keep()
    assert keep() == first, "the same run again"
    keep("crashes", "weekly")
    with pytest.raises(FatalError, match="there is a scheduled analysis 'os' already, since 2026-11-23"):
        keep(run="manual__2")
    assert [analysis.name for analysis in scheduled(store, bucket)] == ["crashes", "os"]

    remove(store, bucket, "os")

    assert [analysis.name for analysis in scheduled(store, bucket)] == ["crashes"]
    assert due_runs(store, bucket, MONDAY + timedelta(days=2)) == []
    with pytest.raises(FatalError, match="there is no scheduled analysis 'os'; there are: crashes"):
        remove(store, bucket, "os")
    assert keep(run="manual__2").run == "manual__2"


@pytest.mark.parametrize("name", ["", "../os", "a/b", ".hidden"])
def test_a_name_cannot_leave_its_place(name):
    with pytest.raises(ValueError, match="not the name of an analysis"):
        scheduled_analysis_key(name)
