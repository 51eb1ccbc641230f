"""What the tasks of the DAG `mapreduce` do before and after the job, whoever asked for the run.

A run that the analysis service asked for has a `run.json`, which says all of it. For one whose form was
filled in in Airflow, `run.json` is made of the form, so that both look the same from then on. A form with a
schedule also makes a job of its name.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from telemetry_lake.analysis_jobs.documents import (
    PERIOD,
    PERSON_PATTERN,
    Code,
    CodeKind,
    JobDraft,
    JobRequest,
    JobSchedule,
    RunRequest,
    RunState,
    Visibility,
)
from telemetry_lake.analysis_jobs.notify import Notifier
from telemetry_lake.analysis_jobs.people import Person
from telemetry_lake.analysis_jobs.runs import Runs
from telemetry_lake.analysis_jobs.store import JobNotFound, JobStore
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.form import AnalysisRequest, Schedule, read_request
from telemetry_lake.mapreduce.progress import AS_LINES
from telemetry_lake.mapreduce.requests import PreparedRun, prepare_run
from telemetry_lake.settings import RunOn, Settings
from telemetry_lake.storage.object_keys import JOB_CODE_PREFIX, analysis_run_key

UNKNOWN_PERSON: Final = "airflow"
"""Who asked for a run, when Airflow does not say or says what is not the name of a person."""


def prepare(
    settings: Settings, run_id: str, form: Mapping[str, object], asked_by: str | None, *, now: datetime
) -> PreparedRun:
    """Check what a run was asked for, and copy what its job needs into the lake bucket.

    A repetition does the same. Raises FatalError, which says what is wrong and where.
    """
    jobs = JobStore.of(settings)
    runs = Runs(jobs, settings, None)
    asked = runs.record_begin(run_id, now=now)
    if asked is not None and asked.code is not None:
        code = asked.code
        place = f"s3://{settings.s3.lake_bucket}/{JOB_CODE_PREFIX}{code.digest}/"
        prepared = prepare_run(settings, asked.request, run_id, trusted=(place,))
        return _with_options(settings, prepared, run_id, code.arguments)
    request = read_request(form) if asked is None else asked.request
    owner = asked_by if asked_by and re.fullmatch(PERSON_PATTERN, asked_by) else UNKNOWN_PERSON
    if asked is None:
        run = _of_form(settings, request, run_id, owner, now)
        runs.adopt(run)
        runs.record_begin(run_id, now=now)
    prepared = prepare_run(settings, request, run_id)
    if request.schedule is not Schedule.ONCE:
        _create_job(jobs, request, prepared, owner, now)
    return _with_options(settings, prepared, run_id, ())


def record_end(
    settings: Settings,
    run_id: str,
    state: RunState,
    *,
    now: datetime,
    started_at: datetime | None,
    error: str | None = None,
) -> None:
    """Record how a run ended, and tell who wants to know.

    One that was never written down, because its form was wrong, leaves nothing.
    """
    jobs = JobStore.of(settings)
    runs = Runs(jobs, settings, None, Notifier(jobs, settings).on_end)
    if runs.is_written_down(run_id):
        runs.record_end(run_id, state, now=now, error=error, started_at=started_at)


def _with_options(
    settings: Settings, prepared: PreparedRun, run_id: str, arguments: tuple[str, ...]
) -> PreparedRun:
    local = settings.spark.run_on is RunOn.LOCAL
    place = f"s3://{settings.s3.lake_bucket}/{analysis_run_key(run_id, 'progress.json')}"
    # What a job prints here is read line by line; EMR keeps it to itself.
    options = [f"--progress={AS_LINES if local else place}", *(f"--argument={one}" for one in arguments)]
    return prepared.model_copy(update={"arguments": [*prepared.arguments, *options]})


def _of_form(
    settings: Settings, request: AnalysisRequest, run_id: str, owner: str, now: datetime
) -> RunRequest:
    spark = settings.spark
    output = analysis_run_key(run_id, f"output.{request.format.suffix}")
    return RunRequest(
        run_id=run_id,
        job=None,
        version=None,
        code=None,
        request=request,
        owner=owner,
        group=None,
        visibility=Visibility.PRIVATE,
        asked_by=owner,
        asked_at=now,
        output=request.output or f"s3://{settings.s3.lake_bucket}/{output}",
        machines=1 if spark.run_on is RunOn.LOCAL else request.workers or spark.workers,
    )


def _create_job(
    jobs: JobStore, request: AnalysisRequest, prepared: PreparedRun, owner: str, now: datetime
) -> None:
    """Make a job of a form with a schedule; one that an earlier attempt of this task made stays.

    Raises NameTaken.
    """
    assert request.name is not None
    draft = draft_of_form(jobs, request, prepared.script, prepared.filter)
    try:
        before = jobs.get(request.name)
    except JobNotFound:
        before = None
    if before is None or before.owner != owner or before.draft != draft:
        jobs.create(Person(owner), draft, now=now)


def draft_of_form(jobs: JobStore, request: AnalysisRequest, script: str, filter_: str | None) -> JobDraft:
    """Return the job that a form with a schedule asks for, with the copies of script and filter of its run.

    It runs at the hour at which such forms always did, for the day, week or month that has ended.
    """
    assert request.name is not None
    script_key = PurePosixPath(urlsplit(script).path.lstrip("/"))
    folder = f"{script_key.parent}/"
    keys = [item.key for item in jobs.objects.list_objects(jobs.bucket, folder)]
    files = {key.removeprefix(folder): jobs.objects.get(jobs.bucket, key) for key in keys}
    if script_key.name not in files:
        raise FatalError(f"{script} is not there any more")
    text = None
    if filter_ is not None:
        text = jobs.objects.get(jobs.bucket, urlsplit(filter_).path.lstrip("/")).decode()
    return JobDraft(
        name=request.name,
        description="Made by the form of map-reduce in Airflow.",
        code=Code(kind=CodeKind.FILE, digest=jobs.put_code(files), entry=script_key.name),
        request=JobRequest(
            table=request.table,
            dates=PERIOD,
            filter=text,
            sample=request.sample,
            format=request.format,
            num_reducers=request.num_reducers,
            workers=request.workers,
            time_limit_minutes=request.time_limit_minutes,
        ),
        schedule=JobSchedule(
            every=request.schedule,
            weekday=0 if request.schedule is Schedule.WEEKLY else None,
            day=1 if request.schedule is Schedule.MONTHLY else None,
        ),
    )
