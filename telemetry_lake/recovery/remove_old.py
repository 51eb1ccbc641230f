"""Remove records of the lake bucket that nothing needs any more.

- Entries of the page Audits: they are for display, and what the gates found in a batch stays with the batch.
- What is kept of replays that are finished, pings included: a copy of what is in the raw bucket.

Keys of entries begin with the day, so listing stops at the first one that stays. Replays that are not
finished stay however old they are, as does one whose raw object is not in the raw bucket.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.recovery.replay_rejected import shipped_replays, unfinished_replays
from telemetry_lake.storage.object_keys import (
    AUDIT_PREFIX,
    DATE_AUDIT_PREFIX,
    REPLAY_PREFIX,
    audit_entry_prefix,
    date_audit_prefix,
    replay_of_key,
    replay_pings_key,
    replay_selection_key,
)


@dataclass(slots=True)
class Removed:
    """How many were removed."""

    audits: int = 0
    date_audits: int = 0
    replays: int = 0


def remove_old(lake: LakeConnections, *, now: datetime) -> Removed:
    """Remove what is older at the time `now` than the settings say; returns how much that was.

    Running it again, also beside itself, is harmless. Raises RetriableError when S3 or the catalog is
    unavailable.
    """
    days = lake.settings.housekeeping
    audits_since = now.date() - timedelta(days=days.audits_days)
    return Removed(
        audits=_remove_entries(lake, AUDIT_PREFIX, audit_entry_prefix(audits_since)),
        date_audits=_remove_entries(lake, DATE_AUDIT_PREFIX, date_audit_prefix(audits_since)),
        replays=_remove_replays(lake, written_before=now - timedelta(days=days.replays_days)),
    )


def _remove_entries(lake: LakeConnections, prefix: str, first_kept: str) -> int:
    """Remove the objects below `prefix` whose keys come before `first_kept`."""
    removed = 0

    def old() -> Iterator[str]:
        nonlocal removed
        for item in lake.store.list_objects(lake.settings.s3.lake_bucket, prefix):
            if item.key >= first_kept:
                return
            removed += 1
            yield item.key

    lake.store.delete(lake.settings.s3.lake_bucket, old())
    return removed


def _remove_replays(lake: LakeConnections, *, written_before: datetime) -> int:
    bucket = lake.settings.s3.lake_bucket
    old = {
        replay_of_key(item.key)
        for item in lake.store.list_objects(bucket, REPLAY_PREFIX)
        if item.modified_at < written_before
    }
    shipped = shipped_replays(lake, sorted(old))
    # Asked last: what is shipped was unfinished before, so that what is not unfinished now is finished.
    finished = sorted(set(shipped) - set(unfinished_replays(lake))) if shipped else []
    # The selection goes last: a run that comes after one that was killed here finds the replay by it.
    lake.store.delete(bucket, map(replay_pings_key, finished))
    lake.store.delete(bucket, map(replay_selection_key, finished))
    return len(finished)
