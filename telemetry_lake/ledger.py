"""The ledger: which batch owns a raw object, and how far each batch has come.

It consists of objects in the lake bucket and nothing else. What decides something is written once, on
the condition that nobody did before, so that any number of workers come to the same decision:

- *Who owns a raw object?* Its claim. `claim` writes it or finds it.
- *What does a batch consist of?* Its publication. `decide` writes it or finds it.

A raw object has one owner for ever, with one exception: when its batch was committed without it, because
it was damaged, a replay may have the batch give it back (`release`). Then the claim behind that release
decides anew, and so on: ownership is a chain that only grows.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict

from telemetry_lake.batch import Commitment, Manifest, Member, Publication, StagedPart
from telemetry_lake.failures import FatalError
from telemetry_lake.object_keys import (
    attempts_prefix,
    audit_entry_key,
    audit_entry_prefix,
    audit_key,
    claim_key,
    committed_key,
    manifest_key,
    publication_key,
    release_key,
    split_audit_entry_key,
    staged_key,
    waiver_key,
)
from telemetry_lake.object_store import ObjectStore

LOOKUPS_AT_ONCE: Final = 8
"""How many claims are looked up or written at the same time."""

T = TypeVar("T")
V = TypeVar("V")
R = TypeVar("R", bound=BaseModel)


class Claim(BaseModel):
    """The batch that owns a raw object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_id: str


class AuditOutcome(BaseModel):
    """What came of an audit; `failed` and `warned` count checks by severity, `rows` are by table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    may_be_published: bool
    waived: bool
    failed: int
    warned: int
    rows: dict[str, int]


class Attempt(BaseModel):
    """A conversion that was begun. Without an end, its process died without a word, or still works."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ended: bool = False
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it did not end, or ended with an error."""
        return not self.ended or self.error is not None


class Waiver(BaseModel):
    """Somebody's decision to publish a batch in spite of its gates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str


@dataclass(frozen=True, slots=True)
class Tenure:
    """Who owns a raw object now: `batch`, or nobody; `after_batch` gave it back before."""

    batch: str | None
    after_batch: str | None


