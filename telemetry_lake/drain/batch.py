"""What a batch is, and the records that are kept of it in the lake bucket.

A batch is the unit that is converted, audited and committed together. Its records are JSON objects:

- `Manifest`: the raw objects that one drain wanted to own together, written before their claims.
  A batch's *members* are those raw objects of its manifest whose claim names the batch.
- `StagedPart`: the files that one conversion of one part of the batch wrote.
- `Publication`: the files that are to be committed. It is written once, after the gates let the batch
  pass, and decides what the batch consists of, however often it is committed: two workers that
  converted the same batch under different versions of the code can never commit a mixture.
- `Commitment`: the batch is in the tables, in these snapshots.

`ClaimedBatch` and `Part` are what one step of a run hands to the next.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AwareDatetime, Field

from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.storage.object_keys import batch_id, digest_of_keys
from telemetry_lake.storage.records import Record
from telemetry_lake.tables.staged import Staged


class Member(Record):
    """One raw object of a batch, by its index message.

    `after_batch` is the batch that had it before, and gave it back for replay; else None.
    """

    message: IndexMessage
    after_batch: str | None = None

    @property
    def key(self) -> str:
        """The raw object's key."""
        return self.message.key


class Manifest(Record):
    """The raw objects that belong together, in the order of their keys."""

    batch_id: str
    created_at: AwareDatetime
    members: Annotated[tuple[Member, ...], Field(min_length=1)]


class Part(Record):
    """The members of a batch that one task converts, and the messages to keep hidden meanwhile.

    `name` follows from the keys.
    """

    batch_id: str
    name: str
    keys: tuple[str, ...]
    receipts: tuple[str, ...]


class HeldMessage(Record):
    """A message of the queue that this run received, and that hides its raw object from others."""

    key: str
    receipt: str
    receive_count: int
    body: str


class ClaimedBatch(Record):
    """A batch that this run works on, cut into parts, with the messages it holds of it.

    A batch whose publication is decided has no parts left to convert.
    """

    batch_id: str
    parts: tuple[Part, ...]
    held: tuple[HeldMessage, ...]


class StagedPart(Staged):
    """What one conversion of a part wrote, and which raw objects it had to set aside, with the reason."""

    name: str
    quarantined: dict[str, str]


class Commitment(Record):
    """The batch is in its tables: `snapshots` names one by table that holds it, where it has rows."""

    batch_id: str
    snapshots: dict[str, int]
    quarantined: dict[str, str]


def new_manifest(members: Sequence[Member], created_at: AwareDatetime) -> Manifest:
    """Return the manifest of the batch made of `members`."""
    ordered = sorted(members, key=lambda member: member.key)
    identity = batch_id({member.key: member.after_batch for member in ordered})
    return Manifest(batch_id=identity, created_at=created_at, members=tuple(ordered))


def cut_into_batches(members: Sequence[Member], *, max_bytes: int, max_members: int) -> list[list[Member]]:
    """Return `members` in groups that keep both limits; one above `max_bytes` is a group of its own."""
    groups: list[list[Member]] = []
    size = 0
    for member in members:
        if not groups or size + member.message.bytes > max_bytes or len(groups[-1]) == max_members:
            groups.append([])
            size = 0
        groups[-1].append(member)
        size += member.message.bytes
    return groups


def cut_into_parts(
    batch: str, members: Mapping[str, Member], held: Sequence[HeldMessage], *, max_bytes: int
) -> tuple[Part, ...]:
    """Return the parts of a batch: the same members and limit always give parts of the same names."""
    ordered = [members[key] for key in sorted(members)]
    groups = cut_into_batches(ordered, max_bytes=max_bytes, max_members=len(ordered))
    return tuple(
        Part(
            batch_id=batch,
            name=digest_of_keys(keys),
            keys=keys,
            receipts=tuple(message.receipt for message in held if message.key in keys),
        )
        for keys in (tuple(member.key for member in group) for group in groups)
    )
