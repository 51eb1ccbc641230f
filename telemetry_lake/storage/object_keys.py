"""Every object key of the lake: the one place that builds them and takes them apart.

=======================================================  ===========  ========================================
key                                                      bucket       what
=======================================================  ===========  ========================================
``raw/v1/<date>/<hour>/<node>/<segment id>.arrows``      raw bucket   pings as received (`raw_object`)
``ledger/claims/<raw object key>.json``                  lake bucket  which batch owns a raw object
``ledger/claims/<raw object key>@<batch id>.json``       lake bucket  who owns it after that
``ledger/releases/<raw object key>@<batch id>.json``     lake bucket  the batch gave it back, for replay
``ledger/sent/<raw object key>/<step>.json``             lake bucket  its message was sent again (`announce`)
``ledger/days/<date>/<number>.json``                     lake bucket  a day was found complete, or open again
``ledger/settled/<date>.json``                           lake bucket  hours of an open day that need no look
``ledger/completeness.json``                             lake bucket  what the last look at all days found
``ledger/reconciled.json``                               lake bucket  where the reconciler goes on
``batches/<batch id>/manifest.json``                     lake bucket  the raw objects of a batch
``batches/<batch id>/staged/<part>.json``                lake bucket  the files that a conversion staged
``batches/<batch id>/attempts/<part>/<attempt>.json``    lake bucket  a conversion that was begun
``batches/<batch id>/audit.json``                        lake bucket  what the gates found
``batches/<batch id>/waiver.json``                       lake bucket  an operator lets it pass its gates
``batches/<batch id>/publication.json``                  lake bucket  the files that are to be committed
``batches/<batch id>/withdrawn-<number>.json``           lake bucket  these files are gone: decide again
``batches/<batch id>/publication-<number>.json``         lake bucket  what was decided after that
``batches/<batch id>/committed.json``                    lake bucket  the snapshots that hold the batch
``audits/<date>/<time>-<batch id>.json``                 lake bucket  what came of an audit, by its time
``date-audits/<date>/<time>-<table>-<day>.json``         lake bucket  what checks found in a day of a table
``gates/usual_shares.json``                              lake bucket  how many pings of a type usually fail
``replays/<replay id>/selection.json``                   lake bucket  which rejected pings are sent again
``replays/<replay id>/pings.arrows``                     lake bucket  their raw object, while it waits
``artifacts/<sha256>/<name>``                            lake bucket  what EMR runs (`spark_package`)
``analyses/scripts/<any>``                               lake bucket  scripts and filters of analysts
``analyses/runs/<run>/<name>``                           lake bucket  script, filter and output of a run
``analyses/jobs/<name>.json``                            lake bucket  a job of the analysis service
``analyses/job_index.json``                              lake bucket  copies of many jobs, to list them fast
``analyses/code/<sha256>/<path>``                        lake bucket  the code of a job
``analyses/latest/<name>.json``                          lake bucket  the newest run of a job, and good one
``analyses/open/<run>.json``                             lake bucket  a run that has not ended
``analyses/usage/<month>/<owner>/<run>@<seconds>``       lake bucket  machine seconds that a run took
``analyses/events/<date>/<time>-<id>.json``              lake bucket  who did what in the analysis service
``analyses/notified/<run>/<event>``                      lake bucket  people were told of an event of a run
``analyses/scheduled/<name>/analysis.json``              lake bucket  an analysis repeated before jobs
``analyses/scheduled/<name>/started/<last date>.json``   lake bucket  it was started for these dates
``analyses/sessions/<last date>/<sha256>.json``          lake bucket  a session of a browser (`web.analyses`)
``analyses/tokens/<sha256 of person>/<sha256>.json``     lake bucket  a token for the API of analyses
``dashboard/current.json``                               lake bucket  which version of the cubes is current
``dashboard/versions/<version>/<name>``                  lake bucket  manifest and dictionary of a version
``dashboard/segments/<view>/<dates>-<hash>.parquet``     lake bucket  the rows of some dates of a view
``monitoring/anomalies.json``                            lake bucket  which anomalies are open
``monitoring/volumes.json``                              lake bucket  pings by hour and day, for pages
=======================================================  ===========  ========================================

Date and hour are those of the first ping of the raw object, in UTC. No object under `raw/`, no claim,
release, record of a day, manifest, publication or commit record is ever changed once it is there, and
nothing of a backfill but its reports. Below `dashboard/` only `current.json` is, and what no reader needs is
removed. What is below `monitoring/` is replaced again and again.
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
SENT_PREFIX: Final = "ledger/sent/"
DAY_PREFIX: Final = "ledger/days/"
SETTLED_PREFIX: Final = "ledger/settled/"
COMPLETENESS_KEY: Final = "ledger/completeness.json"
RECONCILED_KEY: Final = "ledger/reconciled.json"
BATCH_PREFIX: Final = "batches/"
AUDIT_PREFIX: Final = "audits/"
DATE_AUDIT_PREFIX: Final = "date-audits/"
USUAL_SHARES_KEY: Final = "gates/usual_shares.json"
REPLAY_PREFIX: Final = "replays/"
BACKFILL_PREFIX: Final = "backfill/"
BACKFILL_DATES_PREFIX: Final = "backfill-dates/"
HISTORIC_PREFIX: Final = "historic/"
"""Starts what the column `raw_object` says of a document of the historic archive."""
ARTIFACT_PREFIX: Final = "artifacts/"
ANALYSIS_RUN_PREFIX: Final = "analyses/runs/"
JOB_PREFIX: Final = "analyses/jobs/"
JOB_INDEX_KEY: Final = "analyses/job_index.json"
JOB_CODE_PREFIX: Final = "analyses/code/"
LATEST_RUN_PREFIX: Final = "analyses/latest/"
OPEN_RUN_PREFIX: Final = "analyses/open/"
JOB_USAGE_PREFIX: Final = "analyses/usage/"
JOB_EVENT_PREFIX: Final = "analyses/events/"
NOTIFIED_PREFIX: Final = "analyses/notified/"
SCHEDULED_PREFIX: Final = "analyses/scheduled/"
ANALYSIS_SESSION_PREFIX: Final = "analyses/sessions/"
ANALYSIS_TOKEN_PREFIX: Final = "analyses/tokens/"
DASHBOARD_PREFIX: Final = "dashboard/"
DASHBOARD_POINTER_KEY: Final = "dashboard/current.json"
DASHBOARD_VERSION_PREFIX: Final = "dashboard/versions/"
DASHBOARD_SEGMENT_PREFIX: Final = "dashboard/segments/"
MONITORING_PREFIX: Final = "monitoring/"
ANOMALY_STATE_KEY: Final = "monitoring/anomalies.json"
VOLUMES_KEY: Final = "monitoring/volumes.json"
SCRIPT_PREFIX: Final = "analyses/scripts/"
REPLAY_NODE: Final = "replay"
"""Stands for the ingest node in the keys of raw objects made by replays."""

NAME_MAX_LENGTH: Final = 128
"""The longest node name or segment id, in characters; S3 keys hold 1,024 bytes in all."""

_NAME = rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{NAME_MAX_LENGTH - 1}}}"
_RAW_KEY: Final = re.compile(
    rf"raw/v1/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<hour>[01]\d|2[0-3])/(?P<node>{_NAME})/(?P<segment>{_NAME})\.arrows"
)
_BATCH_ID: Final = re.compile(r"[0-9a-f]{32}")
_AUDITED_FORMAT: Final = "%Y-%m-%d/%H%M%S.%f"
_DATE_AUDIT_NAME: Final = re.compile(
    r"\d{4}-\d\d-\d\d/\d{6}\.\d{6}-[a-z0-9_]+\.[a-z0-9_]+-\d{4}-\d\d-\d\d", re.ASCII
)
_SENT_KEY: Final = re.compile(rf"{SENT_PREFIX}(?P<raw>raw/v1/.+)/(?P<step>\d{{4}})\.json")
_DAY_KEY: Final = re.compile(rf"{DAY_PREFIX}(?P<date>\d{{4}}-\d\d-\d\d)/(?P<number>\d{{4}})\.json")
_NAME_ONLY: Final = re.compile(_NAME)
_CUBE_VERSION: Final = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{32}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_JOB_RUN: Final = "job."
_JOB_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_MONTH: Final = re.compile(r"\d{4}-\d\d", re.ASCII)


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
    """Return the key of the raw object made of the segment `segment_id` of `node`.

    Raises ValueError when `first_submission` is naive or when a name could escape its place in the key.
    """
    if first_submission.tzinfo is None:
        raise ValueError("a raw object's key needs an aware submission timestamp")
    utc = first_submission.astimezone(UTC)
    key = str(RawObjectKey(utc.date(), utc.hour, node, segment_id))
    split_raw_object_key(key)
    return key


def split_raw_object_key(key: str) -> RawObjectKey:
    """Return the parts of `key`; raises ValueError when it is not the key of a raw object."""
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
    """Return what the keys of all raw objects of one UTC day start with."""
    return f"{RAW_PREFIX}{day.isoformat()}/"


def sent_key(raw_key: str, step: int) -> str:
    """Return the key of the record that a raw object's message was sent again; `step` counts from 0."""
    split_raw_object_key(raw_key)
    return f"{SENT_PREFIX}{raw_key}/{step:04d}.json"


