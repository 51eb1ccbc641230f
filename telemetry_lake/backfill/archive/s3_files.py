"""An archive that was copied to S3 unchanged."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError

from telemetry_lake.backfill.archive.source_record import ProblemKind, SourceProblem
from telemetry_lake.backfill.archive.storage import CHUNK_BYTES, Gap, StoredFile
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import SourceSettings
from telemetry_lake.storage.aws import aws_failures, client_arguments

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

_ENDED: Final = {"NoSuchKey", "404", "InvalidRange", "416"}
"""The object is deleted or shorter than it was, which the comparison with its listing reports."""


class S3Files:
    """The objects below the prefix of the root URL."""

    def __init__(self, source: SourceSettings) -> None:
        root = urlsplit(source.root_url or "")
        self._bucket = root.netloc
        self._prefix = f"{prefix}/" if (prefix := root.path.strip("/")) else ""
        self._source = source
        self._s3: S3Client = boto3.client("s3", **client_arguments(source.s3))  # type: ignore[call-overload]

    def list_files(self, directory: str) -> Iterator[StoredFile | SourceProblem]:
        """Yield every object below `directory`, in the order of keys."""
        prefix = f"{self._prefix}{directory}/" if directory else self._prefix
        is_there = False
        with aws_failures(f"listing s3://{self._bucket}/{prefix}"):
            for page in self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix
            ):
                for item in page.get("Contents", []):
                    is_there = True
                    if not item["Key"].endswith("/"):  # What stands for an empty directory.
                        yield self._stored(item)
        if not is_there:
            message = f"no object is below s3://{self._bucket}/{prefix}"
            yield SourceProblem(directory, None, ProblemKind.MISSING_DIRECTORY, message)

    def look_up(self, path: str) -> StoredFile | None:
        """Return the object as a listing shows it now, whose times compare with the first one."""
        key = self._prefix + path
        with aws_failures(f"looking for s3://{self._bucket}/{key}"):
            found = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        return self._stored(found[0]) if found and found[0]["Key"] == key else None

    def read(self, path: str, start: int, end: int) -> Iterator[bytes | Gap]:
        """Yield the bytes `[start, end)`; one gap where S3 refuses them for good."""
        key = self._prefix + path
        failures = 0
        while start < end:
            try:
                with aws_failures(f"reading s3://{self._bucket}/{key} at {start}"):
                    for chunk in self._stream(key, start, end):
                        failures = 0
                        start += len(chunk)
                        yield chunk
                return
            except RetriableError:
                failures += 1
                if failures >= self._source.max_attempts:
                    raise
                time.sleep(self._source.retry_wait_seconds * 2 ** (failures - 1))
            except FatalError as error:
                yield Gap(start, end, str(error))
                return

    def _stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        try:
            body = self._s3.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={start}-{end - 1}")["Body"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _ENDED:
                return
            raise
        with body:
            yield from body.iter_chunks(CHUNK_BYTES)

    def _stored(self, item: "ObjectTypeDef") -> StoredFile:
        modified_ms = int(item["LastModified"].timestamp() * 1_000)
        path = item["Key"].removeprefix(self._prefix)
        return StoredFile(path, item["Size"], modified_ms, f"ETag:{item['ETag'].strip(chr(34))}")
