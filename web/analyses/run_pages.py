"""The pages of runs: how far one has come, what it printed, and its result."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse

from telemetry_lake.analysis_jobs.people import Person, may_change
from telemetry_lake.analysis_jobs.run import Run
from telemetry_lake.analysis_jobs.runs import new_token
from telemetry_lake.analysis_jobs.store import JobNotFound
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.records import OutputFormat
from web.analyses.failures import ReportingRoute
from web.analyses.job_pages import JOBS, READ, person_of
from web.analyses.results import HARMLESS, PREVIEW_MAX_BYTES, Preview, download, preview
from web.analyses.service import Service
from web.analyses.visitors import START, Change, Visitors
from web.edge import RequestRefused
from web.layout import Layout

RUNS: Final = f"{START}/runs"


def run_router(service: Service, visitors: Visitors, layout: Layout) -> APIRouter:
    """Return the routes of pages about runs."""
    router = APIRouter(include_in_schema=False, route_class=ReportingRoute)

    def seen(request: Request, run_id: str) -> Run:
        visitor = visitors.find(request)
        try:
            return service.runs.get(person_of(visitor), run_id)
        except FatalError:
            if visitor is None:
                visitors.require(request)
            raise

    @router.api_route(f"{RUNS}/{{run_id}}", methods=READ)
    def show(request: Request, run_id: str) -> Response:
        run, visitor = seen(request, run_id), visitors.find(request)
        results = service.runs.results(run)
        now = datetime.now(UTC)
        return layout.page(
            "analyses/run.html",
            request,
            visitor=visitor,
            title=f"{run.request.job or run_id}: {run.state}",
            run=run,
            log=service.runs.log(run),
            result=results[0] if results else None,
            preview=preview_of(service, run),
            may_change=_may_change(service, person_of(visitor), run),
            now=now,
            token=new_token(now),
        )

    @router.post(f"{RUNS}/{{run_id}}/cancel")
    def cancel(run_id: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        service.runs.cancel(change.visitor.person, run_id)
        return RedirectResponse(f"{RUNS}/{run_id}", HTTPStatus.SEE_OTHER)

    @router.post(f"{RUNS}/{{run_id}}/again")
    def again(run_id: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        started = service.again(change.visitor.person, run_id, change.form.get("token"))
        return RedirectResponse(f"{RUNS}/{started}", HTTPStatus.SEE_OTHER)

    @router.api_route(f"{RUNS}/{{run_id}}/log.txt", methods=READ)
    def log(request: Request, run_id: str) -> Response:
        run = seen(request, run_id)
        return PlainTextResponse(service.runs.log(run), headers=dict(HARMLESS))

    def sent(run: Run) -> Response:
        results = service.runs.results(run)
        if not results:
            raise RequestRefused(HTTPStatus.NOT_FOUND, "This run has no result.")
        output_format = run.request.request.format
        name = f"{run.run_id}.{output_format.suffix}"
        return download(service.objects, service.bucket, results[0], output_format, name)

    @router.get(f"{RUNS}/{{run_id}}/output")
    def output(request: Request, run_id: str) -> Response:
        return sent(seen(request, run_id))

    @router.api_route(f"{JOBS}/{{name}}/latest", methods=READ)
    def latest(request: Request, name: str) -> Response:
        run = service.runs.latest_good(person_of(visitors.find(request)), name)
        return RedirectResponse(f"{RUNS}/{run.run_id}", HTTPStatus.TEMPORARY_REDIRECT)

    @router.get(f"{JOBS}/{{name}}/latest/output")
    def latest_output(request: Request, name: str) -> Response:
        return sent(service.runs.latest_good(person_of(visitors.find(request)), name))

    return router


def preview_of(service: Service, run: Run) -> Preview | None:
    """Return how the result of a run begins; None without one, and for Parquet."""
    results = service.runs.results(run)
    if not results or run.request.request.format is OutputFormat.PARQUET:
        return None
    item = results[0]
    content = service.objects.beginning(service.bucket, item.key, PREVIEW_MAX_BYTES)
    return preview(content, run.request.request.format, is_whole=item.bytes <= PREVIEW_MAX_BYTES)


def _may_change(service: Service, person: Person | None, run: Run) -> bool:
    if person is None:
        return False
    if person.is_admin or person.name == run.request.owner:
        return True
    try:
        return run.request.job is not None and may_change(person, service.job(person, run.request.job))
    except JobNotFound:
        return False
