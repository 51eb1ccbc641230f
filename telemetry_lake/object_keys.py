"""Every object key of the lake: the one place that builds them and takes them apart.

=======================================================  ===========  ========================================
key                                                      bucket       what
=======================================================  ===========  ========================================
``raw/v1/<date>/<hour>/<node>/<segment id>.arrows``      raw bucket   pings as received (`raw_object`)
``ledger/claims/<raw object key>.json``                  lake bucket  which batch owns a raw object
``ledger/claims/<raw object key>@<batch id>.json``       lake bucket  who owns it after that
``ledger/releases/<raw object key>@<batch id>.json``     lake bucket  the batch gave it back, for replay
``batches/<batch id>/manifest.json``                     lake bucket  the raw objects of a batch
``batches/<batch id>/staged/<part>.json``                lake bucket  the files that a conversion staged
``batches/<batch id>/attempts/<part>/<attempt>.json``    lake bucket  a conversion that was begun
``batches/<batch id>/audit.json``                        lake bucket  what the gates found
``batches/<batch id>/waiver.json``                       lake bucket  somebody lets the batch pass its gates
``batches/<batch id>/publication.json``                  lake bucket  the files that are to be committed
``batches/<batch id>/committed.json``                    lake bucket  the snapshots that hold the batch
``audits/<date>/<time>-<batch id>.json``                 lake bucket  what came of an audit, by its time
``replays/<replay id>/selection.json``                   lake bucket  which rejected pings are sent again
``replays/<replay id>/pings.arrows``                     lake bucket  their raw object, while it waits
``artifacts/<sha256>/<name>``                            lake bucket  what EMR runs (`spark_package`)
``analyses/runs/<run>/<name>``                           lake bucket  script, filter and output of a run
``analyses/scheduled/<name>/analysis.json``              lake bucket  an analysis that is repeated
``analyses/scheduled/<name>/started/<last date>.json``   lake bucket  it was started for these dates
=======================================================  ===========  ========================================

Date and hour are those of the first ping of the raw object, in UTC. No object under `raw/` or
`ledger/`, no manifest, publication or commit record is ever changed once it is there, and nothing of a
backfill but its reports.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

RAW_PREFIX: Final = "raw/v1/"
CLAIM_PREFIX: Final = "ledger/claims/"
RELEASE_PREFIX: Final = "ledger/releases/"
BATCH_PREFIX: Final = "batches/"
AUDIT_PREFIX: Final = "audits/"
REPLAY_PREFIX: Final = "replays/"
BACKFILL_PREFIX: Final = "backfill/"
BACKFILL_DATES_PREFIX: Final = "backfill-dates/"
HISTORIC_PREFIX: Final = "historic/"
"""Starts what the column `raw_object` says of a document of the historic archive."""
ARTIFACT_PREFIX: Final = "artifacts/"
ANALYSIS_RUN_PREFIX: Final = "analyses/runs/"
SCHEDULED_PREFIX: Final = "analyses/scheduled/"

NAME_MAX_LENGTH: Final = 128
"""The longest node name or segment id, in characters; S3 keys hold 1,024 bytes in all."""

_NAME = rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{NAME_MAX_LENGTH - 1}}}"
_RAW_KEY: Final = re.compile(
    rf"raw/v1/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<hour>[01]\d|2[0-3])/(?P<node>{_NAME})/(?P<segment>{_NAME})\.arrows"
)
_BATCH_ID: Final = re.compile(r"[0-9a-f]{32}")
_AUDITED_FORMAT: Final = "%Y-%m-%d/%H%M%S.%f"
_NAME_ONLY: Final = re.compile(_NAME)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


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


def claim_key(raw_key: str, *, after: str | None = None) -> str:
    """The key of the claim on a raw object: the first one, or the one `after` that batch gave it back."""
    return f"{CLAIM_PREFIX}{_tenure(raw_key, after)}.json"


def claim_prefix(day: date) -> str:
    """What the keys of the claims on all raw objects of one UTC day start with."""
    return f"{CLAIM_PREFIX}{raw_object_prefix(day)}"


def split_claim_key(key: str) -> tuple[str, str | None]:
    """The raw object that the claim `key` is about, and the batch that had given it back before.

    ValueError when it is not a claim's key.
    """
    return _split_tenure(key, CLAIM_PREFIX)


def release_key(raw_key: str, batch: str) -> str:
    """The key of the record that `batch` gave a raw object back, so that it can be claimed again."""
    return f"{RELEASE_PREFIX}{_tenure(raw_key, batch)}.json"


def release_prefix(day: date) -> str:
    """What the keys of the releases of all raw objects of one UTC day start with."""
    return f"{RELEASE_PREFIX}{raw_object_prefix(day)}"


def split_release_key(key: str) -> tuple[str, str]:
    """The raw object and the batch that gave it back; ValueError when it is not a release's key."""
    raw_key, batch = _split_tenure(key, RELEASE_PREFIX)
    if batch is None:
        raise ValueError(f"not the key of a release: {key!r}")
    return raw_key, batch


