"""The output of a run: one file, there all at once or not at all, in a folder or in S3.

Output is written beside its place (`.NAME.partial`, which is locked so that two runs cannot write the same
output) and renamed when it is complete. For S3 it is written to a temporary file and uploaded; S3 shows an
object only when it is complete. A run that is killed leaves at most the partial file, which the next run
uses again.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.pickles import unpickled
from telemetry_lake.mapreduce.records import Kind, Layout, Record
from telemetry_lake.settings import S3Settings
from telemetry_lake.storage.aws import aws_failures, client_arguments

ROW_GROUP_RECORDS: Final = 200_000

_ARROW_TYPES: Final[dict[Kind, pa.DataType]] = {
    Kind.NOTHING: pa.string(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.BINARY: pa.binary(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.TEXT: pa.string(),
}


@contextmanager
def new_output(place: str, s3: S3Settings) -> Iterator[BinaryIO]:
    """Yield a file that becomes the output `place`, a path or s3://bucket/key, when the block succeeds.

    Raises FatalError when nothing can be written there, if possible before the block begins.
    """
    parts = urlsplit(place)
    if parts.scheme == "s3":
        with _in_s3(parts.netloc, parts.path.lstrip("/"), s3) as file:
            yield file
    elif parts.scheme in ("", "file"):
        with _in_a_folder(Path(parts.path if parts.scheme else place)) as file:
            yield file
    else:
        raise FatalError(f"the output {place} is neither a path nor s3://bucket/key")


@contextmanager
def _in_a_folder(path: Path) -> Iterator[BinaryIO]:
    if path.is_dir():
        raise FatalError(f"the output {path} is a folder: name a file in it")
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("ab")
    except OSError as error:
        raise FatalError(f"the output {path} cannot be written: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FatalError(f"another run is writing the output {path}") from error
        file.truncate(0)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


@contextmanager
def _in_s3(bucket: str, key: str, s3: S3Settings) -> Iterator[BinaryIO]:
    if not bucket or not key or key.endswith("/"):
        raise FatalError(f"the output s3://{bucket}/{key} does not name an object: s3://bucket/key")
    client = boto3.client("s3", **client_arguments(s3))  # type: ignore[call-overload]
    with aws_failures(f"looking for the bucket of the output s3://{bucket}/{key}"):
        # Not HeadBucket: analysts may list what is below their prefixes, and HeadBucket asks for all of it.
        client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        with aws_failures(f"writing the output s3://{bucket}/{key}"):
            try:
                client.upload_fileobj(file, bucket, key)
            except (BotoCoreError, ClientError):
                raise
            except Exception as error:  # boto3's own for a failed part
                raise FatalError(f"writing the output s3://{bucket}/{key}: {error}") from error


def write_text(file: BinaryIO, payloads: Iterable[bytes]) -> None:
    """Write payloads one after the other."""
    file.writelines(payloads)


def write_parquet(file: BinaryIO, payloads: Iterable[bytes], layout: Layout) -> None:
    """Write payloads of records as Parquet.

    The columns are `key` and `value`, or `key_1`, `key_2`, … where there are several
    fields. A column whose fields were of several types is text.
    """
    kinds = (*layout[0], *layout[1])
    widths = len(layout[0]), len(layout[1])
    names = [*_names("key", widths[0]), *_names("value", widths[1])]
    schema = pa.schema([pa.field(name, _ARROW_TYPES[kind]) for name, kind in zip(names, kinds, strict=True)])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for payload in payloads:
            records: list[Record] = unpickled(payload)
            rows = [(*_padded(key, widths[0]), *_padded(value, widths[1])) for key, value in records]
            fields = zip(*rows, strict=True) if rows else [()] * len(kinds)
            arrays: list[Any] = [
                pa.array([_as(kind, value) for value in column], field.type)
                for kind, column, field in zip(kinds, fields, schema, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=schema), ROW_GROUP_RECORDS)


def _names(name: str, width: int) -> list[str]:
    return [name] * width if width <= 1 else [f"{name}_{number}" for number in range(1, width + 1)]


def _padded(fields: tuple[object, ...], width: int) -> tuple[object, ...]:
    return (*fields, *(None,) * (width - len(fields)))


def _as(kind: Kind, value: object) -> object:
    if value is None:
        return None
    if kind is Kind.TEXT:
        return value if isinstance(value, str) else str(value)
    return float(value) if kind is Kind.NUMBER and isinstance(value, int) else value
