"""A person's own page: what they use of their quotas, and the tokens with which programs act as them."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from web.analyses.access import LABEL_MAX_CHARACTERS, TOKENS_MAX_COUNT, Access, Kind, token_record
from web.analyses.failures import ReportingRoute
from web.analyses.log_in import READ
from web.analyses.service import Service
from web.analyses.visitors import API, START, Change, Visitors
from web.edge import RequestRefused
from web.layout import Layout

ACCOUNT: Final = f"{START}/account"


def account_router(visitors: Visitors, access: Access, service: Service, layout: Layout) -> APIRouter:
    """Return the routes of the page."""
    router = APIRouter(include_in_schema=False, route_class=ReportingRoute)
    token_days = service.settings.web.token_days

    def account_page(request: Request, token: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
        visitor = visitors.require(request)
        return layout.page(
            "analyses/account.html",
            request,
            status=status,
            title="My account",
            visitor=visitor,
            token=token,
            tokens=list(access.tokens(visitor.name)),
            usage=service.runs.usage(visitor.name, datetime.now(UTC)),
            quotas=service.jobs.quotas,
            token_days=token_days,
            label_max=LABEL_MAX_CHARACTERS,
            api=API,
        )

    @router.api_route(ACCOUNT, methods=READ)
    def account(request: Request) -> Response:
        return account_page(request)

    @router.post(f"{ACCOUNT}/tokens")
    def make_token(request: Request, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        visitor = change.visitor
        if visitor.record.kind is Kind.TOKEN:
            raise RequestRefused(
                HTTPStatus.FORBIDDEN, "A token cannot make tokens: log in with a browser for that."
            )
        label = change.form.get("label").strip()
        if not 0 < len(label) <= LABEL_MAX_CHARACTERS:
            raise RequestRefused(
                HTTPStatus.BAD_REQUEST,
                f"The label has {len(label):,} characters; 1 to {LABEL_MAX_CHARACTERS} are possible.",
            )
        if sum(1 for _ in access.tokens(visitor.name)) >= TOKENS_MAX_COUNT:
            raise RequestRefused(
                HTTPStatus.CONFLICT, f"There are {TOKENS_MAX_COUNT} tokens already: remove one of them first."
            )
        token = access.make_token(token_record(visitor.record, label, timedelta(days=token_days)))
        return account_page(request, token, HTTPStatus.CREATED)

    @router.post(f"{ACCOUNT}/tokens/{{token_id}}/remove")
    def remove_token(token_id: str, change: Annotated[Change, Depends(visitors.change)]) -> Response:
        if not access.end_token(change.visitor.name, token_id):
            raise RequestRefused(HTTPStatus.NOT_FOUND, "You have no such token.")
        return RedirectResponse(ACCOUNT, HTTPStatus.SEE_OTHER)

    return router
