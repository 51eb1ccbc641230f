"""The operations page and the runbooks, for who is logged in."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Request, Response

from web.analyses.failures import ReportingRoute
from web.analyses.visitors import OPERATIONS, Visitors
from web.edge import PageNotFound
from web.layout import Layout
from web.operations.charts import Span, spark, volume_charts
from web.operations.formats import clock, duration, number, seconds_since, text_of
from web.operations.parts import AROUND, PARTS
from web.operations.picture import pictures
from web.operations.runbooks import Runbook
from web.operations.shown import shown
from web.operations.watch import Watch

READ: Final = ["GET", "HEAD"]
RUNBOOKS: Final = f"{OPERATIONS}/runbooks"


def operations_router(
    watch: Watch, visitors: Visitors, layout: Layout, runbooks: Mapping[str, Runbook], poll_seconds: float
) -> APIRouter:
    """Return the routes."""
    router = APIRouter(include_in_schema=False, route_class=ReportingRoute)

    @router.api_route(OPERATIONS, methods=READ)
    def operations(request: Request, span: Span = Span.DAY) -> Response:
        visitor, now = visitors.require(request), datetime.now(UTC)
        page = shown(watch.look(), PARTS, AROUND, now)
        volumes = page.look.volumes.value
        return layout.page(
            "operations/operations.html",
            request,
            title="Operations",
            visitor=visitor,
            page=page,
            pictures=pictures(page.way, now),
            span=span,
            spans=tuple(Span),
            today=None if volumes is None else volumes.today(now),
            charts=() if volumes is None else volume_charts(volumes, span),
            poll_seconds=poll_seconds,
            runbooks=runbooks,
            spark=spark,
            clock=clock,
            duration=duration,
            number=number,
            seconds_since=seconds_since,
            text_of=text_of,
        )

    @router.api_route(RUNBOOKS, methods=READ)
    def all_runbooks(request: Request) -> Response:
        visitor = visitors.require(request)
        return layout.page(
            "operations/runbooks.html", request, title="Runbooks", visitor=visitor, runbooks=runbooks
        )

    @router.api_route(f"{RUNBOOKS}/{{name}}", methods=READ)
    def one_runbook(request: Request, name: str) -> Response:
        visitor = visitors.require(request)
        runbook = runbooks.get(name.lower())
        if runbook is None:
            raise PageNotFound
        return layout.page(
            "operations/runbook.html", request, title=runbook.name, visitor=visitor, runbook=runbook
        )

    return router
