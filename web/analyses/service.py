"""The core of the analysis service as the pages and the API use it."""

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from telemetry_lake.analysis_jobs.airflow_api import AirflowApi
from telemetry_lake.analysis_jobs.code import (
    GivenCode,
    code_of_file,
    code_of_repository,
    code_of_tarball,
    code_of_text,
)
from telemetry_lake.analysis_jobs.documents import Code, InvalidJob, Job, JobDraft, JobRequest, read_draft
from telemetry_lake.analysis_jobs.notify import Notifier
from telemetry_lake.analysis_jobs.people import Person, may_see
from telemetry_lake.analysis_jobs.run import Run
from telemetry_lake.analysis_jobs.runs import Late, Runs
from telemetry_lake.analysis_jobs.sandbox.counting import Counting, Matching
from telemetry_lake.analysis_jobs.sandbox.try_it import Trials, TryResult
from telemetry_lake.analysis_jobs.store import JobNotFound, JobStore
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import job_run_id
from telemetry_lake.storage.object_store import ObjectStore

LATE_KNOWN_SECONDS: Final = 30


class Service:
    """Jobs and runs of one lake. Safe for several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.objects = ObjectStore(settings.s3)
        self.bucket = settings.s3.lake_bucket
        self.jobs = JobStore(self.objects, self.bucket, settings.analysis.quotas)
        self._late_lock = threading.Lock()
        self._late_at = float("-inf")
        self._late: Sequence[Late] = ()
        self._airflow = None if settings.airflow.url is None else AirflowApi(settings.airflow)
        self.runs = Runs(self.jobs, settings, self._airflow, Notifier(self.jobs, settings).on_end)
        self._trials = Trials(settings)
        self._counting = Counting()

    def close(self) -> None:
        """Close the connections to Airflow, and forget pings and counts."""
        self._trials.close()
        self._counting.close()
        if self._airflow is not None:
            self._airflow.close()

    def late(self) -> Sequence[Late]:
        """Return the runs that should have begun, as they were found within the last seconds."""
        with self._late_lock:
            if time.monotonic() - self._late_at >= LATE_KNOWN_SECONDS:
                # Looking for them reads every job: too slow for each request.
                self._late = self.runs.late(datetime.now(UTC))
                self._late_at = time.monotonic()
            return self._late

    def job(self, person: Person | None, name: str) -> Job:
        """Return a job that a person, None for a stranger, may see; raises JobNotFound."""
        try:
            job = self.jobs.get(name)
        except ValueError as error:
            raise JobNotFound(f"there is no job {name[:100]!r}: {error}") from error
        if not may_see(person, job):
            raise JobNotFound(f"there is no job {name!r}, or you may not see it")
        return job

    def script(self, job: Job) -> str:
        """Return the text of a job's entry script."""
        files = self.jobs.code_files(job.code.digest)
        return files.get(job.code.entry, b"").decode(errors="replace")

    def given_code(
        self, script: str, upload: tuple[str, bytes] | None, command: str, repository_path: str
    ) -> GivenCode:
        """Return the code that a person gave: a file or tarball if there is one, else a path, else a text.

        Nothing is kept yet. Raises InvalidJob.
        """
        field = "script"
        try:
            if upload is not None:
                field = "upload"
                name, content = upload
                if name.endswith(".py"):
                    return code_of_file(name, content)
                return code_of_tarball(name, content, command)
            if repository_path:
                field = "repository_path"
                return code_of_repository(self.settings, repository_path, command)
            if not script.strip():
                raise FatalError("write a script, or give a file")
            return code_of_text(script)
        except FatalError as error:
            raise InvalidJob({field: str(error)}) from error

    def kept_code(self, given: GivenCode, arguments: tuple[str, ...]) -> dict[str, Any]:
        """Keep the files of code. Returns the document of the code, with `arguments` if it has none."""
        self.jobs.put_code(given.files)
        return {**given.code.model_dump(), "arguments": given.code.arguments or arguments}

    def draft(self, document: Mapping[str, Any], code: Mapping[str, Any] | Code) -> JobDraft:
        """Return the draft of a job; raises InvalidJob."""
        return read_draft({**document, "code": code})

    def try_script(
        self, code: Code | GivenCode, arguments: tuple[str, ...], document: Mapping[str, Any]
    ) -> TryResult:
        """Run code that is not kept yet, or that of a job, on some pings that the document of a job asks for.

        Raises InvalidJob, FatalError and RetriableError.
        """
        if isinstance(code, GivenCode):
            files, entry = code.files, code.code.entry
            arguments = code.code.arguments or arguments
        else:
            files, entry = self.jobs.code_files(code.digest), code.entry
        request = _request(document)
        return self._trials.try_script(files, entry, request, arguments=arguments)

    def matching(self, document: Mapping[str, Any]) -> Matching:
        """Return how many pings the document of a job is about.

        Raises InvalidJob, FatalError and RetriableError.
        """
        return self._counting.matching(_request(document))

    def start(self, person: Person, name: str, token: str) -> str:
        """Run a job now. Returns the id of the run, which Airflow may get to know later, if it is away."""
        try:
            return self.runs.start(person, name, token).run_id
        except RetriableError:
            return self._written(person, job_run_id(name, token)).run_id

    def again(self, person: Person, run_id: str, token: str) -> str:
        """Run a job again for the dates of one of its runs. Returns the id of the new run."""
        try:
            return self.runs.again(person, run_id, token).run_id
        except RetriableError:
            before = self.runs.get(person, run_id).request.job
            if before is None:
                raise
            return self._written(person, job_run_id(before, token)).run_id

    def _written(self, person: Person, run_id: str) -> Run:
        """Return a run that is written down; raises RunNotFound when the failure came before that."""
        return self.runs.get(person, run_id)


def _request(document: Mapping[str, Any]) -> JobRequest:
    """Return what the document of a job asks for; raises InvalidJob."""
    try:
        return JobRequest.model_validate(document.get("request", {}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(("request", *map(str, first["loc"])))
        raise InvalidJob({field: first["msg"].removeprefix("Value error, ")}) from error
