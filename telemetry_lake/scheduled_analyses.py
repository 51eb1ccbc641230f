"""Analyses that are repeated: each day, week or month, over the pings of the time that has just ended.

An analysis is a document in the lake bucket, under the name that its author gave it. For each period that
ends on the day of its creation or later it is started once; a record says for which it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from telemetry_lake.analysis_runs import AnalysisRequest, PreparedRun, Schedule
from telemetry_lake.failures import FatalError
from telemetry_lake.object_keys import SCHEDULED_PREFIX, scheduled_analysis_key, started_key, started_prefix
from telemetry_lake.object_store import ObjectStore

DAYS_IN_WEEK: Final = 7
PERIODS_MAX_COUNT: Final = 7
"""How many periods of an analysis are started at once, oldest first, when nobody started any for a while."""


class ScheduledAnalysis(BaseModel):
    """One analysis that is repeated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    created: date
    run: str
    """The run whose form asked for it; its copies of script and filter are used from then on."""
    request: AnalysisRequest
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Period:
    """All dates from `first` to `last`, both included."""

    first: date
    last: date

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


@dataclass(frozen=True, slots=True)
class DueRun:
    """A run that is to be started."""

    analysis: ScheduledAnalysis
    period: Period

    @property
    def run_id(self) -> str:
        """The id that the run gets, always the same, so that it cannot be started twice."""
        return f"scheduled__{self.analysis.name}__{self.period.last}"

    @property
    def form(self) -> dict[str, object]:
        """What its form holds."""
        request = self.analysis.request.model_copy(
            update={"schedule": Schedule.ONCE, "dates": str(self.period)}
        )
        return request.model_dump(mode="json", exclude_defaults=True)


def ended_periods(schedule: Schedule, since: date, today: date) -> Iterator[Period]:
    """Every day, week from Monday or calendar month that ends from `since` on and before `today`."""
    first = _begin(schedule, since)
    while (following := _next(schedule, first)) <= today:
        yield Period(first, following - timedelta(days=1))
        first = following


def save(
    store: ObjectStore, bucket: str, request: AnalysisRequest, prepared: PreparedRun, run: str, today: date
) -> ScheduledAnalysis:
    """Keep an analysis under its name, to be repeated from `today` on; doing it again changes nothing.

    Raises FatalError when another analysis has this name.
    """
    assert request.name is not None
    copies = {"script": prepared.script, "script_text": None, "filter": prepared.filter, "dates": None}
    analysis = ScheduledAnalysis(
        name=request.name, created=today, run=run, request=request.model_copy(update=copies)
    )
    there = _read(store, bucket, request.name)
    if there is not None and not there.removed:
        if there.run == run:
            return there
        raise FatalError(
            f"there is a scheduled analysis {request.name!r} already, since {there.created}: choose another "
            "name, or remove it first (the DAG 'Scheduled analyses')"
        )
    _write(store, bucket, analysis)
    return analysis


def remove(store: ObjectStore, bucket: str, name: str) -> None:
    """Repeat an analysis no more; what it has made stays. Raises FatalError when there is none."""
    there = _read(store, bucket, name)
    if there is None or there.removed:
        known = ", ".join(analysis.name for analysis in scheduled(store, bucket)) or "none"
        raise FatalError(f"there is no scheduled analysis {name!r}; there are: {known}")
    _write(store, bucket, there.model_copy(update={"removed": True}))


def scheduled(store: ObjectStore, bucket: str) -> list[ScheduledAnalysis]:
    """All analyses that are repeated, by name."""
    names = (
        found.key.removeprefix(SCHEDULED_PREFIX).split("/")
        for found in store.list_objects(bucket, SCHEDULED_PREFIX)
    )
    read = (_read(store, bucket, parts[0]) for parts in names if parts[1:] == ["analysis.json"])
    return [analysis for analysis in read if analysis is not None and not analysis.removed]


def due_runs(store: ObjectStore, bucket: str, today: date) -> list[DueRun]:
    """What is to be started now: for each analysis the periods that have ended and were not started."""
    due = []
    for analysis in scheduled(store, bucket):
        started = {found.key for found in store.list_objects(bucket, started_prefix(analysis.name))}
        open_periods = [
            DueRun(analysis, period)
            for period in ended_periods(analysis.request.schedule, analysis.created, today)
            if started_key(analysis.name, period.last) not in started
        ]
        due += open_periods[:PERIODS_MAX_COUNT]
    return due


def record_started(store: ObjectStore, bucket: str, run: DueRun) -> None:
    """Note that a run was started, so that it is not due any more."""
    key = started_key(run.analysis.name, run.period.last)
    store.put_if_absent(bucket, key, f'{{"run_id": "{run.run_id}"}}\n'.encode())


def _read(store: ObjectStore, bucket: str, name: str) -> ScheduledAnalysis | None:
    content = store.get_or_none(bucket, scheduled_analysis_key(name))
    return None if content is None else ScheduledAnalysis.model_validate_json(content)


def _write(store: ObjectStore, bucket: str, analysis: ScheduledAnalysis) -> None:
    content = analysis.model_dump_json(indent=1, exclude_defaults=True)
    store.put(bucket, scheduled_analysis_key(analysis.name), content.encode())


def _begin(schedule: Schedule, day: date) -> date:
    """The first date of the period that `day` is in."""
    match schedule:
        case Schedule.WEEKLY:
            return day - timedelta(days=day.weekday())
        case Schedule.MONTHLY:
            return day.replace(day=1)
        case _:
            return day


def _next(schedule: Schedule, first: date) -> date:
    """The first date of the period after the one that begins with `first`."""
    match schedule:
        case Schedule.WEEKLY:
            return first + timedelta(days=DAYS_IN_WEEK)
        case Schedule.MONTHLY:
            return (first.replace(day=1) + timedelta(days=32)).replace(day=1)
        case _:
            return first + timedelta(days=1)
