"""Jobs over HTTP: made, edited by two at once, and seen, with what they left behind, by those who may."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import psutil
import pytest

from lake_testing.analysis_runs import ended_run
from telemetry_lake.analysis_jobs.documents import Code, CodeKind, Job, JobDraft, Visibility
from telemetry_lake.analysis_jobs.store import JobStore
from telemetry_lake.storage.object_keys import job_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import all_at_once

SCRIPT = "def map(key, dimensions, value, context):\n    context.write(dimensions[2], 1)\n"
API = "/api/v1/analyses"
LISTED_TIMES = 5
DOCUMENTS_READ = 10_000
LIST_MAX_RATIO = 2.5


@pytest.fixture(scope="module")
def store(service: Any) -> ObjectStore:
    return ObjectStore(service.lake.settings.s3)


@pytest.fixture(scope="module")
def jobs(service: Any, store: ObjectStore) -> JobStore:
    return JobStore(store, service.lake.settings.s3.lake_bucket)


@pytest.fixture
def ada(service: Any) -> Iterator[httpx.Client]:
    with service.browser("ada") as client:
        yield client


@pytest.fixture
def bob(service: Any) -> Iterator[httpx.Client]:
    with service.browser("bob") as client:
        yield client


@pytest.fixture
def stranger(service: Any) -> Iterator[httpx.Client]:
    with service.browser() as client:
        yield client


def made(service: Any, client: httpx.Client, name: str, **fields: Any) -> dict[str, Any]:
    answer = client.post(
        f"{API}/jobs", json={"name": name, "script": SCRIPT, **fields}, headers=service.token_of(client)
    )
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_a_job_is_made_edited_paused_copied_and_deleted_by_forms(service: Any, ada: httpx.Client) -> None:
    form = {
        "csrf": service.csrf(ada),
        "name": "walk",
        "description": "How many <b>pings</b>?",
        "script": SCRIPT.replace("\n", "\r\n"),
        "arguments": "--top\r\n10 of them",
        "visibility": "private",
        "request.table": "stable",
        "request.dates": "last-7-days",
        "request.sample": "10",
        "request.format": "csv",
        "request.time_limit_minutes": "5",
        "schedule.every": "weekly",
        "schedule.weekday": "2",
        "schedule.hour": "4",
        "notify.on": ["failure", "success"],
        "notify.mails": "ada@example.org\r\neve@example.org",
    }
    answer = ada.post("/analyses/jobs", data=form)
    assert (answer.status_code, answer.headers.get("location")) == (303, "/analyses/jobs/walk"), answer.text
    document = ada.get(f"{API}/jobs/walk").json()
    assert document["script"] == SCRIPT
    assert document["code"]["arguments"] == ["--top", "10 of them"]
    assert document["schedule"] == {"every": "weekly", "weekday": 2, "day": None, "hour": 4, "end": None}
    assert document["notify"]["mails"] == ["ada@example.org", "eve@example.org"]
    times = [datetime.fromisoformat(time) for time in document["next_runs"]]
    assert [time.weekday() for time in times] == [2, 2, 2]
    page = ada.get("/analyses/jobs/walk").text
    assert "on Wednesdays at 04:00 UTC" in page
    assert "How many &lt;b&gt;pings" in page

    edited = {
        **form,
        "version": "1",
        "schedule.every": "monthly",
        "schedule.day": "last",
        "request.sample": "20",
    }
    assert ada.post("/analyses/jobs/walk", data=edited).status_code == 303
    assert ada.get(f"{API}/jobs/walk").json()["schedule"]["day"] == "last"
    csrf = form["csrf"]
    ada.post("/analyses/jobs/walk/pause", data={"csrf": csrf, "version": "2"})
    assert "<strong>paused</strong>" in ada.get("/analyses/jobs/walk").text
    ada.post("/analyses/jobs/walk/resume", data={"csrf": csrf, "version": "3"})
    copy = ada.get("/analyses/new?copy=walk").text
    assert "context.write(dimensions[2], 1)" in copy
    assert 'name="name" type="text" maxlength="64" value=""' in copy
    assert ada.get("/analyses/jobs/walk/delete").status_code == 200
    assert ada.get("/analyses/jobs/walk").status_code == 200
    assert ada.post("/analyses/jobs/walk/delete", data={"csrf": csrf, "version": "4"}).status_code == 303
    assert ada.get("/analyses/jobs/walk").status_code == 404
    events = ada.get("/analyses/audit").text
    for what in ("created", "changed", "paused", "resumed", "deleted"):
        assert f"<td>{what}</td>" in events


@pytest.mark.parametrize(
    "fields,sentence",
    [
        ({"name": "x" * 10_000}, "Use 1 to 64 small letters"),
        ({"name": "With Spaces"}, "Use 1 to 64 small letters"),
        ({"script": ""}, "Write a script"),
        ({"request.dates": "2026-13-45x"}, "Give FIRST..LAST or one date"),
        ({"request.sample": "101"}, "less than or equal to 100"),
        ({"schedule.every": "weekly"}, "Give a day of the week"),
        ({"notify.mails": "a@b.example\nBcc: x@y.example"}, "This is not a mail address"),
        ({"visibility": "group"}, "name the group"),
        ({"group": "search"}, "You are not in the group search"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else next(iter(value)),
)
def test_a_form_with_a_mistake_is_shown_again_with_its_values(
    service: Any, ada: httpx.Client, fields: dict[str, str], sentence: str
) -> None:
    form = {"csrf": service.csrf(ada), "name": "mistake", "description": "kept", "script": SCRIPT}
    answer = ada.post("/analyses/jobs", data={**form, **fields})
    assert answer.status_code == (403 if "group" in fields else 400)
    assert sentence in answer.text.replace("&#39;", "'")
    assert ">kept</textarea>" in answer.text
    assert ada.get(f"{API}/jobs/mistake").status_code == 404


def test_the_second_of_two_editors_is_told(service: Any, ada: httpx.Client) -> None:
    made(service, ada, "edited-by-two")
    form = {"csrf": service.csrf(ada), "version": "1", "script": SCRIPT, "description": "of the first"}
    assert ada.post("/analyses/jobs/edited-by-two", data=form).status_code == 303
    second = ada.post("/analyses/jobs/edited-by-two", data={**form, "description": "of the second"})
    assert second.status_code == 409
    assert "ada saved" in second.text
    assert "of the second</textarea>" in second.text
    assert ada.get(f"{API}/jobs/edited-by-two").json()["description"] == "of the first"


def test_a_name_is_checked_while_it_is_typed(service: Any, ada: httpx.Client, bob: httpx.Client) -> None:
    made(service, ada, "taken")
    assert bob.get(f"{API}/names/free").json()["free"] is True
    assert bob.get(f"{API}/names/taken").json()["free"] is False
    assert "small letters" in bob.get(f"{API}/names/Not%20a%20name").json()["sentence"]
    answer = bob.post(f"{API}/jobs", json={"name": "taken", "script": SCRIPT}, headers=service.token_of(bob))
    assert answer.status_code == 409


def test_people_see_and_change_what_they_may(
    service: Any, ada: httpx.Client, bob: httpx.Client, stranger: httpx.Client
) -> None:
    for visibility in ("private", "group", "public"):
        made(service, ada, f"seen-{visibility}", visibility=visibility, group="perf")
    for client, expected in (
        (ada, {"private": 200, "group": 200, "public": 200}),
        (bob, {"private": 404, "group": 404, "public": 200}),
        (stranger, {"private": 303, "group": 303, "public": 200}),
    ):
        for visibility, status in expected.items():
            assert client.get(f"/analyses/jobs/seen-{visibility}").status_code == status
            listed = f"seen-{visibility}" in client.get("/analyses").text
            assert listed == (status == 200)
    # What may be seen may not be changed by everybody who sees it.
    csrf = {"csrf": service.csrf(bob), "version": "1"}
    for path in ("", "/pause", "/delete", "/run"):
        assert (
            bob.post(f"/analyses/jobs/seen-public{path}", data={**csrf, "script": SCRIPT}).status_code == 403
        )
        assert (
            bob.post(f"/analyses/jobs/seen-private{path}", data={**csrf, "script": SCRIPT}).status_code == 404
        )
        forged = bob.post(f"/analyses/jobs/seen-public{path}", data={"version": "1"})
        assert "not from this session" in forged.text
    assert bob.get("/analyses/jobs/seen-public/edit").status_code == 403
    with service.browser("admin") as admin:
        assert "seen-private" in admin.get("/analyses").text


def test_a_result_is_for_those_who_may_see_it_and_can_do_nothing_to_them(
    service: Any,
    store: ObjectStore,
    jobs: JobStore,
    ada: httpx.Client,
    bob: httpx.Client,
    stranger: httpx.Client,
) -> None:
    page = b"<html><script>alert(document.cookie)</script></html>\n"
    paths = {}
    for visibility in ("private", "public"):
        made(service, ada, f"result-{visibility}", visibility=visibility)
        run_id = ended_run(service.lake.settings, store, jobs.get(f"result-{visibility}"), page)
        paths[visibility] = [
            f"/analyses/runs/{run_id}",
            f"/analyses/runs/{run_id}/output",
            f"/analyses/runs/{run_id}/log.txt",
            f"/analyses/jobs/result-{visibility}/latest/output",
            f"{API}/runs/{run_id}",
        ]
    for path in paths["private"]:
        assert ada.get(path).status_code == 200
        assert bob.get(path).status_code == 404
        assert stranger.get(path).status_code in (303, 404)
        assert b"alert" not in bob.get(path).content + stranger.get(path).content
    for path in paths["public"]:
        for client in (bob, stranger):
            assert client.get(path).status_code == 200
    for path in paths["public"][1:4]:
        answer = stranger.get(path)
        assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].startswith("text/plain")
    output = stranger.get(paths["public"][1])
    assert output.content == page
    assert output.headers["content-disposition"].startswith('attachment; filename="job.result-public.')
    shown = stranger.get(paths["public"][0]).text
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert" in shown
    # Made private later, it is private with all that it has left behind.
    document = ada.get(f"{API}/jobs/result-public").json()
    changed = ada.put(
        f"{API}/jobs/result-public",
        json={"visibility": "private", "version": document["version"]},
        headers=service.token_of(ada),
    )
    assert changed.status_code == 200, changed.text
    for path in paths["public"]:
        assert bob.get(path).status_code == 404


def test_a_result_of_two_columns_has_a_table_and_a_plot(
    service: Any, store: ObjectStore, jobs: JobStore, ada: httpx.Client
) -> None:
    made(service, ada, "two-columns")
    run_id = ended_run(
        service.lake.settings, store, jobs.get("two-columns"), b"Linux\t3\nDarwin\t1\nWINNT\t12\n"
    )
    page = ada.get(f"/analyses/runs/{run_id}").text
    assert page.count("<rect x=") == 3
    assert "WINNT: 12.0" in page
    assert "<td>Darwin</td><td>1</td>" in page
    assert "1,234" in page
    assert "1 min 25 s" in page
    assert ada.get(f"{API}/runs/{run_id}").json()["result"]["rows"][0] == ["Linux", "3"]


def test_a_failed_run_shows_the_error_of_the_script_first_and_its_log(
    service: Any, store: ObjectStore, jobs: JobStore, ada: httpx.Client
) -> None:
    made(service, ada, "failing")
    error = "script.py:2 (context.write(document['info'], 1)): KeyError: 'info'"
    run_id = ended_run(service.lake.settings, store, jobs.get("failing"), None, error=error)
    page = ada.get(f"/analyses/runs/{run_id}").text.replace("&#39;", "'")
    assert error in page
    assert page.index(error) < page.index("first line")
    assert ada.get(f"/analyses/runs/{run_id}/output").status_code == 404
    assert "failed" in ada.get("/analyses/jobs/failing").text
    answer = ada.get(f"{API}/runs/{run_id}").json()
    assert (answer["state"], answer["error"]) == ("failed", error)


def test_without_airflow_a_run_is_refused_with_a_sentence(service: Any, ada: httpx.Client) -> None:
    made(service, ada, "not-run")
    answer = ada.post(f"{API}/jobs/not-run/run", json={}, headers=service.token_of(ada))
    assert answer.status_code == 400
    assert "not told where Airflow is" in answer.json()["error"]["sentence"]


def test_a_list_of_a_thousand_jobs_costs_the_server_what_reading_documents_does(
    service: Any, store: ObjectStore, ada: httpx.Client
) -> None:
    bucket = service.lake.settings.s3.lake_bucket
    at = datetime.now(UTC)
    code = Code(kind=CodeKind.TEXT, digest="0" * 64, entry="script.py")
    draft = JobDraft(name="many", code=code, visibility=Visibility.PUBLIC)
    job = Job(
        **{name: getattr(draft, name) for name in JobDraft.model_fields},
        owner="many",
        version=1,
        created_at=at,
        created_by="many",
        changed_at=at,
        changed_by="many",
        scheduled_since=at,
        change="0" * 32,
    )

    def put(number: int) -> None:
        one = job.model_copy(update={"name": f"many-{number:04}"})
        store.put(bucket, job_key(one.name), one.model_dump_json().encode())

    all_at_once(put, range(1_000))
    assert "many-0999" in ada.get("/analyses").text
    server = psutil.Process(service.pages.pid)
    document = job.model_dump_json()
    busy = reference = 0.0
    for _ in range(LISTED_TIMES):
        before = sum(server.cpu_times()[:2])
        ada.get("/analyses").raise_for_status()
        busy += sum(server.cpu_times()[:2]) - before
        before = time.process_time()
        for _ in range(DOCUMENTS_READ):
            Job.model_validate_json(document)
        reference += time.process_time() - before
    print(f"list of 1,000 jobs: {busy / LISTED_TIMES:.3f} s of processor time, {busy / reference:.2f} of it")
    assert busy < LIST_MAX_RATIO * reference


def test_the_api_describes_itself(ada: httpx.Client) -> None:
    document = ada.get("/api/v1/openapi.json").json()
    assert set(document["paths"]["/api/v1/analyses/jobs"]) == {"get", "post"}
    assert {"/api/v1/analyses/try-it", "/api/v1/analyses/count"} <= set(document["paths"])
    assert not any(path.startswith("/analyses") for path in document["paths"])
    ids = [each["operationId"] for operations in document["paths"].values() for each in operations.values()]
    assert len(set(ids)) == len(ids)
    assert "get_job_api_v1_analyses_jobs_name" in ids
