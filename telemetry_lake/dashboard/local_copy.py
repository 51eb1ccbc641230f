"""The local copy of the current version of the cubes, switched to a new one without breaking readers.

Files are named by their content, so versions share what they have in common and a refresh fetches what is
new. A file is complete, verified and synced before it gets its name. A version is opened before readers see
it; the one before stays open until its last reader has left, and then its files are removed. When the object
store cannot be reached, the last complete version goes on being served, also after a restart.

A new version is served as it is, and then its segments of days are merged (`local_merge`) and it is opened
again, with fewer files.
"""

import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from telemetry_lake.dashboard.cubes import CubeLimits, Cubes, files_of, local_name
from telemetry_lake.dashboard.format import FORMAT, Manifest, Pointer, StoredFile
from telemetry_lake.dashboard.local_merge import (
    MergedFile,
    MergeGroup,
    find_merged,
    largest_part,
    layout,
    merge,
    merge_groups,
)
from telemetry_lake.failures import ConfigurationError, FatalError, RetriableError, TelemetryLakeError
from telemetry_lake.storage.object_keys import DASHBOARD_POINTER_KEY, dashboard_version_key
from telemetry_lake.storage.object_store import DOWNLOAD_CHUNK_BYTES, ObjectStore

_UNFINISHED: Final = ".tmp"
_log: Final = logging.getLogger(__name__)


class NoCubes(RetriableError):
    """There is no version of the cubes to read yet."""


class _Closing(Exception):
    """The copy is closed while something is merged."""