class Ledger:
    """The ledger in `bucket`; safe to share between threads."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def tenure(self, key: str) -> Tenure:
        """Who owns the raw object `key`."""
        after: str | None = None
        while (owner := self.owner(key, after)) is not None:
            if self._store.get_or_none(self._bucket, release_key(key, owner)) is None:
                return Tenure(owner, after)
            after = owner
        return Tenure(None, after)

    def tenures(self, keys: Iterable[str]) -> dict[str, Tenure]:
        """Who owns each of these raw objects."""
        unique = list(dict.fromkeys(keys))
        return dict(zip(unique, self._at_once(self.tenure, unique), strict=True))

    def owner(self, key: str, after_batch: str | None) -> str | None:
        """The batch whose claim on the raw object `key` came first, or first after `after_batch` had it."""
        body = self._store.get_or_none(self._bucket, claim_key(key, after=after_batch))
        return None if body is None else Claim.model_validate_json(body).batch_id

    def claim(self, member: Member, batch: str) -> str:
        """Claim a raw object for `batch` unless it has an owner; its owner."""
        key = claim_key(member.key, after=member.after_batch)
        if self._store.put_if_absent(self._bucket, key, _json(Claim(batch_id=batch))):
            return batch
        return Claim.model_validate_json(self._store.get(self._bucket, key)).batch_id

    def release(self, key: str, batch: str) -> None:
        """Let the raw object `key` be claimed again, which `batch` was committed without."""
        self._store.put_if_absent(self._bucket, release_key(key, batch), _json(Claim(batch_id=batch)))

    def begin(self, manifest: Manifest) -> Manifest:
        """Write the manifest unless it is there; the one that is there."""
        return self._decide(manifest_key(manifest.batch_id), manifest)

    def manifest(self, batch: str) -> Manifest:
        """The manifest of a batch that has claims."""
        return Manifest.model_validate_json(self._store.get(self._bucket, manifest_key(batch)))

    def members(self, manifest: Manifest) -> dict[str, Member]:
        """The batch's members by key, after claiming what nobody owned yet.

        From the first return of this function on, the members of the batch are fixed: every raw object of
        the manifest has an owner, and owners do not change.
        """
        owners = self._at_once(lambda member: self.claim(member, manifest.batch_id), manifest.members)
        pairs = zip(manifest.members, owners, strict=True)
        return {member.key: member for member, owner in pairs if owner == manifest.batch_id}

    def put_staged(self, batch: str, part: StagedPart) -> None:
        """Keep what a conversion staged; a later conversion of the same part replaces it."""
        self._store.put(self._bucket, staged_key(batch, part.name), _json(part))

    def staged(self, batch: str, part: str) -> StagedPart | None:
        """What the last finished conversion of a part staged."""
        return self._read(staged_key(batch, part), StagedPart)

    def begin_attempt(self, batch: str, part: str) -> tuple[str, list[Attempt]]:
        """Note that a conversion of a part begins: the note's key, and the attempts before it that failed."""
        prefix = attempts_prefix(batch, part)
        keys = [item.key for item in self._store.list_objects(self._bucket, prefix)]
        bodies = self._at_once(lambda key: self._store.get_or_none(self._bucket, key), keys)
        earlier = [Attempt.model_validate_json(body) for body in bodies if body is not None]
        number = len(keys)
        while not self._store.put_if_absent(
            self._bucket, key := f"{prefix}{number:04d}.json", _json(Attempt())
        ):
            number += 1
        return key, [attempt for attempt in earlier if attempt.failed]

    def end_attempt(self, key: str, error: str | None = None) -> None:
        """Note that the attempt `key` ended, and with which error."""
        self._store.put(self._bucket, key, _json(Attempt(ended=True, error=error)))

    def last_error(self, batch: str) -> str | None:
        """The error that a conversion of the batch ended with, if any did; the last one of its parts."""
        keys = [item.key for item in self._store.list_objects(self._bucket, attempts_prefix(batch))]
        errors = [attempt.error for key in keys if (attempt := self._read(key, Attempt)) and attempt.error]
        return errors[-1] if errors else None

    def put_audit(self, batch: str, audit: BaseModel, outcome: AuditOutcome, at: datetime) -> None:
        """Keep what the gates found, and that they were asked at the time `at`."""
        self._store.put(self._bucket, audit_key(batch), _json(audit))
        self._store.put(self._bucket, audit_entry_key(batch, at), _json(outcome))

    def audits_of(self, day: date, *, at_most: int) -> list[tuple[datetime, str, AuditOutcome]]:
        """The last audits of a UTC day: when, of which batch, with which outcome; newest first."""
        keys = [item.key for item in self._store.list_objects(self._bucket, audit_entry_prefix(day))]
        newest = keys[: -at_most - 1 : -1]
        outcomes = self._at_once(lambda key: self._read(key, AuditOutcome), newest)
        return [
            (*split_audit_entry_key(key), outcome)
            for key, outcome in zip(newest, outcomes, strict=True)
            if outcome is not None
        ]

    def audit(self, batch: str, form: type[R]) -> R | None:
        """What the gates found, when they were asked."""
        return self._read(audit_key(batch), form)

    def waive(self, batch: str, reason: str) -> None:
        """Let a batch be published although gates of severity `fail` stop it."""
        self._store.put_if_absent(self._bucket, waiver_key(batch), _json(Waiver(reason=reason)))

    def waiver(self, batch: str) -> Waiver | None:
        """Somebody's decision to publish the batch in spite of its gates."""
        return self._read(waiver_key(batch), Waiver)

    def decide(self, publication: Publication) -> Publication:
        """Write what the batch consists of unless somebody did; the decision that is there."""
        return self._decide(publication_key(publication.batch_id), publication)

    def publication(self, batch: str) -> Publication | None:
        """What the batch consists of, when that is decided."""
        return self._read(publication_key(batch), Publication)

    def put_commitment(self, commitment: Commitment) -> Commitment:
        """Write that the batch is in the tables unless that is known; what is known."""
        return self._decide(committed_key(commitment.batch_id), commitment)

    def commitment(self, batch: str) -> Commitment | None:
        """Where the batch is, when it is committed."""
        return self._read(committed_key(batch), Commitment)

    def commitments(self, batches: Iterable[str]) -> dict[str, Commitment]:
        """The commitments of those of `batches` that are committed."""
        unique = list(dict.fromkeys(batches))
        found = zip(unique, self._at_once(self.commitment, unique), strict=True)
        return {batch: commitment for batch, commitment in found if commitment is not None}

    def _decide(self, key: str, record: R) -> R:
        if self._store.put_if_absent(self._bucket, key, _json(record)):
            return record
        found = self._read(key, type(record))
        if found is None:
            raise FatalError(
                f"s3://{self._bucket}/{key} was deleted while it was looked at: somebody removes objects "
                "that are never to change. Stop that first, then start the run again."
            )
        return found

    def _read(self, key: str, form: type[R]) -> R | None:
        body = self._store.get_or_none(self._bucket, key)
        return None if body is None else form.model_validate_json(body)

    def _at_once(self, act: Callable[[T], V], items: Iterable[T]) -> list[V]:
        with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as pool:
            return list(pool.map(act, items))


def _json(record: BaseModel) -> bytes:
    return record.model_dump_json().encode()
