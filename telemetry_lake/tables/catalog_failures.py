"""What the exceptions of a catalog, and of the files of its tables, mean.

pyiceberg raises those of its protocol, of boto3 (Glue) and of Arrow, which reads and writes the files. Here
they become errors of this project: what is refused can only be mended by an operator and is never tried
again, what is unavailable may work later.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    CommitFailedException,
    CommitStateUnknownException,
    ForbiddenError,
    NoSuchNamespaceError,
    NoSuchTableError,
    OAuthError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from requests import RequestException

from telemetry_lake.failures import (
    AccessRefused,
    ConfigurationError,
    RetriableError,
    TelemetryLakeError,
)

_ARROW: Final = re.compile(
    r"(?:key '(?P<key>[^']*)' in bucket '(?P<bucket>[^']*)'.*)?"
    r"AWS Error (?P<code>[A-Z_]+)(?: \(HTTP status (?P<status>\d+)\))? during (?P<operation>\w+) operation",
    re.DOTALL,
)
_ARROW_REFUSED: Final = {"ACCESS_DENIED"}
_ARROW_WRONG_KEY: Final = {
    "EXPIRED_TOKEN",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "INVALID_SIGNATURE",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
}
_UNAVAILABLE: Final = (BotoCoreError, RequestException, ServerError, ServiceUnavailableError)
_HIDDEN_TABLE: Final = "table not found"
"""What SeaweedFS answers to a commit by a key that may load the table and not change it."""
KNOWN: Final = (
    BotoCoreError,
    ClientError,
    CommitFailedException,
    CommitStateUnknownException,
    NoSuchNamespaceError,
    NoSuchTableError,
    OAuthError,
    OSError,
    RESTError,
    RequestException,
)
"""What a catalog and the files of its tables raise, and `explained` explains."""


@contextmanager
def catalog_failures(what: str) -> Iterator[None]:
    """Turn what pyiceberg raises while doing `what` into a RetriableError or a FatalError.

    AccessRefused names the right that is missing.
    """
    try:
        yield
    except TelemetryLakeError:
        raise
    except KNOWN as error:
        raise explained(what, error) from error


def explained(what: str, error: Exception) -> TelemetryLakeError:
    """Return the error of this project for what the catalog or its files raised while doing `what`."""
    if (refused := refusal(what, error)) is not None:
        return refused
    if isinstance(error, NoSuchTableError | NoSuchNamespaceError):
        return ConfigurationError(
            f"{what}: {error}. Either it was not created (`python -m telemetry_lake create-tables`), or this "
            "process has no right to load it (telemetry_lake/deploy/roles.py)"
        )
    if isinstance(error, FileNotFoundError):
        return RetriableError(f"{what}: a file of a table was removed meanwhile; try again: {error}")
    if isinstance(error, _UNAVAILABLE):
        return RetriableError(
            f"{what}: it does not answer ({type(error).__name__}). `make run` starts the local stack, "
            "`make status` shows what runs"
        )
    return RetriableError(f"{what}: {type(error).__name__}: {error}")


def refusal(what: str, error: BaseException) -> AccessRefused | None:
    """Return why `what` was refused; None when the error is of another kind."""
    # boto3's configuration takes its time to import, and is needed for messages only.
    from telemetry_lake.storage.aws import NO_KEY
    from telemetry_lake.storage.aws import refusal as refusal_of_aws

    reason = " ".join(str(error).split())
    match error:
        case OAuthError() | UnauthorizedError() | AuthorizationExpiredError():
            return AccessRefused.to(what, "the catalog does not accept the key of this process", reason)
        case ForbiddenError():
            return AccessRefused.to(what, "it needs a right to this in the catalog", reason)
        case CommitStateUnknownException() if _HIDDEN_TABLE in reason:
            return AccessRefused.to(what, "it needs the right to commit to the table", reason)
        case ClientError():
            return refusal_of_aws(what, error)
        case _ if isinstance(error, NO_KEY):
            return AccessRefused.to(what, "this process has no access key", reason)
        case OSError():
            return _refusal_of_a_file(what, reason)
    return None


def _refusal_of_a_file(what: str, reason: str) -> AccessRefused | None:
    from telemetry_lake.storage.aws import right_of

    found = _ARROW.search(reason)
    if found is None:
        return None
    if found["code"] in _ARROW_WRONG_KEY:
        return AccessRefused.to(what, "the access key is unknown, wrong or no longer valid", reason)
    if found["code"] in _ARROW_REFUSED or found["status"] == str(int(HTTPStatus.FORBIDDEN)):
        where = f" on s3://{found['bucket']}/{found['key']}" if found["bucket"] else ""
        return AccessRefused.to(what, f"it needs {right_of(found['operation'])}{where}", reason)
    return None
