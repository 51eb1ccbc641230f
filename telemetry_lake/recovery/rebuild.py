"""Rebuild the ledger's claims and commit records from what else is known.

The claims say who owns a raw object, and can be lost like any object. What they said follows from other
places: manifests name the raw objects of a batch, publications what it was decided to consist of, and the
history of the tables which batches are in them. Where histories no longer reach back, the rows are searched.

Claims of batches that were never decided are not made again: nothing of them is in a table, their
raw objects are claimed again. No drain may run meanwhile: it would decide from half a ledger.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final, NamedTuple

from telemetry_lake.drain.batch import Commitment, Manifest
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.recovery.keys import Keys
from telemetry_lake.storage.object_keys import (
    BATCH_PREFIX,
    batch_of_key,
    committed_key,
    manifest_key,
    publication_key,
    split_raw_object_key,
)
from telemetry_lake.storage.records import all_at_once
from telemetry_lake.tables.commits import TABLES_IN_ORDER, find_batch
from telemetry_lake.tables.staged import Publication

BATCH_PREFIXES: Final = tuple(f"{BATCH_PREFIX}{number:02x}" for number in range(256))
"""Batch ids are hexadecimal digests: these cut all batches into equal parts, which fit into memory."""


@dataclass(slots=True)
class RebuiltLedger:
    """The counts of decided `batches` and of their `claims`, and what had to be written again."""

    batches: int = 0
    claims: int = 0
    skipped: int = 0
    """Committed batches whose raw objects are all of days that are complete."""
    commitments: Keys = field(default_factory=Keys)
    """Batches of which the tables showed that they are committed."""
    undecided: Keys = field(default_factory=Keys)
    """Batches of which nothing is in a table; their raw objects are free again."""
    foreign: Keys = field(default_factory=Keys)
    """Keys below `batches/` that are not those of a batch's records; they are skipped."""


class _Begun(NamedTuple):
    """A batch that has a manifest, and which of the later records it has."""

    batch: str
    is_decided: bool
    is_recorded: bool


class _Rebuilt(NamedTuple):
    """What was done for one batch; `claims` is None when it was skipped."""

    batch: str
    claims: int | None
    recorded_again: bool


def rebuild_ledger(
    lake: LakeConnections,
    *,
    skip_complete: bool = False,
    watch: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> RebuiltLedger:
    """Write claims, releases and commit records again where they are missing; nothing is overwritten.

    With `skip_complete`, committed batches are left out whose raw objects are all of complete days. `watch`
    yields the parts of the work again, while it shows how far it has come.
    """
    result = RebuiltLedger()
    complete = lake.days.complete() if skip_complete else frozenset()
    for prefix in watch(BATCH_PREFIXES):
        begun = _begun(lake, prefix, result.foreign)
        for batch in begun:
            if not batch.is_decided:
                result.undecided.add(batch.batch)
        decided = [batch for batch in begun if batch.is_decided]
        for done in all_at_once(lambda batch: _rebuild(lake, batch, complete), decided):
            if done.claims is None:
                result.skipped += 1
                continue
            result.batches += 1
            result.claims += done.claims
            if done.recorded_again:
                result.commitments.add(done.batch)
    return result


def _begun(lake: LakeConnections, prefix: str, foreign: Keys) -> list[_Begun]:
    """Return the batches below a prefix that have a manifest; other keys are added to `foreign`."""
    found: dict[str, set[str]] = {}
    for item in lake.store.list_objects(lake.settings.s3.lake_bucket, prefix):
        try:
            found.setdefault(batch_of_key(item.key), set()).add(item.key)
        except ValueError:
            foreign.add(item.key)
    return [
        _Begun(batch, publication_key(batch) in keys, committed_key(batch) in keys)
        for batch, keys in found.items()
        if manifest_key(batch) in keys
    ]


def _rebuild(lake: LakeConnections, begun: _Begun, complete: frozenset[date]) -> _Rebuilt:
    """Write what is missing of a decided batch."""
    batch = begun.batch
    manifest = lake.ledger.manifest(batch)
    days = {split_raw_object_key(member.key).date for member in manifest.members}
    publication = lake.ledger.publication(batch)
    if publication is None or (begun.is_recorded and days <= complete):
        return _Rebuilt(batch, None, False)
    claims = _rebuild_claims(lake, manifest, publication)
    if begun.is_recorded:
        return _Rebuilt(batch, claims, False)
    commitment = _commitment(lake, manifest, publication)
    if commitment is not None:
        lake.ledger.put_commitment(commitment)
    return _Rebuilt(batch, claims, commitment is not None)


def _rebuild_claims(lake: LakeConnections, manifest: Manifest, publication: Publication) -> int:
    """Claim what the publication decided upon; returns how many raw objects that is."""
    decided = {*publication.raw_objects, *publication.quarantined}
    members = [member for member in manifest.members if member.key in decided]
    for member in members:
        if member.after_batch is not None:
            lake.ledger.release(member.key, member.after_batch)
        lake.ledger.claim(member, manifest.batch_id)
    return len(members)


def _commitment(lake: LakeConnections, manifest: Manifest, publication: Publication) -> Commitment | None:
    """Return where the batch is, or None unless it is in every table that it has rows of."""
    snapshots: dict[str, int] = {}
    for name in TABLES_IN_ORDER:
        if not publication.files.get(name):
            continue
        snapshot = find_batch(lake.catalog.load_table(name), publication, manifest.created_at)
        if snapshot is None:
            return None
        snapshots[name] = snapshot
    return Commitment(batch_id=manifest.batch_id, snapshots=snapshots, quarantined=publication.quarantined)