class LocalCopy:
    """The cubes of `bucket`, copied to `directory`, which belongs to this process alone."""

    def __init__(self, store: ObjectStore, bucket: str, directory: Path, limits: CubeLimits) -> None:
        """Open the version that an earlier process left, if there is a complete one.

        Raises ConfigurationError when the directory cannot be written or another process has it.
        """
        self._store, self._bucket, self._limits = store, bucket, limits
        self._files = directory / "files"
        self._manifest_file = directory / "manifest.json"
        self._lock_file = _locked(directory, self._files)
        self._mutex = threading.Lock()
        self._refreshing = threading.Lock()
        self._current: Cubes | None = None
        self._readers: dict[Cubes, int] = {}
        """The open versions and how many read each; being the current one counts as a reader."""
        self._fetching: set[str] = set()
        """The files of the version that a refresh fetches."""
        self._merged: tuple[MergedFile, ...] = ()
        """The merged files of the current version, and those that it will have when it is opened again."""
        self._not_merged: set[str] = set()
        """The groups of the current version of which no file could be made."""
        self._closing = threading.Event()
        self.problem: str | None = "the cubes have not been looked for yet"
        """Why the last refresh failed; None after one that did not."""
        self._open_left_version()

    @property
    def version(self) -> str | None:
        """The id of the version that new readers get."""
        current = self._current
        return None if current is None else current.version

    @property
    def unmerged(self) -> int:
        """How many merged files the current version still lacks."""
        current = self._current
        have = {file.group.digest for file in self._merged}
        return sum(group.digest not in have for group in merge_groups(current.manifest)) if current else 0

    @contextmanager
    def opened(self) -> Iterator[Cubes]:
        """Keep the current version open for the time of the block; raises NoCubes when there is none."""
        with self._mutex:
            cubes = self._current
            if cubes is None:
                raise NoCubes(
                    "there is no data yet: the first cubes are built some minutes after the first pings "
                    f"arrive{f' ({self.problem})' if self.problem else ''}"
                )
            self._readers[cubes] += 1
        try:
            yield cubes
        finally:
            self._leave(cubes)

    def refresh(self) -> bool:
        """Bring the copy to the current version. Returns whether readers get a new one.

        Raises RetriableError when the object store does not answer, FatalError when what it holds is damaged;
        readers keep the version that they have.
        """
        with self._refreshing:
            try:
                changed = self._refresh()
            except TelemetryLakeError as error:
                self.problem = str(error)
                raise
            self.problem = None
            return changed

    def merge(self) -> bool:
        """Make one merged file that the current version lacks. Returns whether there was one to make.

        Raises RetriableError when that fails; readers keep the files that they have.
        """
        with self._refreshing:
            cubes = self._current
            if cubes is None or self._closing.is_set():
                return False
            groups = merge_groups(cubes.manifest)
            have = {file.group.digest for file in self._merged} | self._not_merged
            group = next((each for each in groups if each.digest not in have), None)
            if group is None:
                return False
            unfinished = self._files / group.unfinished_name
            try:
                file = merge(
                    group, largest_part(group, self._merged), self._files, self._give_up_when_closing
                )
                with self._mutex:  # a reader that leaves removes files that are not known
                    unfinished.rename(self._files / file.name)
                    self._merged = (*self._merged, file)
                _sync_directory(self._files)
                self._switch(self._opened(cubes.manifest, groups))
            except _Closing:
                return False
            except TelemetryLakeError:
                self._not_merged.add(group.digest)
                raise
            finally:
                unfinished.unlink(missing_ok=True)
            return True

    def close(self) -> None:
        """Close all versions and give the directory to others."""
        self._closing.set()
        with self._mutex:
            for cubes in self._readers:
                cubes.close()
            self._readers.clear()
            self._current = None
        self._lock_file.close()

    def _refresh(self) -> bool:
        pointer = self._store.get_or_none(self._bucket, DASHBOARD_POINTER_KEY)
        if pointer is None:
            raise NoCubes(f"s3://{self._bucket}/{DASHBOARD_POINTER_KEY} is not there")
        version = _read_pointer(pointer)
        if version == self.version:
            return False
        content = self._store.get(self._bucket, dashboard_version_key(version, "manifest.json"))
        manifest = _read_manifest(version, content)
        with self._mutex:
            self._fetching = {local_name(file) for file in files_of(manifest)}
        try:
            for file in files_of(manifest):
                self._fetch(file)
            _sync_directory(self._files)
            cubes = self._opened(manifest, merge_groups(manifest))
            _write_synced(self._manifest_file, content)
            self._not_merged.clear()
            self._switch(cubes)
        finally:
            with self._mutex:
                self._fetching = set()
        return True

    def _fetch(self, file: StoredFile) -> None:
        path = self._files / local_name(file)
        if path.exists():
            return
        unfinished = path.with_suffix(_UNFINISHED)
        digest, size = hashlib.sha256(), 0
        try:
            with self._store.opened(self._bucket, file.key) as body, unfinished.open("wb") as copy:
                while chunk := body.read(DOWNLOAD_CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
        except OSError as error:
            raise RetriableError(f"copying {file.key} to {self._files}: {error}") from error
        if (size, digest.hexdigest()) != (file.bytes, file.sha256):
            unfinished.unlink()
            raise FatalError(
                f"s3://{self._bucket}/{file.key} has {size} bytes and the SHA-256 "
                f"{digest.hexdigest()}, and its "
                f"manifest says {file.bytes} and {file.sha256}: build the cubes again"
            )
        unfinished.replace(path)

    def _opened(self, manifest: Manifest, groups: Sequence[MergeGroup]) -> Cubes:
        """Open a version with the merged files that there are, and forget those that it does not need."""
        files = layout(groups, self._merged)
        merged = {file.name: file.group.segments for file in files}
        cubes = Cubes(manifest, self._files, self._limits, merged)
        with self._mutex:
            self._merged = tuple(files)
        return cubes

    def _give_up_when_closing(self) -> None:
        if self._closing.is_set():
            raise _Closing

    def _switch(self, cubes: Cubes) -> None:
        with self._mutex:
            if self._closing.is_set():
                cubes.close()
                return
            before, self._current = self._current, cubes
            self._readers[cubes] = 1
        if before is None:
            self._remove_unused()
        else:
            self._leave(before)

    def _leave(self, cubes: Cubes) -> None:
        with self._mutex:
            if cubes not in self._readers:
                return  # closed as a whole
            self._readers[cubes] -= 1
            if self._readers[cubes]:
                return
            del self._readers[cubes]
            cubes.close()
        self._remove_unused()

    def _remove_unused(self) -> None:
        with self._mutex:
            used = self._fetching.union(
                (file.name for file in self._merged), *(cubes.file_names for cubes in self._readers)
            )
            for path in self._files.iterdir():
                if path.name not in used and path.suffix != _UNFINISHED:
                    path.unlink(missing_ok=True)

    def _open_left_version(self) -> None:
        for path in self._files.glob(f"*{_UNFINISHED}"):
            path.unlink()
        try:
            content = self._manifest_file.read_bytes()
        except FileNotFoundError:
            return
        try:
            manifest = _read_manifest(None, content)
            for file in files_of(manifest):
                _verify(self._files / local_name(file), file)
            groups = merge_groups(manifest)
            found = (find_merged(self._files, group) for group in groups)
            self._merged = tuple(merged for merged in found if merged is not None)
            self._switch(self._opened(manifest, groups))
        except (FatalError, ValueError, OSError) as error:
            _log.warning("the local copy of the cubes is not complete and is fetched again: %s", error)


def _read_pointer(content: bytes) -> str:
    try:
        version = Pointer.model_validate_json(content).version
        dashboard_version_key(version, "manifest.json")
    except ValueError as error:
        raise FatalError(
            f"{DASHBOARD_POINTER_KEY} does not name a version of the cubes: {_first(error)}"
        ) from error
    return version


def _read_manifest(version: str | None, content: bytes) -> Manifest:
    """Return the manifest of `version`, or of whichever it is; FatalError when it is damaged or unknown."""
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise FatalError(
            f"the manifest of the cubes {version or ''} cannot be read: {_first(error)}. Build the "
            f"cubes again, "
            "or run the release of the server that knows their format"
        ) from error
    if manifest.format != FORMAT or version not in (None, manifest.version):
        raise FatalError(
            f"the manifest of the cubes {version or ''} is of the version {manifest.version} in format "
            f"{manifest.format}; this server reads format {FORMAT}"
        )
    return manifest


def _first(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _locked(directory: Path, files: Path) -> IO[bytes]:
    """Make the directories and return the file whose lock says that they are this process's."""
    try:
        files.mkdir(parents=True, exist_ok=True)
        lock_file = (directory / "lock").open("wb")
    except OSError as error:
        raise ConfigurationError(
            f"TELEMETRY_LAKE_WEB__CUBES_DIRECTORY: {directory} cannot be written: {error.strerror}"
        ) from error
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock_file.close()
        raise ConfigurationError(
            f"TELEMETRY_LAKE_WEB__CUBES_DIRECTORY: {directory} is used by another web server: give "
            f"each one its own"
        ) from error
    return lock_file


def _verify(path: Path, file: StoredFile) -> None:
    with path.open("rb") as copy:
        digest = hashlib.file_digest(copy, "sha256").hexdigest()
    if digest != file.sha256:
        path.unlink()
        raise FatalError(f"{path} is damaged")


def _write_synced(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(_UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise RetriableError(f"writing {path}: {error}") from error


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
