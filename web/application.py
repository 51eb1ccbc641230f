"""The web application: sections that settings switch on, under one layout."""

import re
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, Protocol

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.middleware.gzip import GZipMiddleware

from telemetry_lake import __version__
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Role, Settings
from web.analyses.section import AnalysesSection
from web.dashboard.section import DashboardSection
from web.documents import document_router
from web.edge import Edge, answer_failures
from web.layout import Layout, Link
from web.operations.section import OperationsSection
from web.start import start_page
from web.static_files import StaticFiles

COMPRESSED_MIN_BYTES: Final = 512
COMPRESSION_LEVEL: Final = 5
"""9 takes twice as long for answers of 200 KB, and makes them 2 % smaller."""


class Application(FastAPI):
    """Describes each operation once: HEAD is not another one beside GET."""

    def openapi(self) -> dict[str, Any]:
        """Return the description of the API."""
        if self.openapi_schema is None:
            with warnings.catch_warnings():
                # Of ids that GET and HEAD share.
                warnings.simplefilter("ignore", UserWarning)
                described = super().openapi()
            for operations in described["paths"].values():
                operations.pop("head", None)
        return self.openapi_schema or {}


class Section(Protocol):
    """A part of the application that can be switched on alone."""

    @property
    def navigation(self) -> Sequence[Link]:
        """Its entries in the navigation; the first is where the section begins."""

    @property
    def body_limits(self) -> Mapping[str, int]:
        """The largest body in bytes by the beginning of the path, where pages need large ones."""

    def router(self, layout: Layout) -> APIRouter:
        """Return its routes."""

    def start(self) -> None:
        """Begin what it does besides answering requests."""

    def stop(self) -> None:
        """End that, and give back what it holds."""

    def heartbeat(self) -> tuple[bool, dict[str, object]]:
        """Return whether it can answer requests, and what there is to know about that."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; `python -m web` serves it.

    Raises ConfigurationError when no section is switched on, or one of them cannot run with these settings.
    """
    if settings.web.operations and not settings.web.analyses:
        raise ConfigurationError(
            "TELEMETRY_LAKE_WEB__OPERATIONS needs TELEMETRY_LAKE_WEB__ANALYSES: the operations page is for "
            "people who are logged in, and the analysis service is what logs them in"
        )
    static_files = StaticFiles()
    sections: dict[str, Section] = {}
    if settings.web.dashboard:
        sections["dashboard"] = DashboardSection(settings.acting_as(Role.WEB))
    if settings.web.analyses:
        sections["analyses"] = analyses = AnalysesSection(settings.acting_as(Role.ANALYSES))
        if settings.web.operations:
            sections["operations"] = OperationsSection(settings.acting_as(Role.WEB), analyses.visitors)
    if not sections:
        raise ConfigurationError(
            "no section is switched on: set TELEMETRY_LAKE_WEB__DASHBOARD or TELEMETRY_LAKE_WEB__ANALYSES "
            "to true"
        )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for section in sections.values():
                section.start()
                stack.callback(section.stop)
            yield

    application = Application(
        title="Telemetry Lake",
        version=__version__,
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        # Their scripts are on other servers.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    layout = Layout(static_files, [link for section in sections.values() for link in section.navigation])
    answer_failures(application, layout.error_page)
    navigations = [section.navigation for section in sections.values()]

    @application.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def start(request: Request) -> Response:
        """Lead to the only section, or show where all of them are."""
        if len(navigations) == 1:
            return RedirectResponse(navigations[0][0].path, HTTPStatus.TEMPORARY_REDIRECT)
        return start_page(layout, request, navigations, settings)

    @application.api_route("/__lbheartbeat__", methods=["GET", "HEAD"], include_in_schema=False)
    def answers() -> dict[str, str]:
        """Answer that the process runs, whatever its sections say."""
        return {"status": "ok"}

    @application.api_route("/__heartbeat__", methods=["GET", "HEAD"], include_in_schema=False)
    def heartbeat(response: Response) -> dict[str, object]:
        """Answer 200 when every section can answer requests, and 503 with the reason when one cannot."""
        beats = {name: section.heartbeat() for name, section in sections.items()}
        if not all(is_well for is_well, _ in beats.values()):
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return {name: details for name, (_, details) in beats.items()}

    application.include_router(static_files.router())
    if len(sections) > 1:
        application.include_router(document_router(layout))
    for section in sections.values():
        application.include_router(section.router(layout))
    application.add_middleware(
        GZipMiddleware, minimum_size=COMPRESSED_MIN_BYTES, compresslevel=COMPRESSION_LEVEL
    )
    application.add_middleware(
        Edge,
        url_max_bytes=settings.web.url_max_bytes,
        embedding_origins=settings.web.embedding_origins,
        body_limits={
            start: limit for section in sections.values() for start, limit in section.body_limits.items()
        },
    )
    return application


def _operation_id(route: APIRoute) -> str:
    """Return the id of an operation; FastAPI's own begins with any of the methods, another one each time."""
    return re.sub(r"\W+", "_", f"{route.name}{route.path_format}").strip("_")