def sent_prefix(day: date) -> str:
    """Return what the keys of the records about messages of one UTC day's raw objects start with."""
    return f"{SENT_PREFIX}{raw_object_prefix(day)}"


def split_sent_key(key: str) -> tuple[str, int]:
    """Return the raw object and the step of a record that its message was sent again.

    Raises ValueError for any other key.
    """
    match = _SENT_KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"not a key below {SENT_PREFIX}: {key!r}")
    split_raw_object_key(match["raw"])
    return match["raw"], int(match["step"])


def day_key(day: date, number: int) -> str:
    """Return the key of the record with this number, from 0, about how far a UTC day has come."""
    return f"{DAY_PREFIX}{day.isoformat()}/{number:04d}.json"


def split_day_key(key: str) -> tuple[date, int]:
    """Return the day and the number of a record about a day; raises ValueError for any other key."""
    match = _DAY_KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"not a key below {DAY_PREFIX}: {key!r}")
    return date.fromisoformat(match["date"]), int(match["number"])


def settled_key(day: date) -> str:
    """Return the key of what is known of the hours of an open UTC day."""
    return f"{SETTLED_PREFIX}{day.isoformat()}.json"


def claim_key(raw_key: str, *, after: str | None = None) -> str:
    """Return the key of the first claim on a raw object, or of the one `after` that batch gave it back."""
    return f"{CLAIM_PREFIX}{_ownership(raw_key, after)}.json"


