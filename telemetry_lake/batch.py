"""What a batch is, and the records that are kept of it in the lake bucket.

A batch is the unit that is converted, audited and committed together. Its records are JSON objects:

- `Manifest`: the raw objects that one drain wanted to own together, written before their claims.
  A batch's *members* are those raw objects of its manifest whose claim names the batch.
- `StagedPart`: the files that one conversion of one part of the batch wrote.
- `Publication`: the files that are to be committed. It is written once, after the gates let the batch
  pass, and decides what the batch consists of, whoever commits it and however often: two workers that
  converted the same batch under different versions of the code can never commit a mixture.
- `Commitment`: the batch is in the tables, in these snapshots.

`ClaimedBatch` and `Part` are what one step of a run hands to the next.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from telemetry_lake.index_message import IndexMessage
from telemetry_lake.object_keys import batch_id


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Record):
    """One raw object of a batch, by its index message.

    `after_batch` is the batch that had it before, and gave it back for replay; else None.
    """

    message: IndexMessage
    after_batch: str | None = None

    @property
    def key(self) -> str:
        """The raw object's key."""
        return self.message.key


class Manifest(_Record):
    """The raw objects that belong together, in the order of their keys."""

    batch_id: str
    created_at: AwareDatetime
    members: Annotated[tuple[Member, ...], Field(min_length=1)]


class Part(_Record):
    """The members of a batch that one task converts, and the messages to keep hidden meanwhile.

    `name` follows from the keys.
    """

    batch_id: str
    name: str
    keys: tuple[str, ...]
    receipts: tuple[str, ...]


class HeldMessage(_Record):
    """A message of the queue that this run received, and that hides its raw object from others."""

    key: str
    message_id: str
    receipt: str
    receive_count: int


class ClaimedBatch(_Record):
    """A batch that this run works on, cut into parts, with the messages it holds of it.

    A batch whose publication is decided has no parts left to convert.
    """

    batch_id: str
    parts: tuple[Part, ...]
    held: tuple[HeldMessage, ...]


class StagedFile(_Record):
    """A Parquet file that no snapshot names yet; `table` such as `live.pings`, `bytes` its size."""

    table: str
    uri: str
    rows: int
    bytes: int


class RawObjectRows(_Record):
    """How many rows the pings of one raw object became; `rejected` by error type."""

    key: str
    pings: int
    rejected: dict[str, int]


class StagedPart(_Record):
    """What one conversion of a part wrote, and which raw objects it had to set aside, with the reason."""

    name: str
    files: tuple[StagedFile, ...]
    raw_objects: tuple[RawObjectRows, ...]
    quarantined: dict[str, str]


class Publication(_Record):
    """What a batch is, once and for all: files to commit by table, and raw objects set aside by key.

    `raw_objects` are the members whose pings are in the files, `rows` the rows by table.
    """

    batch_id: str
    raw_objects: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    rows: dict[str, int]
    quarantined: dict[str, str]


class Commitment(_Record):
    """The batch is in its tables: `snapshots` names one by table that holds it, where it has rows."""

    batch_id: str
    snapshots: dict[str, int]
    quarantined: dict[str, str]


def new_manifest(members: Sequence[Member], created_at: AwareDatetime) -> Manifest:
    """The manifest of the batch made of `members`."""
    ordered = sorted(members, key=lambda member: member.key)
    identity = batch_id({member.key: member.after_batch for member in ordered})
    return Manifest(batch_id=identity, created_at=created_at, members=tuple(ordered))


def cut_into_batches(members: Sequence[Member], *, max_bytes: int, max_members: int) -> list[list[Member]]:
    """`members` in groups that keep both limits; one larger than `max_bytes` is a group of its own."""
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
    """The parts of a batch: the same members and limit always give parts of the same names."""
    ordered = [members[key] for key in sorted(members)]
    groups = cut_into_batches(ordered, max_bytes=max_bytes, max_members=len(ordered))
    return tuple(
        Part(
            batch_id=batch,
            name=batch_id(keys),
            keys=keys,
            receipts=tuple(message.receipt for message in held if message.key in keys),
        )
        for keys in (tuple(member.key for member in group) for group in groups)
    )
