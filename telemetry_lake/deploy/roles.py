"""Who may do what: for each role the objects, queues and tables that it needs, and nothing more.

This is the only place that says it. The local stack makes the identities of its S3 and its catalog from this
table (`local_stack/seaweedfs.py`), and a test lets each role do what it may, and try what it may not.
`policy_document` writes the same rights as a policy of IAM, and `build_tools/iam_policies.py` the template of
CloudFormation with the roles of AWS.

A right is missing here when a program says so: the message of `telemetry_lake.failures.AccessRefused` names
action and resource. Where a program is tried for the first time, add what it names, not a wildcard.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from telemetry_lake.settings import Role, Settings
from telemetry_lake.storage.object_keys import (
    ANALYSIS_RUN_PREFIX,
    ANALYSIS_SESSION_PREFIX,
    ANALYSIS_TOKEN_PREFIX,
    ANOMALY_STATE_KEY,
    ARTIFACT_PREFIX,
    AUDIT_PREFIX,
    BACKFILL_DATES_PREFIX,
    BACKFILL_PREFIX,
    BATCH_PREFIX,
    CLAIM_PREFIX,
    COMPLETENESS_KEY,
    DASHBOARD_POINTER_KEY,
    DASHBOARD_PREFIX,
    DATE_AUDIT_PREFIX,
    DAY_PREFIX,
    JOB_CODE_PREFIX,
    JOB_EVENT_PREFIX,
    JOB_INDEX_KEY,
    JOB_PREFIX,
    JOB_USAGE_PREFIX,
    LATEST_RUN_PREFIX,
    MONITORING_PREFIX,
    NOTIFIED_PREFIX,
    OPEN_RUN_PREFIX,
    RAW_PREFIX,
    RECONCILED_KEY,
    RELEASE_PREFIX,
    REPLAY_NODE,
    REPLAY_PREFIX,
    SCHEDULED_PREFIX,
    SCRIPT_PREFIX,
    SENT_PREFIX,
    SETTLED_PREFIX,
    USUAL_SHARES_KEY,
    VOLUMES_KEY,
)


class Bucket(StrEnum):
    """The buckets of a lake."""

    RAW = "raw"
    LAKE = "lake"
    TABLES = "tables"
    """Where the catalog keeps the files of tables, a folder for each namespace."""


class Queue(StrEnum):
    """The queues of a lake."""

    INDEX = "index"
    DEAD_LETTERS = "dead letters"


class TableAction(StrEnum):
    """What can be done with the tables of a catalog."""

    LIST = "list namespaces and tables"
    READ = "load a table"
    COMMIT = "commit to a table"
    CREATE = "create namespaces and tables"


@dataclass(frozen=True, slots=True)
class Objects:
    """What may be done with the objects of a bucket whose keys match `prefix`, which may contain `*`."""

    bucket: Bucket
    prefix: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """A bucket may be listed and looked for: all of it, or only below `prefix`."""

    bucket: Bucket
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Messages:
    """What may be done with a queue."""

    queue: Queue
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """What may be done in the catalog with the tables of some namespaces; `*` stands for all of them."""

    namespaces: tuple[str, ...]
    actions: tuple[TableAction, ...]


Right = Objects | Listing | Messages | Tables

GET: Final = ("s3:GetObject",)
PUT: Final = ("s3:PutObject",)
WRITE_FILES: Final = ("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload")
"""Large files are uploaded in parts, and an upload that fails is taken back."""
DELETE: Final = ("s3:DeleteObject",)

_SEND: Final = ("sqs:GetQueueUrl", "sqs:SendMessage")
_LENGTH: Final = ("sqs:GetQueueUrl", "sqs:GetQueueAttributes")
_WORK_OFF: Final = (
    *_LENGTH,
    "sqs:SendMessage",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
)
_LIVE: Final = "live"
_MADE: Final = ("derived", "stable")
_OF_JOBS: Final = (
    *(ANALYSIS_RUN_PREFIX, JOB_PREFIX, JOB_CODE_PREFIX, LATEST_RUN_PREFIX, OPEN_RUN_PREFIX),
    *(JOB_USAGE_PREFIX, JOB_EVENT_PREFIX, NOTIFIED_PREFIX, SCHEDULED_PREFIX),
)
_LOGGED_IN: Final = (ANALYSIS_SESSION_PREFIX, ANALYSIS_TOKEN_PREFIX)
_SHOWN: Final = (AUDIT_PREFIX, DATE_AUDIT_PREFIX, BATCH_PREFIX, DAY_PREFIX, DASHBOARD_PREFIX)

RIGHTS: Final[Mapping[Role, tuple[Right, ...]]] = {
    Role.NODE: (
        # To read is needed when a segment is shipped again, and compared with what is there.
        Objects(Bucket.RAW, RAW_PREFIX, GET + PUT),
        # For its own health page, which looks whether the bucket is there.
        Listing(Bucket.RAW),
        Messages(Queue.INDEX, _SEND),
    ),
    Role.DRAIN: (
        Objects(Bucket.RAW, RAW_PREFIX, GET),
        # Rejected pings that are sent again become raw objects of a node of this name.
        Objects(Bucket.RAW, f"{RAW_PREFIX}*/{REPLAY_NODE}/", PUT),
        Listing(Bucket.RAW),
        *(
            Objects(Bucket.LAKE, prefix, GET + PUT)
            for prefix in (
                *(CLAIM_PREFIX, RELEASE_PREFIX, SENT_PREFIX, DAY_PREFIX, SETTLED_PREFIX),
                *(BATCH_PREFIX, REPLAY_PREFIX, USUAL_SHARES_KEY, COMPLETENESS_KEY, RECONCILED_KEY),
            )
        ),
        Objects(Bucket.LAKE, AUDIT_PREFIX, PUT),
        Listing(Bucket.LAKE),
        Objects(Bucket.TABLES, f"{_LIVE}/", WRITE_FILES),
        # A commit asks whether its metadata file is there; only who may list is told that it is not.
        Listing(Bucket.TABLES),
        Tables((_LIVE,), (TableAction.READ, TableAction.COMMIT)),
        Messages(Queue.INDEX, _WORK_OFF),
        Messages(Queue.DEAD_LETTERS, _WORK_OFF),
    ),
    Role.DOORBELL: (
        Messages(Queue.INDEX, _LENGTH),
        # The manifests say whether there are pings of today.
        Objects(Bucket.TABLES, f"{_LIVE}/*/metadata/", GET),
        Tables((_LIVE,), (TableAction.READ,)),
    ),
    Role.JOBS: (
        Objects(Bucket.TABLES, f"{_LIVE}/", WRITE_FILES),
        *(Objects(Bucket.TABLES, f"{namespace}/", WRITE_FILES) for namespace in _MADE),
        Listing(Bucket.TABLES),
        # The backfill commits to the live tables.
        Tables((_LIVE, *_MADE), (TableAction.READ, TableAction.COMMIT)),
        Objects(Bucket.LAKE, BACKFILL_PREFIX, GET + PUT),
        Objects(Bucket.LAKE, BACKFILL_DATES_PREFIX, GET + PUT),
        Objects(Bucket.LAKE, DATE_AUDIT_PREFIX, PUT),
        # The summary of the volumes, for the operations page.
        Objects(Bucket.LAKE, VOLUMES_KEY, PUT),
        Objects(Bucket.LAKE, ARTIFACT_PREFIX, GET),
        # Old versions of the dashboard's cubes are removed by who makes new ones.
        Objects(Bucket.LAKE, DASHBOARD_PREFIX, GET + PUT + DELETE),
        Listing(Bucket.LAKE, DASHBOARD_PREFIX),
        Listing(Bucket.LAKE, BACKFILL_PREFIX),
        Listing(Bucket.LAKE, BACKFILL_DATES_PREFIX),
    ),
    Role.ANALYST: (
        Objects(Bucket.TABLES, "", GET),
        Tables(("*",), (TableAction.LIST, TableAction.READ)),
        *(
            Objects(Bucket.LAKE, prefix, WRITE_FILES)
            for prefix in (ANALYSIS_RUN_PREFIX, SCHEDULED_PREFIX, SCRIPT_PREFIX)
        ),
        Objects(Bucket.LAKE, ARTIFACT_PREFIX, GET),
        # The code of a job, which its run reads.
        Objects(Bucket.LAKE, JOB_CODE_PREFIX, GET),
        *(
            Listing(Bucket.LAKE, prefix)
            for prefix in (ANALYSIS_RUN_PREFIX, SCHEDULED_PREFIX, SCRIPT_PREFIX, JOB_CODE_PREFIX)
        ),
    ),
    Role.ANALYSES: (
        *(Objects(Bucket.LAKE, prefix, GET + PUT) for prefix in (*_OF_JOBS, JOB_INDEX_KEY)),
        # Nothing else that a person did is ever deleted.
        Objects(Bucket.LAKE, OPEN_RUN_PREFIX, DELETE),
        # What the form of map-reduce names.
        Objects(Bucket.LAKE, SCRIPT_PREFIX, GET),
        *(Objects(Bucket.LAKE, prefix, GET + PUT + DELETE) for prefix in _LOGGED_IN),
        *(Listing(Bucket.LAKE, prefix) for prefix in (*_OF_JOBS, SCRIPT_PREFIX, *_LOGGED_IN)),
    ),
    # The code of an analyst reads what is made of pings, and not the pings of the last minutes with their
    # repetitions. It writes nothing: what started it takes the output.
    Role.SCRIPT: (
        *(Objects(Bucket.TABLES, f"{namespace}/", GET) for namespace in _MADE),
        Tables(_MADE, (TableAction.READ,)),
    ),
    Role.WEB: (
        *(Objects(Bucket.LAKE, prefix, GET) for prefix in (*_SHOWN, VOLUMES_KEY, COMPLETENESS_KEY)),
        # Listed to tell what is not there yet from what is refused.
        *(Listing(Bucket.LAKE, prefix) for prefix in (*_SHOWN, MONITORING_PREFIX)),
    ),
    Role.ANOMALIES: (
        *(Objects(Bucket.TABLES, f"{namespace}/", GET) for namespace in (_LIVE, "derived")),
        Objects(Bucket.TABLES, "derived/anomalies/", WRITE_FILES),
        Listing(Bucket.TABLES),
        Tables((_LIVE, "derived"), (TableAction.READ,)),
        Tables(("derived",), (TableAction.COMMIT,)),
        Objects(Bucket.LAKE, DASHBOARD_PREFIX, GET),
        Objects(Bucket.LAKE, ANOMALY_STATE_KEY, GET + PUT),
    ),
    Role.MAINTENANCE: (
        Objects(Bucket.TABLES, "", WRITE_FILES + DELETE),
        Listing(Bucket.TABLES),
        Tables(("*",), tuple(TableAction)),
        Objects(Bucket.LAKE, DATE_AUDIT_PREFIX, PUT + DELETE),
        Objects(Bucket.LAKE, ARTIFACT_PREFIX, GET),
        # What nothing needs any more: old audits, and replays whose raw objects are in the raw bucket.
        Objects(Bucket.LAKE, AUDIT_PREFIX, DELETE),
        Objects(Bucket.LAKE, REPLAY_PREFIX, GET + DELETE),
        *(Listing(Bucket.LAKE, prefix) for prefix in (AUDIT_PREFIX, DATE_AUDIT_PREFIX, REPLAY_PREFIX)),
        Listing(Bucket.RAW),
    ),
    # It looks and changes nothing.
    Role.MONITOR: (
        # How many raw objects wait: their names and times, never a byte of them.
        Listing(Bucket.RAW),
        # To see that a record is not there is a right to list, which S3 gives for a whole bucket only.
        Listing(Bucket.LAKE),
        *(
            Objects(Bucket.LAKE, key, GET)
            for key in (
                *(CLAIM_PREFIX, AUDIT_PREFIX, COMPLETENESS_KEY, RECONCILED_KEY, DASHBOARD_POINTER_KEY),
                ANOMALY_STATE_KEY,
                *(f"{BATCH_PREFIX}*/{name}.json" for name in ("manifest", "committed")),
                f"{BACKFILL_PREFIX}*/manifest.json",
                *(JOB_PREFIX, JOB_INDEX_KEY, LATEST_RUN_PREFIX, OPEN_RUN_PREFIX),
                *(f"{ANALYSIS_RUN_PREFIX}*/{name}.json" for name in ("run", "progress", "outcome", "cancel")),
            )
        ),
        Messages(Queue.INDEX, _LENGTH),
        Messages(Queue.DEAD_LETTERS, _LENGTH),
        Tables(("*",), (TableAction.READ,)),
    ),
}
"""The table. Nobody may delete objects of the raw bucket, the ledger and the batches."""


def rights_of_script_run(folder: str, output: str) -> tuple[Right, ...]:
    """Return what one run of an analyst's script needs of the role `analyst`: no files of other runs.

    `folder` begins the keys of the run's own files, `output` the key of its result, both in the lake bucket.
    """
    own = dict.fromkeys((folder, output) if not output.startswith(folder) else (folder,))
    return (
        *(Objects(Bucket.TABLES, f"{namespace}/", GET) for namespace in _MADE),
        Tables(_MADE, (TableAction.READ,)),
        Objects(Bucket.LAKE, ARTIFACT_PREFIX, GET),
        *(Objects(Bucket.LAKE, prefix, WRITE_FILES) for prefix in own),
        *(Listing(Bucket.LAKE, prefix) for prefix in own),
    )


ROLES_OF_JOBS: Final[Mapping[str, Role]] = {
    "jobs.anomalies": Role.ANOMALIES,
    "jobs.maintenance": Role.MAINTENANCE,
    "jobs.mapreduce": Role.ANALYST,
}
"""As what the programs of `jobs/` act that do not act as `Role.JOBS`."""


@dataclass(frozen=True, slots=True)
class Places:
    """What the buckets and queues of one lake are called."""

    raw_bucket: str
    lake_bucket: str
    table_bucket: str
    index_queue: str
    dead_letter_queue: str

    @classmethod
    def of(cls, settings: Settings, table_bucket: str) -> "Places":
        """Return the places that the settings name."""
        return cls(
            settings.s3.raw_bucket,
            settings.s3.lake_bucket,
            table_bucket,
            settings.sqs.index_queue_name,
            settings.sqs.dead_letter_queue_name,
        )

    def bucket(self, bucket: Bucket) -> str:
        """Return a bucket's name."""
        return {
            Bucket.RAW: self.raw_bucket,
            Bucket.LAKE: self.lake_bucket,
            Bucket.TABLES: self.table_bucket,
        }[bucket]

    def queue(self, queue: Queue) -> str:
        """Return a queue's name."""
        return {Queue.INDEX: self.index_queue, Queue.DEAD_LETTERS: self.dead_letter_queue}[queue]