def claim_prefix(day: date) -> str:
    """Return what the keys of the claims on all raw objects of one UTC day start with."""
    return f"{CLAIM_PREFIX}{raw_object_prefix(day)}"


def split_claim_key(key: str) -> tuple[str, str | None]:
    """Return the raw object that a claim is about, and the batch that had given it back before.

    ValueError when it is not a claim's key.
    """
    return _split_ownership(key, CLAIM_PREFIX)


def release_key(raw_key: str, batch: str) -> str:
    """Return the key of the record that `batch` gave a raw object back, so that it can be claimed again."""
    return f"{RELEASE_PREFIX}{_ownership(raw_key, batch)}.json"


def release_prefix(day: date) -> str:
    """Return what the keys of the releases of all raw objects of one UTC day start with."""
    return f"{RELEASE_PREFIX}{raw_object_prefix(day)}"


def split_release_key(key: str) -> tuple[str, str]:
    """Return the raw object and the batch that gave it back; raises ValueError for any other key."""
    raw_key, batch = _split_ownership(key, RELEASE_PREFIX)
    if batch is None:
        raise ValueError(f"not the key of a release: {key!r}")
    return raw_key, batch


def _ownership(raw_key: str, after: str | None) -> str:
    split_raw_object_key(raw_key)
    if after is None:
        return raw_key
    if _BATCH_ID.fullmatch(after) is None:
        raise ValueError(f"not a batch id: {after!r} (expected 32 hexadecimal digits)")
    return f"{raw_key}@{after}"


