"""Publish: make a decided batch visible, once, whatever happens (`tables.commits` says how)."""

import logging
from datetime import datetime

from pyiceberg.catalog import Catalog

from telemetry_lake.drain.batch import Commitment
from telemetry_lake.drain.ledger import Ledger
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import DrainSettings
from telemetry_lake.tables.commits import TABLES_IN_ORDER, UNDECIDED, StagedFileGone, commit_once, find_batch
from telemetry_lake.tables.late_files import STAGED_MAX_AGE, with_young_files
from telemetry_lake.tables.staged import Publication

_log = logging.getLogger(__name__)


class NotDecided(FatalError):
    """The batch has no publication: its gates have not let it pass."""


def publish(
    settings: DrainSettings, catalog: Catalog, ledger: Ledger, batch: str, *, at: datetime
) -> Commitment:
    """Commit the batch to its tables, pings first, unless that has been done; returns where it is.

    `at` is the time of now. Raises NotDecided when there is nothing decided to publish, and RetriableError
    when the catalog stays unavailable or too busy; then the batch may be in one table, in both or in none:
    publish it again. When staged files are gone, RetriableError says that the batch is converted and decided
    again if nothing of it is in a table, and StagedFileGone what to do if a part is.
    """
    if (done := ledger.commitment(batch)) is not None:
        return done
    publication = ledger.publication(batch)
    if publication is None:
        raise NotDecided(f"batch {batch} has no publication: its audit has not passed")
    created_at = ledger.manifest(batch).created_at
    try:
        snapshots = _commit(settings, catalog, publication, created_at, at)
    except StagedFileGone as error:
        if _is_begun(catalog, publication, created_at):
            raise
        _log.warning("%s", error)
        ledger.withdraw(publication, str(error))
        raise RetriableError(
            f"staged files of batch {batch} were removed before it was committed. Nothing is lost: it is "
            "converted and decided again when its messages come again"
        ) from error
    return ledger.put_commitment(
        Commitment(batch_id=batch, snapshots=snapshots, quarantined=publication.quarantined)
    )


def _commit(
    settings: DrainSettings, catalog: Catalog, publication: Publication, created_at: datetime, at: datetime
) -> dict[str, int]:
    """Commit the files to each table; returns its snapshots."""
    # No file of a batch is older than the batch.
    if at - created_at > STAGED_MAX_AGE:
        publication = with_young_files(settings, catalog, publication, created_at, now=at)
    return {
        table: commit_once(settings, catalog, table, publication, created_at)
        for table in TABLES_IN_ORDER
        if publication.files.get(table)
    }


def _is_begun(catalog: Catalog, publication: Publication, created_at: datetime) -> bool:
    """Return whether any table has the batch; raises RetriableError when the catalog does not answer."""
    try:
        return any(
            find_batch(catalog.load_table(name), publication, created_at) for name in publication.files
        )
    except UNDECIDED as error:
        raise RetriableError(f"looking for batch {publication.batch_id} in its tables: {error}") from error
