"""Every object key of the lake: the one place that builds them and takes them apart.

======================================================  ===========  =================================
key                                                     bucket       what
======================================================  ===========  =================================
``raw/v1/<date>/<hour>/<node>/<segment id>.arrows``     raw bucket   pings as received (`raw_object`)
``ledger/claims/<raw object key>.json``                 lake bucket  which batch owns a raw object
``batches/<batch id>/manifest.json``                    lake bucket  the raw objects of a batch
``batches/<batch id>/staged/<part>.json``               lake bucket  the files that a conversion staged
``batches/<batch id>/audit.json``                       lake bucket  what the gates found
``batches/<batch id>/committed.json``                   lake bucket  the snapshots that hold the batch
======================================================  ===========  =================================

Date and hour are those of the first ping of the raw object, in UTC. No object under `raw/` or
`ledger/`, no manifest and no commit record is ever changed once it is there.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

RAW_PREFIX: Final = "raw/v1/"
CLAIM_PREFIX: Final = "ledger/claims/"
BATCH_PREFIX: Final = "batches/"

NAME_MAX_LENGTH: Final = 128
"""The longest node name or segment id, in characters; S3 keys hold 1,024 bytes in all."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_RAW_KEY: Final = re.compile(
    rf"raw/v1/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<hour>[01]\d|2[0-3])/(?P<node>{_NAME})/(?P<segment>{_NAME})\.arrows"
)
_BATCH_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class RawObjectKey:
    """The parts of a raw object's key; `hour` is 0 to 23, `date` and `hour` are in UTC."""

    date: date
    hour: int
    node: str
    segment_id: str

    def __str__(self) -> str:
        return f"{RAW_PREFIX}{self.date.isoformat()}/{self.hour:02d}/{self.node}/{self.segment_id}.arrows"


def raw_object_key(first_submission: datetime, node: str, segment_id: str) -> str:
    """The key of the raw object made of the segment `segment_id` of `node`.

    Raises ValueError when `first_submission` is naive or when a name could escape its place in the key.
    """
    if first_submission.tzinfo is None:
        raise ValueError("a raw object's key needs an aware submission timestamp")
    utc = first_submission.astimezone(UTC)
    key = str(RawObjectKey(utc.date(), utc.hour, node, segment_id))
    split_raw_object_key(key)
    return key


def split_raw_object_key(key: str) -> RawObjectKey:
    """The parts of `key`; ValueError when it is not the key of a raw object."""
    match = _RAW_KEY.fullmatch(key)
    if match is None:
        raise ValueError(
            f"not the key of a raw object: {key!r}"
            f" (expected {RAW_PREFIX}<date>/<hour>/<node>/<segment>.arrows)"
        )
    return RawObjectKey(
        date.fromisoformat(match["date"]), int(match["hour"]), match["node"], match["segment"]
    )


def raw_object_prefix(day: date) -> str:
    """What the keys of all raw objects of one UTC day start with."""
    return f"{RAW_PREFIX}{day.isoformat()}/"


def claim_key(raw_key: str) -> str:
    """The key of the claim on a raw object."""
    split_raw_object_key(raw_key)
    return f"{CLAIM_PREFIX}{raw_key}.json"


def claim_prefix(day: date) -> str:
    """What the keys of the claims on all raw objects of one UTC day start with."""
    return f"{CLAIM_PREFIX}{raw_object_prefix(day)}"


def claimed_raw_object_key(key: str) -> str:
    """The raw object that the claim `key` is about; ValueError when it is not a claim's key."""
    if not (key.startswith(CLAIM_PREFIX) and key.endswith(".json")):
        raise ValueError(f"not the key of a claim: {key!r}")
    raw_key = key.removeprefix(CLAIM_PREFIX).removesuffix(".json")
    split_raw_object_key(raw_key)
    return raw_key


def batch_id(raw_keys: Iterable[str]) -> str:
    """The identity of the batch made of these raw objects: 32 hex digits, whatever their order.

    The first 128 bits of the SHA-256 of the sorted keys, one a line.
    """
    lines = "\n".join(sorted(set(raw_keys)))
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def _in_batch(batch: str, name: str) -> str:
    if _BATCH_ID.fullmatch(batch) is None:
        raise ValueError(f"not a batch id: {batch!r} (expected 32 hexadecimal digits)")
    return f"{BATCH_PREFIX}{batch}/{name}"


def manifest_key(batch: str) -> str:
    """The key of a batch's manifest."""
    return _in_batch(batch, "manifest.json")


def staged_key(batch: str, part: str) -> str:
    """The key of the list of files that one conversion of a batch staged."""
    return _in_batch(batch, f"staged/{part}.json")


def audit_key(batch: str) -> str:
    """The key of a batch's audit results."""
    return _in_batch(batch, "audit.json")


def committed_key(batch: str) -> str:
    """The key of the record that a batch is committed."""
    return _in_batch(batch, "committed.json")
