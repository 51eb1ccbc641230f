"""What holds for every request: limits, headers of every answer, and failures in sentences.

Programs get failures as JSON, people as a page. Which one a request is from is told by its path: below
`/api/` and `/aggregates_by/` are programs.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry_lake.dashboard.cubes import CubesBusy
from telemetry_lake.dashboard.local_copy import NoCubes
from telemetry_lake.dashboard.old_service import NoAggregates, UnknownArgument
from telemetry_lake.dashboard.resolve import UnknownMetric
from telemetry_lake.dashboard.selection import BadSelection
from telemetry_lake.units import KIB

BODY_MAX_BYTES: Final = 64 * KIB
RETRY_SECONDS: Final = 5
_FOR_PROGRAMS: Final = ("/api/", "/aggregates_by/", "/filters/")
_PLOT_STYLE: Final = "'sha256-+TfQir1nvDucAdvE6XUQBt4ayUjpAWkbw2kCdSfekHM='"
"""The one style element that Observable Plot inserts for our class of charts; when a new release changes it,
the browser's console names the new hash."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; "
    f"style-src 'self' {_PLOT_STYLE}; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}"
)
_NO_PAGE: Final = "There is no page at this address."
_log: Final = logging.getLogger(__name__)

ErrorPage = Callable[[Request, HTTPStatus, str], Response]


class AnswerTooLarge(Exception):
    """An answer would be larger than answers may be; its text says what to do."""


class PageNotFound(Exception):
    """There is nothing at this path."""


class RequestRefused(Exception):
    """A request is answered with this status and sentence."""

    def __init__(
        self,
        status: HTTPStatus,
        sentence: str,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        """`details` are further fields of the answer to a program."""
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})
        self.details = dict(details or {})


_Refusal = Callable[[Request, Any], RequestRefused]


@dataclass(frozen=True, slots=True)
class Edge:
    """An ASGI middleware: limits and headers."""

    application: ASGIApp
    url_max_bytes: int
    embedding_origins: tuple[str, ...]
    body_limits: Mapping[str, int] = field(default_factory=dict)
    """The largest body in bytes by the beginning of the path, where it is not `BODY_MAX_BYTES`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it when it is too large."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        headers = self._headers(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in headers if name not in present),
                ]
            await send(message)

        problem = self._problem(scope)
        if problem is None:
            await self.application(scope, receive, send_with_headers)
        else:
            status, sentence = problem
            answer = Response(
                f"{sentence}\n",
                status,
                media_type="text/plain; charset=utf-8",
                # The rest of the request is not read.
                headers={"Connection": "close"},
            )
            await answer(scope, receive, send_with_headers)

    def _problem(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        size = len(scope["raw_path"]) + len(scope["query_string"])
        if size > self.url_max_bytes:
            return (
                HTTPStatus.REQUEST_URI_TOO_LONG,
                f"The address has {size:,} characters, and at most {self.url_max_bytes:,} are possible.",
            )
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers:
            # A body of unknown length could not be refused before it is read.
            return HTTPStatus.LENGTH_REQUIRED, "Send the body with a Content-Length, not in chunks."
        length = headers.get(b"content-length", b"0")
        body_max_bytes = next(
            (limit for start, limit in self.body_limits.items() if scope["path"].startswith(start)),
            BODY_MAX_BYTES,
        )
        if not length.isdigit() or int(length) > body_max_bytes:
            return (
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The request has a body of more than {body_max_bytes:,} bytes, which are possible here.",
            )
        return None

    def _headers(self, path: str) -> list[tuple[bytes, bytes]]:
        ancestors = " ".join(self.embedding_origins) if path.startswith("/embed/") else "'none'"
        headers = {
            "content-security-policy": _POLICY.format(ancestors=ancestors or "'none'"),
            "x-content-type-options": "nosniff",
            "referrer-policy": "same-origin",
            "permissions-policy": "camera=(), geolocation=(), microphone=()",
            "cross-origin-opener-policy": "same-origin",
            "cache-control": "no-store",
        }
        return [(name.encode(), value.encode()) for name, value in headers.items()]


def answer_failures(application: FastAPI, error_page: ErrorPage) -> None:
    """Let `application` answer what its routes raise."""

    def answering(refusal: _Refusal) -> Callable[[Request, Exception], Response]:
        return lambda request, error: _answer(request, refusal(request, error), error_page)

    for kind, refusal in _REFUSALS.items():
        application.add_exception_handler(kind, answering(refusal))


def _answer(request: Request, refused: RequestRefused, error_page: ErrorPage) -> Response:
    sentence = str(refused)
    if request.url.path.startswith(_FOR_PROGRAMS):
        content = {"error": {"status": refused.status.value, "sentence": sentence, **refused.details}}
        return Response(
            json.dumps(content),
            refused.status,
            media_type="application/json",
            headers={"Access-Control-Allow-Origin": "*", **refused.headers},
        )
    page = error_page(request, refused.status, sentence)
    page.headers.update(refused.headers)
    return page


def _saying(status: HTTPStatus) -> _Refusal:
    """Return how errors are answered whose message is all that there is to say."""
    return lambda _, error: RequestRefused(status, _sentence(error))


def _invalid(_: Request, error: RequestValidationError) -> RequestRefused:
    first = error.errors()[0]
    return RequestRefused(HTTPStatus.BAD_REQUEST, f"{first['loc'][-1]}: {first['msg']}.")


def _unknown_metric(_: Request, error: UnknownMetric) -> RequestRefused:
    return RequestRefused(HTTPStatus.NOT_FOUND, str(error), details={"suggestions": error.suggestions})


def _later(_: Request, error: NoCubes | CubesBusy) -> RequestRefused:
    return RequestRefused(
        HTTPStatus.SERVICE_UNAVAILABLE, _sentence(error), headers={"Retry-After": str(RETRY_SECONDS)}
    )


def _of_starlette(request: Request, error: HTTPException) -> RequestRefused:
    status = HTTPStatus(error.status_code)
    sentences = {
        HTTPStatus.NOT_FOUND: _NO_PAGE,
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not possible here; use GET.",
    }
    return RequestRefused(status, sentences.get(status, f"{status.phrase}."), error.headers)


def _failed(request: Request, error: Exception) -> RequestRefused:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return RequestRefused(
        HTTPStatus.INTERNAL_SERVER_ERROR, "The server could not answer this. What happened is in its log."
    )


def _sentence(error: Exception) -> str:
    message = str(error)
    return f"{message[:1].upper()}{message[1:].removesuffix('.')}."


_REFUSALS: Final[Mapping[type[Exception], _Refusal]] = {
    RequestRefused: lambda _, error: error,
    BadSelection: _saying(HTTPStatus.BAD_REQUEST),
    RequestValidationError: _invalid,
    UnknownMetric: _unknown_metric,
    NoAggregates: _saying(HTTPStatus.NOT_FOUND),
    UnknownArgument: _saying(HTTPStatus.METHOD_NOT_ALLOWED),
    NoCubes: _later,
    CubesBusy: _later,
    AnswerTooLarge: lambda _, error: RequestRefused(HTTPStatus.BAD_REQUEST, str(error)),
    PageNotFound: lambda *_: RequestRefused(HTTPStatus.NOT_FOUND, _NO_PAGE),
    HTTPException: _of_starlette,
    Exception: _failed,
}
"""How each kind of failure is answered; the nearest class of an error counts."""
