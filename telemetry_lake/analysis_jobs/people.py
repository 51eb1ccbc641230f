"""Who a person is to the analysis service, what they may see and do, and how much they may use."""

from dataclasses import dataclass

from telemetry_lake.analysis_jobs.documents import Job, JobDraft, Visibility
from telemetry_lake.analysis_jobs.run import Run
from telemetry_lake.failures import FatalError


class NotAllowed(FatalError):
    """A person may not do what they asked for."""


class QuotaExceeded(FatalError):
    """A person has used up what they may use. The message says of what, how much, and what to do."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in."""

    name: str
    groups: frozenset[str] = frozenset()
    is_admin: bool = False


def may_see(person: Person | None, job: Job) -> bool:
    """Return whether a person, None for one who is not signed in, may see a job and the list of its runs."""
    return _may_see(person, job.owner, job.group, job.visibility)


def may_change(person: Person | None, job: Job) -> bool:
    """Return whether a person may edit, run, pause and delete a job, and cancel its runs."""
    if person is None:
        return False
    if person.is_admin or person.name == job.owner:
        return True
    return job.visibility is not Visibility.PRIVATE and job.group in person.groups


def may_see_result(person: Person | None, run: Run) -> bool:
    """Return whether a person may see what a run printed, and its result."""
    return _may_see(person, run.request.owner, run.request.group, run.visibility)


def check_draft(person: Person, draft: JobDraft) -> None:
    """Raise NotAllowed when a person gives a job to a group that they are not in."""
    if draft.group is not None and draft.group not in person.groups and not person.is_admin:
        raise NotAllowed(f"you are not in the group {draft.group}: choose one of yours, or none")


def _may_see(person: Person | None, owner: str, group: str | None, visibility: Visibility) -> bool:
    if visibility is Visibility.PUBLIC:
        return True
    if person is None:
        return False
    if person.is_admin or person.name == owner:
        return True
    return visibility is Visibility.GROUP and group in person.groups
