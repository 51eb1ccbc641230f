"""Scripts and filter documents where they are: in a folder, or in S3 when the driver runs on EMR."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from telemetry_lake.failures import ConfigurationError, FatalError
from telemetry_lake.mapreduce.script.script import SOURCE_MAX_BYTES
from telemetry_lake.settings import S3Settings, Settings
from telemetry_lake.storage.object_keys import SCRIPT_PREFIX
from telemetry_lake.storage.object_store import ObjectStore, ObjectTooLarge

BESIDE_MAX_FILES: Final = 500
"""Python files below the folder of a script in S3: all are fetched, as any may be a helper module."""
LISTED_MAX_OBJECTS: Final = 10_000
"""How many objects of any kind may be below that folder."""


def scripts_prefix(settings: Settings) -> str:
    """Return the prefix below which scripts are, `s3://bucket/prefix/`."""
    prefix = settings.analysis.scripts_prefix or f"s3://{settings.s3.lake_bucket}/{SCRIPT_PREFIX}"
    if urlsplit(prefix).netloc == settings.s3.raw_bucket:
        raise ConfigurationError(
            "TELEMETRY_LAKE_ANALYSIS__SCRIPTS_PREFIX is in the raw bucket, where pings are and no scripts"
        )
    return prefix


@contextmanager
def fetched(place: str, s3: S3Settings) -> Iterator[Path]:
    """Yield the file at `place`, a path or s3://bucket/key, as a local file with the Python files beside it.

    Raises FatalError when it is not there, and RetriableError when S3 does not answer.
    """
    parts = urlsplit(place)
    if parts.scheme != "s3":
        yield Path(place)
        return
    store, bucket, key = ObjectStore(s3), parts.netloc, parts.path.lstrip("/")
    folder, _, name = key.rpartition("/")
    prefix = f"{folder}/" if folder else ""
    wanted = {key, *(_python_files(store, bucket, prefix) if name.endswith(".py") else ())}
    with tempfile.TemporaryDirectory(prefix="mapreduce-") as scratch:
        room = SOURCE_MAX_BYTES
        for wanted_key in sorted(wanted):
            try:
                content = store.get(bucket, wanted_key, max_bytes=room)
            except ObjectTooLarge as error:
                raise FatalError(
                    f"a script with the Python files beside it, or a filter, may have {SOURCE_MAX_BYTES:,} "
                    f"bytes together: {error} that are left"
                ) from error
            room -= len(content)
            file = Path(scratch, wanted_key.removeprefix(prefix))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        yield Path(scratch, name)


def _python_files(store: ObjectStore, bucket: str, prefix: str) -> list[str]:
    """Return the keys of the Python files below a prefix; raises FatalError when there are too many."""
    listed = list(islice(store.list_objects(bucket, prefix), LISTED_MAX_OBJECTS + 1))
    found = [item.key for item in listed if item.key.endswith(".py")]
    if len(found) > BESIDE_MAX_FILES or len(listed) > LISTED_MAX_OBJECTS:
        raise FatalError(
            f"s3://{bucket}/{prefix} has more than {BESIDE_MAX_FILES:,} Python files, or more than "
            f"{LISTED_MAX_OBJECTS:,} objects. Put the script and its helper modules into a folder of their "
            "own"
        )
    return found
