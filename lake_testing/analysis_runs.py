"""Runs of analysis jobs as the tasks of Airflow leave them in the lake bucket, for tests of pages."""

from datetime import UTC, datetime, timedelta

from telemetry_lake.analysis_jobs.documents import Job, RunRequest, RunState
from telemetry_lake.analysis_jobs.runs import Runs, new_token
from telemetry_lake.analysis_jobs.store import JobStore
from telemetry_lake.mapreduce.form import AnalysisRequest
from telemetry_lake.mapreduce.progress import Phase, Progress
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import analysis_run_key, job_code_key, job_run_id
from telemetry_lake.storage.object_store import ObjectStore


def begun_run(settings: Settings, store: ObjectStore, job: Job) -> RunRequest:
    """Write down a run of `job`."""
    bucket = settings.s3.lake_bucket
    at = datetime.now(UTC)
    run_id = job_run_id(job.name, new_token(at))
    suffix = job.request.format.suffix
    request = RunRequest(
        run_id=run_id,
        job=job.name,
        version=job.version,
        code=job.code,
        request=AnalysisRequest(
            script=f"s3://{bucket}/{job_code_key(job.code.digest, job.code.entry)}", format=job.request.format
        ),
        owner=job.owner,
        group=job.group,
        visibility=job.visibility,
        asked_by=job.owner,
        asked_at=at,
        output=f"s3://{bucket}/{analysis_run_key(run_id, f'output.{suffix}')}",
        machines=1,
    )
    store.put(bucket, analysis_run_key(run_id, "run.json"), request.model_dump_json().encode())
    return request


def progressed(
    settings: Settings, store: ObjectStore, request: RunRequest, *, records: int, total: int
) -> None:
    """Write how far a run has come."""
    progress = Progress(
        phase=Phase.MAPPING,
        updated_at=datetime.now(UTC),
        records=records,
        records_total=total,
        bytes=2_000_000,
        records_per_second=125.0,
        seconds_left=6.0,
    )
    key = analysis_run_key(request.run_id, "progress.json")
    store.put(settings.s3.lake_bucket, key, progress.model_dump_json().encode())


def printed(settings: Settings, store: ObjectStore, request: RunRequest, text: str) -> None:
    """Write what a run has printed."""
    store.put(settings.s3.lake_bucket, analysis_run_key(request.run_id, "log.txt"), text.encode())


def end_run(
    settings: Settings,
    store: ObjectStore,
    request: RunRequest,
    content: bytes | None,
    *,
    error: str | None = None,
) -> None:
    """Write the result of a run, None for one that failed, and record its end."""
    bucket = settings.s3.lake_bucket
    if content is not None:
        store.put(bucket, request.output.removeprefix(f"s3://{bucket}/"), content)
    Runs(JobStore(store, bucket), settings, None).record_end(
        request.run_id,
        RunState.FAILED if content is None else RunState.SUCCESS,
        now=request.asked_at + timedelta(seconds=90),
        error=error,
        started_at=request.asked_at + timedelta(seconds=5),
    )


def ended_run(
    settings: Settings, store: ObjectStore, job: Job, content: bytes | None, *, error: str | None = None
) -> str:
    """Keep a run that has ended after reading 1,234 records, and return its id."""
    request = begun_run(settings, store, job)
    progressed(settings, store, request, records=1_234, total=1_234)
    printed(settings, store, request, "first line\n<script>alert(1)</script>\n")
    end_run(settings, store, request, content, error=error)
    return request.run_id
