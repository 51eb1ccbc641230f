"""When a job is due, and which dates a run of it reads. Pure functions of UTC times."""

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile
from typing import Final

from telemetry_lake.analysis_jobs.documents import ALL_DATES, LAST_DAY, PERIOD, Job, JobSchedule
from telemetry_lake.mapreduce.form import Schedule
from telemetry_lake.units import DateRange

MISSED_MAX_COUNT: Final = 7
"""The most runs of a job that are made up for at once, oldest first, after days without a scheduler."""
NEXT_SHOWN: Final = 3
LONGEST_DAYS: Final = 32
"""More days than there are between two times of any schedule."""
_LAST_DAYS: Final = re.compile(r"last-(\d+)-days", re.ASCII)


def next_times(schedule: JobSchedule, after: datetime, n: int = NEXT_SHOWN) -> list[datetime]:
    """Return the next `n` times later than `after`, fewer when the schedule ends before."""
    return list(islice(_times(schedule, after), n))


def last_time(schedule: JobSchedule, until: datetime) -> datetime | None:
    """Return the last time at or before `until`, as if the schedule had no end; None for once."""
    endless = schedule.model_copy(update={"end": None})
    times = list(takewhile(lambda time: time <= until, _times(endless, until - timedelta(days=LONGEST_DAYS))))
    return times[-1] if times else None


def is_scheduled(job: Job) -> bool:
    """Return whether a job is started by its schedule."""
    return job.schedule.every is not Schedule.ONCE and not job.paused and not job.deleted


def due_times(job: Job, now: datetime) -> list[datetime]:
    """Return the times at which a job was due since it is scheduled and up to `now`, oldest first.

    Whether it was started then, its runs say.
    """
    if not is_scheduled(job):
        return []
    return list(takewhile(lambda time: time <= now, _times(job.schedule, job.scheduled_since)))


def due(job: Job, now: datetime) -> datetime | None:
    """Return the last time at which a job was due, or None."""
    times = due_times(job, now)
    return times[-1] if times else None


def period_of(schedule: JobSchedule, due_at: datetime) -> DateRange:
    """Return the days from the time before `due_at` to the day before it."""
    before = last_time(schedule, due_at - timedelta(seconds=1))
    assert before is not None, "a repeated job has a time before each of its times"
    return DateRange(before.date(), due_at.date() - timedelta(days=1))


def dates_of_run(dates: str, schedule: JobSchedule, at: datetime) -> DateRange | None:
    """Return the dates that a run reads at the time `at`, at which it was due or asked for; None for all.

    Raises ValueError, whose message says what is wrong with `dates`.
    """
    if dates == ALL_DATES:
        return None
    today = at.astimezone(UTC).date()
    if dates == PERIOD:
        last = last_time(schedule, at)
        if last is None:
            raise ValueError("a job that is not repeated has no period")
        return period_of(schedule, last)
    if last_days := _LAST_DAYS.fullmatch(dates):
        return DateRange(today - timedelta(days=int(last_days[1])), today - timedelta(days=1))
    return DateRange.parse(dates, today)


def _times(schedule: JobSchedule, after: datetime) -> Iterator[datetime]:
    """Yield all times later than `after`."""
    if schedule.every is Schedule.ONCE:
        return
    end = date.max if schedule.end is None else date.fromisoformat(schedule.end)
    day = after.astimezone(UTC).date()
    while day <= end:
        if _is_day(schedule, day):
            time = datetime(day.year, day.month, day.day, schedule.hour, tzinfo=UTC)
            if time > after:
                yield time
        if day == date.max:
            return
        day += timedelta(days=1)


def _is_day(schedule: JobSchedule, day: date) -> bool:
    match schedule.every:
        case Schedule.WEEKLY:
            return day.weekday() == schedule.weekday
        case Schedule.MONTHLY:
            if schedule.day == LAST_DAY:
                return day.day == monthrange(day.year, day.month)[1]
            return day.day == schedule.day
        case _:
            return True
