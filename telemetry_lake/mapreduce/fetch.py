"""Scripts and filter documents where they are: in a folder, or in S3 when the driver runs on EMR."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.script import SOURCE_MAX_BYTES
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.settings import S3Settings

BESIDE_MAX_FILES: Final = 500
"""Python files below the folder of a script in S3: all are fetched, as any may be a helper module."""


@contextmanager
def fetched(place: str, s3: S3Settings) -> Iterator[Path]:
    """The file at `place`, a path or s3://bucket/key, as a local one; with the Python files beside it.

    Raises FatalError when it is not there, and RetriableError when S3 does not answer.
    """
    parts = urlsplit(place)
    if parts.scheme != "s3":
        yield Path(place)
        return
    store, bucket, key = ObjectStore(s3), parts.netloc, parts.path.lstrip("/")
    folder, _, name = key.rpartition("/")
    prefix = f"{folder}/" if folder else ""
    wanted = {key}
    if name.endswith(".py"):
        wanted |= {one.key for one in store.list_objects(bucket, prefix) if one.key.endswith(".py")}
    if len(wanted) > BESIDE_MAX_FILES:
        raise FatalError(
            f"s3://{bucket}/{prefix} has {len(wanted):,} Python files; {BESIDE_MAX_FILES:,} can be fetched. "
            "Put the script and its helper modules into a folder of their own"
        )
    with tempfile.TemporaryDirectory(prefix="mapreduce-") as scratch:
        room = SOURCE_MAX_BYTES
        for one in sorted(wanted):
            content = store.get(bucket, one)
            room -= len(content)
            if room < 0:
                raise FatalError(f"the Python files of s3://{bucket}/{prefix} have too many bytes together")
            file = Path(scratch, one.removeprefix(prefix))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        yield Path(scratch, name)
