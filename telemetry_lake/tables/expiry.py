"""Keep the history of tables short that are committed to every few seconds.

A table's metadata lists all its snapshots. Every commit reads the list and writes it again, and so does
everything that loads the table. Therefore snapshots that only appended files are expired after
`KEEP_APPENDS`, several times an hour. It is one small commit to the catalog: no file is read and none
deleted, so queries that still read such a snapshot go on.

**What is kept** is what others rely on:

- Snapshots that replaced or deleted files, and those directly before them. They are the only ones that
  know files which are in the table no more. The daily maintenance (`jobs/maintenance.py`) expires them
  together with these files.
- The newest snapshot that is older than what is kept. So a batch whose snapshot would be younger is not in
  the table when the search for it arrives here (`telemetry_lake.tables.commits`), however seldom the table
  changes.
- Everything since a running compaction began. Iceberg accepts its commit only if the history reaches back to
  the snapshot from which it read its files, which `COMPACTION_TAG` names.

Manifests and lists of manifests of expired snapshots become orphans, which the daily maintenance deletes.
"""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import AssertTableUUID, RemoveSnapshotsUpdate

from telemetry_lake.failures import ConfigurationError, RetriableError
from telemetry_lake.settings import DrainSettings
from telemetry_lake.tables.commits import CLOCKS_APART_MAX, UNDECIDED, retrying

KEEP_APPENDS: Final = CLOCKS_APART_MAX + timedelta(minutes=30)
"""How long each snapshot is kept.

A commit searches the history back to when its batch was claimed, less `CLOCKS_APART_MAX`. Half an hour is for
the batch; one that takes longer is looked for among the rows. At a commit every 5 seconds this is 1,080
snapshots, and 0.8 MB of metadata.
"""
COMPACTION_TAG: Final = "compaction"
"""The tag that names the snapshot from which the running compaction of a table read its files."""
COMPACTION_MAX: Final = timedelta(hours=12)
"""How long the tag of a compaction holds; without a limit, one that was killed would hold it for ever."""
EXPIRED_MAX: Final = 1_000
"""How many snapshots one commit expires."""


def expire_appends(settings: DrainSettings, catalog: Catalog, name: str, *, now: datetime) -> int:
    """Expire the snapshots of the table `name` that are of no use any more; returns how many.

    Raises RetriableError when the catalog stays unavailable or too busy, and ConfigurationError when the
    table does not exist.
    """
    total = 0
    while expired := retrying(settings)(_expire, catalog, name, now):
        total += expired
    return total


def _expire(catalog: Catalog, name: str, now: datetime) -> int:
    try:
        table = catalog.load_table(name)
        ids = expirable(table.metadata, now)[:EXPIRED_MAX]
        if ids:
            # Not by `table.maintenance`, which looks each id up by reading through all snapshots.
            uuid = AssertTableUUID(uuid=table.metadata.table_uuid)
            catalog.commit_table(table, (uuid,), (RemoveSnapshotsUpdate(snapshot_ids=ids),))
    except NoSuchTableError as error:
        raise ConfigurationError(
            f"the table {name} is not in the catalog: python -m telemetry_lake create-tables makes it"
        ) from error
    except UNDECIDED as error:
        raise RetriableError(f"expiring snapshots of {name}: {error}") from error
    return len(ids)


def expirable(metadata: TableMetadata, now: datetime) -> list[int]:
    """Return the ids of the snapshots of a table that are of no use any more, oldest first."""
    kept_since = now - KEEP_APPENDS
    compaction = _compaction(metadata, now)
    old = [
        snapshot
        for snapshot in sorted(metadata.snapshots, key=_number)
        if snapshot.timestamp_ms < kept_since.timestamp() * 1_000
        and (compaction is None or _number(snapshot) < _number(compaction))
    ]
    named = {ref.snapshot_id for ref in metadata.refs.values()}
    return [
        snapshot.snapshot_id
        # Each beside the one after it; the newest of the old ones is kept.
        for snapshot, following in pairwise(old)
        if _appended(snapshot) and _appended(following) and snapshot.snapshot_id not in named
    ]


def _compaction(metadata: TableMetadata, now: datetime) -> Snapshot | None:
    """Return the snapshot from which the running compaction read its files, if there is one."""
    tag = metadata.refs.get(COMPACTION_TAG)
    snapshot = metadata.snapshot_by_id(tag.snapshot_id) if tag is not None else None
    oldest = (now - COMPACTION_MAX).timestamp() * 1_000
    return snapshot if snapshot is not None and snapshot.timestamp_ms >= oldest else None


def _number(snapshot: Snapshot) -> int:
    """Return its place in the order of commits; only tables of the first format, not made here, have none."""
    return snapshot.sequence_number or 0


def _appended(snapshot: Snapshot) -> bool:
    return snapshot.summary is not None and snapshot.summary.operation is Operation.APPEND