def _split_ownership(key: str, prefix: str) -> tuple[str, str | None]:
    raw_key, _, batch = key.removeprefix(prefix).removesuffix(".json").partition("@")
    if key != f"{prefix}{_ownership(raw_key, batch or None)}.json":
        raise ValueError(f"not a key below {prefix}: {key!r}")
    return raw_key, batch or None


def batch_id(raw_keys: Iterable[str] | Mapping[str, str | None]) -> str:
    """Return the identity of the batch made of these raw objects: the digest of their keys.

    A mapping gives for each raw object the batch that had given it back, or None: the key is then followed
    by `@` and that batch, so that a raw object that is drained a second time makes another batch than the
    first time.
    """
    before = raw_keys if isinstance(raw_keys, Mapping) else dict.fromkeys(raw_keys)
    return digest_of_keys(_ownership(key, batch) if batch else key for key, batch in before.items())


def digest_of_keys(keys: Iterable[str]) -> str:
    """Return a name for a set of keys: the first 128 bits of the SHA-256 of the sorted keys, one a line.

    Returns 32 hexadecimal digits, the same for every order of the keys.
    """
    return hashlib.sha256("\n".join(sorted(set(keys))).encode()).hexdigest()[:32]


def _in_batch(batch: str, name: str) -> str:
    if _BATCH_ID.fullmatch(batch) is None:
        raise ValueError(f"not a batch id: {batch!r} (expected 32 hexadecimal digits)")
    return f"{BATCH_PREFIX}{batch}/{name}"


def manifest_key(batch: str) -> str:
    """Return the key of a batch's manifest."""
    return _in_batch(batch, "manifest.json")


def staged_key(batch: str, part: str) -> str:
    """Return the key of the list of files that one conversion of a batch staged."""
    return _in_batch(batch, f"staged/{part}.json")


def audit_key(batch: str) -> str:
    """Return the key of a batch's audit results."""
    return _in_batch(batch, "audit.json")


def audit_entry_key(batch: str, at: datetime) -> str:
    """Return the key of the entry about an audit made at the aware time `at`; keys sort by it."""
    if _BATCH_ID.fullmatch(batch) is None or at.tzinfo is None:
        raise ValueError(f"not a batch id and an aware time: {batch!r}, {at!r}")
    return f"{AUDIT_PREFIX}{at.astimezone(UTC).strftime(_AUDITED_FORMAT)}-{batch}.json"


def key_part_of_time(at: datetime) -> str:
    """Return what follows the UTC day in the key of something that was audited at the aware time `at`."""
    return at.astimezone(UTC).strftime(_AUDITED_FORMAT).partition("/")[2]


def audit_key_from(at: datetime) -> str:
    """Return what sorts before the keys of all entries about audits made at the aware time `at` or later."""
    return f"{AUDIT_PREFIX}{at.astimezone(UTC).strftime(_AUDITED_FORMAT)}"


def audit_entry_prefix(day: date) -> str:
    """Return what the keys of the entries about all audits of one UTC day start with."""
    return f"{AUDIT_PREFIX}{day.isoformat()}/"


def split_audit_entry_key(key: str) -> tuple[datetime, str]:
    """Return when the audit was made, and of which batch; raises ValueError for any other key."""
    at, _, batch = key.removeprefix(AUDIT_PREFIX).removesuffix(".json").rpartition("-")
    moment = datetime.strptime(at, _AUDITED_FORMAT).replace(tzinfo=UTC)
    if key != audit_entry_key(batch, moment):
        raise ValueError(f"not the key of an entry about an audit: {key!r}")
    return moment, batch


def date_audit_name(table: str, day: date, at: datetime) -> str:
    """Return the name of what the checks found in the rows of `day` in `table` at the aware time `at`.

    Names sort by that time, and are the parts of keys that differ. Raises ValueError when it is not a name.
    """
    if at.tzinfo is None:
        raise ValueError("the name of an audit needs an aware time")
    name = f"{at.astimezone(UTC).strftime(_AUDITED_FORMAT)}-{table}-{day.isoformat()}"
    date_audit_key(name)
    return name