def _tenure(raw_key: str, after: str | None) -> str:
    split_raw_object_key(raw_key)
    if after is None:
        return raw_key
    if _BATCH_ID.fullmatch(after) is None:
        raise ValueError(f"not a batch id: {after!r} (expected 32 hexadecimal digits)")
    return f"{raw_key}@{after}"


def _split_tenure(key: str, prefix: str) -> tuple[str, str | None]:
    raw_key, _, batch = key.removeprefix(prefix).removesuffix(".json").partition("@")
    if key != f"{prefix}{_tenure(raw_key, batch or None)}.json":
        raise ValueError(f"not a key below {prefix}: {key!r}")
    return raw_key, batch or None


def batch_id(raw_keys: Iterable[str] | Mapping[str, str | None]) -> str:
    """The identity of the batch made of these raw objects: 32 hex digits, whatever their order.

    The first 128 bits of the SHA-256 of the sorted keys, one a line. A mapping gives for each raw object
    the batch that had given it back, or None: the key is then followed by `@` and that batch, so that a raw
    object that is drained a second time makes another batch than the first time.
    """
    before = raw_keys if isinstance(raw_keys, Mapping) else dict.fromkeys(raw_keys)
    lines = "\n".join(sorted(_tenure(key, batch) if batch else key for key, batch in before.items()))
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


def audit_entry_key(batch: str, at: datetime) -> str:
    """The key of the entry about an audit made at the aware time `at`; keys sort by that time."""
    if _BATCH_ID.fullmatch(batch) is None or at.tzinfo is None:
        raise ValueError(f"not a batch id and an aware time: {batch!r}, {at!r}")
    return f"{AUDIT_PREFIX}{at.astimezone(UTC).strftime(_AUDITED_FORMAT)}-{batch}.json"


def audit_entry_prefix(day: date) -> str:
    """What the keys of the entries about all audits of one UTC day start with."""
    return f"{AUDIT_PREFIX}{day.isoformat()}/"


def split_audit_entry_key(key: str) -> tuple[datetime, str]:
    """When the audit was made, and of which batch; ValueError when `key` is not an entry's."""
    at, _, batch = key.removeprefix(AUDIT_PREFIX).removesuffix(".json").rpartition("-")
    moment = datetime.strptime(at, _AUDITED_FORMAT).replace(tzinfo=UTC)
    if key != audit_entry_key(batch, moment):
        raise ValueError(f"not the key of an entry about an audit: {key!r}")
    return moment, batch


def committed_key(batch: str) -> str:
    """The key of the record that a batch is committed."""
    return _in_batch(batch, "committed.json")


def batch_of_key(key: str) -> str:
    """The batch that the object `key` below `batches/` belongs to; ValueError for any other key."""
    batch = key.removeprefix(BATCH_PREFIX).partition("/")[0]
    if not key.startswith(_in_batch(batch, "")):
        raise ValueError(f"not the key of a batch's object: {key!r}")
    return batch


def attempts_prefix(batch: str, part: str | None = None) -> str:
    """What the keys of all attempts to convert a batch, or one part of it, start with."""
    return _in_batch(batch, f"attempts/{part}/" if part else "attempts/")


def waiver_key(batch: str) -> str:
    """The key of somebody's decision to publish a batch although it failed its gates."""
    return _in_batch(batch, "waiver.json")


def publication_key(batch: str) -> str:
    """The key of the list of files that are to be committed for a batch."""
    return _in_batch(batch, "publication.json")


def replay_selection_key(replay: str) -> str:
    """The key of the list of rejected pings that a replay sends again."""
    return f"{REPLAY_PREFIX}{replay}/selection.json"


def replay_pings_key(replay: str) -> str:
    """The key under which the raw object of a replay waits until its rows have left the rejected table."""
    return f"{REPLAY_PREFIX}{replay}/pings.arrows"


