"""The ledger: which batch owns a raw object, and how far each batch has come.

It consists of records in the lake bucket and nothing else. What decides something is written once, on the
condition that it is not there yet, so that any number of workers come to the same decision:

- *Who owns a raw object?* Its claim. `claim` writes it or finds it.
- *What does a batch consist of?* Its publication. `decide` writes it or finds it. One whose files are
  gone, and of which nothing is in a table, is withdrawn (`withdraw`), and the next one decides.

A raw object keeps its owner, with one exception: when its batch was committed without it because it was
damaged, a replay may have the batch give it back (`release`). Then the claim behind that release decides
again, and so on: ownership is a chain that only grows.

Only `claim_members` claims; every other question about owners is answered by reading.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from uuid import uuid4

from pydantic import BaseModel

from telemetry_lake.drain.batch import Commitment, Manifest, Member, StagedPart
from telemetry_lake.drain.usual_shares import UsualShares
from telemetry_lake.failures import FatalError
from telemetry_lake.storage.object_keys import (
    USUAL_SHARES_KEY,
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
    withdrawn_key,
)
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import END_OF_DAY, R, Record, RecordStore, all_at_once
from telemetry_lake.tables.staged import Publication


class Claim(Record):
    """The batch that owns a raw object."""

    batch_id: str


class RowCount(Record):
    """How many rows of a batch have these values; those of `live.rejected_pings` have an `error_type`.

    Names are as clients sent them, and None where a ping did not say.
    """

    namespace: str | None
    document_type: str | None
    channel: str | None = None
    error_type: str | None = None
    rows: int


class AuditOutcome(Record):
    """The result of an audit; `failed` and `warned` count checks by severity, `rows` are by table."""

    may_be_published: bool
    waived: bool
    failed: int
    alarms: int = 0
    warned: int
    rows: dict[str, int]
    counts: tuple[RowCount, ...] = ()
    """The rows by type, channel and error, for the metrics. Where there are very many types, those that no
    schema names are left out."""


class Attempt(Record):
    """A conversion that was begun. Without an end, its process was killed, or still works.

    `token` tells it from every other, so that a process recognises its own record after an answer was lost.
    `converted` says that it ended with staged files: then it can be converted.
    """

    token: str = ""
    ended: bool = False
    converted: bool = False
    error: str | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it did not end, or ended with an error."""
        return not self.ended or self.error is not None


class Waiver(Record):
    """An operator's decision to publish a batch in spite of its gates."""

    reason: str