def date_audit_key(name: str) -> str:
    """Return the key of the audit of this name; raises ValueError when it is not a name."""
    if _DATE_AUDIT_NAME.fullmatch(name) is None:
        raise ValueError(f"not the name of an audit: {name!r} (expected <date>/<time>-<table>-<day>)")
    return f"{DATE_AUDIT_PREFIX}{name}.json"


def date_audit_prefix(day: date) -> str:
    """Return what the keys of all audits of dates begin with that were made on this UTC day."""
    return f"{DATE_AUDIT_PREFIX}{day.isoformat()}/"


def committed_key(batch: str) -> str:
    """Return the key of the record that a batch is committed."""
    return _in_batch(batch, "committed.json")


def batch_of_key(key: str) -> str:
    """Return the batch that the object `key` below `batches/` belongs to; raises ValueError for any other."""
    batch = key.removeprefix(BATCH_PREFIX).partition("/")[0]
    if not key.startswith(_in_batch(batch, "")):
        raise ValueError(f"not the key of a batch's object: {key!r}")
    return batch


def attempts_prefix(batch: str, part: str | None = None) -> str:
    """Return what the keys of all attempts to convert a batch, or one part of it, start with."""
    return _in_batch(batch, f"attempts/{part}/" if part else "attempts/")


def waiver_key(batch: str) -> str:
    """Return the key of the decision to publish a batch although it failed its gates."""
    return _in_batch(batch, "waiver.json")


def publication_key(batch: str, number: int = 0) -> str:
    """Return the key of the list of files that are to be committed for a batch.

    `number` counts the lists before it that were withdrawn.
    """
    return _in_batch(batch, f"publication-{number}.json" if number else "publication.json")


def withdrawn_key(batch: str, number: int) -> str:
    """Return the key of the record that the publication `number` of a batch is never to be committed."""
    return _in_batch(batch, f"withdrawn-{number}.json")


def replay_selection_key(replay: str) -> str:
    """Return the key of the list of rejected pings that a replay sends again."""
    return f"{REPLAY_PREFIX}{replay}/selection.json"


def replay_pings_key(replay: str) -> str:
    """Return the key of a replay's raw object while it waits for its rows to leave the rejected table."""
    return f"{REPLAY_PREFIX}{replay}/pings.arrows"


def replay_of_key(key: str) -> str:
    """Return the replay that the object `key` below `replays/` belongs to; ValueError for any other."""
    replay, _, name = key.removeprefix(REPLAY_PREFIX).partition("/")
    if key != f"{REPLAY_PREFIX}{replay}/{name}" or not (replay and name):
        raise ValueError(f"not the key of a replay's object: {key!r}")
    return replay


def artifact_key(sha256: str, name: str) -> str:
    """Return the key of a file that EMR runs, whose content has this hash (64 hexadecimal digits)."""
    return f"{ARTIFACT_PREFIX}{_checked_sha256(sha256)}/{name}"


def package_key(sha256: str) -> str:
    """Return the key, in the bucket of code, of the archive that machines start from (see `artifact_key`)."""
    return f"packages/{_checked_sha256(sha256)}/telemetry-lake.tar.gz"


def environment_key(sha256: str) -> str:
    """Return the key, in the bucket of code, of the archive of Python packages that machines unpack."""
    return f"environments/{_checked_sha256(sha256)}/environment.tar.gz"


def environment_record_key(inputs_sha256: str) -> str:
    """Return the key of the record which archive was made of these inputs, such as a file of requirements."""
    return f"environments/made-of/{_checked_sha256(inputs_sha256)}"


def _checked_sha256(text: str) -> str:
    if _SHA256.fullmatch(text) is None:
        raise ValueError(f"not a SHA-256: {text!r} (expected 64 hexadecimal digits)")
    return text


def _of_backfill(backfill: str, name: str) -> str:
    if _BATCH_ID.fullmatch(backfill) is None:
        raise ValueError(f"not the id of a backfill: {backfill!r} (expected 32 hexadecimal digits)")
    return f"{BACKFILL_PREFIX}{backfill}/{name}"


