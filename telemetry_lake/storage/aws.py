"""What every AWS client here has in common: how it reaches its endpoint, and what its errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from telemetry_lake.failures import AccessRefused, FatalError, RetriableError
from telemetry_lake.settings import AwsEndpoint

_BUSY: Final = {
    "ConditionalRequestConflict",
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
}
_SERVER_ERROR: Final = 500
_REFUSED: Final = {
    "AccessDenied",
    "AccessDeniedException",
    "AllAccessDisabled",
    "Forbidden",
    "UnauthorizedOperation",
}
"""The codes of a right that is missing. A refused HEAD request has no body, and its code is the status."""
_WRONG_KEY: Final = {
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
NO_KEY: Final = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
"""What is raised when boto3 finds no access key, or only a part of one."""
_OPERATIONS: Final[dict[str, dict[str, str]]] = {
    "s3": {
        "GetObject": "GetObject",
        "HeadObject": "GetObject",
        "PutObject": "PutObject",
        "CreateMultipartUpload": "PutObject",
        "UploadPart": "PutObject",
        "CompleteMultipartUpload": "PutObject",
        "AbortMultipartUpload": "AbortMultipartUpload",
        "DeleteObject": "DeleteObject",
        "DeleteObjects": "DeleteObject",
        "HeadBucket": "ListBucket",
        "ListObjects": "ListBucket",
        "ListObjectsV2": "ListBucket",
    },
    "sqs": {
        name: name
        for name in (
            *("GetQueueUrl", "GetQueueAttributes", "SendMessage", "ReceiveMessage", "DeleteMessage"),
            "ChangeMessageVisibility",
        )
    },
    "glue": {
        name: name
        for name in (
            *("GetDatabase", "GetDatabases", "GetTable", "GetTables"),
            *("CreateDatabase", "CreateTable", "UpdateTable"),
        )
    },
}
"""Which right of IAM a call needs, by service."""


def client_arguments(endpoint: AwsEndpoint) -> dict[str, object]:
    """Return the keyword arguments of `boto3.client` for this endpoint."""
    arguments: dict[str, object] = {
        "region_name": endpoint.region,
        "config": Config(
            connect_timeout=endpoint.connect_timeout_seconds,
            read_timeout=endpoint.read_timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": endpoint.max_attempts},
            s3={"addressing_style": "path" if endpoint.endpoint_url else "auto"},
        ),
    }
    if endpoint.endpoint_url:
        arguments["endpoint_url"] = endpoint.endpoint_url
    if endpoint.access_key_id and endpoint.secret_access_key:
        arguments["aws_access_key_id"] = endpoint.access_key_id
        arguments["aws_secret_access_key"] = endpoint.secret_access_key.get_secret_value()
    return arguments


@contextmanager
def aws_failures(what: str) -> Iterator[None]:
    """Turn what boto3 raises while doing `what` into a RetriableError or a FatalError.

    AccessRefused names the right that is missing.
    """
    try:
        yield
    except ClientError as error:
        if (refused := refusal(what, error)) is not None:
            raise refused from error
        code, status = _code_and_status(error)
        if code in _BUSY or status >= _SERVER_ERROR:
            raise RetriableError(f"{what}: {error}") from error
        raise FatalError(f"{what}: {error}") from error
    except NO_KEY as error:
        raise AccessRefused.to(what, "this process has no access key", str(error)) from error
    except BotoCoreError as error:
        raise RetriableError(f"{what}: {error}") from error


def refusal(what: str, error: ClientError) -> AccessRefused | None:
    """Return why `what` was refused, or None when the error is of another kind."""
    code, status = _code_and_status(error)
    reason = " ".join(str(error.response.get("Error", {}).get("Message") or code).split())
    if code in _WRONG_KEY:
        return AccessRefused.to(what, "the access key is unknown, wrong or no longer valid", reason)
    if code in _REFUSED or (status == HTTPStatus.FORBIDDEN and code == str(status)):
        return AccessRefused.to(what, f"it needs {right_of(error.operation_name)}", reason)
    return None


def _code_and_status(error: ClientError) -> tuple[str, int]:
    code = error.response.get("Error", {}).get("Code", "")
    return code, error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def right_of(operation: str) -> str:
    """Return the right that a call needs, as IAM calls it."""
    operation = operation.removesuffix("Batch")
    service = next((name for name, operations in _OPERATIONS.items() if operation in operations), None)
    if service is None:
        return f"the right to {operation}"
    return f"the right {service}:{_OPERATIONS[service][operation]}"
