"""The runs of jobs: started once however often their start is tried, followed, cancelled and settled.

A run begins in these steps, each of which may be repeated, and between any two of which a process may die:

1. the mark that it is open (`open_run_key`), by which quotas count it and by which it is found again;
2. `run.json`, on the condition that there is none: what it says is what runs;
3. Airflow is asked to run it under the same id, which it does once.

It ends in these: `outcome.json`, on the condition that there is none; the job's pointer to its newest runs;
what it took, for the quota of a month; people are told; the mark is removed. `settle` does what is left of
either for a run whose process died in between: the pages do it when they show a run, and the DAG *Scheduled
analyses* every few minutes.
"""

import hashlib
import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from pydantic import AwareDatetime, ValidationError

from telemetry_lake.analysis_jobs.airflow_api import AirflowApi, AirflowRun
from telemetry_lake.analysis_jobs.cached_documents import CachedDocuments
from telemetry_lake.analysis_jobs.documents import (
    TOKEN_PATTERN,
    Job,
    Latest,
    Outcome,
    PersonName,
    RunId,
    RunRequest,
    RunState,
    Visibility,
    What,
)
from telemetry_lake.analysis_jobs.people import (
    NotAllowed,
    Person,
    QuotaExceeded,
    may_change,
    may_see_result,
)
from telemetry_lake.analysis_jobs.run import SECONDS_IN_HOUR, Run
from telemetry_lake.analysis_jobs.schedule import MISSED_MAX_COUNT, dates_of_run, due_times, is_scheduled
from telemetry_lake.analysis_jobs.store import JobNotFound, JobStore
from telemetry_lake.failures import FatalError, TelemetryLakeError
from telemetry_lake.mapreduce.form import AnalysisRequest
from telemetry_lake.mapreduce.progress import ERROR_MAX_CHARACTERS, Phase, Progress
from telemetry_lake.settings import RunOn, Settings
from telemetry_lake.storage.object_keys import (
    OPEN_RUN_PREFIX,
    analysis_run_key,
    job_code_key,
    job_run_id,
    job_run_of_folder,
    job_runs_prefix,
    job_usage_key,
    job_usage_prefix,
    latest_run_key,
    open_run_key,
    seconds_of_usage_key,
)
from telemetry_lake.storage.records import Record, RecordStore, all_at_once

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import StoredObject

RUNS_SHOWN: Final = 50
TOKEN_MAX_AGE: Final = timedelta(days=1)
UNFINISHED_START: Final = timedelta(minutes=10)
"""How long after its mark a run without `run.json` is given up: its start failed at the first step."""
ASKED_AGAIN_FOR: Final = timedelta(days=1)
"""How long after it was asked for a run that Airflow does not know is asked for again."""
LOG_TAIL_BYTES: Final = 64 * 1024

_log = logging.getLogger(__name__)


class RunNotFound(FatalError):
    """There is no such run, or the person may not know of it."""


class OpenRun(Record):
    """The mark that a run has not ended, with what quotas count of it."""

    run_id: RunId
    owner: PersonName
    asked_at: AwareDatetime
    machines: int


class Cancellation(Record):
    """`cancel.json`: somebody wants a run to end; written before Airflow is asked."""

    by: PersonName
    at: AwareDatetime


@dataclass(frozen=True, slots=True)
class Usage:
    """What a person uses of their quotas."""

    jobs: int
    open_runs: int
    machines: int
    machine_hours: float
    """Of runs that ended in this month."""


