"""Analyses that the form of map-reduce repeated before there were jobs: each becomes a job, once.

Such an analysis is a document `analyses/scheduled/<name>/analysis.json`, with a record for each period that
it was started for. Its job goes on where these end.
"""

import logging
import re
from datetime import UTC, date, datetime, timedelta

from telemetry_lake.analysis_jobs.documents import DEFAULT_HOUR, Job
from telemetry_lake.analysis_jobs.people import Person
from telemetry_lake.analysis_jobs.prepare import UNKNOWN_PERSON, draft_of_form
from telemetry_lake.analysis_jobs.store import JobNotFound, JobStore
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.mapreduce.form import AnalysisRequest
from telemetry_lake.storage.object_keys import (
    SCHEDULED_PREFIX,
    scheduled_analysis_key,
    started_prefix,
)
from telemetry_lake.storage.records import Record

_log = logging.getLogger(__name__)


class ScheduledAnalysis(Record):
    """One analysis that was repeated."""

    name: str
    created: date
    run: str
    """The run whose form asked for it, and whose copies of script and filter it uses."""
    request: AnalysisRequest
    removed: bool = False


def make_jobs(jobs: JobStore, *, now: datetime) -> list[Job]:
    """Make a job of each analysis that is still repeated, and mark it as removed. Returns the new jobs.

    A failure of one is logged, and tried again by the next call.
    """
    made = []
    for item in jobs.objects.list_objects(jobs.bucket, SCHEDULED_PREFIX):
        name, _, rest = item.key.removeprefix(SCHEDULED_PREFIX).partition("/")
        if rest != "analysis.json":
            continue
        analysis = ScheduledAnalysis.model_validate_json(jobs.objects.get(jobs.bucket, item.key))
        if analysis.removed:
            continue
        try:
            made.append(_make(jobs, analysis, now))
        except TelemetryLakeError as error:
            _log.warning("the scheduled analysis %s does not become a job: %s", name, error)
    return made


def _make(jobs: JobStore, analysis: ScheduledAnalysis, now: datetime) -> Job:
    request = analysis.request
    assert request.script is not None, "it names the copy of its first run"
    draft = draft_of_form(
        jobs, request.model_copy(update={"name": analysis.name}), request.script, request.filter
    )
    try:
        job = jobs.get(analysis.name)
        is_ours = job.owner == UNKNOWN_PERSON and job.draft == draft
    except JobNotFound:
        is_ours = False
    if not is_ours:
        owner = Person(UNKNOWN_PERSON, is_admin=True)
        job = jobs.create(owner, draft, now=now, scheduled_since=_since(jobs, analysis))
    done = analysis.model_copy(update={"removed": True})
    text = done.model_dump_json(indent=1, exclude_defaults=True)
    jobs.objects.put(jobs.bucket, scheduled_analysis_key(analysis.name), text.encode())
    return job


def _since(jobs: JobStore, analysis: ScheduledAnalysis) -> datetime:
    """Return the moment after which the job is due: when the last period was started, or its creation."""
    prefix = started_prefix(analysis.name)
    names = [
        item.key.removeprefix(prefix).removesuffix(".json")
        for item in jobs.objects.list_objects(jobs.bucket, prefix)
    ]
    # The record names the last day of a period, after which it was started.
    days = [
        date.fromisoformat(name) + timedelta(days=1)
        for name in names
        if re.fullmatch(r"\d{4}-\d\d-\d\d", name)
    ]
    last = max([analysis.created, *days])
    # At this hour of that day the period before was started, or would have been.
    return datetime(last.year, last.month, last.day, DEFAULT_HOUR, tzinfo=UTC)
