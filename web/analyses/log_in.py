"""The pages to log in and out: with a password, or at a provider of OpenID Connect."""

from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from telemetry_lake.analysis_jobs.documents import What
from web.analyses.access import Access, AccessRecord, session_record
from web.analyses.failures import ReportingRoute
from web.analyses.open_id import CALLBACK, OpenId
from web.analyses.service import Service
from web.analyses.users import FAILED_ATTEMPTS_SECONDS, TooManyAttempts, UsersFile
from web.analyses.visitors import LOG_IN, PLACES, START, Change, Form, Visitors, sent_form
from web.edge import RequestRefused
from web.layout import Layout

READ: Final = ["GET", "HEAD"]
NAME_SHOWN_CHARACTERS: Final = 100


@dataclass(frozen=True, slots=True)
class _Entrance:
    """What all ways in share: the page to log in, and the session that begins."""

    visitors: Visitors
    access: Access
    service: Service
    layout: Layout
    by_password: bool

    @property
    def session_valid(self) -> timedelta:
        return timedelta(hours=self.service.settings.web.session_hours)

    def page(self, request: Request, back: str, name: str, problem: str, status: HTTPStatus) -> Response:
        return self.layout.page(
            "analyses/log_in.html",
            request,
            status=status,
            title="Log in",
            back=back,
            name=name,
            problem=problem,
            visitor=self.visitors.find(request),
            by_password=self.by_password,
        )

    def let_in(self, record: AccessRecord, back: str) -> Response:
        response = RedirectResponse(back, HTTPStatus.SEE_OTHER)
        # Always a new secret: one that was there before the log-in may be known to others.
        secret = self.access.begin_session(record)
        self.visitors.let_in(response, secret, int(self.session_valid.total_seconds()))
        self.service.jobs.audit.record(record.person, What.SIGNED_IN)
        return response


def log_in_router(
    visitors: Visitors,
    access: Access,
    users: UsersFile | None,
    open_id: OpenId | None,
    service: Service,
    layout: Layout,
) -> APIRouter:
    """Return the routes; one of `users` and `open_id` is there."""
    router = APIRouter(include_in_schema=False, route_class=ReportingRoute)
    entrance = _Entrance(visitors, access, service, layout, by_password=users is not None)
    _add_passwords(router, entrance, users)
    _add_provider(router, entrance, open_id)

    @router.api_route(LOG_IN, methods=READ)
    def log_in(request: Request) -> Response:
        return entrance.page(request, _back(request.query_params.get("next", "")), "", "", HTTPStatus.OK)

    @router.post(f"{START}/log-out")
    def log_out(change: Annotated[Change, Depends(visitors.change)]) -> Response:
        access.end(change.visitor.secret)
        service.jobs.audit.record(change.visitor.name, What.SIGNED_OUT)
        response = RedirectResponse(LOG_IN, HTTPStatus.SEE_OTHER)
        visitors.forget(response)
        return response

    return router


def _add_passwords(router: APIRouter, entrance: _Entrance, users: UsersFile | None) -> None:
    @router.post(LOG_IN)
    def send_log_in(request: Request, form: Annotated[Form, Depends(sent_form)]) -> Response:
        entrance.visitors.check_origin(request)
        name, back = form.get("name").strip().lower(), _back(form.get("next"))
        if users is None:
            raise RequestRefused(HTTPStatus.NOT_FOUND, "There are no passwords here: log in at the provider.")
        address = request.client.host if request.client else ""
        try:
            user = users.log_in(name, form.get("password"), address)
        except TooManyAttempts:
            return entrance.page(
                request,
                back,
                name[:NAME_SHOWN_CHARACTERS],
                "There were too many wrong passwords for this name. Try again in "
                f"{FAILED_ATTEMPTS_SECONDS // 60} minutes.",
                HTTPStatus.TOO_MANY_REQUESTS,
            )
        if user is None:
            entrance.service.jobs.audit.record(name[:NAME_SHOWN_CHARACTERS], What.SIGN_IN_FAILED)
            sentence = "Name and password do not fit together. Passwords are in the hands of the operators."
            return entrance.page(
                request, back, name[:NAME_SHOWN_CHARACTERS], sentence, HTTPStatus.UNAUTHORIZED
            )
        return entrance.let_in(
            session_record(name, user.groups, user.fingerprint, entrance.session_valid, is_admin=user.admin),
            back,
        )


def _add_provider(router: APIRouter, entrance: _Entrance, open_id: OpenId | None) -> None:
    @router.post(f"{LOG_IN}/provider")
    async def begin_at_provider(request: Request) -> Response:
        entrance.visitors.check_origin(request)
        form = await sent_form(request)
        if open_id is None:
            raise RequestRefused(
                HTTPStatus.NOT_FOUND, "No provider of OpenID Connect is set: use a password."
            )
        return await open_id.begin(request, _back(form.get("next")))

    @router.get(CALLBACK)
    async def come_from_provider(request: Request) -> Response:
        if open_id is None:
            raise RequestRefused(
                HTTPStatus.NOT_FOUND, "No provider of OpenID Connect is set: use a password."
            )
        identity, back = await open_id.finish(request)
        record = session_record(
            identity.name, identity.groups, None, entrance.session_valid, is_admin=identity.is_admin
        )
        response = await run_in_threadpool(entrance.let_in, record, _back(back))
        open_id.forget(response)
        return response


def _back(path: str) -> str:
    """Return a path of ours to go to after the log-in, whatever was asked for."""
    is_safe = any(path == place or path.startswith((f"{place}/", f"{place}?")) for place in PLACES)
    return (
        path if is_safe and not path.startswith(LOG_IN) and "\\" not in path and path.isprintable() else START
    )
