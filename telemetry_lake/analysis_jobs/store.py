"""The job documents: each is changed on the condition that it is still what its editor saw."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

from telemetry_lake.analysis_jobs.audit import AuditTrail
from telemetry_lake.analysis_jobs.cached_documents import CachedDocuments
from telemetry_lake.analysis_jobs.documents import Job, JobDraft, Latest, What, code_digest
from telemetry_lake.analysis_jobs.people import (
    NotAllowed,
    Person,
    QuotaExceeded,
    check_draft,
    may_change,
    may_see,
)
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import AnalysisQuotas, Settings
from telemetry_lake.storage.object_keys import (
    JOB_INDEX_KEY,
    JOB_PREFIX,
    LATEST_RUN_PREFIX,
    job_code_key,
    job_key,
)
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import all_at_once


class JobNotFound(FatalError):
    """There is no such job, or the person may not know of it."""


class NameTaken(FatalError):
    """Another job has this name."""


class EditedMeanwhile(FatalError):
    """Somebody else saved the job since it was opened. `job` is what they saved."""

    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(
            f"{job.changed_by} saved {job.name!r} at {job.changed_at:%Y-%m-%d %H:%M:%S} UTC, after you had "
            f"opened it: look at version {job.version}, and make your change again"
        )


class JobStore:
    """The jobs in `bucket`; safe to share between threads."""

    def __init__(self, store: ObjectStore, bucket: str, quotas: AnalysisQuotas | None = None) -> None:
        self.objects = store
        self.bucket = bucket
        self.quotas = quotas or AnalysisQuotas()
        self.audit = AuditTrail(store, bucket)
        self._jobs = CachedDocuments(store, bucket, JOB_PREFIX, Job, index_key=JOB_INDEX_KEY)
        self._latest = CachedDocuments(store, bucket, LATEST_RUN_PREFIX, Latest)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the jobs of the lake of `settings`."""
        return cls(ObjectStore(settings.s3), settings.s3.lake_bucket, settings.analysis.quotas)

    def get(self, name: str, person: Person | None = None) -> Job:
        """Return the job of this name; with a person, only if they may see it. Raises JobNotFound."""
        found = self._read(name)
        if found is None or found[0].deleted or (person is not None and not may_see(person, found[0])):
            raise JobNotFound(f"there is no job {name!r}, or you may not see it")
        return found[0]

    def is_free(self, name: str, person: Person) -> bool:
        """Return whether a person may give a new job this name; raises ValueError for what is no name."""
        found = self._read(name)
        return found is None or (found[0].deleted and found[0].owner == person.name)

    def seen_by(self, person: Person | None) -> list[Job]:
        """Return the jobs that a person, None for one who is not signed in, may see, ordered by name."""
        return [job for job in self.all() if may_see(person, job)]

    def all(self) -> list[Job]:
        """Return all jobs that are not deleted, ordered by name."""
        return [job for _, job in sorted(self._jobs.all().items()) if not job.deleted]

    def latest(self) -> dict[str, Latest]:
        """Return the newest runs that have ended, by job."""
        return {latest.job: latest for latest in self._latest.all().values()}

    def create(
        self,
        person: Person,
        draft: JobDraft,
        *,
        now: datetime | None = None,
        scheduled_since: datetime | None = None,
    ) -> Job:
        """Keep a new job, which is due from now on, or since a time before.

        Raises NameTaken, NotAllowed and QuotaExceeded; administrators may have any number of jobs.
        """
        check_draft(person, draft)
        at = now or datetime.now(UTC)
        own = sum(job.owner == person.name for job in self.all())
        if own >= self.quotas.jobs_max and not person.is_admin:
            raise QuotaExceeded(
                f"you have {own} jobs, and {self.quotas.jobs_max} are allowed: delete one that is not needed"
            )
        found = self._read(draft.name)
        before, etag = found or (None, None)
        if before is not None and not (before.deleted and before.owner == person.name):
            raise NameTaken(f"there is a job {draft.name!r} already, or there was: choose another name")
        job = _job(draft, before, person, at)
        if scheduled_since is not None:
            job = job.model_copy(update={"scheduled_since": scheduled_since})
        if not self._write(job, etag):
            raise NameTaken(f"there is a job {draft.name!r} since a moment ago: choose another name")
        self.audit.record(person.name, What.CREATED, job=job.name, detail=f"{job.visibility}", at=at)
        return job

    def save(
        self, person: Person, draft: JobDraft, expected_version: int, *, now: datetime | None = None
    ) -> Job:
        """Keep a job as it is in `draft`, if it is still the version that the person saw.

        Raises EditedMeanwhile, JobNotFound and NotAllowed.
        """
        before, etag = self._to_change(person, draft.name, expected_version)
        if draft.group != before.group:
            check_draft(person, draft)
        at = now or datetime.now(UTC)
        job = _job(draft, before, person, at)
        changed = [name for name in JobDraft.model_fields if getattr(job, name) != getattr(before, name)]
        return self._change(job, etag, person, What.CHANGED, detail=", ".join(changed))

    def set_paused(
        self,
        person: Person,
        name: str,
        paused: bool,
        expected_version: int,
        *,
        now: datetime | None = None,
    ) -> Job:
        """Pause a job or resume it: what was due in between is not made up for. Raises as `save` does."""
        before, etag = self._to_change(person, name, expected_version)
        at = now or datetime.now(UTC)
        since = before.scheduled_since if paused else at
        job = _changed(before, person, at, paused=paused, scheduled_since=since)
        return self._change(job, etag, person, What.PAUSED if paused else What.RESUMED)

    def delete(self, person: Person, name: str, expected_version: int, *, now: datetime | None = None) -> Job:
        """Delete a job; its runs and their results stay, and its name stays with its owner.

        Raises as `save` does.
        """
        before, etag = self._to_change(person, name, expected_version)
        job = _changed(before, person, now or datetime.now(UTC), deleted=True)
        return self._change(job, etag, person, What.DELETED)

    def put_code(self, files: Mapping[str, bytes]) -> str:
        """Keep the files of a job's code, by their relative paths; returns their digest.

        What is in them is not looked at: `telemetry_lake.analysis_jobs.code` does that. Raises ValueError for
        a path that leaves its place.
        """
        digest = code_digest(files)
        keys = {job_code_key(digest, path): content for path, content in files.items()}
        all_at_once(lambda item: self.objects.put_if_absent(self.bucket, *item), keys.items())
        return digest

    def code_files(self, digest: str) -> dict[str, bytes]:
        """Return the files of a job's code by their relative paths."""
        prefix = job_code_key(digest, "")
        keys = [item.key for item in self.objects.list_objects(self.bucket, prefix)]
        contents = all_at_once(lambda key: self.objects.get(self.bucket, key), keys)
        return {key.removeprefix(prefix): content for key, content in zip(keys, contents, strict=True)}

    def _to_change(self, person: Person, name: str, expected_version: int) -> tuple[Job, str]:
        found = self._read(name)
        if found is None or found[0].deleted or not may_see(person, found[0]):
            raise JobNotFound(f"there is no job {name!r}, or you may not see it")
        job, etag = found
        if not may_change(person, job):
            raise NotAllowed(f"{job.name!r} belongs to {job.owner}: copy it to make it yours")
        if job.version != expected_version:
            raise EditedMeanwhile(job)
        return job, etag

    def _change(self, job: Job, etag: str, person: Person, what: What, detail: str = "") -> Job:
        if not self._write(job, etag):
            found = self._read(job.name)
            if found is None:
                raise JobNotFound(f"the job {job.name!r} is not there any more")
            raise EditedMeanwhile(found[0])
        self.audit.record(
            person.name,
            what,
            job=job.name,
            detail=f"version {job.version}{f': {detail}' if detail else ''}",
            at=job.changed_at,
        )
        return job

    def _read(self, name: str) -> tuple[Job, str] | None:
        read = self.objects.read(self.bucket, job_key(name))
        return None if read is None else (Job.model_validate_json(read.body), read.etag)

    def _write(self, job: Job, etag: str | None) -> bool:
        """Write a document over the one with this ETag; returns whether it is there now."""
        body = job.model_dump_json().encode()
        if self.objects.put_if_unchanged(self.bucket, job_key(job.name), body, etag=etag):
            return True
        # The answer to an earlier attempt of boto3 may have been lost.
        found = self._read(job.name)
        return found is not None and found[0].change == job.change


def _job(draft: JobDraft, before: Job | None, person: Person, at: datetime) -> Job:
    """Return the job that a draft becomes, in place of the one that was there before."""
    again = before is None or before.deleted
    since = at if before is None or again or before.schedule != draft.schedule else before.scheduled_since
    return Job(
        **{name: getattr(draft, name) for name in JobDraft.model_fields},
        owner=person.name if before is None else before.owner,
        version=1 if before is None else before.version + 1,
        created_at=at if before is None or again else before.created_at,
        created_by=person.name if before is None or again else before.created_by,
        changed_at=at,
        changed_by=person.name,
        scheduled_since=since,
        paused=before is not None and before.paused and not again,
        change=uuid.uuid4().hex,
    )


def _changed(before: Job, person: Person, at: datetime, **changes: Any) -> Job:
    common = {"version": before.version + 1, "changed_at": at, "changed_by": person.name}
    return before.model_copy(update={**common, "change": uuid.uuid4().hex, **changes})
