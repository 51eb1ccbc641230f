"""Publish: make a decided batch visible, once, whatever happens.

A commit is a compare-and-swap. The table is loaded, its history is searched for the batch id, and only if
it is not there the files are appended, on the condition that the table's main branch is still at the
snapshot that was searched. A conflict and a lost answer are treated alike: load and search again. So
nobody has to know whether a commit whose answer was lost had happened.

pyiceberg's own retry is switched off for these commits: it would append to a table that has moved on
without searching again, and two workers on one batch would double it.

Expired snapshots make a history end early. When it does not reach back to the batch's beginning, the rows
themselves are asked instead: each names its raw object.
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

from telemetry_lake.batch import Commitment, Publication
from telemetry_lake.columns import RAW_OBJECT
from telemetry_lake.failures import ConfigurationError, FatalError, RetriableError
from telemetry_lake.ledger import Ledger
from telemetry_lake.row_filters import one_of
from telemetry_lake.settings import DrainSettings
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS

BATCH_ID_PROPERTY: Final = "telemetry-lake.batch-id"
"""The name of the batch id in the summary of a snapshot."""
TABLES_IN_ORDER: Final = (LIVE_PINGS, LIVE_REJECTED_PINGS)
FIRST_SEQUENCE_NUMBER: Final = 1
"""The sequence number of a table's first snapshot (https://iceberg.apache.org/spec/#sequence-numbers)."""
CLOCKS_APART_MAX: Final = timedelta(hours=1)
"""How far the clocks of two machines that commit may be apart."""
RETRY_WAIT_MAX_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)

AWAY: Final = (RESTError, requests.RequestException, SQLAlchemyError, OSError)
"""What is raised when the catalog, its database or the object store does not answer."""
UNDECIDED: Final = (CommitFailedException, CommitStateUnknownException, *AWAY)
"""What is raised when a commit did not happen, or nobody knows whether it did."""


class NotDecided(FatalError):
    """The batch has no publication: its gates have not let it pass."""


def publish(settings: DrainSettings, catalog: Catalog, ledger: Ledger, batch: str) -> Commitment:
    """Commit the batch to its tables, pings first, unless that has been done; where it is.

    Raises NotDecided when there is nothing decided to publish, and RetriableError when the catalog stays
    away or too busy; then the batch may be in one table, in both or in none, and publishing again ends it.
    """
    if (done := ledger.commitment(batch)) is not None:
        return done
    publication = ledger.publication(batch)
    if publication is None:
        raise NotDecided(f"batch {batch} has no publication: its audit has not passed")
    manifest = ledger.manifest(batch)
    snapshots = {
        table: commit_once(settings, catalog, table, publication, manifest.created_at)
        for table in TABLES_IN_ORDER
        if publication.files.get(table)
    }
    return ledger.put_commitment(
        Commitment(batch_id=batch, snapshots=snapshots, quarantined=publication.quarantined)
    )


def snapshot_of_batch(table: Table, batch: str) -> Snapshot | None:
    """The snapshot in the history of `table` that added the batch."""
    for snapshot in history(table):
        if snapshot.summary is not None and snapshot.summary.get(BATCH_ID_PROPERTY) == batch:
            return snapshot
    return None


def committed_raw_objects(table: Table, keys: Sequence[str]) -> set[str]:
    """Those raw objects of `keys` that rows of `table` name."""
    if not keys:
        return set()
    found = table.scan(row_filter=one_of(RAW_OBJECT, keys), selected_fields=(RAW_OBJECT,)).to_arrow()
    return {str(key) for key in found.column(RAW_OBJECT).unique().to_pylist()}


def commit_once(
    settings: DrainSettings, catalog: Catalog, name: str, publication: Publication, created_at: datetime
) -> int:
    """Commit the files of a publication to the table `name` unless that was done; a snapshot that holds them.

    Nobody can have committed it before `created_at`. Raises what `publish` raises.
    """
    for attempt in Retrying(
        retry=retry_if_exception_type(RetriableError),
        stop=stop_after_attempt(settings.commit_max_attempts),
        wait=wait_random_exponential(multiplier=0.05, max=RETRY_WAIT_MAX_SECONDS),
        reraise=True,
    ):
        with attempt:
            try:
                table = catalog.load_table(name)
                if (there := find_batch(table, publication, created_at)) is not None:
                    return there
                return _append(table, publication.files[name], publication.batch_id)
            except NoSuchTableError as error:
                raise ConfigurationError(
                    f"the table {name} is not in the catalog: python -m telemetry_lake create-tables makes it"
                ) from error
            except FileNotFoundError as error:
                raise FatalError(
                    f"a staged file of batch {publication.batch_id} is gone, and not committed to {name}: "
                    f"{error}. Orphan files were removed too early; the raw objects are still there. "
                    "See 'A staged file is gone' in docs/drain.md."
                ) from error
            except UNDECIDED as error:
                _log.warning("batch %s, %s: looking again after: %s", publication.batch_id, name, error)
                raise RetriableError(f"committing batch {publication.batch_id} to {name}: {error}") from error
    raise AssertionError("a retry ends with a result or an error")


def find_batch(table: Table, publication: Publication, created_at: datetime) -> int | None:
    """A snapshot of `table` that holds the batch."""
    if (snapshot := snapshot_of_batch(table, publication.batch_id)) is not None:
        return snapshot.snapshot_id
    current = table.current_snapshot()
    if current is None or _reaches_back(table, created_at - CLOCKS_APART_MAX):
        return None
    return current.snapshot_id if committed_raw_objects(table, publication.raw_objects) else None


def history(table: Table) -> Iterator[Snapshot]:
    """The snapshots of the main branch, newest first, as far back as they are kept."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = table.metadata.snapshot_by_id(parent) if parent is not None else None


def _reaches_back(table: Table, moment: datetime) -> bool:
    """Whether the history of `table` is complete since `moment`."""
    oldest = None
    for oldest in history(table):
        if datetime.fromtimestamp(oldest.timestamp_ms / 1_000, UTC) <= moment:
            return True
    # Not its parent: whoever expires a snapshot may take the parent out of its children, as pyiceberg does.
    return oldest is None or oldest.sequence_number == FIRST_SEQUENCE_NUMBER


def only_as_loaded(table: Table) -> Table:
    """`table`, whose next commit raises CommitFailedException if the table has moved since it was loaded."""
    properties = {**table.metadata.properties, TableProperties.COMMIT_NUM_RETRIES: "0"}
    table.metadata = table.metadata.model_copy(update={"properties": properties})
    return table


def _append(table: Table, uris: Sequence[str], batch: str) -> int:
    with only_as_loaded(table).transaction() as transaction:
        # No look for files that are in the table already: the batch id has answered that.
        transaction.add_files(list(uris), {BATCH_ID_PROPERTY: batch}, check_duplicate_files=False)
    snapshot = table.current_snapshot()
    if snapshot is None:
        raise RetriableError(f"the catalog took a commit to {table.name()} and shows no snapshot")
    return snapshot.snapshot_id
