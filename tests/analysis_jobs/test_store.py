"""Job documents: each edit is of what its editor saw, and lists cost one request."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from lake_testing.analysts import ADMIN, ANN, BOB, CAT, SCRIPT
from telemetry_lake.analysis_jobs.documents import JobDraft, Visibility, What, read_draft
from telemetry_lake.analysis_jobs.people import NotAllowed, QuotaExceeded, may_change, may_see
from telemetry_lake.analysis_jobs.store import EditedMeanwhile, JobNotFound, JobStore, NameTaken
from telemetry_lake.settings import AnalysisQuotas
from telemetry_lake.storage.aws import client_arguments
from telemetry_lake.storage.object_keys import JOB_INDEX_KEY, job_code_key, job_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import all_at_once

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MANY = 1_000


def changed(draft: JobDraft, **fields: Any) -> JobDraft:
    return read_draft({**draft.model_dump(mode="json"), **fields})


def test_a_job_is_created_changed_paused_and_deleted_and_all_of_it_is_recorded(jobs, draft):
    job = jobs.create(ANN, draft(description="first"), now=NOW)
    assert (job.version, job.owner, jobs.get("os", ANN)) == (1, "ann", job)
    assert job.draft == draft(description="first")
    second = jobs.save(ANN, changed(job.draft, description="second"), 1)
    assert (second.version, second.created_at, jobs.get("os")) == (2, NOW, second)
    assert second.scheduled_since == NOW
    scheduled = jobs.save(ANN, changed(second.draft, schedule={"every": "daily"}), 2)
    assert scheduled.scheduled_since == scheduled.changed_at > NOW
    paused = jobs.set_paused(ANN, "os", True, 3)
    assert paused.paused
    resumed = jobs.set_paused(ANN, "os", False, 4)
    assert not resumed.paused
    assert resumed.scheduled_since > paused.scheduled_since, "what was due meanwhile is not made up for"
    jobs.delete(ANN, "os", 5)
    with pytest.raises(JobNotFound):
        jobs.get("os")
    assert jobs.seen_by(ADMIN) == []
    days = {NOW.date(), datetime.now(UTC).date(), resumed.changed_at.date()}
    events = [event for day in sorted(days) for event in reversed(jobs.audit.of_day(day))]
    assert [(event.who, event.what, event.job) for event in events] == [
        ("ann", what, "os")
        for what in (What.CREATED, What.CHANGED, What.CHANGED, What.PAUSED, What.RESUMED, What.DELETED)
    ]
    assert events[2].detail == "version 3: schedule"


def test_of_two_editors_the_second_is_told(jobs, draft):
    job = jobs.create(ANN, draft())
    saved = jobs.save(ADMIN, changed(job.draft, description="by an administrator"), job.version)
    with pytest.raises(EditedMeanwhile, match=r"admin saved 'os' at .* version 2") as failure:
        jobs.save(ANN, changed(job.draft, description="by its owner"), job.version)
    assert failure.value.job == saved
    assert jobs.get("os").description == "by an administrator"


def test_of_editors_at_the_same_moment_one_wins(jobs, draft):
    job = jobs.create(ANN, draft())

    def save(number: int) -> str | None:
        try:
            return str(jobs.save(ANN, changed(job.draft, description=f"{number}"), 1).change)
        except EditedMeanwhile:
            return None

    won = [change for change in all_at_once(save, range(10)) if change]
    assert won == [jobs.get("os").change]


def test_a_name_belongs_to_its_first_owner(jobs, draft):
    jobs.create(ANN, draft())
    assert not jobs.is_free("os", ANN)
    with pytest.raises(NameTaken, match="there is a job 'os' already"):
        jobs.create(ANN, draft())
    jobs.delete(ANN, "os", 1)
    with pytest.raises(NameTaken):
        jobs.create(BOB, draft())
    assert (jobs.is_free("os", BOB), jobs.is_free("os", ANN)) == (False, True)
    assert jobs.create(ANN, draft()).version == 3
    assert jobs.is_free("another", BOB)
    with pytest.raises(ValueError, match="not the name of a job"):
        jobs.is_free("../os", BOB)


def test_jobs_up_to_the_quota_are_created(jobs, draft, lake_settings):
    few = JobStore(jobs.objects, jobs.bucket, AnalysisQuotas(jobs_max=2))
    few.create(ANN, draft("one"))
    few.create(ANN, draft("two"))
    with pytest.raises(QuotaExceeded, match="you have 2 jobs, and 2 are allowed: delete one"):
        few.create(ANN, draft("three"))
    few.create(BOB, draft("four"))
    few.delete(ANN, "one", 1)
    few.create(ANN, draft("three"))


@pytest.mark.parametrize(
    "fields, see, change",
    [
        ({}, "ann admin", "ann admin"),
        ({"group": "metrics"}, "ann admin", "ann admin"),
        ({"group": "metrics", "visibility": "group"}, "ann cat admin", "ann cat admin"),
        ({"group": "metrics", "visibility": "public"}, "ann bob cat admin nobody", "ann cat admin"),
        ({"visibility": "public"}, "ann bob cat admin nobody", "ann admin"),
    ],
)
def test_who_may_see_and_change_a_job(jobs, draft, fields, see, change):
    job = jobs.create(ANN, draft(**fields))
    people = {"ann": ANN, "bob": BOB, "cat": CAT, "admin": ADMIN, "nobody": None}
    assert [name for name, person in people.items() if may_see(person, job)] == see.split()
    assert [name for name, person in people.items() if jobs.seen_by(person)] == see.split()
    assert [name for name, person in people.items() if may_change(person, job)] == change.split()
    if fields.get("visibility") == Visibility.PUBLIC:
        with pytest.raises(NotAllowed, match="'os' belongs to ann: copy it"):
            jobs.delete(BOB, "os", 1)
    else:
        with pytest.raises(JobNotFound):
            jobs.delete(BOB, "os", 1)


def test_a_job_is_given_to_a_group_of_its_owner_only(jobs, draft):
    with pytest.raises(NotAllowed, match="you are not in the group metrics"):
        jobs.create(BOB, draft(group="metrics"))
    job = jobs.create(ANN, draft(group="metrics", visibility="group"))
    with pytest.raises(NotAllowed, match="you are not in the group drivers"):
        jobs.save(CAT, changed(job.draft, group="drivers"), 1)


def test_code_is_kept_once_and_stays(jobs):
    files = {"script.py": SCRIPT, "helping/__init__.py": b"", "helping/words.py": b"WORDS = 1\n"}
    digest = jobs.put_code(files)
    assert jobs.put_code(dict(reversed(files.items()))) == digest
    assert jobs.code_files(digest) == files
    assert jobs.put_code({**files, "script.py": b""}) != digest
    with pytest.raises(ValueError, match="not a path below a folder"):
        jobs.put_code({"../script.py": b""})
    with pytest.raises(ValueError, match="not a SHA-256"):
        job_code_key("../x", "script.py")


@contextmanager
def counted(settings: Any) -> Iterator[tuple[ObjectStore, list[str]]]:
    """An object store, and the operations of all its requests."""
    client = boto3.client("s3", **client_arguments(settings.s3))  # type: ignore[call-overload]
    operations: list[str] = []
    client.meta.events.register("before-call.s3", lambda model, **_: operations.append(model.name))
    yield ObjectStore(settings.s3, client), operations
    client.close()


def test_a_thousand_jobs_are_listed_with_one_request_and_by_a_new_process_with_two(
    jobs, draft, lake_settings
):
    bucket = lake_settings.s3.lake_bucket
    job = jobs.create(ANN, draft("job-0"))
    body = job.model_dump_json()

    def write(number: int) -> None:
        text = body.replace('"name":"job-0"', f'"name":"job-{number}"')
        jobs.objects.put(bucket, job_key(f"job-{number}"), text.encode())

    all_at_once(write, range(1, MANY))
    assert len(jobs.seen_by(ANN)) == MANY
    with counted(lake_settings) as (objects, operations):
        new = JobStore(objects, bucket)
        assert len(new.seen_by(ANN)) == MANY
        assert operations == ["ListObjectsV2", "GetObject"]
        assert len(new.seen_by(BOB)) == 0
        assert operations[2:] == ["ListObjectsV2"]
        changed_job = jobs.save(ANN, changed(job.draft, description="new"), 1)
        jobs.delete(ANN, "job-1", 1)
        found = {job.name: job for job in new.seen_by(ANN)}
        assert operations[3:] == ["ListObjectsV2", "GetObject", "GetObject"]
        assert len(found) == MANY - 1
        assert found["job-0"] == changed_job


def test_a_damaged_index_or_document_hides_no_other_job(jobs, draft, lake_settings, caplog):
    bucket = lake_settings.s3.lake_bucket
    jobs.create(ANN, draft("good"))
    jobs.objects.put(bucket, JOB_INDEX_KEY, b"[1")
    jobs.objects.put(bucket, job_key("damaged"), b"{}")
    assert [job.name for job in JobStore(jobs.objects, bucket).all()] == ["good"]
    assert "analyses/jobs/damaged.json cannot be read" in caplog.text
    assert "analyses/job_index.json cannot be used" in caplog.text
