"""Commit files to a table once, whatever happens.

A commit is a compare-and-swap. The table is loaded, its history is searched for the batch id, and only if
it is not there the files are appended, on the condition that the table's main branch is still at the
snapshot that was searched. A conflict and a lost answer are treated alike: load and search again. So
it does not matter whether a commit whose answer was lost had happened.

pyiceberg's own retry is switched off for these commits: it would append to a table that has moved on
without searching again, and two workers on one batch would double it.

Expired snapshots make a history end early. When it does not reach back to the batch's beginning, the rows
themselves are searched instead: each names its raw object.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import requests
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NoSuchTableError,
    RESTError,
)
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.snapshots import Snapshot
from sqlalchemy.exc import SQLAlchemyError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from telemetry_lake.columns import RAW_OBJECT
from telemetry_lake.failures import ConfigurationError, FatalError, RetriableError
from telemetry_lake.settings import DrainSettings
from telemetry_lake.tables.catalog_failures import explained
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS
from telemetry_lake.tables.expressions import one_of
from telemetry_lake.tables.staged import Publication

BATCH_ID_PROPERTY: Final = "telemetry-lake.batch-id"
"""The name of the batch id in the summary of a snapshot."""
TABLES_IN_ORDER: Final = (LIVE_PINGS, LIVE_REJECTED_PINGS)
FIRST_SEQUENCE_NUMBER: Final = 1
"""The sequence number of a table's first snapshot (https://iceberg.apache.org/spec/#sequence-numbers)."""
CLOCKS_APART_MAX: Final = timedelta(hours=1)
"""How far the clocks of two machines that commit may be apart.

Twice as far as they can be: S3 refuses requests signed by a clock that is more than 15 minutes off its own.
"""
RETRY_WAIT_FIRST_SECONDS: Final = 0.05
"""The longest wait before the second attempt; it doubles with every further one."""
RETRY_WAIT_MAX_SECONDS: Final = 5.0
UNAVAILABLE: Final = (RESTError, requests.RequestException, SQLAlchemyError, OSError)
"""What is raised when the catalog, its database or the object store does not answer."""
UNDECIDED: Final = (CommitFailedException, CommitStateUnknownException, *UNAVAILABLE)
"""What is raised when a commit did not happen, or perhaps did."""

_log = logging.getLogger(__name__)


class StagedFileGone(FatalError):
    """A file that is to be committed does not exist any more."""

    def __init__(self, batch: str, table: str, what: object) -> None:
        super().__init__(
            f"a staged file of batch {batch} is gone, and not committed to {table}: {what}. Orphan files "
            "were removed before; the raw objects are still there. See 'A staged file is gone' in "
            "docs/drain.md."
        )


def retrying(settings: DrainSettings) -> Retrying:
    """Return the loop in which a compare-and-swap on a table is repeated after a RetriableError.

    It waits longer each time, by chance, so that two workers on one table do not collide again and again.
    The last error is raised when `commit_max_attempts` are used up.
    """
    return Retrying(
        retry=retry_if_exception_type(RetriableError),
        stop=stop_after_attempt(settings.commit_max_attempts),
        wait=wait_random_exponential(multiplier=RETRY_WAIT_FIRST_SECONDS, max=RETRY_WAIT_MAX_SECONDS),
        reraise=True,
    )


def commit_once(
    settings: DrainSettings, catalog: Catalog, name: str, publication: Publication, created_at: datetime
) -> int:
    """Commit the files of a publication to the table `name` unless that was done.

    It cannot have been committed before `created_at`. Returns the id of a snapshot that holds the files.
    Raises RetriableError when the catalog stays unavailable or too busy, ConfigurationError when the table
    does not exist, and StagedFileGone when a staged file is gone.
    """
    return retrying(settings)(_commit, catalog, name, publication, created_at)