def artifact_key(sha256: str, name: str) -> str:
    """The key of a file that EMR runs, whose content has this hash (64 hexadecimal digits)."""
    if _SHA256.fullmatch(sha256) is None:
        raise ValueError(f"not a SHA-256: {sha256!r} (expected 64 hexadecimal digits)")
    return f"{ARTIFACT_PREFIX}{sha256}/{name}"


def _of_backfill(backfill: str, name: str) -> str:
    if _BATCH_ID.fullmatch(backfill) is None:
        raise ValueError(f"not the id of a backfill: {backfill!r} (expected 32 hexadecimal digits)")
    return f"{BACKFILL_PREFIX}{backfill}/{name}"


def backfill_manifest_key(backfill: str) -> str:
    """The key of the record of what a backfill copies."""
    return _of_backfill(backfill, "manifest.json")


def backfill_plan_key(backfill: str, name: str, content: bytes) -> str:
    """The key of the plan of one date (or of all files without one); it follows from the plan's content."""
    return _of_backfill(backfill, f"plan/{name}-{hashlib.sha256(content).hexdigest()[:16]}.json")


def tallies_prefix(backfill: str) -> str:
    """What the keys of all tallies of a backfill start with."""
    return _of_backfill(backfill, "tallies/")


def tally_key(backfill: str, unit: str) -> str:
    """The key of the record of what one unit of a backfill staged."""
    return f"{tallies_prefix(backfill)}{unit}.json"


def unit_of_tally_key(backfill: str, key: str) -> str:
    """The unit whose tally is at `key`."""
    return key.removeprefix(tallies_prefix(backfill)).removesuffix(".json")


def unit_index_key(backfill: str, unit: str, attempt: str) -> str:
    """The key of the list of a unit's records that one attempt wrote."""
    return _of_backfill(backfill, f"index/{unit}/{attempt}.parquet")


def verification_report_key(backfill: str, day: date) -> str:
    """The key of what the last verification of a date found."""
    return _of_backfill(backfill, f"reports/{day.isoformat()}.json")


def accepted_losses_prefix(backfill: str, day: date) -> str:
    """What the keys of all decisions to accept losses of a date start with."""
    return _of_backfill(backfill, f"accepted/{day.isoformat()}/")


def accepted_loss_key(backfill: str, day: date, loss: str) -> str:
    """The key of somebody's decision to publish a date without what a class of losses took."""
    return f"{accepted_losses_prefix(backfill, day)}{loss}.json"


def date_record_key(source: str, day: date, number: int, what: str) -> str:
    """The key of a record about the publication `number` of a date of a historic archive.

    `what` is `decision` (the files, and which backfill they are of), `committed` or `undone`.
    """
    return f"{BACKFILL_DATES_PREFIX}{source}/{day.isoformat()}/{number:04d}/{what}.json"


def historic_rows_prefix(backfill: str) -> str:
    """What `raw_object` starts with in all rows of a backfill."""
    return f"{HISTORIC_PREFIX}{backfill}/"


def historic_raw_object(backfill: str, path: str, start: int) -> str:
    """What `raw_object` says of the records of a historic file that were read together, from `start` on."""
    return f"{historic_rows_prefix(backfill)}{path}@{start}"


def analysis_run_key(run: str, name: str) -> str:
    """The key of a file of one run of an analysis; `run` is the id that Airflow gave it, whatever is in it.

    The id is readable in the key as far as characters allow; 64 bits of its SHA-256 keep two apart.
    """
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", run)[:NAME_MAX_LENGTH]
    return f"{ANALYSIS_RUN_PREFIX}{readable}-{hashlib.sha256(run.encode()).hexdigest()[:16]}/{name}"


def scheduled_analysis_key(name: str) -> str:
    """The key of the analysis that is repeated under this name; ValueError when it could not be a key."""
    if _NAME_ONLY.fullmatch(name) is None:
        raise ValueError(f"not the name of an analysis: {name!r} (expected letters, digits, _ . and -)")
    return f"{SCHEDULED_PREFIX}{name}/analysis.json"


def started_key(name: str, last: date) -> str:
    """The key of the record that an analysis was started for the dates that end with `last`."""
    return f"{started_prefix(name)}{last.isoformat()}.json"


def started_prefix(name: str) -> str:
    """What the keys of all records that an analysis was started begin with."""
    return scheduled_analysis_key(name).removesuffix("analysis.json") + "started/"
