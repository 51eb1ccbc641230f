"""What the tasks of a run do: the same documents, whether the service or Airflow's form asked for it."""

import sys
from datetime import UTC, datetime, timedelta

import pytest

from dags.job_process import JobProcess
from lake_testing.analysts import ADMIN, ANN, SCRIPT
from telemetry_lake.analysis_jobs.documents import RunState
from telemetry_lake.analysis_jobs.old_schedules import ScheduledAnalysis, make_jobs
from telemetry_lake.analysis_jobs.people import Person
from telemetry_lake.analysis_jobs.prepare import prepare, record_end
from telemetry_lake.analysis_jobs.run_log import (
    BEGIN_MAX_BYTES,
    END_MAX_BYTES,
    LINE_MAX_BYTES,
    RunLog,
)
from telemetry_lake.analysis_jobs.runs import Runs
from telemetry_lake.analysis_jobs.store import NameTaken
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.form import read_request
from telemetry_lake.mapreduce.progress import AS_LINES, Phase, ProgressReport
from telemetry_lake.mapreduce.requests import prepare_run
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import RunOn, Settings
from telemetry_lake.storage.object_keys import analysis_run_key, scheduled_analysis_key, started_key

MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FORM_RUN = "manual__2026-11-23T06:00:00+00:00"
FILTER = '{"version": 1, "dimensions": [{"field_name": "appName", "allowed_values": ["Firefox"]}]}'
DAILY = {"schedule": {"every": "daily"}, "request": {"dates": "period", "filter": FILTER}}


def test_the_job_of_a_run_gets_what_run_json_says_and_not_what_a_form_says(runs, jobs, draft, lake_settings):
    code = draft().code.model_copy(update={"arguments": ("--x={{ 1 }}", "$(id)")})
    jobs.create(ANN, draft(**DAILY).model_copy(update={"code": code}), now=MONDAY)
    (run,) = runs.due(MONDAY + DAY)
    prepared = prepare(lake_settings, run.run_id, {"script_text": "evil"}, "eve", now=MONDAY + DAY)
    place = f"s3://{jobs.bucket}/"
    assert prepared.arguments == [
        f"--script={place}{analysis_run_key(run.run_id, 'script/script.py')}",
        f"--filter={place}{analysis_run_key(run.run_id, 'filter.json')}",
        "--table=stable",
        "--dates=2026-11-23..2026-11-23",
        "--sample=100",
        "--format=text",
        f"--output={run.output}",
        f"--progress={AS_LINES}",
        "--argument=--x={{ 1 }}",
        "--argument=$(id)",
    ]
    assert jobs.objects.get(jobs.bucket, analysis_run_key(run.run_id, "script/script.py")) == SCRIPT
    assert runs.get(ANN, run.run_id).state is RunState.RUNNING
    on_emr = lake_settings.model_copy(
        update={"spark": lake_settings.spark.model_copy(update={"run_on": RunOn.EMR_CLUSTER})}
    )
    again = prepare(on_emr, run.run_id, {}, None, now=MONDAY + DAY)
    assert f"--progress={place}{analysis_run_key(run.run_id, 'progress.json')}" in again.arguments


def test_airflows_form_leaves_the_same_documents(runs, jobs, lake_settings):
    form = {"script_text": SCRIPT.decode(), "dates": "2026-11-01", "format": "csv"}
    for _ in range(2):  # the task is tried again
        prepare(lake_settings, FORM_RUN, form, "ann", now=MONDAY)
    run = runs.get(ANN, FORM_RUN)
    assert (run.request.job, run.request.owner, run.request.request.dates) == (None, "ann", "2026-11-01")
    assert run.request.output.endswith("/output.csv")
    record_end(
        lake_settings, FORM_RUN, RunState.TIMED_OUT, now=MONDAY, started_at=MONDAY - DAY, error="too long"
    )
    assert runs.get(ADMIN, FORM_RUN).state is RunState.TIMED_OUT
    assert runs.usage("ann", MONDAY).machine_hours == 24
    with pytest.raises(FatalError, match="either the place of a script"):
        prepare(lake_settings, "manual__wrong", {}, "ann", now=MONDAY)
    record_end(lake_settings, "manual__wrong", RunState.FAILED, now=MONDAY, started_at=None)
    assert not runs.is_written_down("manual__wrong")
    prepare(lake_settings, "manual__stranger", form, "not a name / at all", now=MONDAY)
    assert runs.get(ADMIN, "manual__stranger").request.owner == "airflow"


def test_a_form_may_not_read_the_code_or_the_runs_of_others(jobs, draft, lake_settings):
    for key in (f"analyses/code/{draft().code.digest}/script.py", "analyses/runs/a/script/script.py"):
        with pytest.raises(FatalError, match="may not be read"):
            prepare(lake_settings, FORM_RUN, {"script": f"s3://{jobs.bucket}/{key}"}, "ann", now=MONDAY)


def test_a_form_with_a_schedule_makes_a_job_once(runs, jobs, lake_settings):
    form = {
        "script_text": SCRIPT.decode(),
        "filter": FILTER,
        "dates": "2026-11-01",
        "schedule": "weekly",
        "name": "os",
        "sample": 10,
    }
    for _ in range(2):
        prepare(lake_settings, FORM_RUN, form, "ann", now=MONDAY)
    job = jobs.get("os", ANN)
    assert (job.version, job.owner, job.request.sample, job.request.filter) == (1, "ann", 10, FILTER)
    (written,) = runs.due(datetime(2026, 11, 30, 6, tzinfo=UTC))
    assert written.request.dates == "2026-11-23..2026-11-29", "the week that the form was filled in in"
    assert jobs.code_files(job.code.digest)["script.py"].startswith(SCRIPT)
    with pytest.raises(NameTaken):
        prepare(lake_settings, "manual__other", form, "bob", now=MONDAY)