class Withdrawal(Record):
    """A decision what a batch consists of does not hold any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ownership:
    """Which batch owns a raw object now, None without an owner; `after_batch` gave it back before."""

    batch: str | None
    after_batch: str | None


class RunningAttempt:
    """A conversion that is under way; `earlier_failures` are the attempts before it that failed."""

    def __init__(self, earlier_failures: list[Attempt]) -> None:
        self.earlier_failures = earlier_failures
        self.error: str | None = None
        self.has_converted = False

    def converted(self) -> None:
        """Let the attempt of a raw object end with staged files: it can be converted."""
        self.has_converted = True

    def failed(self, error: str) -> None:
        """Let the attempt end with this error."""
        self.error = error


class Ledger:
    """The ledger in `bucket`; safe to share between threads."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._records = RecordStore(store, bucket)

    def ownership(self, key: str) -> Ownership:
        """Return who owns the raw object `key`."""
        after: str | None = None
        while (owner := self.owner(key, after)) is not None:
            if self._records.read(release_key(key, owner), Claim) is None:
                return Ownership(owner, after)
            after = owner
        return Ownership(None, after)

    def ownerships(self, keys: Iterable[str]) -> dict[str, Ownership]:
        """Return who owns each of these raw objects."""
        unique = list(dict.fromkeys(keys))
        return dict(zip(unique, all_at_once(self.ownership, unique), strict=True))

    def owner(self, key: str, after_batch: str | None) -> str | None:
        """Return the batch whose claim on the raw object `key` came first, or first after `after_batch`."""
        claim = self._records.read(claim_key(key, after=after_batch), Claim)
        return None if claim is None else claim.batch_id

    def claim(self, member: Member, batch: str) -> str:
        """Claim a raw object for `batch` unless it has an owner; returns its owner."""
        key = claim_key(member.key, after=member.after_batch)
        return self._records.decide(key, Claim(batch_id=batch)).batch_id

    def release(self, key: str, batch: str) -> None:
        """Let the raw object `key` be claimed again, which `batch` was committed without."""
        self._records.decide(release_key(key, batch), Claim(batch_id=batch))

    def begin(self, manifest: Manifest) -> Manifest:
        """Write the manifest unless it is there; returns the one that is there."""
        return self._records.decide(manifest_key(manifest.batch_id), manifest)

    def manifest(self, batch: str) -> Manifest:
        """Return the manifest of a batch that has claims."""
        return self._records.require(manifest_key(batch), Manifest)

    def claim_members(self, manifest: Manifest) -> dict[str, Member]:
        """Claim what has no owner yet of a manifest; returns the batch's members by key.

        From the first return of this function on, the members of the batch are fixed: every raw object of
        the manifest has an owner, and owners do not change. A process that is killed before that leaves a
        manifest with some claims, which the next call completes; nothing was done with the batch until then.
        """
        owners = all_at_once(lambda member: self.claim(member, manifest.batch_id), manifest.members)
        return _owned(manifest, owners)

    def members(self, manifest: Manifest) -> dict[str, Member]:
        """Return the members of a batch by key, after `claim_members` has returned for it; writes nothing.

        Raises FatalError when a claim is missing. Without it the batch is not defined.
        """
        owners = all_at_once(lambda member: self.owner(member.key, member.after_batch), manifest.members)
        if missing := [
            member.key for member, owner in zip(manifest.members, owners, strict=True) if owner is None
        ]:
            raise FatalError(
                f"batch {manifest.batch_id}: the claims of {len(missing)} raw objects are not there, such as "
                f"{missing[0]}. Something removes objects below ledger/, which must never change: stop that "
                "first. The batch is claimed again when its messages come again."
            )
        return _owned(manifest, owners)

    def put_staged(self, batch: str, part: StagedPart) -> None:
        """Keep what a conversion staged; a later conversion of the same part replaces it."""
        self._records.put(staged_key(batch, part.name), part)

    def staged(self, batch: str, part: str) -> StagedPart | None:
        """Return what the last finished conversion of a part staged."""
        return self._records.read(staged_key(batch, part), StagedPart)

    @contextmanager
    def attempt(self, batch: str, name: str) -> Iterator[RunningAttempt]:
        """Note that a conversion begins and, at the end of the block, that it ended.

        `name` is that of a part of the batch, or of one raw object in it. The attempt ends with an error only
        if `failed` was called, also when the block is left by an exception, or when a person stops the
        process. A process that is killed, and a task that Airflow stops at its time limit (what it raises is
        not an `Exception`), leave the attempt without an end, which counts as failed, until a later attempt
        shows by staged files that the cause was another.
        """
        prefix = attempts_prefix(batch, name)
        earlier, number = self._attempts(prefix)
        begun = Attempt(token=uuid4().hex)
        while self._records.decide(key := f"{prefix}{number:04d}.json", begun).token != begun.token:
            number += 1
        attempt = RunningAttempt(earlier)
        try:
            yield attempt
        except (Exception, KeyboardInterrupt, SystemExit):
            self._records.put(key, begun.model_copy(update={"ended": True, "error": attempt.error}))
            raise
        self._records.put(
            key,
            begun.model_copy(
                update={"ended": True, "converted": attempt.has_converted, "error": attempt.error}
            ),
        )

    def failed_attempts(self, batch: str, name: str) -> list[Attempt]:
        """Return the attempts that failed since the last one that converted; `name` is as in `attempt`."""
        failures, _ = self._attempts(attempts_prefix(batch, name))
        return failures

    def _attempts(self, prefix: str) -> tuple[list[Attempt], int]:
        """Return the attempts that failed since the last one that converted, and the number of the next."""
        keys = self._records.keys(prefix)
        failures: list[Attempt] = []
        for attempt in self._records.read_all(keys, Attempt):
            if attempt is None:
                continue
            if attempt.converted:
                failures.clear()
            elif attempt.has_failed:
                failures.append(attempt)
        return failures, len(keys)

    def last_error(self, batch: str) -> str | None:
        """Return the error of the last attempt to convert a part of the batch that ended with one."""
        attempts = self._records.read_all(self._records.keys(attempts_prefix(batch)), Attempt)
        errors = [attempt.error for attempt in attempts if attempt is not None and attempt.error]
        return errors[-1] if errors else None

    def put_audit(self, batch: str, audit: BaseModel, outcome: AuditOutcome, at: datetime) -> None:
        """Keep what the gates found, and that they were asked at the time `at`."""
        self._records.put(audit_key(batch), audit)
        self._records.put(audit_entry_key(batch, at), outcome)

    def audits_of(
        self, day: date, *, at_most: int, before: str = END_OF_DAY
    ) -> list[tuple[datetime, str, AuditOutcome]]:
        """Return the last audits of a UTC day, newest first: when, of which batch, with which outcome.

        `before` is a `key_part_of_time` of the day: only earlier ones are returned.
        """
        newest = self._records.newest_keys(audit_entry_prefix(day), at_most, before=before)
        outcomes = self._records.read_all(newest, AuditOutcome)
        return [
            (*split_audit_entry_key(key), outcome)
            for key, outcome in zip(newest, outcomes, strict=True)
            if outcome is not None
        ]

    def audit(self, batch: str, form: type[R]) -> R | None:
        """Return what the gates found, or None when they were not asked."""
        return self._records.read(audit_key(batch), form)

    def usual_shares(self) -> UsualShares:
        """Return the usual shares of document types, none before they are kept for the first time."""
        return self._records.read(USUAL_SHARES_KEY, UsualShares) or UsualShares()

    def put_usual_shares(self, shares: UsualShares) -> None:
        """Keep the usual shares; of two drains at the same time, only one has its batch counted."""
        self._records.put(USUAL_SHARES_KEY, shares)

    def waive(self, batch: str, reason: str) -> None:
        """Let a batch be published although gates of severity `fail` stop it; the first reason is kept."""
        self._records.decide(waiver_key(batch), Waiver(reason=reason))

    def waiver(self, batch: str) -> Waiver | None:
        """Return the decision to publish the batch in spite of its gates, if there is one."""
        return self._records.read(waiver_key(batch), Waiver)

    def decide(self, publication: Publication) -> Publication:
        """Write what the batch consists of unless that is decided; returns the decision that is there."""
        batch = publication.batch_id
        number, decided = self._publication(batch)
        return decided or self._records.decide(publication_key(batch, number), publication)

    def publication(self, batch: str) -> Publication | None:
        """Return what the batch consists of, or None before that is decided."""
        return self._publication(batch)[1]

    def withdraw(self, publication: Publication, reason: str) -> None:
        """Let the batch be converted and decided again; what it consists of now is never to be committed.

        Nothing of it may be in a table. Does nothing when the decision has changed since it was read.
        """
        number, decided = self._publication(publication.batch_id)
        if decided == publication:
            key = withdrawn_key(publication.batch_id, number)
            self._records.decide(key, Withdrawal(reason=reason))

    def _publication(self, batch: str) -> tuple[int, Publication | None]:
        """Return how many publications of the batch were withdrawn, and the one that holds, if any."""
        number = 0
        while (found := self._records.read(publication_key(batch, number), Publication)) is not None:
            if self._records.read(withdrawn_key(batch, number), Withdrawal) is None:
                break
            number += 1
        return number, found

    def put_commitment(self, commitment: Commitment) -> Commitment:
        """Write that the batch is in the tables unless that is recorded; returns the record that is there."""
        return self._records.decide(committed_key(commitment.batch_id), commitment)

    def commitment(self, batch: str) -> Commitment | None:
        """Return where the batch is, or None before it is committed."""
        return self._records.read(committed_key(batch), Commitment)

    def commitments(self, batches: Iterable[str]) -> dict[str, Commitment]:
        """Return the commitments of those of `batches` that are committed."""
        unique = list(dict.fromkeys(batches))
        found = zip(unique, all_at_once(self.commitment, unique), strict=True)
        return {batch: commitment for batch, commitment in found if commitment is not None}


def _owned(manifest: Manifest, owners: Iterable[str | None]) -> dict[str, Member]:
    """Return those members of a manifest whose owner is its batch; `owners` are in their order."""
    pairs = zip(manifest.members, owners, strict=True)
    return {member.key: member for member, owner in pairs if owner == manifest.batch_id}
