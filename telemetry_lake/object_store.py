"""Objects in S3: conditional puts with checksums, reads and listings.

Writes are of two kinds only: `put_if_absent` for what must never change, and `put` for reports that
may be written again. Errors of the network become RetriableError once boto3 has used up its attempts.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BufferedIOBase
from tempfile import SpooledTemporaryFile, gettempdir
from typing import TYPE_CHECKING, Final, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import MIB, AwsEndpoint, S3Settings

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

IN_MEMORY_MAX_BYTES: Final = 16 * MIB
"""An object that is opened as a file is kept in memory up to this size."""
DOWNLOAD_CHUNK_BYTES: Final = MIB
_ALREADY_THERE: Final = {"PreconditionFailed", "412"}
_NOT_FOUND: Final = {"NoSuchKey", "404", "NotFound"}
_BUSY: Final = {
    "ConditionalRequestConflict",
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
}
_SERVER_ERROR: Final = 500


class ObjectNotFound(FatalError):
    """The object is not there."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One line of a listing; `bytes` is the object's size, `modified_at` when it was written."""

    key: str
    bytes: int
    modified_at: datetime


def client_arguments(endpoint: AwsEndpoint) -> dict[str, object]:
    """The keyword arguments of `boto3.client` for this endpoint."""
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
    """Turn what boto3 raises while doing `what` into a RetriableError or a FatalError."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _BUSY or status >= _SERVER_ERROR:
            raise RetriableError(f"{what}: {error}") from error
        raise FatalError(f"{what}: {error}") from error
    except BotoCoreError as error:
        raise RetriableError(f"{what}: {error}") from error


class ObjectStore:
    """The S3 of `settings`; safe to share between threads."""

    def __init__(self, settings: S3Settings) -> None:
        self._s3: S3Client = boto3.client("s3", **client_arguments(settings))  # type: ignore[call-overload]

    def put_if_absent(
        self, bucket: str, key: str, body: bytes, *, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """Write `body` unless the key exists; whether this call wrote it.

        The SHA-256 of the body goes with it and S3 refuses the object if it does not fit. After False,
        the caller compares what is there with what it wanted to write.
        """
        with aws_failures(f"writing s3://{bucket}/{key}"):
            try:
                self._s3.put_object(
                    Bucket=bucket,
                    Key=key,
                    Body=body,
                    IfNoneMatch="*",
                    ChecksumSHA256=_sha256(body),
                    Metadata=dict(metadata or {}),
                )
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _ALREADY_THERE:
                    return False
                raise
        return True

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write `body`, over whatever is there."""
        with aws_failures(f"writing s3://{bucket}/{key}"):
            self._s3.put_object(Bucket=bucket, Key=key, Body=body, ChecksumSHA256=_sha256(body))

    def get(self, bucket: str, key: str) -> bytes:
        """The whole object; raises ObjectNotFound."""
        with self._body(bucket, key) as body:
            return body.read()

    @contextmanager
    def opened(self, bucket: str, key: str) -> Iterator[BufferedIOBase]:
        """The whole object as a file that is gone when it is closed; raises ObjectNotFound.

        A small one is kept in memory; a larger one on the disk, in the folder for temporary files, and when
        there is no room that is a RetriableError, too.
        """
        with SpooledTemporaryFile(max_size=IN_MEMORY_MAX_BYTES) as file:
            with self._body(bucket, key) as body:
                for chunk in body.iter_chunks(DOWNLOAD_CHUNK_BYTES):
                    try:
                        file.write(chunk)
                    except OSError as error:
                        raise RetriableError(
                            f"keeping s3://{bucket}/{key} in {gettempdir()} while it is read: {error}; make "
                            "room there, or let TMPDIR name a folder that has some"
                        ) from error
            file.seek(0)
            yield cast(BufferedIOBase, file)

    def get_or_none(self, bucket: str, key: str) -> bytes | None:
        """The whole object, or None when it is not there."""
        try:
            return self.get(bucket, key)
        except ObjectNotFound:
            return None

    @contextmanager
    def _body(self, bucket: str, key: str) -> "Iterator[StreamingBody]":
        with aws_failures(f"reading s3://{bucket}/{key}"):
            try:
                answer = self._s3.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _NOT_FOUND:
                    raise ObjectNotFound(f"s3://{bucket}/{key} is not there") from error
                raise
            yield answer["Body"]

    def list_objects(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with `prefix`, in the order of their keys."""
        with aws_failures(f"listing s3://{bucket}/{prefix}"):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    yield StoredObject(item["Key"], item["Size"], item["LastModified"])

    def is_reachable(self, bucket: str) -> bool:
        """Whether the bucket answers."""
        try:
            self._s3.head_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError):
            return False
        return True


def _sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()
