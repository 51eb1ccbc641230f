"""What the pages do, for programs: JSON below /api/v1/analyses, with a token or a session."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from telemetry_lake.analysis_jobs.code import GivenCode
from telemetry_lake.analysis_jobs.documents import InvalidJob, Job
from telemetry_lake.analysis_jobs.run import Run
from telemetry_lake.analysis_jobs.runs import new_token
from telemetry_lake.analysis_jobs.schedule import next_times
from web.analyses.failures import ReportingRoute
from web.analyses.job_pages import READ, person_of
from web.analyses.run_pages import preview_of
from web.analyses.service import Service
from web.analyses.visitors import API, START, Change, Visitors
from web.edge import RequestRefused

_OF_CODE: Final = ("script", "arguments", "command", "repository_path")
_OF_JOB: Final = ("name", "description", "group", "visibility", "request", "schedule", "notify")


def api_router(service: Service, visitors: Visitors) -> APIRouter:
    """Return the routes of the API."""
    router = APIRouter(route_class=ReportingRoute, tags=["analyses"])
    _add_jobs(router, service, visitors)
    _add_runs(router, service, visitors)

    @router.api_route(f"{API}/names/{{name}}", methods=READ, summary="Whether a job may have this name")
    def check_name(request: Request, name: str) -> Response:
        visitor = visitors.require(request)
        try:
            is_free = service.jobs.is_free(name, visitor.person)
        except ValueError:
            sentence = "Use 1 to 64 small letters, digits, - and _, beginning with a letter or a digit."
            return JSONResponse({"free": False, "sentence": sentence})
        sentence = "This name is free." if is_free else "Another job has this name: choose another one."
        return JSONResponse({"free": is_free, "sentence": sentence})

    @router.api_route(f"{API}/usage", methods=READ, summary="What you use of your quotas")
    def usage(request: Request) -> Response:
        visitor = visitors.require(request)
        used = service.runs.usage(visitor.name, datetime.now(UTC))
        return JSONResponse(
            {
                "used": {
                    "jobs": used.jobs,
                    "open_runs": used.open_runs,
                    "machines": used.machines,
                    "machine_hours": used.machine_hours,
                },
                "quotas": service.jobs.quotas.model_dump(),
            }
        )

    return router


def _add_jobs(router: APIRouter, service: Service, visitors: Visitors) -> None:
    @router.api_route(f"{API}/jobs", methods=READ, summary="Jobs that you may see")
    def list_jobs(request: Request) -> Response:
        visitor = visitors.find(request)
        latest = service.jobs.latest()
        jobs = [
            {
                **{
                    name: getattr(job, name) for name in ("name", "description", "owner", "version", "paused")
                },
                "visibility": job.visibility,
                "every": job.schedule.every,
                "last_state": latest[job.name].last_state if job.name in latest else None,
            }
            for job in service.jobs.seen_by(person_of(visitor))
        ]
        return JSONResponse({"jobs": jobs})

    @router.post(f"{API}/jobs", summary="Make a job", status_code=HTTPStatus.CREATED)
    def create(change: Annotated[Change, Depends(visitors.change)]) -> Response:
        document = _document(change)
        draft = service.draft(_without_code(document), _code(service, change, None))
        job = service.jobs.create(change.visitor.person, draft)
        return JSONResponse(job_document(job), HTTPStatus.CREATED)

    @router.post(f"{API}/try-it", summary="Run a script on about a thousand pings")
    def try_it(change: Annotated[Change, Depends(visitors.change)]) -> Response:
        document = _document(change)
        given = _given(service, change)
        outcome = service.try_script(given, _arguments(document, ()), _without_code(document))
        return JSONResponse(asdict(outcome))

    @router.post(f"{API}/count", summary="Count the pings that a job is about, and their values")
    def count(change: Annotated[Change, Depends(visitors.change)]) -> Response:
        matching = service.matching(_without_code(_document(change)))
        return JSONResponse({**asdict(matching), "is_estimate": matching.is_estimate})

    @router.api_route(f"{API}/jobs/{{name}}", methods=READ, summary="A job")
    def get_job(request: Request, name: str) -> Response:
        job = service.job(person_of(visitors.find(request)), name)
        return JSONResponse({**job_document(job), "script": service.script(job)})

    @router.put(f"{API}/jobs/{{name}}", summary="Change a job; `version` is the one that you saw")
    def save(name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        document = _document(change)
        before = service.job(change.visitor.person, name)
        given = {**_without_code(job_document(before)), **_without_code(document), "name": name}
        draft = service.draft(given, _code(service, change, before))
        return JSONResponse(job_document(service.jobs.save(change.visitor.person, draft, _version(document))))

    @router.delete(f"{API}/jobs/{{name}}", summary="Delete a job; `version` is the one that you saw")
    def delete(request: Request, name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        version = _version({"version": request.query_params.get("version", "")})
        service.jobs.delete(change.visitor.person, name, version)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    @router.post(f"{API}/jobs/{{name}}/pause", summary="Pause a job, or resume it with `paused` false")
    def pause(name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        document = _document(change)
        paused = document.get("paused", True) is True
        job = service.jobs.set_paused(change.visitor.person, name, paused, _version(document))
        return JSONResponse(job_document(job))


def _add_runs(router: APIRouter, service: Service, visitors: Visitors) -> None:
    @router.post(f"{API}/jobs/{{name}}/run", summary="Run a job now", status_code=HTTPStatus.ACCEPTED)
    def run(name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        token = _document(change).get("token") or new_token()
        person = change.visitor.person
        run_id = service.start(person, name, str(token))
        return JSONResponse(run_document(service.runs.get(person, run_id)), HTTPStatus.ACCEPTED)

    @router.api_route(f"{API}/jobs/{{name}}/runs", methods=READ, summary="The runs of a job, newest first")
    def runs(request: Request, name: str) -> Response:
        found = service.runs.of_job(person_of(visitors.find(request)), name)
        return JSONResponse({"runs": [run_document(each) for each in found]})

    @router.api_route(f"{API}/runs/{{run_id}}", methods=READ, summary="A run, with the end of its log")
    def get_run(request: Request, run_id: str) -> Response:
        found = service.runs.get(person_of(visitors.find(request)), run_id)
        shown = preview_of(service, found)
        return JSONResponse(
            {
                **run_document(found),
                "log": service.runs.log(found),
                "result": None
                if not service.runs.results(found)
                else {"path": f"{START}/runs/{run_id}/output", "rows": None if shown is None else shown.rows},
            }
        )

    @router.post(f"{API}/runs/{{run_id}}/cancel", summary="End a run")
    def cancel(run_id: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        return JSONResponse(run_document(service.runs.cancel(change.visitor.person, run_id)))

    @router.post(
        f"{API}/runs/{{run_id}}/again", summary="Run for the same dates", status_code=HTTPStatus.ACCEPTED
    )
    def again(run_id: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        person = change.visitor.person
        started = service.again(person, run_id, str(_document(change).get("token") or new_token()))
        return JSONResponse(run_document(service.runs.get(person, started)), HTTPStatus.ACCEPTED)


def job_document(job: Job) -> dict[str, Any]:
    """Return a job as programs get it."""
    document = job.model_dump(mode="json", exclude={"change", "deleted"})
    times = [] if job.paused else next_times(job.schedule, datetime.now(UTC))
    return {**document, "next_runs": [time.isoformat() for time in times]}


def run_document(run: Run) -> dict[str, Any]:
    """Return a run as programs get it."""
    now = datetime.now(UTC)
    measured = run.outcome or run.progress
    return {
        "run_id": run.run_id,
        "job": run.request.job,
        "version": run.request.version,
        "code": None if run.request.code is None else run.request.code.digest,
        "state": run.state,
        "is_over": run.state.is_over,
        "problem": run.problem,
        "error": None if run.outcome is None else run.outcome.error,
        "asked_by": run.request.asked_by,
        "asked_at": run.request.asked_at.isoformat(),
        "dates": run.request.request.dates,
        "queue_seconds": run.queue_seconds(now),
        "run_seconds": run.run_seconds(now),
        "records": None if measured is None else measured.records,
        "bytes": None if measured is None else measured.bytes,
        "progress": None if run.progress is None else run.progress.model_dump(mode="json"),
        "machines": run.request.machines,
        "cost": run.cost(now),
        "airflow_page": run.airflow_page,
    }


def _document(change: Change) -> Mapping[str, Any]:
    """Return the body, or with a file the field `job` of the form that carries it."""
    document = {} if change.document is None else change.document
    if "job" in change.form.fields:
        try:
            document = json.loads(change.form.get("job"))
        except (ValueError, RecursionError) as error:
            raise RequestRefused(
                HTTPStatus.BAD_REQUEST, f"The field job is not a JSON document: {error}."
            ) from error
    if not isinstance(document, dict):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "The body has to be a JSON object.")
    return document


def _without_code(document: Mapping[str, Any]) -> dict[str, Any]:
    unknown = document.keys() - {
        *_OF_JOB,
        *_OF_CODE,
        "version",
        "code",
        *Job.model_fields,
        "next_runs",
    }
    if unknown:
        raise InvalidJob(dict.fromkeys(sorted(unknown), "there is no such field"))
    return {name: value for name, value in document.items() if name in _OF_JOB}


def _given(service: Service, change: Change) -> GivenCode:
    """Return the code in a request: a file, a path or a text."""
    document = _document(change)
    texts = {name: document.get(name, "") for name in ("script", "command", "repository_path")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InvalidJob({name: "give a text"})
    upload = change.form.files.get("upload")
    return service.given_code(texts["script"], upload, texts["command"], texts["repository_path"])


def _code(service: Service, change: Change, before: Job | None) -> dict[str, Any]:
    document = _document(change)
    is_given = change.form.files or document.keys() & {"script", "repository_path"}
    if before is not None and not is_given:
        return {**before.code.model_dump(), "arguments": _arguments(document, before.code.arguments)}
    return service.kept_code(_given(service, change), _arguments(document, ()))


def _arguments(document: Mapping[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
    arguments = document.get("arguments", default)
    if not isinstance(arguments, list | tuple) or not all(isinstance(each, str) for each in arguments):
        raise InvalidJob({"arguments": "give a list of texts"})
    return tuple(arguments)


def _version(document: Mapping[str, Any]) -> int:
    version = document.get("version")
    if isinstance(version, str) and version.isdecimal() and len(version) < 10:
        version = int(version)
    if not isinstance(version, int) or isinstance(version, bool):
        raise InvalidJob({"version": "say which version of the job you saw"})
    return version
