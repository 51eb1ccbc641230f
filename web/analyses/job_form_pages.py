"""The form by which a job is made and changed, and by which its script is tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from telemetry_lake.analysis_jobs.code import GivenCode
from telemetry_lake.analysis_jobs.documents import Code, InvalidJob, Job, JobSchedule
from telemetry_lake.analysis_jobs.filter_fields import FIELD_MAX_CHARACTERS, FILTER_COLUMNS
from telemetry_lake.analysis_jobs.people import may_change
from telemetry_lake.analysis_jobs.sandbox.counting import Matching
from telemetry_lake.analysis_jobs.sandbox.try_it import TryResult
from telemetry_lake.analysis_jobs.schedule import next_times
from telemetry_lake.analysis_jobs.store import NameTaken
from telemetry_lake.failures import FatalError, RetriableError, TelemetryLakeError
from telemetry_lake.mapreduce.form import TEXT_MAX_CHARACTERS
from web.analyses import job_form
from web.analyses.failures import ReportingRoute, refusal, sentence
from web.analyses.job_form import Example, Filled
from web.analyses.job_pages import JOBS, READ, WEEKDAYS, version_in
from web.analyses.service import Service
from web.analyses.visitors import START, Change, Form, Visitor, Visitors
from web.edge import RequestRefused
from web.layout import Layout


@dataclass(frozen=True, slots=True)
class _FormPage:
    """The form as a page."""

    layout: Layout
    examples: Sequence[Example]

    def shown(
        self,
        request: Request,
        visitor: Visitor,
        filled: Filled,
        job: Job | None,
        *,
        problems: Mapping[str, str] | None = None,
        problem: str = "",
        status: HTTPStatus = HTTPStatus.OK,
        outcome: TryResult | None = None,
        matching: Matching | None = None,
        version: str = "",
    ) -> Response:
        return self.layout.page(
            "analyses/job_form.html",
            request,
            visitor=visitor,
            status=status,
            title="New job" if job is None else f"Edit {job.name}",
            form=filled,
            job=job,
            code_is_text=job is None or job_form.is_text(job),
            examples=self.examples,
            problems=dict(problems or {}),
            problem=problem,
            outcome=outcome,
            matching=matching,
            filter_columns=FILTER_COLUMNS,
            filter_max=FIELD_MAX_CHARACTERS,
            # A try is not a look at what others saved meanwhile.
            version=version or (job.version if job else ""),
            weekdays=WEEKDAYS,
            next_runs=_next_runs(filled),
            script_max=TEXT_MAX_CHARACTERS,
        )

    def refused(
        self,
        request: Request,
        visitor: Visitor,
        filled: Filled,
        job: Job | None,
        error: FatalError | RetriableError,
    ) -> Response:
        problems: dict[str, str] = {}
        text = sentence(error)
        if isinstance(error, InvalidJob):
            problems, text = error.problems, "Something is missing or wrong: see what is marked below."
        elif isinstance(error, NameTaken):
            problems = {"name": str(error)}
        status = refusal(error).status
        return self.shown(request, visitor, filled, job, problems=problems, problem=text, status=status)


def form_router(service: Service, visitors: Visitors, layout: Layout) -> APIRouter:
    """Return the routes of the form."""
    router = APIRouter(include_in_schema=False, route_class=ReportingRoute)
    page = _FormPage(layout, job_form.examples())

    @router.api_route(f"{START}/new", methods=READ)
    def new_job(request: Request) -> Response:
        visitor = visitors.require(request)
        filled = job_form.of_new_job()
        if copied := request.query_params.get("copy"):
            job = service.job(visitor.person, copied)
            filled = job_form.of_job(job, service.script(job))
            filled.values |= {"name": "", "group": "", "visibility": "private"}
        elif example := request.query_params.get("example"):
            found = job_form.by_name(page.examples).get(example)
            if found is None:
                raise RequestRefused(HTTPStatus.NOT_FOUND, "There is no such example.")
            filled.script = found.text
            filled.values["name"] = example
        return page.shown(request, visitor, filled, None)

    @router.post(JOBS)
    def create(request: Request, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        visitor, filled = change.visitor, job_form.of_sent(change.form)
        try:
            draft = service.draft(job_form.document_of(filled), _code(service, filled, change.form, None))
            job = service.jobs.create(visitor.person, draft)
        except FatalError as error:
            return page.refused(request, visitor, filled, None, error)
        return RedirectResponse(f"{JOBS}/{job.name}", HTTPStatus.SEE_OTHER)

    @router.post(f"{START}/try-it")
    def try_it(request: Request, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        """Show the form again, with what came of its script."""
        visitor, filled = change.visitor, job_form.of_sent(change.form)
        job = service.job(visitor.person, name) if (name := change.form.get("job")) else None
        try:
            code = _given(service, filled, change.form, job)
            outcome = service.try_script(code, job_form.arguments_of(filled), job_form.document_of(filled))
        except (FatalError, RetriableError) as error:
            return page.refused(request, visitor, filled, job, error)
        return page.shown(request, visitor, filled, job, outcome=outcome, version=change.form.get("version"))

    @router.post(f"{START}/count")
    def count(request: Request, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        """Show the form again, with how many pings it is about."""
        visitor, filled = change.visitor, job_form.of_sent(change.form)
        job = service.job(visitor.person, name) if (name := change.form.get("job")) else None
        job_form.toggle(filled, change.form.get("toggle"))
        try:
            matching = service.matching(job_form.document_of(filled))
        except (FatalError, RetriableError) as error:
            return page.refused(request, visitor, filled, job, error)
        return page.shown(
            request, visitor, filled, job, matching=matching, version=change.form.get("version")
        )

    @router.api_route(f"{JOBS}/{{name}}/edit", methods=READ)
    def edit(request: Request, name: str) -> Response:
        visitor = visitors.require(request)
        job = service.job(visitor.person, name)
        if not may_change(visitor.person, job):
            raise RequestRefused(
                HTTPStatus.FORBIDDEN, f"{name} belongs to {job.owner}: copy it to make it yours."
            )
        return page.shown(request, visitor, job_form.of_job(job, service.script(job)), job)

    @router.post(f"{JOBS}/{{name}}")
    def save(request: Request, name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        visitor, filled = change.visitor, job_form.of_sent(change.form)
        job = service.job(visitor.person, name)
        filled.values["name"] = name
        try:
            draft = service.draft(job_form.document_of(filled), _code(service, filled, change.form, job))
            service.jobs.save(visitor.person, draft, version_in(change.form))
        except FatalError as error:
            return page.refused(request, visitor, filled, job, error)
        return RedirectResponse(f"{JOBS}/{name}", HTTPStatus.SEE_OTHER)

    return router


def _given(service: Service, filled: Filled, form: Form, job: Job | None) -> Code | GivenCode:
    """Return the code in a form: what was given there, else what the job has already."""
    upload, path = form.files.get("upload"), form.get("repository_path").strip()
    if job is not None and not job_form.is_text(job) and upload is None and not path:
        return job.code
    return service.given_code(filled.script, upload, form.get("command"), path)


def _code(service: Service, filled: Filled, form: Form, job: Job | None) -> dict[str, Any]:
    given, arguments = _given(service, filled, form, job), job_form.arguments_of(filled)
    if isinstance(given, GivenCode):
        return service.kept_code(given, arguments)
    return {**given.model_dump(), "arguments": arguments}


def _next_runs(filled: Filled) -> list[datetime]:
    """Return the next times of the schedule in a form, none when it is not valid."""
    try:
        schedule = JobSchedule.model_validate(job_form.document_of(filled).get("schedule", {}))
        return next_times(schedule, datetime.now(UTC))
    except (ValueError, TelemetryLakeError):
        return []
