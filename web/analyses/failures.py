"""How failures of the core are answered: each kind with its status, and with the sentence that it has."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from telemetry_lake.analysis_jobs.documents import InvalidJob
from telemetry_lake.analysis_jobs.people import NotAllowed, QuotaExceeded
from telemetry_lake.analysis_jobs.runs import RunNotFound
from telemetry_lake.analysis_jobs.store import EditedMeanwhile, JobNotFound, NameTaken
from telemetry_lake.failures import AccessRefused, ConfigurationError, FatalError, RetriableError
from web.edge import RETRY_SECONDS, RequestRefused

_STATUSES: Final[tuple[tuple[type[Exception], HTTPStatus], ...]] = (
    (JobNotFound, HTTPStatus.NOT_FOUND),
    (RunNotFound, HTTPStatus.NOT_FOUND),
    (NotAllowed, HTTPStatus.FORBIDDEN),
    (QuotaExceeded, HTTPStatus.TOO_MANY_REQUESTS),
    (EditedMeanwhile, HTTPStatus.CONFLICT),
    (NameTaken, HTTPStatus.CONFLICT),
    (RetriableError, HTTPStatus.SERVICE_UNAVAILABLE),
    # The settings are wrong, and nobody who sends a request can do something about that.
    (AccessRefused, HTTPStatus.INTERNAL_SERVER_ERROR),
    (ConfigurationError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (FatalError, HTTPStatus.BAD_REQUEST),
)


class ReportingRoute(APIRoute):
    """A route that answers failures of the core with their sentences."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests."""
        handle = super().get_route_handler()

        async def reporting(request: Request) -> Response:
            try:
                return await handle(request)
            except (FatalError, RetriableError) as error:
                raise refusal(error) from error

        return reporting


def refusal(error: FatalError | RetriableError) -> RequestRefused:
    """Return the answer to a request that failed like this."""
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    headers = {"Retry-After": str(RETRY_SECONDS)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    details = {"problems": error.problems} if isinstance(error, InvalidJob) else {}
    return RequestRefused(status, sentence(error), headers, details)


def sentence(error: FatalError | RetriableError) -> str:
    """Return the message of an error as a sentence."""
    message = str(error)
    ending = "" if message.endswith((".", "?", "!")) else "."
    # These begin with the name of a person, which is written as it is.
    begins_with_name = isinstance(error, EditedMeanwhile | QuotaExceeded)
    return f"{message[:1] if begins_with_name else message[:1].upper()}{message[1:]}{ending}"