@dataclass(frozen=True, slots=True)
class Late:
    """A run that should have begun and has not."""

    job: str | None
    run_id: str
    since: datetime
    """When it was due, or asked for."""
    was_asked: bool
    """Whether `run.json` is there: then Airflow has not begun it, otherwise nothing has started it."""

    def sentence(self, now: datetime) -> str:
        """Return what is late, for a person."""
        minutes = int((now - self.since).total_seconds() // 60)
        begin, end = ("was asked for", "has not begun") if self.was_asked else ("was due", "was not started")
        return (
            f"{self.job or self.run_id} {begin} at {self.since:%Y-%m-%d %H:%M} UTC, {minutes:,} minutes ago, "
            f"and {end}: is Airflow's scheduler running?"
        )


OnEnd = Callable[[RunRequest, Outcome, RunState | None], None]
"""Called when a run has ended, with its outcome and the state of the run of the job that ended before it.

It may be called several times for one run, and must not raise."""


def new_token(now: datetime | None = None) -> str:
    """Return what tells a run that a person asks for from all others: put it into the form that asks."""
    return f"{_time_token(now or datetime.now(UTC))}-{uuid.uuid4().hex[:8]}"


class Runs:
    """The runs of the jobs in a store; safe to share between threads."""

    def __init__(
        self, jobs: JobStore, settings: Settings, airflow: AirflowApi | None, on_end: OnEnd | None = None
    ) -> None:
        """Without `airflow`, nothing is started or cancelled, and states are those of the documents."""
        self.jobs = jobs
        self.airflow = airflow
        self._settings = settings
        self._on_end = on_end
        self._objects = jobs.objects
        self._bucket = jobs.bucket
        self._records = RecordStore(jobs.objects, jobs.bucket)
        self._open = CachedDocuments(jobs.objects, jobs.bucket, OPEN_RUN_PREFIX, OpenRun)
        self._known_to_exist: set[str] = set()

    # To start

    def start(self, person: Person, name: str, token: str, *, now: datetime | None = None) -> RunRequest:
        """Run a job now. `token` is of `new_token`: the same one again starts nothing more.

        Raises JobNotFound, NotAllowed and QuotaExceeded. After a RetriableError the run is written down, and
        is started when Airflow answers again.
        """
        at = now or datetime.now(UTC)
        job = self._job_to_run(person, name)
        _check_token(token, at)
        return self._start(self._request(job, token, person.name, at, at))

    def again(self, person: Person, run_id: str, token: str, *, now: datetime | None = None) -> RunRequest:
        """Run a job again for the dates of one of its runs, with the job's code and settings of today."""
        at = now or datetime.now(UTC)
        before = self._require(run_id)
        if before.job is None:
            raise FatalError(f"{run_id} is a run of Airflow's form: fill in that form again")
        job = self._job_to_run(person, before.job)
        _check_token(token, at)
        return self._start(self._request(job, token, person.name, at, at, again=before))

    def start_failed(
        self, person: Person, name: str, token: str, *, now: datetime | None = None
    ) -> list[RunRequest]:
        """Run a job again for every time of its schedule whose newest run did not succeed."""
        at = now or datetime.now(UTC)
        self._job_to_run(person, name)
        newest: dict[datetime, Run] = {}
        for run in self.of_job(person, name, at_most=10 * RUNS_SHOWN):
            if run.request.due_at is not None:
                newest.setdefault(run.request.due_at, run)
        failed = [run for run in newest.values() if run.state.is_over and run.state is not RunState.SUCCESS]
        return [self.again(person, run.run_id, _token_within(token, run.run_id), now=at) for run in failed]

    def due(self, now: datetime) -> list[RunRequest]:
        """Write down the runs that are due and have not been, and return them; Airflow is not asked.

        One whose owner has used up a quota waits for the next call.
        """
        found: list[RunRequest] = []
        for job, due_at in self._not_written(now):
            try:
                found.append(
                    self._write_down(self._request(job, _time_token(due_at), job.owner, now, due_at, due_at))
                )
            except QuotaExceeded as error:
                _log.warning("%s is due since %s: %s", job.name, due_at, error)
        return found

    def not_begun(self) -> list[RunRequest]:
        """Return the runs that are written down and show no sign of having begun."""
        return [
            request
            for request in self._records.read_all(
                (analysis_run_key(mark.run_id, "run.json") for mark in self._open.all().values()), RunRequest
            )
            if request is not None
            and self._progress(request.run_id) is None
            and self._outcome(request.run_id) is None
            and not self.is_cancelled(request.run_id)
        ]

    # To look at

    def get(self, person: Person | None, run_id: str) -> Run:
        """Return a run that a person may see. Raises RunNotFound."""
        request = self._read(run_id)
        if request is not None:
            run = self._run(request, self._job_of(request))
            if may_see_result(person, run):
                return run
        raise RunNotFound(f"there is no run {run_id!r}, or you may not see it")

    def of_job(
        self, person: Person | None, name: str, *, at_most: int = RUNS_SHOWN, before: str | None = None
    ) -> list[Run]:
        """Return the runs of a job that a person may see, newest first, and older than the run `before`."""
        job = self.jobs.get(name, person) if person is not None else self._public_job(name)
        ids = [run_id for run_id in reversed(self._run_ids(name)) if before is None or run_id < before]
        requests = self._records.read_all(
            (analysis_run_key(run_id, "run.json") for run_id in ids[:at_most]), RunRequest
        )
        runs = all_at_once(
            lambda request: self._run(request, job), [found for found in requests if found is not None]
        )
        return [run for run in runs if may_see_result(person, run)]

    def log(self, run: Run, *, max_bytes: int = LOG_TAIL_BYTES) -> str:
        """Return the last part of what a run has printed."""
        content = self._objects.get_or_none(self._bucket, analysis_run_key(run.run_id, "log.txt")) or b""
        if len(content) <= max_bytes:
            return content.decode(errors="replace")
        # From the next whole line on.
        return content[-max_bytes:].partition(b"\n")[2].decode(errors="replace")

    def results(self, run: Run) -> "list[StoredObject]":
        """Return the files of a run's result: none before it has succeeded."""
        if run.state is not RunState.SUCCESS:
            return []
        prefix = analysis_run_key(run.run_id, "output")
        return list(self._objects.list_objects(self._bucket, prefix))

    def latest_good(self, person: Person | None, name: str) -> Run:
        """Return the newest run of a job that succeeded. Raises JobNotFound and RunNotFound."""
        if person is None:
            self._public_job(name)
        else:
            self.jobs.get(name, person)
        latest = self._records.read(latest_run_key(name), Latest)
        if latest is None or latest.good is None:
            raise RunNotFound(f"no run of {name!r} has succeeded yet")
        return self.get(person, latest.good)

    def usage(self, owner: str, now: datetime) -> Usage:
        """Return what a person uses of their quotas."""
        marks = [mark for mark in self._open.all().values() if mark.owner == owner]
        month = f"{now.astimezone(UTC):%Y-%m}"
        keys = self._records.keys(job_usage_prefix(month, owner))
        return Usage(
            jobs=sum(job.owner == owner for job in self.jobs.all()),
            open_runs=len(marks),
            machines=sum(mark.machines for mark in marks),
            machine_hours=sum(map(seconds_of_usage_key, keys)) / SECONDS_IN_HOUR,
        )

    def open_count(self) -> int:
        """Return how many runs have not ended."""
        return len(self._open.all())

    def late(self, now: datetime) -> list[Late]:
        """Return what was due or asked for and has not begun, from the documents and not from Airflow."""
        limit = timedelta(minutes=self._settings.analysis.late_after_minutes)
        late = [
            Late(job.name, job_run_id(job.name, _time_token(due_at)), due_at, was_asked=False)
            for job, due_at in self._not_written(now - limit)
        ]
        late += [
            Late(request.job, request.run_id, request.asked_at, was_asked=True)
            for request in self.not_begun()
            if request.asked_at <= now - limit
        ]
        return sorted(late, key=lambda one: one.since)

    def is_written_down(self, run_id: str) -> bool:
        """Return whether there is a `run.json`."""
        return self._read(run_id) is not None

    def is_cancelled(self, run_id: str) -> bool:
        """Return whether somebody wants this run to end."""
        return self._records.read(analysis_run_key(run_id, "cancel.json"), Cancellation) is not None

    # To end

    def cancel(self, person: Person, run_id: str, *, now: datetime | None = None) -> Run:
        """End a run, or keep it from beginning. Raises RunNotFound and NotAllowed."""
        at = now or datetime.now(UTC)
        run = self.get(person, run_id)
        job = self._job_of(run.request)
        if not (person.is_admin or person.name == run.request.owner or (job and may_change(person, job))):
            raise NotAllowed(f"{run_id} belongs to {run.request.owner}")
        if run.state.is_over:
            return run
        self._records.decide(analysis_run_key(run_id, "cancel.json"), Cancellation(by=person.name, at=at))
        self.jobs.audit.record(person.name, What.CANCELLED, job=run.request.job, run=run_id, at=at)
        self.settle(run_id, now=at)
        return self.get(person, run_id)

    def settle_all(self, now: datetime) -> None:
        """Settle every run that has not ended; a failure of one is logged."""
        for mark in self._open.all().values():
            try:
                self.settle(mark.run_id, now=now)
            except TelemetryLakeError as error:
                _log.warning("the run %s is left as it is: %s", mark.run_id, error)

    def settle(self, run_id: str, *, now: datetime) -> None:
        """Do what is left of the beginning or the end of a run whose process may have died."""
        request = self._read(run_id)
        if request is None:
            mark = self._records.read(open_run_key(run_id), OpenRun)
            if mark is not None and mark.asked_at < now - UNFINISHED_START:
                self._objects.delete(self._bucket, [open_run_key(run_id)])
            return
        if (outcome := self._outcome(run_id)) is not None:
            self._finish(request, outcome)
            return
        if self.airflow is None:
            return
        cancelled = self.is_cancelled(run_id)
        if cancelled:
            self.airflow.cancel(run_id)
        known = self.airflow.run(run_id)
        if known is None and not cancelled and now - request.asked_at < ASKED_AGAIN_FOR:
            self.airflow.trigger(run_id)
        elif known is None or known.state in ("success", "failed"):
            self._end_as_airflow_says(request, known, now, cancelled=cancelled)

    def adopt(self, request: RunRequest) -> RunRequest:
        """Write down a run that Airflow has begun without being asked by this service; returns what is there.

        Quotas do not hold it up: who may trigger a DAG needs no job for it.
        """
        mark = OpenRun(
            run_id=request.run_id,
            owner=request.owner,
            asked_at=request.asked_at,
            machines=request.machines,
        )
        self._records.decide(open_run_key(request.run_id), mark)
        return self._records.decide(analysis_run_key(request.run_id, "run.json"), request)

    def record_begin(self, run_id: str, *, now: datetime) -> RunRequest | None:
        """Record that Airflow has begun a run. Returns what was asked for, None for a run of the form.

        Raises FatalError when the run was cancelled, or has ended before.
        """
        request = self._read(run_id)
        if request is None:
            return None
        if self.is_cancelled(run_id):
            raise FatalError(f"the run {run_id} was cancelled before it began")
        self._records.put(
            analysis_run_key(run_id, "progress.json"), Progress(phase=Phase.PREPARING, updated_at=now)
        )
        return request

    def record_end(
        self,
        run_id: str,
        state: RunState,
        *,
        now: datetime,
        error: str | None = None,
        started_at: datetime | None = None,
    ) -> None:
        """Record how a run ended, unless that is recorded already, and do all that follows from it."""
        request = self._require(run_id)
        progress = self._progress(run_id)
        if state is not RunState.SUCCESS and self.is_cancelled(run_id):
            state, error = RunState.CANCELLED, None
        said = None if progress is None or state is RunState.SUCCESS else progress.error
        shown = "\n\n".join(text for text in (said, error) if text)[:ERROR_MAX_CHARACTERS] or None
        outcome = Outcome(
            state=state,
            error=shown,
            ended_at=now,
            started_at=started_at,
            records=progress.records if progress else None,
            bytes=progress.bytes if progress else None,
            output_bytes=self._output_bytes(request) if state is RunState.SUCCESS else None,
            machines=request.machines,
        )
        self._finish(request, self._records.decide(analysis_run_key(run_id, "outcome.json"), outcome))

    # How

    def _job_to_run(self, person: Person, name: str) -> Job:
        job = self.jobs.get(name, person)
        if not may_change(person, job):
            raise NotAllowed(f"{name!r} belongs to {job.owner}: copy it to run it as yours")
        return job

    def _public_job(self, name: str) -> Job:
        job = self.jobs.get(name)
        if job.visibility is not Visibility.PUBLIC:
            raise JobNotFound(f"there is no job {name!r}, or you may not see it")
        return job

    def _request(
        self,
        job: Job,
        token: str,
        asked_by: str,
        asked_at: datetime,
        of: datetime,
        due_at: datetime | None = None,
        *,
        again: RunRequest | None = None,
    ) -> RunRequest:
        """Return what a run is asked for whose dates are those of the time `of`."""
        run_id = job_run_id(job.name, token)
        wanted = job.request
        if again is not None:
            dates = again.request.dates
        else:
            try:
                found = dates_of_run(wanted.dates, job.schedule, of)
            except ValueError as error:
                raise FatalError(f"the dates of {job.name!r}: {error}") from error
            dates = None if found is None else str(found)
        spark = self._settings.spark
        machines = 1 if spark.run_on is RunOn.LOCAL else wanted.workers or spark.workers
        place = f"s3://{self._bucket}/"
        return RunRequest(
            run_id=run_id,
            job=job.name,
            version=job.version,
            code=job.code,
            request=AnalysisRequest(
                script=place + job_code_key(job.code.digest, job.code.entry),
                filter=wanted.filter,
                table=wanted.table,
                dates=dates,
                sample=wanted.sample,
                format=wanted.format,
                num_reducers=wanted.num_reducers,
                workers=wanted.workers,
                time_limit_minutes=wanted.time_limit_minutes,
            ),
            owner=job.owner,
            group=job.group,
            visibility=job.visibility,
            asked_by=asked_by,
            asked_at=asked_at,
            due_at=again.due_at if again else due_at,
            again=again.run_id if again else None,
            output=place + analysis_run_key(run_id, f"output.{wanted.format.suffix}"),
            machines=machines,
        )

    def _start(self, request: RunRequest) -> RunRequest:
        if self.airflow is None:
            raise FatalError("this process cannot start runs: it was not told where Airflow is")
        written = self._write_down(request)
        if self._outcome(written.run_id) is None and not self.is_cancelled(written.run_id):
            self.airflow.trigger(written.run_id)
        return written

    def _write_down(self, request: RunRequest) -> RunRequest:
        """Write the mark and `run.json`, unless they are there. Raises QuotaExceeded."""
        key = analysis_run_key(request.run_id, "run.json")
        if (before := self._records.read(key, RunRequest)) is not None:
            return before
        mark = OpenRun(
            run_id=request.run_id,
            owner=request.owner,
            asked_at=request.asked_at,
            machines=request.machines,
        )
        self._records.decide(open_run_key(request.run_id), mark)
        try:
            self._check_quotas(mark, request.asked_at)
        except QuotaExceeded:
            self._objects.delete(self._bucket, [open_run_key(request.run_id)])
            raise
        written = self._records.decide(key, request)
        self.jobs.audit.record(
            written.asked_by,
            What.STARTED,
            job=written.job,
            run=written.run_id,
            detail=f"version {written.version}, dates {written.request.dates or 'all'}",
            at=written.asked_at,
        )
        return written

    def _check_quotas(self, mark: OpenRun, now: datetime) -> None:
        """Raise QuotaExceeded when a run, whose mark is there already, is more than its owner may have.

        Of marks that are made at the same time, the earlier ones count, in the same order for everybody.
        """
        quotas = self.jobs.quotas
        marks = [other for other in self._open.all().values() if other.owner == mark.owner]
        before = [other for other in marks if (other.asked_at, other.run_id) < (mark.asked_at, mark.run_id)]
        if len(before) >= quotas.open_runs_max:
            raise QuotaExceeded(
                f"{mark.owner} has {len(before)} runs that have not ended, and {quotas.open_runs_max} are "
                "allowed: wait for one, or cancel one"
            )
        machines = sum(other.machines for other in before) + mark.machines
        if machines > quotas.machines_max:
            raise QuotaExceeded(
                f"{mark.owner} would use {machines} machines at once, and {quotas.machines_max} are allowed: "
                "choose a smaller size, or wait for a run to end"
            )
        hours = self.usage(mark.owner, now).machine_hours
        if hours >= quotas.machine_hours_max:
            raise QuotaExceeded(
                f"{mark.owner} has used {hours:.1f} machine hours this month, and {quotas.machine_hours_max} "
                "are allowed: a new month begins on the 1st, UTC"
            )

    def _not_written(self, until: datetime) -> list[tuple[Job, datetime]]:
        """Return the jobs that were due up to `until` without a run, each with the time, oldest first."""
        missing: list[tuple[Job, datetime]] = []
        jobs = [job for job in self.jobs.all() if is_scheduled(job)]
        for job, times in zip(jobs, all_at_once(lambda job: self._missed(job, until), jobs), strict=True):
            missing += [(job, time) for time in times]
        return missing

    def _missed(self, job: Job, until: datetime) -> list[datetime]:
        """Return the first times at which a job was due up to `until` and that have no run."""
        times = {job_run_id(job.name, _time_token(time)): time for time in due_times(job, until)}
        if not (times.keys() - self._known_to_exist):
            return []
        self._known_to_exist.update(times.keys() & set(self._run_ids(job.name)))
        return [time for run_id, time in times.items() if run_id not in self._known_to_exist][
            :MISSED_MAX_COUNT
        ]

    def _run_ids(self, name: str) -> list[str]:
        """Return the runs of a job, oldest first."""
        prefix = job_runs_prefix(name)
        common = prefix.rpartition("/")[2]
        folders = self._objects.list_folders(self._bucket, prefix)
        return sorted(run for folder in folders if (run := job_run_of_folder(common + folder)) is not None)

    def _run(self, request: RunRequest, job: Job | None) -> Run:
        """Return a run as it is now; asks Airflow only about one that has not ended."""
        outcome = self._outcome(request.run_id)
        progress = self._progress(request.run_id) if outcome is None else None
        state, started_at, problem = RunState.ASKED, None, ""
        if outcome is not None:
            state, started_at = outcome.state, outcome.started_at
        else:
            state = RunState.ASKED if progress is None else RunState.RUNNING
            try:
                known = self.airflow.run(request.run_id) if self.airflow is not None else None
            except TelemetryLakeError as error:
                problem = str(error)
            else:
                if known is not None:
                    started_at = known.started_at
                    # Between its end and its outcome it is not over.
                    state = RunState.QUEUED if known.state == "queued" else RunState.RUNNING
        return Run(
            request=request,
            state=state,
            visibility=_narrower(request, job),
            progress=progress,
            outcome=outcome,
            started_at=started_at,
            problem=problem,
            machine_hour_price=self._settings.analysis.machine_hour_price,
            airflow_page=self.airflow.page(request.run_id) if self.airflow is not None else None,
        )

    def _end_as_airflow_says(
        self, request: RunRequest, known: AirflowRun | None, now: datetime, *, cancelled: bool
    ) -> None:
        if known is not None and known.state == "success":
            state, error = RunState.SUCCESS, None
        elif cancelled:
            state, error = RunState.CANCELLED, None
        elif known is None:
            state, error = RunState.FAILED, "Airflow does not know this run any more"
        else:
            state, error = RunState.FAILED, "the task ended without a report: its log in Airflow has more"
        self.record_end(
            request.run_id,
            state,
            now=(known.ended_at if known else None) or now,
            error=error,
            started_at=known.started_at if known else None,
        )

    def _finish(self, request: RunRequest, outcome: Outcome) -> None:
        """Do what follows from the outcome of a run; all of it may be done again."""
        previous = self._move_latest(request, outcome) if request.job is not None else None
        seconds = round(outcome.seconds * outcome.machines)
        month = f"{outcome.ended_at.astimezone(UTC):%Y-%m}"
        usage = job_usage_key(month, request.owner, request.run_id, seconds)
        self._objects.put_if_absent(self._bucket, usage, b"")
        if self._on_end is not None:
            self._on_end(request, outcome, previous)
        self._objects.delete(self._bucket, [open_run_key(request.run_id)])

    def _move_latest(self, request: RunRequest, outcome: Outcome) -> RunState | None:
        """Let the pointer of a job name this run if it ended last. Returns the state of the run before it."""
        assert request.job is not None
        key = latest_run_key(request.job)
        while True:
            read = self._objects.read(self._bucket, key)
            before = None if read is None else Latest.model_validate_json(read.body)
            if before is not None and before.last == request.run_id:
                return before.previous_state
            if before is not None and before.last_ended_at > outcome.ended_at:
                return None
            good = outcome.state is RunState.SUCCESS
            after = Latest(
                job=request.job,
                last=request.run_id,
                last_state=outcome.state,
                last_ended_at=outcome.ended_at,
                previous_state=before.last_state if before else None,
                good=request.run_id if good else before and before.good,
                good_ended_at=outcome.ended_at if good else before and before.good_ended_at,
            )
            body = after.model_dump_json().encode()
            if self._objects.put_if_unchanged(self._bucket, key, body, etag=read.etag if read else None):
                return after.previous_state

    def _output_bytes(self, request: RunRequest) -> int | None:
        key = request.output.removeprefix(f"s3://{self._bucket}/")
        head = self._objects.head(self._bucket, key) if key != request.output else None
        return head.bytes if head else None

    def _job_of(self, request: RunRequest) -> Job | None:
        if request.job is None:
            return None
        try:
            return self.jobs.get(request.job)
        except JobNotFound:
            return None

    def _read(self, run_id: str) -> RunRequest | None:
        return self._records.read(analysis_run_key(run_id, "run.json"), RunRequest)

    def _require(self, run_id: str) -> RunRequest:
        request = self._read(run_id)
        if request is None:
            raise RunNotFound(f"there is no run {run_id!r}")
        return request

    def _outcome(self, run_id: str) -> Outcome | None:
        return self._records.read(analysis_run_key(run_id, "outcome.json"), Outcome)

    def _progress(self, run_id: str) -> Progress | None:
        """Return what a run says of itself; what cannot be read is nothing."""
        content = self._objects.get_or_none(self._bucket, analysis_run_key(run_id, "progress.json"))
        try:
            return None if content is None else Progress.model_validate_json(content)
        except ValidationError:
            return None


def _narrower(request: RunRequest, job: Job | None) -> Visibility:
    """Return who may see a run of a job that may have been shared, or hidden again, since."""
    if job is None:
        return Visibility.PRIVATE if request.job is not None else request.visibility
    order = list(Visibility)
    both = min(request.visibility, job.visibility, key=order.index)
    if both is Visibility.GROUP and request.group != job.group:
        return Visibility.PRIVATE
    return both


def _check_token(token: str, now: datetime) -> None:
    if re.fullmatch(TOKEN_PATTERN, token) is None or "-" not in token:
        raise FatalError(f"{token[:100]!r} is not of a form of this service: open the page again")
    at = datetime.strptime(token.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if abs(now - at) > TOKEN_MAX_AGE:
        raise FatalError("the page was opened too long ago: open it again")


def _token_within(token: str, run_id: str) -> str:
    """Return a token for one of several runs that are asked for at once."""
    digest = hashlib.sha256(f"{token} {run_id}".encode()).hexdigest()
    return f"{token.partition('-')[0]}-{digest[:8]}"


def _time_token(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y%m%dT%H%M%SZ}"
