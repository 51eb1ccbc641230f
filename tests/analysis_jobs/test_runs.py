"""Runs: written down once, counted by quotas, settled after a death, shown to who may see them, and late."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lake_testing.analysts import ADMIN, ANN, BOB, CAT
from telemetry_lake.analysis_jobs.documents import JobDraft, RunState, Visibility, read_draft
from telemetry_lake.analysis_jobs.people import QuotaExceeded
from telemetry_lake.analysis_jobs.runs import Cancellation, OpenRun, RunNotFound, Runs, new_token
from telemetry_lake.analysis_jobs.schedule import MISSED_MAX_COUNT
from telemetry_lake.analysis_jobs.store import JobStore
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.progress import Phase, Progress
from telemetry_lake.settings import AnalysisQuotas
from telemetry_lake.storage.object_keys import OPEN_RUN_PREFIX, analysis_run_key, job_run_id
from telemetry_lake.storage.records import RecordStore

MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
DAILY = {"schedule": {"every": "daily", "hour": 6}, "request": {"dates": "period"}}


def changed(draft: JobDraft, **fields: Any) -> JobDraft:
    return read_draft({**draft.model_dump(mode="json"), **fields})


def begin(runs: Runs, run_id: str, now: datetime, **progress: Any) -> None:
    """What the first task of a run does, and then its job."""
    runs.record_begin(run_id, now=now)
    records = RecordStore(runs.jobs.objects, runs.jobs.bucket)
    said = Progress(phase=Phase.MAPPING, updated_at=now, **progress)
    records.put(analysis_run_key(run_id, "progress.json"), said)


def open_marks(runs: Runs) -> list[str]:
    listed = runs.jobs.objects.list_objects(runs.jobs.bucket, OPEN_RUN_PREFIX)
    return [item.key for item in listed]


def test_a_schedule_is_written_down_once_for_each_time_and_missed_ones_a_few_at_a_time(runs, jobs, draft):
    jobs.create(ANN, draft(**DAILY), now=MONDAY)
    jobs.create(ANN, draft("never"), now=MONDAY)
    assert runs.due(MONDAY) == []
    (first,) = runs.due(MONDAY + DAY)
    assert first.run_id == "job.os.20261124T060000Z"
    assert first.request.dates == "2026-11-23..2026-11-23"
    assert (first.job, first.version, first.asked_by, first.machines) == ("os", 1, "ann", 1)
    assert first.output.endswith("/output.txt")
    assert runs.due(MONDAY + DAY) == []
    other_process = Runs(JobStore(jobs.objects, jobs.bucket), runs._settings, None)
    assert other_process.due(MONDAY + DAY) == []
    assert [run.run_id for run in runs.not_begun()] == [first.run_id]
    begin(runs, first.run_id, MONDAY + DAY)
    assert runs.not_begun() == []
    runs.record_end(first.run_id, RunState.SUCCESS, now=MONDAY + DAY)
    # Days without a scheduler, and an edit in between: what runs then is the new version.
    jobs.save(ANN, changed(draft(**DAILY), description="new"), 1)
    unlimited = JobStore(jobs.objects, jobs.bucket, AnalysisQuotas(open_runs_max=100))
    made_up = Runs(unlimited, runs._settings, None).due(MONDAY + 12 * DAY)
    assert [run.request.dates for run in made_up] == [
        f"{(MONDAY + n * DAY).date()}..{(MONDAY + n * DAY).date()}" for n in range(1, MISSED_MAX_COUNT + 1)
    ]
    assert {run.version for run in made_up} == {2}


def test_the_same_request_again_is_the_same_run_and_a_form_grows_old(runs, jobs, draft):
    job = jobs.create(ANN, draft(), now=MONDAY)
    token = new_token(MONDAY)
    written = [
        runs._write_down(runs._request(job, token, "ann", at, at)) for at in (MONDAY, MONDAY + DAY / 24)
    ]
    assert written[0] == written[1]
    assert [run.run_id for run in runs.of_job(ANN, "os")] == [job_run_id("os", token)]
    with pytest.raises(FatalError, match="opened too long ago"):
        runs.start(ANN, "os", token, now=MONDAY + 2 * DAY)
    for forged in ("", "20261124T060000Z", "../x", f"{token}x"):
        with pytest.raises(FatalError, match="is not of a form of this service"):
            runs.start(ANN, "os", forged, now=MONDAY)


def test_a_run_has_an_outcome_that_does_not_change_and_its_pointers_follow(runs, jobs, draft):
    jobs.create(ANN, draft(**DAILY), now=MONDAY)
    told: list[tuple[str, RunState, RunState | None]] = []
    runs._on_end = lambda request, outcome, before: told.append((request.run_id, outcome.state, before))
    first, second = (runs.due(MONDAY + n * DAY)[0] for n in (1, 2))
    assert [run.state for run in runs.of_job(ANN, "os")] == [RunState.ASKED, RunState.ASKED]
    begin(runs, first.run_id, MONDAY + DAY, records=10, error="script.py:3: KeyError: 'os'")
    assert runs.get(ANN, first.run_id).state is RunState.RUNNING
    runs.record_end(
        first.run_id,
        RunState.FAILED,
        now=MONDAY + DAY + timedelta(minutes=30),
        error="exit status 1",
        started_at=MONDAY + DAY,
    )
    runs.record_end(first.run_id, RunState.SUCCESS, now=MONDAY + 2 * DAY)
    failed = runs.get(ANN, first.run_id)
    assert failed.outcome is not None
    assert failed.outcome.error == "script.py:3: KeyError: 'os'\n\nexit status 1"
    assert (failed.state, failed.outcome.records, failed.run_seconds(MONDAY)) == (RunState.FAILED, 10, 1_800)
    assert runs.results(failed) == []
    with pytest.raises(RunNotFound, match="no run of 'os' has succeeded yet"):
        runs.latest_good(ANN, "os")
    assert runs.usage("ann", MONDAY).machine_hours == 0.5
    assert runs.usage("ann", MONDAY).open_runs == 1

    key = second.output.removeprefix(f"s3://{jobs.bucket}/")
    jobs.objects.put(jobs.bucket, key, b"Linux\t1\n")
    begin(runs, second.run_id, MONDAY + 2 * DAY, records=5)
    runs.record_end(second.run_id, RunState.SUCCESS, now=MONDAY + 2 * DAY)
    good = runs.latest_good(ANN, "os")
    assert (good.run_id, good.outcome and good.outcome.output_bytes) == (second.run_id, 8)
    assert [item.key for item in runs.results(good)] == [key]
    latest = jobs.latest()["os"]
    assert (latest.last, latest.last_state, latest.good) == (second.run_id, RunState.SUCCESS, second.run_id)
    assert [run.run_id for run in runs.of_job(ANN, "os")] == [second.run_id, first.run_id]
    assert [run.run_id for run in runs.of_job(ANN, "os", before=second.run_id)] == [first.run_id]
    assert open_marks(runs) == []
    assert told == [
        (first.run_id, RunState.FAILED, None),
        (first.run_id, RunState.FAILED, None),
        (second.run_id, RunState.SUCCESS, RunState.FAILED),
    ]


def test_what_a_process_left_half_done_is_settled(runs, jobs, draft):
    jobs.create(ANN, draft(**DAILY), now=MONDAY)
    (run,) = runs.due(MONDAY + DAY)
    records = RecordStore(jobs.objects, jobs.bucket)
    (mark,) = open_marks(runs)
    # It died after the outcome: everything that follows is done by who comes next.
    begin(runs, run.run_id, MONDAY + DAY)
    runs.record_end(run.run_id, RunState.SUCCESS, now=MONDAY + DAY)
    runs.jobs.objects.put(jobs.bucket, mark, _mark(run).encode())
    runs.settle_all(MONDAY + DAY)
    assert open_marks(runs) == []
    # It died before run.json: the mark is removed, but not while the start may still go on.
    orphan = run.model_copy(update={"run_id": job_run_id("os", "20261130T060000Z")})
    jobs.objects.put(jobs.bucket, mark, _mark(orphan).encode())
    runs.settle(orphan.run_id, now=run.asked_at + timedelta(minutes=9))
    assert open_marks(runs) == [mark]
    assert records.keys(OPEN_RUN_PREFIX) == [mark]


def _mark(run: Any) -> str:
    return OpenRun(
        run_id=run.run_id, owner=run.owner, asked_at=run.asked_at, machines=run.machines
    ).model_dump_json()


def test_a_cancelled_run_does_not_begin(runs, jobs, draft):
    jobs.create(ANN, draft(**DAILY), now=MONDAY)
    (run,) = runs.due(MONDAY + DAY)
    with pytest.raises(RunNotFound):
        runs.cancel(BOB, run.run_id, now=MONDAY + DAY)
    runs.cancel(ANN, run.run_id, now=MONDAY + DAY)
    assert runs.not_begun() == []
    with pytest.raises(FatalError, match="was cancelled before it began"):
        runs.record_begin(run.run_id, now=MONDAY + DAY)
    # What Airflow makes of that is no failure.
    runs.record_end(run.run_id, RunState.FAILED, now=MONDAY + DAY, error="was cancelled before it began")
    ended = runs.get(ANN, run.run_id)
    assert (ended.state, ended.outcome and ended.outcome.error) == (RunState.CANCELLED, None)
    assert runs.cancel(ANN, run.run_id) == ended
    assert (
        Cancellation.model_validate_json(
            jobs.objects.get(jobs.bucket, analysis_run_key(run.run_id, "cancel.json"))
        ).by
        == "ann"
    )


@pytest.mark.parametrize(
    "quotas, sentence",
    [
        ({"open_runs_max": 2}, "ann has 2 runs that have not ended, and 2 are allowed"),
        ({"machines_max": 2}, "ann would use 3 machines at once, and 2 are allowed"),
        ({"machine_hours_max": 1}, "ann has used 1.0 machine hours this month, and 1 are allowed"),
    ],
)
def test_runs_up_to_a_quota_are_written_down(jobs, draft, lake_settings, quotas, sentence):
    few = JobStore(jobs.objects, jobs.bucket, AnalysisQuotas(**quotas))
    runs = Runs(few, lake_settings, None)
    job = few.create(ANN, draft(), now=MONDAY)
    others = few.create(BOB, draft("others"), now=MONDAY)

    def write(owned: Any, seconds: int) -> Any:
        at = MONDAY + timedelta(seconds=seconds)
        return runs._write_down(runs._request(owned, new_token(at), owned.owner, at, at))

    first, second = write(job, 0), write(job, 1)
    if "machine_hours_max" in quotas:
        for run in (first, second):
            runs.record_end(run.run_id, RunState.SUCCESS, now=MONDAY, started_at=MONDAY - DAY / 48)
    marks = open_marks(runs)
    with pytest.raises(QuotaExceeded, match=sentence):
        write(job, 2)
    assert open_marks(runs) == marks, "what is refused does not count"
    write(others, 3)
    if "machine_hours_max" not in quotas:
        runs.record_end(first.run_id, RunState.FAILED, now=MONDAY)
        write(job, 4)


@pytest.mark.parametrize(
    "then, now_, see",
    [
        ("private", "private", "ann admin"),
        ("public", "public", "ann bob cat admin nobody"),
        ("group", "group", "ann cat admin"),
        ("private", "public", "ann admin"),
        ("public", "private", "ann admin"),
        ("public", "group", "ann cat admin"),
    ],
)
def test_a_result_is_shown_to_who_could_see_it_then_and_can_now(runs, jobs, draft, then, now_, see):
    job = jobs.create(ANN, draft(group="metrics", visibility=then, **DAILY), now=MONDAY)
    (run,) = runs.due(MONDAY + DAY)
    if then != now_:
        jobs.save(ANN, changed(job.draft, visibility=now_), 1)
    people = {"ann": ANN, "bob": BOB, "cat": CAT, "admin": ADMIN, "nobody": None}
    seen = []
    for name, person in people.items():
        try:
            runs.get(person, run.run_id)
        except RunNotFound:
            continue
        seen.append(name)
        assert [shown.run_id for shown in runs.of_job(person, "os")] == [run.run_id]
    assert seen == see.split()
    jobs.delete(ANN, "os", jobs.get("os").version)
    assert runs.get(ANN, run.run_id).visibility is Visibility.PRIVATE


def test_what_is_due_or_asked_for_and_has_not_begun_is_late_after_half_an_hour(runs, jobs, draft):
    jobs.create(ANN, draft(**DAILY), now=MONDAY)
    jobs.create(ANN, draft("ends", schedule={"every": "daily", "end": "2026-11-24"}), now=MONDAY)
    paused = jobs.create(ANN, draft("paused", **DAILY), now=MONDAY)
    jobs.set_paused(ANN, "paused", True, paused.version)
    due_at = datetime(2026, 11, 24, 6, tzinfo=UTC)
    almost, late = due_at + timedelta(minutes=29, seconds=59), due_at + timedelta(minutes=30)
    assert runs.late(almost) == []
    assert [(one.job, one.since, one.was_asked) for one in runs.late(late)] == [
        ("ends", due_at, False),
        ("os", due_at, False),
    ]
    assert runs.late(late)[1].sentence(late) == (
        "os was due at 2026-11-24 06:00 UTC, 30 minutes ago, and was not started: is Airflow's scheduler "
        "running?"
    )
    for run in runs.due(late):
        begin(runs, run.run_id, late) if run.job == "ends" else None
    # Airflow was asked, and does nothing.
    assert runs.late(late + timedelta(minutes=29)) == []
    (queued,) = runs.late(late + timedelta(minutes=30))
    assert (queued.job, queued.was_asked) == ("os", True)


def test_what_a_run_says_of_itself_is_not_believed(runs, jobs, draft):
    jobs.create(ANN, draft(**DAILY), now=MONDAY)
    (run,) = runs.due(MONDAY + DAY)
    key = analysis_run_key(run.run_id, "progress.json")
    for nonsense in (b"\xff", b"[]", b'{"phase": "won", "updated_at": "now"}', b"{}"):
        jobs.objects.put(jobs.bucket, key, nonsense)
        assert runs.get(ANN, run.run_id).progress is None


def test_only_the_end_of_a_log_is_shown_from_a_whole_line_on(runs, jobs, draft):
    jobs.create(ANN, draft(**DAILY), now=MONDAY)
    (written,) = runs.due(MONDAY + DAY)
    run = runs.get(ANN, written.run_id)
    assert runs.log(run) == ""
    jobs.objects.put(jobs.bucket, analysis_run_key(run.run_id, "log.txt"), b"first\nsecond\nthird\n")
    assert runs.log(run) == "first\nsecond\nthird\n"
    assert runs.log(run, max_bytes=9) == "third\n"