@dataclass(frozen=True, slots=True)
class Account:
    """Whose resources a policy names, as the parts of an ARN; by default those of any account and region."""

    partition: str = "aws"
    region: str = "*"
    number: str = "*"


GLUE_ACTIONS: Final[Mapping[TableAction, tuple[str, ...]]] = {
    TableAction.LIST: ("glue:GetDatabases", "glue:GetTables"),
    TableAction.READ: ("glue:GetDatabase", "glue:GetTable"),
    TableAction.COMMIT: ("glue:UpdateTable",),
    TableAction.CREATE: ("glue:CreateDatabase", "glue:CreateTable"),
}
"""What Glue calls these actions. A table is an entry there that names its current metadata file: a commit
changes the entry on the condition that nobody has changed it meanwhile."""


def policy_document(
    rights: Iterable[Right], places: Places, account: Account | None = None, *, glue: bool = False
) -> dict[str, Any]:
    """Return these rights to objects, listings and queues as a policy of IAM.

    Rights to tables are in it only for a catalog of Glue: how other catalogs grant them is their own.
    """
    statements = _statements(rights, places, account or Account(), glue=glue)
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _statements(
    rights: Iterable[Right], places: Places, account: Account, *, glue: bool
) -> Iterator[dict[str, Any]]:
    for right in rights:
        match right:
            case Objects():
                where = f"{places.bucket(right.bucket)}/{right.prefix}*"
                yield _allow(right.actions, f"arn:{account.partition}:s3:::{where}")
            case Listing():
                bucket = f"arn:{account.partition}:s3:::{places.bucket(right.bucket)}"
                statement = _allow(("s3:ListBucket",), bucket)
                if right.prefix:
                    statement["Condition"] = {"StringLike": {"s3:prefix": f"{right.prefix}*"}}
                yield statement
            case Messages():
                queue = places.queue(right.queue)
                yield _allow(
                    right.actions, f"arn:{account.partition}:sqs:{account.region}:{account.number}:{queue}"
                )
            case Tables() if glue:
                actions = (name for action in right.actions for name in GLUE_ACTIONS[action])
                yield {
                    "Effect": "Allow",
                    "Action": list(actions),
                    "Resource": _glue_resources(right, account),
                }
            case Tables():
                pass


def _glue_resources(right: Tables, account: Account) -> list[str]:
    """Return what Glue asks about: the catalog itself, each database, and the tables of each."""
    glue = f"arn:{account.partition}:glue:{account.region}:{account.number}"
    return [
        f"{glue}:catalog",
        *(f"{glue}:database/{namespace}" for namespace in right.namespaces),
        *(f"{glue}:table/{namespace}/*" for namespace in right.namespaces),
    ]


def _allow(actions: Iterable[str], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}