def backfill_manifest_key(backfill: str) -> str:
    """Return the key of the record of what a backfill copies."""
    return _of_backfill(backfill, "manifest.json")


def backfill_plan_key(backfill: str, name: str, content: bytes) -> str:
    """Return the key of the plan of one date, or of all files without one; it follows from its content."""
    return _of_backfill(backfill, f"plan/{name}-{hashlib.sha256(content).hexdigest()[:16]}.json")


def tallies_prefix(backfill: str) -> str:
    """Return what the keys of all tallies of a backfill start with."""
    return _of_backfill(backfill, "tallies/")


def tally_key(backfill: str, unit: str) -> str:
    """Return the key of the record of what one unit of a backfill staged."""
    return f"{tallies_prefix(backfill)}{unit}.json"


def unit_of_tally_key(backfill: str, key: str) -> str:
    """Return the unit whose tally is at `key`."""
    return key.removeprefix(tallies_prefix(backfill)).removesuffix(".json")


def unit_index_key(backfill: str, unit: str, attempt: str) -> str:
    """Return the key of the list of a unit's records that one attempt wrote."""
    return _of_backfill(backfill, f"index/{unit}/{attempt}.parquet")


def verification_report_key(backfill: str, day: date) -> str:
    """Return the key of what the last verification of a date found."""
    return _of_backfill(backfill, f"reports/{day.isoformat()}.json")


def accepted_losses_prefix(backfill: str, day: date) -> str:
    """Return what the keys of all decisions to accept losses of a date start with."""
    return _of_backfill(backfill, f"accepted/{day.isoformat()}/")


def accepted_loss_key(backfill: str, day: date, loss: str) -> str:
    """Return the key of the decision to publish a date without what a class of losses took."""
    return f"{accepted_losses_prefix(backfill, day)}{loss}.json"


def date_record_key(source: str, day: date, number: int, what: str) -> str:
    """Return the key of a record about the publication `number` of a date of a historic archive.

    `what` is `decision` (the files, and which backfill they are of), `committed` or `undone`.
    """
    return f"{BACKFILL_DATES_PREFIX}{source}/{day.isoformat()}/{number:04d}/{what}.json"


def historic_rows_prefix(backfill: str) -> str:
    """Return what `raw_object` starts with in all rows of a backfill."""
    return f"{HISTORIC_PREFIX}{backfill}/"


def historic_raw_object(backfill: str, path: str, start: int) -> str:
    """Return the `raw_object` of the records of a historic file that were read together from `start` on."""
    return f"{historic_rows_prefix(backfill)}{path}@{start}"


def analysis_run_key(run: str, name: str) -> str:
    """Return the key of a file of one run of an analysis; `run` is the id that Airflow gave the run.

    The id is readable in the key as far as characters allow; 64 bits of its SHA-256 keep two apart.
    """
    return f"{ANALYSIS_RUN_PREFIX}{_run_in_key(run)}/{name}"


def _run_in_key(run: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", run)[:NAME_MAX_LENGTH]
    return f"{readable}-{hashlib.sha256(run.encode()).hexdigest()[:16]}"


def job_run_id(job: str, token: str) -> str:
    """Return the id of the run of a job that `token` tells apart from its other runs.

    The names of jobs hold no dot, so no run of one job looks like one of another.
    """
    return f"{_JOB_RUN}{_job_name(job)}.{token}"


def job_runs_prefix(job: str) -> str:
    """Return what the keys of all files of all runs of a job begin with."""
    return f"{ANALYSIS_RUN_PREFIX}{job_run_id(job, '')}"


def job_run_of_folder(folder: str) -> str | None:
    """Return the run of a job whose files are below this part of a key; None when it is not one of a job."""
    run = folder.rpartition("-")[0]
    return run if run.startswith(_JOB_RUN) and _run_in_key(run) == folder else None


def _job_name(name: str) -> str:
    if _JOB_NAME.fullmatch(name) is None:
        raise ValueError(f"not the name of a job: {name!r} (expected small letters, digits, - and _)")
    return name


def job_key(name: str) -> str:
    """Return the key of a job of the analysis service; raises ValueError for a bad name."""
    return f"{JOB_PREFIX}{_job_name(name)}.json"


def job_of_key(key: str) -> str | None:
    """Return the job whose document is at `key`; None when it is not the key of a job."""
    name = key.removeprefix(JOB_PREFIX).removesuffix(".json")
    return name if _JOB_NAME.fullmatch(name) and key == job_key(name) else None


def job_code_key(digest: str, path: str) -> str:
    """Return the key of a file, by its path, of the code with this digest; an empty path ends with `/`.

    Raises ValueError for anything that could leave its place.
    """
    if _SHA256.fullmatch(digest) is None:
        raise ValueError(f"not a SHA-256: {digest!r} (expected 64 hexadecimal digits)")
    if path and any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"not a path below a folder: {path!r}")
    return f"{JOB_CODE_PREFIX}{digest}/{path}"


