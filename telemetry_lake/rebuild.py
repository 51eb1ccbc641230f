"""Rebuild the ledger's claims and commit records from what else is known.

The claims say who owns a raw object, and can be lost like anything. What they said follows from other
places: manifests name the raw objects of a batch, publications what it was decided to consist of, and the
history of the tables which batches are in them. Where histories no longer reach back, the rows are asked.

Claims of batches that were never decided are not made again: nothing of them is in a table, their
raw objects are claimed anew. No drain may run meanwhile: it would decide from a ledger that is half there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from telemetry_lake.batch import Commitment, Manifest, Publication
from telemetry_lake.drain import Drain
from telemetry_lake.object_keys import BATCH_PREFIX, batch_of_key, manifest_key, publication_key
from telemetry_lake.publish import TABLES_IN_ORDER, find_batch


@dataclass(slots=True)
class RebuiltLedger:
    """What is there now: `claims` of so many decided `batches`, and what had to be written again."""

    batches: int = 0
    claims: int = 0
    commitments: list[str] = field(default_factory=list)
    """Batches of which the tables showed that they are committed."""
    undecided: list[str] = field(default_factory=list)
    """Batches of which nothing is in a table; their raw objects are free again."""


def rebuild_ledger(drain: Drain) -> RebuiltLedger:
    """Write claims, releases and commit records again wherever they are missing; nothing is overwritten."""
    result = RebuiltLedger()
    for batch in _batches(drain):
        manifest = drain.ledger.manifest(batch)
        publication = drain.ledger.publication(batch)
        if publication is None:
            result.undecided.append(batch)
            continue
        result.batches += 1
        result.claims += _rebuild_claims(drain, manifest, publication)
        if drain.ledger.commitment(batch) is None:
            commitment = _commitment(drain, manifest, publication)
            if commitment is not None:
                drain.ledger.put_commitment(commitment)
                result.commitments.append(batch)
    return result


def _batches(drain: Drain) -> Iterator[str]:
    """Every batch that has a manifest; decided ones first, because they own what others only asked for."""
    found: dict[str, set[str]] = {}
    for item in drain.store.list_objects(drain.settings.s3.lake_bucket, BATCH_PREFIX):
        found.setdefault(batch_of_key(item.key), set()).add(item.key)
    begun = [batch for batch, keys in found.items() if manifest_key(batch) in keys]
    yield from sorted(begun, key=lambda batch: publication_key(batch) not in found[batch])


def _rebuild_claims(drain: Drain, manifest: Manifest, publication: Publication) -> int:
    """Claim what the publication decided upon; how many raw objects that is."""
    decided = {*publication.raw_objects, *publication.quarantined}
    members = [member for member in manifest.members if member.key in decided]
    for member in members:
        if member.after_batch is not None:
            drain.ledger.release(member.key, member.after_batch)
        drain.ledger.claim(member, manifest.batch_id)
    return len(members)


def _commitment(drain: Drain, manifest: Manifest, publication: Publication) -> Commitment | None:
    """Where the batch is, if it is in every table that it has rows of."""
    snapshots: dict[str, int] = {}
    for name in TABLES_IN_ORDER:
        if not publication.files.get(name):
            continue
        snapshot = find_batch(drain.catalog.load_table(name), publication, manifest.created_at)
        if snapshot is None:
            return None
        snapshots[name] = snapshot
    return Commitment(batch_id=manifest.batch_id, snapshots=snapshots, quarantined=publication.quarantined)