@pytest.mark.parametrize(
    "started, first_due", [((), "2026-11-24"), (("2026-11-23", "2026-11-24"), "2026-11-26")]
)
def test_an_analysis_of_before_becomes_a_job_that_goes_on_where_it_ended(
    runs, jobs, lake_settings, started, first_due
):
    request = read_request(
        {"script_text": SCRIPT.decode(), "schedule": "daily", "name": "os", "filter": FILTER}
    )
    prepared = prepare_run(lake_settings, request, "manual__old")
    copies = {"script": prepared.script, "script_text": None, "filter": prepared.filter}
    old = ScheduledAnalysis(
        name="os", created=MONDAY.date(), run="manual__old", request=request.model_copy(update=copies)
    )
    jobs.objects.put(jobs.bucket, scheduled_analysis_key("os"), old.model_dump_json().encode())
    for day in started:
        key = started_key("os", datetime.fromisoformat(day).date())
        jobs.objects.put(jobs.bucket, key, b"{}")
    (job,) = make_jobs(jobs, now=MONDAY + 10 * DAY)
    assert make_jobs(jobs, now=MONDAY + 10 * DAY) == []
    # It died after the job was made, and before the analysis was marked.
    jobs.objects.put(jobs.bucket, scheduled_analysis_key("os"), old.model_dump_json().encode())
    assert make_jobs(jobs, now=MONDAY + 10 * DAY) == [job] == jobs.all()
    assert (job.owner, job.request.filter) == ("airflow", FILTER)
    first = runs.due(MONDAY + 10 * DAY)[0]
    assert f"{first.due_at:%Y-%m-%d %H}" == f"{first_due} 06"
    jobs.delete(Person("airflow"), "os", 1)
    assert make_jobs(jobs, now=MONDAY + 10 * DAY) == []


def test_what_a_job_prints_is_its_log_and_its_progress(runs, jobs, draft, capfd, lake_settings):
    jobs.create(ANN, draft(**DAILY), now=MONDAY)
    (written,) = runs.due(MONDAY + DAY)
    code = (
        "import sys; from telemetry_lake.mapreduce.progress import *; from telemetry_lake.settings import *;"
        "report = ProgressReport('-', S3Settings());"
        "report.report(Phase.MAPPING, records=1, bytes=10, bytes_total=40); print('one line');"
        "report.failed('the script: it broke'); print('last', sys.argv[1:], file=sys.stderr); sys.exit(3)"
    )
    with RunLog(jobs.objects, jobs.bucket, written.run_id) as log:
        ended = JobProcess().run([sys.executable, "-c", code, "$(id)"], PROJECT_ROOT, log.add)
    assert ended == (3, "last ['$(id)']")
    run = runs.get(ANN, written.run_id)
    assert runs.log(run) == "one line\nlast ['$(id)']\n"
    assert run.progress is not None
    assert (run.progress.phase, run.progress.records, run.progress.error) == (
        Phase.ENDED,
        1,
        "the script: it broke",
    )


def test_a_log_is_bounded_and_keeps_its_begin_and_its_end(jobs):
    log = RunLog(jobs.objects, jobs.bucket, "job.os.20261124T060000Z")
    line = "x" * 1_023
    lines = (BEGIN_MAX_BYTES + END_MAX_BYTES) // 1_024
    for number in range(lines):
        log.add(f"{number:08}{line[8:]}")
    assert len(log.text()) == BEGIN_MAX_BYTES + END_MAX_BYTES
    log.add("y" * (LINE_MAX_BYTES + 1))
    text = log.text().decode()
    assert "[… 17 lines are left out …]" in text
    assert text.startswith("00000000x")
    assert text.endswith("y […]\n")
    assert len(text) < BEGIN_MAX_BYTES + END_MAX_BYTES + 200
    for mark in ("@progress nonsense", '@progress {"phase": "mapping"}'):
        assert not log.add(mark)
        log.write()


def test_progress_that_cannot_be_written_fails_nothing(lake_settings: Settings, embedded_s3):
    nowhere = lake_settings.s3.model_copy(update={"endpoint_url": "http://127.0.0.1:9", "max_attempts": 1})
    for place, s3 in (("s3://nowhere/x", lake_settings.s3), ("s3://lake/x", nowhere), (None, nowhere)):
        ProgressReport(place, s3).report(Phase.MAPPING, records=1)


def test_progress_says_how_fast_and_how_long(jobs, lake_settings, runs, draft):
    jobs.create(ANN, draft(**DAILY), now=MONDAY)
    (written,) = runs.due(MONDAY + DAY)
    place = f"s3://{jobs.bucket}/{analysis_run_key(written.run_id, 'progress.json')}"
    report = ProgressReport(place, lake_settings.s3)
    report.report(Phase.MAPPING, records=0, bytes=0, records_total=100, bytes_total=1_000)
    report.report(Phase.MAPPING, records=50, bytes=250)
    progress = Runs(jobs, lake_settings, None).get(ANN, written.run_id).progress
    assert progress is not None
    assert progress.records_per_second is not None
    assert progress.seconds_left == pytest.approx(3 * 50 / progress.records_per_second)
    report.report(Phase.ENDED, written=7)
    ended = runs.get(ANN, written.run_id).progress
    assert ended is not None
    assert (ended.records, ended.written, ended.seconds_left) == (50, 7, None)
