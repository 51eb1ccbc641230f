"""Objects in S3: conditional puts with checksums, reads and listings.

Writes are of three kinds only: `put_if_absent` for what must never change, `put_if_unchanged` for the rare
object that several writers change in turns, and `put` for reports that may be written again. `delete` is for
what nothing needs any more. Errors of the network become RetriableError once boto3 has used up its attempts.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BufferedIOBase
from itertools import islice
from tempfile import SpooledTemporaryFile, gettempdir
from typing import TYPE_CHECKING, Final, cast

import boto3
from botocore.exceptions import ClientError

from telemetry_lake.failures import FatalError, RetriableError, TelemetryLakeError
from telemetry_lake.settings import S3Settings
from telemetry_lake.storage.aws import aws_failures, client_arguments
from telemetry_lake.units import MIB

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

IN_MEMORY_MAX_BYTES: Final = 16 * MIB
"""An object that is opened as a file is kept in memory up to this size."""
DOWNLOAD_CHUNK_BYTES: Final = MIB
DELETED_AT_ONCE: Final = 1_000
"""How many objects S3 deletes with one request."""
_ALREADY_THERE: Final = {"PreconditionFailed", "412"}
_NOT_FOUND: Final = {"NoSuchKey", "404", "NotFound"}
_EMPTY: Final = {"InvalidRange", "416"}
"""An empty object has no first byte."""


class ObjectNotFound(FatalError):
    """The object is not there."""


class ObjectTooLarge(FatalError):
    """The object has more bytes than its reader takes."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One line of a listing; `bytes` is the object's size, `modified_at` when it was written.

    `etag` names its content to S3, as in `ReadObject`.
    """

    key: str
    bytes: int
    modified_at: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What is known of an object without reading it: its size and the metadata that it was put with."""

    bytes: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReadObject:
    """An object as it was read: `etag` names its content to S3, `modified_at` is when it was written."""

    body: bytes
    etag: str
    modified_at: datetime


