"""Commit late: files that were staged long ago are committed under new names.

Until they are committed, staged files look like orphans. Their removal (`jobs/maintenance.py`) first lists
the files that no snapshot names and that are older than `ORPHAN_MIN_DAYS`, and deletes them up to hours
later. A commit in between would make a table name files that are deleted then: every query of their
partitions fails from then on. The same holds for files of snapshots that expire, which a publication that
was undone may name again.

So that this cannot happen, a commit never names a file that was staged more than `STAGED_MAX_AGE` ago. Such
a file is copied within the object store, and the copy is committed: the same rows, under a name that is too
young for any list. Files that are gone already are found before anything is committed.
"""

from datetime import datetime, timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Final
from uuid import uuid4

import pyarrow.fs as pa_fs
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import DrainSettings
from telemetry_lake.storage.records import all_at_once
from telemetry_lake.tables.catalog import file_system
from telemetry_lake.tables.commits import UNDECIDED, StagedFileGone, find_batch, retrying
from telemetry_lake.tables.staged import Publication

STAGED_MAX_AGE: Final = timedelta(days=1)
"""How old a file is at most that a commit names."""
ORPHAN_MIN_DAYS: Final = 3
"""How old a file is at least that is deleted because no snapshot names it.

The days between this and `STAGED_MAX_AGE` are for a commit that takes long: from its look at the age of its
files to the answer of the catalog. Clocks are less than an hour apart.
"""
EXPIRED_MIN_DAYS: Final = 2
"""How old a snapshot is at least that is expired together with its files; for the same reason."""


def with_young_files(
    settings: DrainSettings,
    catalog: Catalog,
    publication: Publication,
    created_at: datetime,
    *,
    now: datetime,
) -> Publication:
    """Return the publication with copies in place of files that are too old to be committed.

    Tables that have it already are left out; it cannot have been committed before `created_at`. Raises
    StagedFileGone when a file is missing, and RetriableError when the catalog or the object store stays
    unavailable.
    """
    files = {
        name: retrying(settings)(_young, catalog, name, publication, created_at, now)
        for name in publication.files
    }
    return publication.model_copy(update={"files": files})


def _young(
    catalog: Catalog, name: str, publication: Publication, created_at: datetime, now: datetime
) -> tuple[str, ...]:
    uris = publication.files[name]
    try:
        table = catalog.load_table(name)
        if find_batch(table, publication, created_at) is not None:
            return uris
        return tuple(
            all_at_once(partial(_young_file, table, publication.batch_id, now - STAGED_MAX_AGE), uris)
        )
    except UNDECIDED as error:
        raise RetriableError(f"copying staged files of {publication.batch_id} for {name}: {error}") from error


def _young_file(table: Table, batch: str, since: datetime, uri: str) -> str:
    """Return the address of a file, or that of a copy of it when it was written before `since`."""
    filesystem, path = file_system(table, uri)
    info = filesystem.get_file_info(path)
    if info.type is pa_fs.FileType.NotFound:
        raise StagedFileGone(batch, ".".join(table.name()), uri)
    if info.mtime is None:
        raise FatalError(f"{uri}: the object store does not say when it was written")
    if info.mtime >= since:
        return uri
    name = f"{uuid4().hex[:8]}-{PurePosixPath(path).name}"
    filesystem.copy_file(path, str(PurePosixPath(path).with_name(name)))
    return f"{uri.rpartition('/')[0]}/{name}"