def _commit(catalog: Catalog, name: str, publication: Publication, created_at: datetime) -> int:
    """Search the table for the batch and append its files if it is not there; returns its snapshot's id."""
    try:
        table = catalog.load_table(name)
        if (found := find_batch(table, publication, created_at)) is not None:
            return found
        return _append(table, publication.files[name], publication.batch_id)
    except NoSuchTableError as error:
        raise ConfigurationError(
            f"the table {name} is not in the catalog, or this process may not load it: "
            "python -m telemetry_lake create-tables makes it"
        ) from error
    except FileNotFoundError as error:
        raise StagedFileGone(publication.batch_id, name, error) from error
    except UNDECIDED as error:
        _log.warning("batch %s, %s: looking again after: %s", publication.batch_id, name, error)
        raise explained(f"committing batch {publication.batch_id} to {name}", error) from error


def find_batch(table: Table, publication: Publication, created_at: datetime) -> int | None:
    """Return the id of a snapshot of `table` that holds the batch, which was begun at `created_at`, or None.

    The history is searched as far back as a commit of the batch can be. Where it ends before that, because
    snapshots have expired, the rows are searched for the raw objects of the batch.
    """
    begun = created_at - CLOCKS_APART_MAX
    oldest: Snapshot | None = None
    for snapshot in history(table):
        if _has_batch(snapshot, publication.batch_id):
            return snapshot.snapshot_id
        if _committed_at(snapshot) <= begun:
            return None
        oldest = snapshot
    current = table.current_snapshot()
    # By its number and not by its parent: expiring a snapshot may take the parent out of its children, as
    # pyiceberg does.
    if current is None or oldest is None or oldest.sequence_number == FIRST_SEQUENCE_NUMBER:
        return None
    return current.snapshot_id if committed_raw_objects(table, publication.raw_objects) else None


def snapshot_of_batch(table: Table, batch: str) -> Snapshot | None:
    """Return the snapshot in the whole history of `table` that added the batch, or None."""
    return next((snapshot for snapshot in history(table) if _has_batch(snapshot, batch)), None)


def committed_raw_objects(table: Table, keys: Sequence[str]) -> set[str]:
    """Return those raw objects of `keys` that rows of `table` name."""
    if not keys:
        return set()
    found = table.scan(row_filter=one_of(RAW_OBJECT, keys), selected_fields=(RAW_OBJECT,)).to_arrow()
    return {str(key) for key in found.column(RAW_OBJECT).unique().to_pylist()}


def history(table: Table) -> Iterator[Snapshot]:
    """Yield the snapshots of the main branch, newest first, as far back as they are kept."""
    # pyiceberg looks a snapshot up by reading through all of them: quadratic over a history of thousands.
    by_id = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
    snapshot = table.current_snapshot()
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = by_id.get(parent) if parent is not None else None


def forbid_commit_retry(table: Table) -> None:
    """Let the next commit of `table` raise CommitFailedException if it has moved since it was loaded.

    Its history is not to be asked before that: it is cut to the snapshots that branches and tags name,
    which is all that a commit needs. pyiceberg copies the metadata 15 times in a commit, which took 0.4 s
    with 400 snapshots.
    """
    named = {reference.snapshot_id for reference in table.metadata.refs.values()}
    table.metadata = table.metadata.model_copy(
        update={
            "properties": {**table.metadata.properties, TableProperties.COMMIT_NUM_RETRIES: "0"},
            "snapshots": [each for each in table.metadata.snapshots if each.snapshot_id in named],
            "snapshot_log": [],
            "metadata_log": [],
        }
    )


def _has_batch(snapshot: Snapshot, batch: str) -> bool:
    return snapshot.summary is not None and snapshot.summary.get(BATCH_ID_PROPERTY) == batch


def _committed_at(snapshot: Snapshot) -> datetime:
    return datetime.fromtimestamp(snapshot.timestamp_ms / 1_000, UTC)


def _append(table: Table, uris: Sequence[str], batch: str) -> int:
    forbid_commit_retry(table)
    with table.transaction() as transaction:
        # No look for files that are in the table already: the batch id has answered that.
        transaction.add_files(list(uris), {BATCH_ID_PROPERTY: batch}, check_duplicate_files=False)
    snapshot = table.current_snapshot()
    if snapshot is None:
        raise RetriableError(f"the catalog took a commit to {table.name()} and shows no snapshot")
    return snapshot.snapshot_id