class ObjectStore:
    """The S3 of `settings`; safe to share between threads."""

    def __init__(self, settings: S3Settings, client: "S3Client | None" = None) -> None:
        """`client` takes the place of a new client of `settings`."""
        self._s3: S3Client = client or boto3.client("s3", **client_arguments(settings))  # type: ignore[call-overload]

    def put_if_absent(
        self, bucket: str, key: str, body: bytes, *, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """Write `body` unless the key exists; returns whether this call wrote it.

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

    def put_if_unchanged(self, bucket: str, key: str, body: bytes, *, etag: str | None) -> bool:
        """Write `body` over the object that `read` returned with this `etag`; None: unless the key exists.

        Returns whether this call wrote it. False may also mean that an earlier attempt of this call did, and
        that its answer was lost: where that matters, `body` is unique, and the caller looks what is there.
        """
        if etag is None:
            return self.put_if_absent(bucket, key, body)
        with aws_failures(f"writing s3://{bucket}/{key}"):
            try:
                self._s3.put_object(
                    Bucket=bucket, Key=key, Body=body, IfMatch=etag, ChecksumSHA256=_sha256(body)
                )
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _ALREADY_THERE | _NOT_FOUND:
                    return False
                raise
        return True

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write `body` over the object that is there, if any."""
        with aws_failures(f"writing s3://{bucket}/{key}"):
            self._s3.put_object(Bucket=bucket, Key=key, Body=body, ChecksumSHA256=_sha256(body))

    def get(self, bucket: str, key: str, *, max_bytes: int | None = None) -> bytes:
        """Return the whole object; raises ObjectNotFound.

        Raises ObjectTooLarge, before any of it is read, when it has more than `max_bytes`.
        """
        with self._body(bucket, key, max_bytes=max_bytes) as body:
            return body.read()

    def beginning(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """Return the first `max_bytes` of an object, all of it if it has fewer; raises ObjectNotFound."""
        with aws_failures(f"reading s3://{bucket}/{key}"):
            try:
                answer = self._s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{max_bytes - 1}")
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code in _NOT_FOUND:
                    raise ObjectNotFound(f"s3://{bucket}/{key} is not there") from error
                if code in _EMPTY:
                    return b""
                raise
            return answer["Body"].read()

    @contextmanager
    def opened(self, bucket: str, key: str) -> Iterator[BufferedIOBase]:
        """Open the whole object as a file that is removed when it is closed; raises ObjectNotFound.

        A small object is kept in memory; a larger one on the disk, in the folder for temporary files. Raises
        RetriableError also when that folder is full.
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

    def read(self, bucket: str, key: str) -> ReadObject | None:
        """Return the whole object with what `put_if_unchanged` needs, or None when it is not there."""
        with aws_failures(f"reading s3://{bucket}/{key}"):
            try:
                answer = self._s3.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _NOT_FOUND:
                    return None
                raise
            return ReadObject(answer["Body"].read(), answer["ETag"], answer["LastModified"])

    def get_or_none(self, bucket: str, key: str) -> bytes | None:
        """Return the whole object, or None when it is not there."""
        try:
            return self.get(bucket, key)
        except ObjectNotFound:
            return None

    @contextmanager
    def _body(self, bucket: str, key: str, *, max_bytes: int | None = None) -> "Iterator[StreamingBody]":
        with aws_failures(f"reading s3://{bucket}/{key}"):
            try:
                answer = self._s3.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _NOT_FOUND:
                    raise ObjectNotFound(f"s3://{bucket}/{key} is not there") from error
                raise
            if max_bytes is not None and (size := answer["ContentLength"]) > max_bytes:
                answer["Body"].close()
                raise ObjectTooLarge(f"s3://{bucket}/{key} has {size:,} bytes, of at most {max_bytes:,}")
            yield answer["Body"]

    def list_objects(self, bucket: str, prefix: str, *, after: str = "") -> Iterator[StoredObject]:
        """Yield every object whose key starts with `prefix` and sorts behind `after`, in their order."""
        with aws_failures(f"listing s3://{bucket}/{prefix}"):
            paginator = self._s3.get_paginator("list_objects_v2")
            pages = (
                paginator.paginate(Bucket=bucket, Prefix=prefix, StartAfter=after)
                if after
                else paginator.paginate(Bucket=bucket, Prefix=prefix)
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield StoredObject(item["Key"], item["Size"], item["LastModified"], item["ETag"])

    def head(self, bucket: str, key: str) -> ObjectHead | None:
        """Return the size and the metadata of an object, or None when it is not there."""
        with aws_failures(f"asking for s3://{bucket}/{key}"):
            try:
                answer = self._s3.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _NOT_FOUND:
                    return None
                raise
        return ObjectHead(answer["ContentLength"], answer.get("Metadata", {}))

    def list_folders(self, bucket: str, prefix: str) -> Iterator[str]:
        """Yield the next parts of the keys below `prefix`, up to and without the next `/`, in their order."""
        with aws_failures(f"listing s3://{bucket}/{prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                for folder in page.get("CommonPrefixes", []):
                    yield folder["Prefix"].removeprefix(prefix).removesuffix("/")

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete the objects at `keys`, at most 1,000 with each request; what is not there is left alone.

        Raises RetriableError when S3 could not delete some of them.
        """
        rest = iter(keys)
        while some := list(islice(rest, DELETED_AT_ONCE)):
            with aws_failures(f"deleting {len(some)} objects of s3://{bucket}, such as {some[0]}"):
                answer = self._s3.delete_objects(
                    Bucket=bucket, Delete={"Objects": [{"Key": key} for key in some], "Quiet": True}
                )
            if failed := answer.get("Errors"):
                raise RetriableError(
                    f"S3 did not delete {len(failed)} objects of s3://{bucket}, such as "
                    f"{failed[0].get('Key')}: {failed[0].get('Message') or failed[0].get('Code')}"
                )

    def look_for(self, bucket: str) -> None:
        """Return when the bucket answers.

        Raises RetriableError when it does not, and FatalError when it is not there or may not be looked for.
        """
        with aws_failures(f"looking for the bucket {bucket}"):
            self._s3.head_bucket(Bucket=bucket)

    def is_reachable(self, bucket: str) -> bool:
        """Return whether the bucket answers."""
        try:
            self.look_for(bucket)
        except TelemetryLakeError:
            return False
        return True


def _sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()