def latest_run_key(job: str) -> str:
    """Return the key of the pointer to a job's newest runs."""
    return f"{LATEST_RUN_PREFIX}{_job_name(job)}.json"


def open_run_key(run: str) -> str:
    """Return the key of the mark that a run has not ended."""
    return f"{OPEN_RUN_PREFIX}{_run_in_key(run)}.json"


def job_usage_prefix(month: str, owner: str) -> str:
    """Return what the keys of all that a person's runs took in a month, as YYYY-MM, begin with."""
    if _MONTH.fullmatch(month) is None or "/" in owner:
        raise ValueError(f"not a month and the name of a person: {month!r}, {owner!r}")
    return f"{JOB_USAGE_PREFIX}{month}/{owner}/"


def job_usage_key(month: str, owner: str, run: str, machine_seconds: int) -> str:
    """Return the key that says what a run took; the object itself is empty."""
    return f"{job_usage_prefix(month, owner)}{_run_in_key(run)}@{machine_seconds}"


def seconds_of_usage_key(key: str) -> int:
    """Return the machine seconds that a key says that a run took."""
    return int(key.rpartition("@")[2])


def job_event_prefix(day: date) -> str:
    """Return what the keys of all events of the analysis service on a UTC day begin with."""
    return f"{JOB_EVENT_PREFIX}{day.isoformat()}/"


def job_event_key(at: datetime, unique: str) -> str:
    """Return the key of an event at the aware time `at`; keys sort by it."""
    return f"{JOB_EVENT_PREFIX}{at.astimezone(UTC).strftime(_AUDITED_FORMAT)}-{unique}.json"


def notified_key(run: str, event: str) -> str:
    """Return the key of the mark that people were told of an event of a run."""
    return f"{NOTIFIED_PREFIX}{_run_in_key(run)}/{event}"


def scheduled_analysis_key(name: str) -> str:
    """Return the key of the analysis that is repeated under this name; raises ValueError for a bad name."""
    if _NAME_ONLY.fullmatch(name) is None:
        raise ValueError(f"not the name of an analysis: {name!r} (expected letters, digits, _ . and -)")
    return f"{SCHEDULED_PREFIX}{name}/analysis.json"


def started_key(name: str, last: date) -> str:
    """Return the key of the record that an analysis was started for the dates that end with `last`."""
    return f"{started_prefix(name)}{last.isoformat()}.json"


def started_prefix(name: str) -> str:
    """Return what the keys of all records that an analysis was started begin with."""
    return scheduled_analysis_key(name).removesuffix("analysis.json") + "started/"


def dashboard_version_key(version: str, name: str) -> str:
    """Return the key of a file of one version of the dashboard's cubes; raises ValueError for no version."""
    if _CUBE_VERSION.fullmatch(version) is None:
        raise ValueError(
            f"not a version of the cubes: {version!r} (expected <date>T<time>Z-<32 hexadecimal digits>)"
        )
    return f"{DASHBOARD_VERSION_PREFIX}{version}/{name}"


def dashboard_segment_key(view: str, first: date, last: date, sha256: str) -> str:
    """Return the key of a segment of the dashboard's cubes whose content has this hash."""
    return f"{DASHBOARD_SEGMENT_PREFIX}{view}/{first.isoformat()}_{last.isoformat()}-{sha256[:32]}.parquet"
