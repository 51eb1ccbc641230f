"""Versions of the cubes in S3: read, made current, and removed when no reader needs them.

Any number of runs may make versions at the same time, and each may be killed at any moment:

- Nothing is named by a version before it is written, and nothing that is named is changed. A version becomes
  current with one put of the pointer, on the condition that it still names the version from which the run
  started. So of two runs one loses, and starts again from what the other made.
- No two runs write the same key. So what a run finds there and no version names is of a run that was killed,
  that has lost, or that is working.
- A run removes only what it finds once it has won, what no version names that is current or was within
  `GRACE`, and what is older by `GRACE` than its own put of the pointer, by the clock of S3. A run that is
  working and started before that put will lose; what a run writes that started after it, is younger.
"""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telemetry_lake.dashboard.format import (
    FORMAT,
    Manifest,
    Pointer,
    ReplacedVersion,
    Segment,
    StoredFile,
    View,
)
from telemetry_lake.failures import FatalError
from telemetry_lake.storage.object_keys import (
    DASHBOARD_POINTER_KEY,
    DASHBOARD_SEGMENT_PREFIX,
    DASHBOARD_VERSION_PREFIX,
    dashboard_segment_key,
    dashboard_version_key,
)

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore

GRACE: Final = timedelta(hours=1)
"""How long a version is kept for its readers after another one became current."""
MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class CurrentVersion:
    """The current version as it was read, and the pointer's state at that moment; None: there is none."""

    manifest: Manifest | None
    etag: str | None


def new_version(now: datetime) -> str:
    """Return a name for a version that no other version has; names sort by their time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex}"


class CubeVersions:
    """The versions in `bucket`."""

    def __init__(self, store: "ObjectStore", bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def current(self) -> CurrentVersion:
        """Read the current version.

        Raises FatalError when it is of another format, and ObjectNotFound when its manifest was removed.
        """
        pointer = self._store.read(self._bucket, DASHBOARD_POINTER_KEY)
        if pointer is None:
            return CurrentVersion(None, None)
        version = Pointer.model_validate_json(pointer.body).version
        return CurrentVersion(self.manifest(version), pointer.etag)

    def manifest(self, version: str) -> Manifest:
        """Return the manifest of a version; raises FatalError and ObjectNotFound."""
        key = dashboard_version_key(version, MANIFEST)
        manifest = Manifest.model_validate_json(self._store.get(self._bucket, key))
        if manifest.format != FORMAT:
            raise FatalError(
                f"s3://{self._bucket}/{key} has the format {manifest.format}, and this program reads the "
                f"format {FORMAT}. Update it, or remove {DASHBOARD_POINTER_KEY} to have all cubes made again."
            )
        return manifest

    def get(self, file: StoredFile) -> bytes:
        """Return the content of a version's file; raises FatalError when it is another one than it should."""
        body = self._store.get(self._bucket, file.key)
        if hashlib.sha256(body).hexdigest() != file.sha256:
            raise FatalError(f"s3://{self._bucket}/{file.key} is damaged: its SHA-256 is not {file.sha256}")
        return body

    def put_segment(self, view: View, dates: tuple[date, date], file: Path, rows: int) -> Segment:
        """Store the rows of these dates in a view; return what a manifest says of them."""
        body = file.read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        key = dashboard_segment_key(view, *dates, digest)
        self._store.put(self._bucket, key, body)
        return Segment(
            key=key,
            bytes=len(body),
            sha256=digest,
            view=view,
            first_date=dates[0],
            last_date=dates[1],
            rows=rows,
        )

    def put_file(self, version: str, name: str, body: bytes) -> StoredFile:
        """Store a file that belongs to one version alone; return what its manifest says of it."""
        key = dashboard_version_key(version, name)
        self._store.put(self._bucket, key, body)
        return StoredFile(key=key, bytes=len(body), sha256=hashlib.sha256(body).hexdigest())

    def make_current(self, manifest: Manifest, base: CurrentVersion) -> bool:
        """Make a version the current one, unless another run has changed the pointer since `base` was read.

        Returns whether it is current.
        """
        key = dashboard_version_key(manifest.version, MANIFEST)
        self._store.put(self._bucket, key, manifest.model_dump_json().encode())
        pointer = Pointer(version=manifest.version).model_dump_json().encode()
        if self._store.put_if_unchanged(self._bucket, DASHBOARD_POINTER_KEY, pointer, etag=base.etag):
            return True
        # The answer to an attempt of ours may have been lost, and then the next attempt was refused.
        there = self._store.read(self._bucket, DASHBOARD_POINTER_KEY)
        return there is not None and there.body == pointer

    def remove_unused(self, manifest: Manifest) -> list[str]:
        """Remove what neither `manifest` nor a version that it replaced within `GRACE` needs; return keys.

        `manifest` is the version that this run has made current.
        """
        pointer = self._store.read(self._bucket, DASHBOARD_POINTER_KEY)
        if pointer is None or Pointer.model_validate_json(pointer.body).version != manifest.version:
            return []  # another run has won since, and removes more
        needed = self._files(manifest)
        for replaced in manifest.replaced:
            if (
                self._store.get_or_none(self._bucket, dashboard_version_key(replaced.version, MANIFEST))
                is not None
            ):
                needed |= self._files(self.manifest(replaced.version))
        unused = [
            item.key
            for prefix in (DASHBOARD_VERSION_PREFIX, DASHBOARD_SEGMENT_PREFIX)
            for item in self._store.list_objects(self._bucket, prefix)
            if item.key not in needed and item.modified_at < pointer.modified_at - GRACE
        ]
        self._store.delete(self._bucket, unused)
        return unused

    @staticmethod
    def _files(manifest: Manifest) -> set[str]:
        return {
            dashboard_version_key(manifest.version, MANIFEST),
            manifest.dictionary.key,
            manifest.summaries.key,
            *(segment.key for segment in manifest.segments),
        }


def replaced_versions(base: Manifest | None, now: datetime) -> tuple[ReplacedVersion, ...]:
    """Return the versions that are kept for their readers when a version replaces `base` now."""
    if base is None:
        return ()
    kept = [version for version in base.replaced if version.replaced_at > now - GRACE]
    return (*kept, ReplacedVersion(version=base.version, replaced_at=now))
