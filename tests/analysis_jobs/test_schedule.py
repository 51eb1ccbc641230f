"""When jobs are due: on the days and at the hour they say, each time once, and what a run reads then."""

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.analysis_jobs.documents import (
    Code,
    CodeKind,
    InvalidJob,
    Job,
    JobRequest,
    JobSchedule,
    read_draft,
)
from telemetry_lake.analysis_jobs.schedule import (
    dates_of_run,
    due,
    due_times,
    last_time,
    next_times,
    period_of,
)

MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAILY = JobSchedule(every="daily", hour=6)
WEEKLY = JobSchedule(every="weekly", weekday=0, hour=6)
MONTHLY = JobSchedule(every="monthly", day=1, hour=6)
LAST_OF_MONTH = JobSchedule(every="monthly", day="last", hour=23)
CODE = {"kind": "text", "digest": "0" * 64, "entry": "script.py"}

SCHEDULES = st.one_of(
    st.builds(JobSchedule, every=st.just("daily"), hour=st.integers(0, 23)),
    st.builds(JobSchedule, every=st.just("weekly"), weekday=st.integers(0, 6), hour=st.integers(0, 23)),
    st.builds(
        JobSchedule,
        every=st.just("monthly"),
        day=st.integers(1, 28) | st.just("last"),
        hour=st.integers(0, 23),
    ),
)
TIMES = st.integers(0, 10 * 365 * 24 * 3_600).map(lambda seconds: MONDAY + timedelta(seconds=seconds))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def job(schedule: JobSchedule, since: datetime, **fields: object) -> Job:
    return Job(
        name="os",
        code=Code(kind=CodeKind.TEXT, digest="0" * 64, entry="script.py"),
        schedule=schedule,
        owner="ann",
        version=1,
        created_at=since,
        created_by="ann",
        changed_at=since,
        changed_by="ann",
        scheduled_since=since,
        change="0" * 32,
        **fields,
    )


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (JobSchedule(), []),
        (DAILY, ["2026-11-24T06", "2026-11-25T06", "2026-11-26T06"]),
        (JobSchedule(every="daily", hour=13), ["2026-11-23T13", "2026-11-24T13", "2026-11-25T13"]),
        (JobSchedule(every="daily", hour=12), ["2026-11-24T12", "2026-11-25T12", "2026-11-26T12"]),
        (WEEKLY, ["2026-11-30T06", "2026-12-07T06", "2026-12-14T06"]),
        (MONTHLY, ["2026-12-01T06", "2027-01-01T06", "2027-02-01T06"]),
        (LAST_OF_MONTH, ["2026-11-30T23", "2026-12-31T23", "2027-01-31T23"]),
        (DAILY.model_copy(update={"end": "2026-11-25"}), ["2026-11-24T06", "2026-11-25T06"]),
    ],
)
def test_the_next_times(schedule, expected):
    assert next_times(schedule, MONDAY) == [at(f"{text}:00") for text in expected]


@given(SCHEDULES, TIMES)
def test_times_follow_each_other_and_periods_leave_no_day_out(schedule, after):
    times = next_times(schedule, after, 5)
    assert len(times) == 5
    assert all(one < two for one, two in itertools.pairwise([after, *times]))
    assert last_time(schedule, times[2]) == times[2]
    assert last_time(schedule, times[2] - timedelta(seconds=1)) == times[1]
    for one, two in itertools.pairwise(times):
        # The days from one run to the next: none twice, none left out.
        assert period_of(schedule, two).first == one.date()
        assert period_of(schedule, two).last == two.date() - timedelta(days=1)


@given(SCHEDULES, TIMES, st.integers(0, 200))
def test_a_job_was_due_at_every_time_since_it_is_scheduled(schedule, since, days):
    now = since + timedelta(days=days)
    found = due_times(job(schedule, since), now)
    assert found == next_times(schedule, since, len(found))
    assert next_times(schedule, since, len(found) + 1)[-1] > now
    assert due(job(schedule, since), now) == (found[-1] if found else None)
    assert due_times(job(schedule, since, paused=True), now) == []
    assert due_times(job(schedule, since, deleted=True), now) == []


@pytest.mark.parametrize(
    "dates, schedule, expected",
    [
        ("all", DAILY, None),
        ("yesterday", JobSchedule(), "2026-11-22..2026-11-22"),
        ("2026-11-01..2026-11-07", DAILY, "2026-11-01..2026-11-07"),
        ("last-7-days", WEEKLY, "2026-11-16..2026-11-22"),
        ("period", DAILY, "2026-11-22..2026-11-22"),
        ("period", WEEKLY, "2026-11-16..2026-11-22"),
        ("period", MONTHLY, "2026-10-01..2026-10-31"),
        ("period", LAST_OF_MONTH, "2026-09-30..2026-10-30"),
    ],
)
def test_the_dates_of_a_run(dates, schedule, expected):
    found = dates_of_run(dates, schedule, MONDAY)
    assert (None if found is None else str(found)) == expected


@given(SCHEDULES, TIMES)
def test_the_period_of_a_run_that_is_due_is_its_own(schedule, after):
    (time,) = next_times(schedule, after, 1)
    assert dates_of_run("period", schedule, time) == period_of(schedule, time)


@pytest.mark.parametrize(
    "fields, field, sentence",
    [
        ({"name": "x" * 10_000}, "name", "use 1 to 64 small letters"),
        ({"name": "../x"}, "name", "use 1 to 64 small letters"),
        ({"request": {"dates": "last-367-days"}}, "request.dates", "give FIRST..LAST"),
        ({"request": {"dates": "2026-02-30"}}, "request.dates", "not a date of the calendar"),
        ({"request": {"dates": "2026-02-03..2026-02-01"}}, "request.dates", "is before"),
        ({"request": {"dates": "period"}}, "", "no period"),
        ({"schedule": {"every": "monthly", "day": 29}}, "schedule.day", "1 to 28, or last"),
        ({"schedule": {"every": "weekly"}}, "schedule", "day of the week"),
        ({"visibility": "group"}, "", "name the group"),
        ({"code": {**CODE, "entry": "../script.py"}}, "code.entry", "without . and .."),
        ({"code": {**CODE, "arguments": ["x"] * 51}}, "code.arguments", "at most 50"),
        ({"description": "a\x1b[2J"}, "description", "control character"),
        ({"notify": {"mails": ["a@b.example\nBcc: c@d.example"]}}, "notify.mails.0", "not a mail address"),
        ({"notify": {"webhooks": ["file:///etc/passwd"]}}, "notify.webhooks.0", "address of a web hook"),
    ],
)
def test_what_is_wrong_is_said_of_each_field(fields, field, sentence):
    with pytest.raises(InvalidJob) as failure:
        read_draft({"name": "os", "code": CODE, **fields})
    assert sentence in failure.value.problems[field]


def test_fields_at_their_limits_are_taken():
    draft = read_draft(
        {
            "name": "x" * 64,
            "description": "x" * 2_000,
            "code": {**CODE, "arguments": ["x" * 1_000] * 50},
            "request": {"dates": "last-366-days", "filter": "x" * 64 * 1024},
            "schedule": {"every": "monthly", "day": "last", "end": date.max.isoformat()},
        }
    )
    assert draft.request == JobRequest(dates="last-366-days", filter="x" * 64 * 1024)
    assert next_times(draft.schedule, datetime(9999, 12, 31, 23, tzinfo=UTC)) == []
