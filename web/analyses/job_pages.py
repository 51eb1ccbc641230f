"""The pages of jobs: the list, one job, what may be done with it, and the audit trail."""

from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from telemetry_lake.analysis_jobs.documents import JobSchedule
from telemetry_lake.analysis_jobs.people import Person, may_change
from telemetry_lake.analysis_jobs.runs import new_token
from telemetry_lake.analysis_jobs.schedule import next_times
from telemetry_lake.failures import FatalError
from web.analyses.failures import ReportingRoute
from web.analyses.service import Service
from web.analyses.visitors import START, Change, Form, Visitor, Visitors
from web.edge import RequestRefused
from web.layout import Layout

READ: Final = ["GET", "HEAD"]
JOBS: Final = f"{START}/jobs"
SEARCH_MAX_CHARACTERS: Final = 100
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def job_router(service: Service, visitors: Visitors, layout: Layout) -> APIRouter:
    """Return the routes of pages about jobs."""
    router = APIRouter(include_in_schema=False, route_class=ReportingRoute)
    _add_list(router, service, visitors, layout)
    _add_job(router, service, visitors, layout)
    _add_changes(router, service, visitors)
    _add_audit_trail(router, service, visitors, layout)
    return router


def person_of(visitor: Visitor | None) -> Person | None:
    """Return the person, and None for a stranger."""
    return None if visitor is None else visitor.person


def version_in(form: Form) -> int:
    """Return the version of a job that a form was made from; raises RequestRefused."""
    text = form.get("version")
    if not text.isdecimal() or len(text) > 9:
        raise RequestRefused(
            HTTPStatus.BAD_REQUEST, "The form does not say which version it changes: load its page again."
        )
    return int(text)


def schedule_text(schedule: JobSchedule) -> str:
    """Return a schedule in words."""
    at = f"at {schedule.hour:02d}:00 UTC"
    match schedule.every:
        case "daily":
            text = f"daily {at}"
        case "weekly":
            text = f"on {WEEKDAYS[schedule.weekday or 0]}s {at}"
        case "monthly":
            day = "the last day" if schedule.day == "last" else f"day {schedule.day}"
            text = f"on {day} of each month {at}"
        case _:
            return "when asked"
    return f"{text}, until {schedule.end}" if schedule.end else text


def _add_list(router: APIRouter, service: Service, visitors: Visitors, layout: Layout) -> None:
    @router.api_route(START, methods=READ)
    def list_jobs(request: Request) -> Response:
        visitor = visitors.find(request)
        person = person_of(visitor)
        search = request.query_params.get("search", "")[:SEARCH_MAX_CHARACTERS].strip().lower()
        seen = service.jobs.seen_by(person)
        jobs = [job for job in seen if search in f"{job.name} {job.description}".lower()]
        now = datetime.now(UTC)
        visible = {job.name for job in jobs}
        return layout.page(
            "analyses/jobs.html",
            request,
            visitor=visitor,
            title="Analyses",
            own=[job for job in jobs if person is not None and job.owner == person.name],
            others=[job for job in jobs if person is None or job.owner != person.name],
            latest=service.jobs.latest(),
            late=[late.sentence(now) for late in service.late() if late.job in visible],
            search=search,
            schedule_text=schedule_text,
            next_run=lambda job: next(iter(next_times(job.schedule, now, 1)), None),
        )


def _add_job(router: APIRouter, service: Service, visitors: Visitors, layout: Layout) -> None:
    @router.api_route(f"{JOBS}/{{name}}", methods=READ)
    def show(request: Request, name: str) -> Response:
        visitor = visitors.find(request)
        person = person_of(visitor)
        try:
            job = service.job(person, name)
        except FatalError:
            # It may be one that is shown after the log-in.
            if visitor is None:
                visitors.require(request)
            raise
        now = datetime.now(UTC)
        return layout.page(
            "analyses/job.html",
            request,
            visitor=visitor,
            title=job.name,
            job=job,
            runs=service.runs.of_job(person, name),
            latest=service.jobs.latest().get(name),
            may_change=may_change(person, job),
            files=service.jobs.code_files(job.code.digest),
            schedule_text=schedule_text,
            next_runs=[] if job.paused else next_times(job.schedule, now),
            now=now,
            token=new_token(now),
        )

    @router.api_route(f"{JOBS}/{{name}}/delete", methods=READ)
    def ask_to_delete(request: Request, name: str) -> Response:
        visitor = visitors.require(request)
        job = service.job(visitor.person, name)
        return layout.page("analyses/delete.html", request, visitor=visitor, title=f"Delete {name}?", job=job)


def _add_changes(router: APIRouter, service: Service, visitors: Visitors) -> None:
    @router.post(f"{JOBS}/{{name}}/run")
    def run(name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        run_id = service.start(change.visitor.person, name, change.form.get("token"))
        return RedirectResponse(f"{START}/runs/{run_id}", HTTPStatus.SEE_OTHER)

    @router.post(f"{JOBS}/{{name}}/run-failed")
    def run_failed(name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        service.runs.start_failed(change.visitor.person, name, change.form.get("token"))
        return RedirectResponse(f"{JOBS}/{name}", HTTPStatus.SEE_OTHER)

    @router.post(f"{JOBS}/{{name}}/pause")
    def pause(name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        service.jobs.set_paused(change.visitor.person, name, True, version_in(change.form))
        return RedirectResponse(f"{JOBS}/{name}", HTTPStatus.SEE_OTHER)

    @router.post(f"{JOBS}/{{name}}/resume")
    def resume(name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        service.jobs.set_paused(change.visitor.person, name, False, version_in(change.form))
        return RedirectResponse(f"{JOBS}/{name}", HTTPStatus.SEE_OTHER)

    @router.post(f"{JOBS}/{{name}}/delete")
    def delete(name: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        service.jobs.delete(change.visitor.person, name, version_in(change.form))
        return RedirectResponse(START, HTTPStatus.SEE_OTHER)


def _add_audit_trail(router: APIRouter, service: Service, visitors: Visitors, layout: Layout) -> None:
    @router.api_route(f"{START}/audit", methods=READ)
    def audit(request: Request) -> Response:
        visitor = visitors.require(request)
        person = visitor.person
        day = _day(request.query_params.get("day", ""))
        visible = {job.name for job in service.jobs.seen_by(person)}
        events = [
            event
            for event in service.jobs.audit.of_day(day)
            if person.is_admin or event.who == person.name or event.job in visible
        ]
        return layout.page(
            "analyses/audit.html",
            request,
            visitor=visitor,
            title="Audit trail",
            day=day,
            events=events,
            one_day=timedelta(days=1),
        )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC).date()
