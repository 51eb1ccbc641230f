"""Reconcile: send the index message again of whatever the drain seems to have lost.

The queue is no memory: a message can be lost by an operator, an expiry or an outage. What counts is
the raw bucket and the ledger. Three things are mended, each only when it is older than a grace period, so
that nothing is mended that is merely on its way:

- a raw object that no batch claims, also one that was given back for replay and not claimed since;
- a raw object that a batch claimed lately and did not commit, unless gates stopped that batch;
- a replay of rejected pings that died after their rows had left the table.

A message too many is harmless: the ledger knows what is done.
"""

import logging
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from telemetry_lake.audit import Audit
from telemetry_lake.drain import Drain
from telemetry_lake.failures import DamagedRawObject
from telemetry_lake.object_keys import (
    claim_key,
    claim_prefix,
    raw_object_prefix,
    release_prefix,
    split_claim_key,
    split_release_key,
)
from telemetry_lake.raw_object import RawObject
from telemetry_lake.replay_rejected import finish_replays

STUCK_LOOKBACK: Final = timedelta(hours=6)
"""Claims older than this are taken for settled; `rebuild-queue` looks at all of them."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reconciled:
    """What was sent again, by key; `damaged` could not be, because its message cannot be made of it."""

    never_claimed: list[str] = field(default_factory=list)
    never_committed: list[str] = field(default_factory=list)
    replays_finished: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def reconcile(drain: Drain, *, now: datetime) -> Reconciled:
    """Send again what is missed at the time `now`; raises RetriableError when S3 or SQS is away."""
    result = Reconciled(replays_finished=finish_replays(drain))
    missed_since = now - timedelta(seconds=drain.settings.drain.reconcile_grace_seconds)
    for age_days in range(drain.settings.drain.reconcile_max_age_days + 1):
        day = now.date() - timedelta(days=age_days)
        claims = {
            item.key: item.modified_at
            for item in drain.store.list_objects(drain.settings.s3.lake_bucket, claim_prefix(day))
        }
        unclaimed = list(_unclaimed(drain, day, claims.keys(), missed_since))
        stuck = [
            split_claim_key(key)[0]
            for key, claimed_at in claims.items()
            if now - STUCK_LOOKBACK < claimed_at < missed_since
        ]
        for key in unclaimed:
            _send(drain, key, result.never_claimed, result.damaged)
        for key in _uncommitted(drain, stuck):
            _send(drain, key, result.never_committed, result.damaged)
    return result


def raise_if_damaged(result: Reconciled) -> None:
    """Raise DamagedRawObject when there are raw objects of which no message can be made."""
    if result.damaged:
        raise DamagedRawObject(
            f"{len(result.damaged)} objects in the raw bucket are not raw objects, and no batch owns them. "
            "See 'Not a raw object' in docs/drain.md.\n" + "\n".join(result.damaged)
        )


def _unclaimed(drain: Drain, day: date, claims: Set[str], missed_since: datetime) -> Iterator[str]:
    """The raw objects of a day, and those given back, that nobody claims and that are old enough."""
    for item in drain.store.list_objects(drain.settings.s3.raw_bucket, raw_object_prefix(day)):
        if item.modified_at < missed_since and claim_key(item.key) not in claims:
            yield item.key
    for item in drain.store.list_objects(drain.settings.s3.lake_bucket, release_prefix(day)):
        key, batch = split_release_key(item.key)
        if item.modified_at < missed_since and claim_key(key, after=batch) not in claims:
            yield key


def _uncommitted(drain: Drain, keys: list[str]) -> Iterator[str]:
    """Those of the claimed raw objects `keys` whose batch is neither committed nor stopped by its gates."""
    tenures = drain.ledger.tenures(keys)
    committed = drain.ledger.commitments(tenure.batch for tenure in tenures.values() if tenure.batch)
    for key, tenure in tenures.items():
        if tenure.batch is None or tenure.batch in committed:
            continue
        audit = drain.ledger.audit(tenure.batch, Audit)
        if audit is None or audit.may_be_published:
            yield key


def _send(drain: Drain, key: str, sent: list[str], damaged: list[str]) -> None:
    bucket = drain.settings.s3.raw_bucket
    try:
        drain.queue.send(RawObject(key, drain.store.get(bucket, key)).index_message(bucket))
    except DamagedRawObject as error:
        _log.error("no message can be made of a raw object: %s", error)
        damaged.append(str(error))
    else:
        _log.warning("sent the index message of %s again", key)
        sent.append(key)
