"""Each role may do what it needs and nothing else, as the S3 and the catalog of the local stack see it."""

import re
from collections.abc import Iterator
from typing import Any, Final

import boto3
import pytest
from botocore.exceptions import ClientError
from pyiceberg.exceptions import ForbiddenError, NoSuchNamespaceError, NoSuchTableError, RESTError
from pyiceberg.schema import Schema

from lake_testing.lake_of_roles import LakeOfRoles
from lake_testing.shipping import assert_each_once, ship
from telemetry_lake.deploy.roles import (
    RIGHTS,
    Account,
    Bucket,
    Listing,
    Objects,
    Places,
    TableAction,
    Tables,
    policy_document,
)
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.steps import drain_once, raise_if_unfinished
from telemetry_lake.failures import AccessRefused
from telemetry_lake.monitoring.exporter import exporter_of
from telemetry_lake.query.lake import open_lake
from telemetry_lake.recovery.replay_rejected import RejectedSelection, replay_rejected
from telemetry_lake.settings import Role
from telemetry_lake.storage import object_keys
from telemetry_lake.storage.aws import client_arguments
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.commits import forbid_commit_retry
from telemetry_lake.tables.expressions import one_of

BACKFILL: Final = "0123456789abcdef" * 2
PLACES: Final = {
    "raw": ("raw", "raw/v1/2026-11-23/09/node-1/segment.arrows"),
    "replayed": ("raw", "raw/v1/2026-11-23/09/replay/segment.arrows"),
    "beside raw": ("raw", "elsewhere"),
    "claims": ("lake", "ledger/claims/raw/v1/x.json"),
    "releases": ("lake", "ledger/releases/raw/v1/x.json"),
    "sent": ("lake", "ledger/sent/raw/v1/x.json"),
    "days": ("lake", "ledger/days/2026-11-23.json"),
    "settled": ("lake", "ledger/settled/x.json"),
    "batches": ("lake", "batches/0123/manifest.json"),
    "audits": ("lake", "audits/2026-11-23/x.json"),
    "date audits": ("lake", "date-audits/2026-11-23/x.json"),
    "replays": ("lake", "replays/0123/selection.json"),
    "backfill": ("lake", f"backfill/{BACKFILL}/manifest.json"),
    "backfill dates": ("lake", "backfill-dates/a/x.json"),
    "artifacts": ("lake", "artifacts/0123/core.zip"),
    "runs": ("lake", "analyses/runs/a/output.txt"),
    "scheduled": ("lake", "analyses/scheduled/a/analysis.json"),
    "scripts": ("lake", "analyses/scripts/a.py"),
    "jobs": ("lake", "analyses/jobs/a.json"),
    "job index": ("lake", object_keys.JOB_INDEX_KEY),
    "code": ("lake", "analyses/code/0123/a.py"),
    "latest runs": ("lake", "analyses/latest/a.json"),
    "open runs": ("lake", "analyses/open/a.json"),
    "usage": ("lake", "analyses/usage/2026-11/a/b@1"),
    "events": ("lake", "analyses/events/2026-11-23/x.json"),
    "notified": ("lake", "analyses/notified/a/failure"),
    "sessions": ("lake", "analyses/sessions/2026-11-23/x.json"),
    "tokens": ("lake", "analyses/tokens/0123/x.json"),
    "cubes": ("lake", "dashboard/versions/x.json"),
    "volumes": ("lake", object_keys.VOLUMES_KEY),
    "anomalies": ("lake", object_keys.ANOMALY_STATE_KEY),
    "usual shares": ("lake", object_keys.USUAL_SHARES_KEY),
    "completeness": ("lake", object_keys.COMPLETENESS_KEY),
    "reconciled": ("lake", object_keys.RECONCILED_KEY),
    "pointer to cubes": ("lake", object_keys.DASHBOARD_POINTER_KEY),
    "commits": ("lake", "batches/0123/committed.json"),
    "staged": ("lake", "batches/0123/staged/0123.json"),
    "backfill units": ("lake", f"backfill/{BACKFILL}/tallies/x.json"),
    "runs' documents": ("lake", "analyses/runs/a/run.json"),
    "beside the lake": ("lake", "elsewhere"),
    "live files": ("warehouse", "live/pings/data/x.parquet"),
    "live metadata": ("warehouse", "live/pings/metadata/snap-1-0-6084178a-c942-47ce-98ac-461a300b014d.avro"),
    "stable files": ("warehouse", "stable/pings/data/x.parquet"),
    "derived files": ("warehouse", "derived/ping_counts/data/x.parquet"),
    "anomaly files": ("warehouse", "derived/anomalies/data/x.parquet"),
}
_OF_THE_DRAIN: Final = (
    *("claims", "releases", "sent", "days", "settled", "batches", "replays", "live files", "live metadata"),
    *("usual shares", "completeness", "reconciled", "commits", "staged"),
)
_OF_TABLES: Final = ("live files", "live metadata", "stable files", "derived files", "anomaly files")
_OF_THE_ANALYSIS_SERVICE: Final = (
    *("runs", "scheduled", "jobs", "job index", "code", "latest runs", "usage", "events", "notified"),
    "runs' documents",
)
MAY: Final[dict[Role, dict[str, str]]] = {
    Role.NODE: {"raw": "get put", "replayed": "get put"},
    Role.DRAIN: {
        "raw": "get",
        "replayed": "get put",
        **dict.fromkeys(_OF_THE_DRAIN, "get put"),
        "audits": "put",
    },
    Role.DOORBELL: {"live metadata": "get"},
    Role.JOBS: {
        **dict.fromkeys(_OF_TABLES, "get put"),
        **dict.fromkeys(("cubes", "pointer to cubes"), "get put delete"),
        **dict.fromkeys(("backfill", "backfill units", "backfill dates"), "get put"),
        "date audits": "put",
        "volumes": "put",
        "artifacts": "get",
    },
    Role.ANALYST: {
        **dict.fromkeys(_OF_TABLES, "get"),
        "artifacts": "get",
        **dict.fromkeys(("runs", "runs' documents", "scheduled", "scripts"), "get put"),
        "code": "get",
    },
    Role.ANALYSES: {
        **dict.fromkeys(_OF_THE_ANALYSIS_SERVICE, "get put"),
        **dict.fromkeys(("open runs", "sessions", "tokens"), "get put delete"),
        "scripts": "get",
    },
    Role.SCRIPT: dict.fromkeys(("stable files", "derived files", "anomaly files"), "get"),
    Role.WEB: dict.fromkeys(
        (
            *("audits", "date audits", "batches", "commits", "staged", "days", "completeness"),
            *("cubes", "pointer to cubes", "volumes"),
        ),
        "get",
    ),
    Role.ANOMALIES: {
        **dict.fromkeys(("live files", "live metadata", "derived files", "cubes", "pointer to cubes"), "get"),
        **dict.fromkeys(("anomaly files", "anomalies"), "get put"),
    },
    Role.MAINTENANCE: {
        **dict.fromkeys(_OF_TABLES, "get put delete"),
        "date audits": "put delete",
        "audits": "delete",
        "replays": "get delete",
        "artifacts": "get",
    },
    Role.MONITOR: dict.fromkeys(
        (
            *("claims", "audits", "batches", "commits", "completeness", "reconciled", "pointer to cubes"),
            *("backfill", "jobs", "job index", "latest runs", "open runs", "runs' documents", "anomalies"),
        ),
        "get",
    ),
}
ANALYSES: Final = tuple(
    f"analyses/{name}/"
    for name in (
        "runs",
        "scheduled",
        "scripts",
        "jobs",
        "code",
        "latest",
        "open",
        "usage",
        "events",
        "sessions",
        "tokens",
        "notified",
    )
)
MAY_LIST: Final[dict[Role, set[str]]] = {
    Role.NODE: {"raw"},
    Role.DRAIN: {"raw", "lake", "warehouse"},
    Role.DOORBELL: set(),
    Role.JOBS: {"warehouse", "lake/backfill/", "lake/backfill-dates/", "lake/dashboard/"},
    Role.ANALYST: {
        *("lake/analyses/runs/", "lake/analyses/scheduled/", "lake/analyses/scripts/"),
        "lake/analyses/code/",
    },
    Role.ANALYSES: {f"lake/{prefix}" for prefix in ANALYSES},
    Role.SCRIPT: set(),
    Role.WEB: {
        *("lake/audits/", "lake/date-audits/", "lake/batches/", "lake/ledger/days/", "lake/dashboard/"),
        "lake/monitoring/",
    },
    Role.MONITOR: {"raw", "lake"},
    Role.ANOMALIES: {"warehouse"},
    Role.MAINTENANCE: {"warehouse", "raw", "lake/audits/", "lake/date-audits/", "lake/replays/"},
}


def client_of(lake: LakeOfRoles, role: Role | None) -> Any:
    settings = lake.settings if role is None else lake.of(role)
    return boto3.client("s3", **client_arguments(settings.s3))  # type: ignore[call-overload]


@pytest.fixture
def administrator(lake_of_roles: LakeOfRoles) -> Iterator[Any]:
    client = client_of(lake_of_roles, None)
    yield client
    client.close()


def is_allowed(call: Any, **arguments: object) -> bool:
    try:
        answer = call(**arguments)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return False
    return not answer.get("Errors")


@pytest.mark.parametrize("role", Role)
def test_a_role_may_touch_its_objects_and_no_others(role, lake_of_roles, administrator):
    client = client_of(lake_of_roles, role)
    found: dict[str, str] = {}
    for name, (bucket, key) in PLACES.items():
        administrator.put_object(Bucket=bucket, Key=key, Body=b"{}")
        where = {"Bucket": bucket, "Key": key}
        rights = {
            "get": is_allowed(client.get_object, **where),
            "put": is_allowed(client.put_object, **where, Body=b"{}"),
            "delete": is_allowed(client.delete_object, **where),
        }
        assert (
            is_allowed(client.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": key}]})
            == rights["delete"]
        )
        if allowed := " ".join(right for right, given in rights.items() if given):
            found[name] = allowed
    assert found == MAY[role]


@pytest.mark.parametrize("role", Role)
def test_a_role_may_list_its_places_and_administers_nothing(role, lake_of_roles):
    client = client_of(lake_of_roles, role)
    prefixes = {"", *(f"{key.partition('/')[0]}/" for _, key in PLACES.values() if "/" in key)}
    prefixes |= {"ledger/days/", *ANALYSES}
    found = {
        f"{bucket}/{prefix}"
        for bucket in ("raw", "lake", "warehouse")
        for prefix in prefixes
        if is_allowed(client.list_objects_v2, Bucket=bucket, Prefix=prefix)
    }
    whole = {place for place in MAY_LIST[role] if "/" not in place}
    assert {place for place in found if place.split("/")[0] in whole} == {
        f"{bucket}/{prefix}" for bucket in whole for prefix in prefixes
    }
    assert {place for place in found if place.split("/")[0] not in whole} == MAY_LIST[role] - whole
    assert not is_allowed(client.create_bucket, Bucket="another")
    assert not is_allowed(client.delete_bucket, Bucket="raw")
    assert not is_allowed(client.put_bucket_policy, Bucket="raw", Policy="{}")


@pytest.mark.parametrize("role", Role)
def test_a_role_may_use_the_catalog_as_it_needs(role, lake_of_roles):
    catalog = load_lake_catalog(lake_of_roles.of(role))
    found = set()
    for name, act in {
        "list": lambda: catalog.list_namespaces() and catalog.list_tables("live"),
        "load": lambda: catalog.load_table("live.pings"),
        "create": lambda: catalog.create_table(f"live.of_{role}", Schema()),
        "drop": lambda: catalog.drop_table("live.pings"),
        "drop namespace": lambda: catalog.drop_namespace("live"),
    }.items():
        try:
            act()
        except (ForbiddenError, NoSuchTableError, NoSuchNamespaceError):
            continue
        found.add(name)
    if "load" in found:
        table = catalog.load_table("live.pings")
        forbid_commit_retry(table)
        try:
            table.transaction().set_properties({"tried-by": role}).commit_transaction()
        except RESTError:
            pass
        else:
            found.add("commit")
    assert found == {
        Role.DRAIN: {"load", "commit"},
        Role.DOORBELL: {"load"},
        Role.JOBS: {"load", "commit"},
        Role.ANALYST: {"list", "load"},
        Role.SCRIPT: {"load"},
        Role.MONITOR: {"load"},
        # Of derived tables only, by the files that it may write: this catalog does not tell namespaces apart.
        Role.ANOMALIES: {"load", "commit"},
        Role.MAINTENANCE: {"list", "load", "commit", "create"},
    }.get(role, set())


def test_the_programs_need_no_more_than_their_roles_have(lake_of_roles):
    create_tables(load_lake_catalog(lake_of_roles.of(Role.MAINTENANCE)))
    create_tables(load_lake_catalog(lake_of_roles.of(Role.MAINTENANCE)))
    shipped = ship(lake_of_roles.of(Role.NODE), good=2, bad=1)
    drain = lake_of_roles.of(Role.DRAIN)
    report = drain_once(drain)
    assert report.failures == []
    raise_if_unfinished(report.claimed, report.acknowledged)
    assert_each_once(lake_of_roles.of(Role.DRAIN), shipped)
    connections = LakeConnections(drain)
    assert replay_rejected(connections, RejectedSelection()) == 1
    assert drain_once(drain).failures == []
    with open_lake(lake_of_roles.of(Role.ANALYST)) as lake:
        assert lake.query("SELECT count(*) FROM live.rejected_pings").fetchone() == (1,)
        assert "live.pings" in lake.table_names()


def test_a_commit_that_is_overtaken_says_nothing_of_files_that_maintenance_deletes(lake_of_roles, caplog):
    shipped = ship(lake_of_roles.of(Role.NODE), bad=2)
    assert drain_once(lake_of_roles.of(Role.DRAIN)).failures == []
    table = load_lake_catalog(lake_of_roles.of(Role.DRAIN)).load_table("live.rejected_pings")
    ship(lake_of_roles.of(Role.NODE), bad=1)
    assert drain_once(lake_of_roles.of(Role.DRAIN)).failures == []
    table.delete(one_of("document_id", shipped.bad))
    assert table.scan().to_arrow().num_rows == 1
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("retrying" in message for message in messages)
    assert not any("delete" in message for message in messages)


def test_the_exporter_needs_no_more_than_the_role_monitor_has(lake_of_roles, administrator, tmp_path):
    for bucket, key in PLACES.values():  # what other tests have put there is no record
        administrator.delete_object(Bucket=bucket, Key=key)
    ship(lake_of_roles.of(Role.NODE), good=2, bad=1)
    assert drain_once(lake_of_roles.of(Role.DRAIN)).failures == []
    settings = lake_of_roles.of(Role.MONITOR)
    kept = settings.monitoring.model_copy(update={"state_directory": tmp_path})
    exporter = exporter_of(settings.model_copy(update={"monitoring": kept}))
    for reading in exporter.readings:
        reading.read()
        assert reading.is_good, (reading.source.name, reading.problem)


def test_every_place_of_the_lake_is_in_the_table_and_nothing_is_in_it_twice():
    places = {
        value
        for name, value in vars(object_keys).items()
        if name.endswith(("_PREFIX", "_KEY"))
        and isinstance(value, str)
        # The keys below `monitoring/` are in the table one by one.
        and name not in ("HISTORIC_PREFIX", "MONITORING_PREFIX")
    }
    named = {right.prefix for rights in RIGHTS.values() for right in rights if isinstance(right, Objects)}
    assert all(any(name and place.startswith(name) for name in named) for place in places)
    assert set(RIGHTS) == set(Role)
    for role, rights in RIGHTS.items():
        assert len(set(rights)) == len(rights), role


def test_policies_name_what_they_allow_and_contain_no_wildcard_of_actions():
    places = Places("our-raw", "our-lake", "our-tables", "our-index", "our-dead-letters")
    for role, rights in RIGHTS.items():
        for statement in policy_document(rights, places)["Statement"]:
            assert statement["Effect"] == "Allow", role
            assert all(re.fullmatch(r"(s3|sqs):[A-Za-z]+", action) for action in statement["Action"])
            assert re.match(r"arn:aws:(s3:::our-|sqs:\*:\*:our-)", statement["Resource"])
    (listing,) = policy_document([Listing(Bucket.LAKE, "audits/")], places)["Statement"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": "audits/*"}}


def test_a_policy_for_glue_names_the_databases_and_tables_of_a_right_in_one_account():
    places = Places("our-raw", "our-lake", "our-tables", "our-index", "our-dead-letters")
    account = Account("aws-cn", "cn-north-1", "123456789012")
    glue = "arn:aws-cn:glue:cn-north-1:123456789012"
    right = Tables(("live", "stable"), (TableAction.READ, TableAction.COMMIT))
    assert policy_document([right], places, account)["Statement"] == []
    assert policy_document([right], places, account, glue=True)["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["glue:GetDatabase", "glue:GetTable", "glue:UpdateTable"],
            "Resource": [
                f"{glue}:catalog",
                *(f"{glue}:database/live", f"{glue}:database/stable"),
                *(f"{glue}:table/live/*", f"{glue}:table/stable/*"),
            ],
        }
    ]
    # Where the account is known, objects and messages are named in it, too.
    document = policy_document(RIGHTS[Role.NODE], places, account)
    assert {statement["Resource"] for statement in document["Statement"]} == {
        "arn:aws-cn:s3:::our-raw/raw/v1/*",
        "arn:aws-cn:s3:::our-raw",
        "arn:aws-cn:sqs:cn-north-1:123456789012:our-index",
    }


def test_only_maintenance_may_create_tables_of_glue_and_no_role_may_delete_them():
    places = Places("our-raw", "our-lake", "our-tables", "our-index", "our-dead-letters")
    creating = {"glue:CreateTable", "glue:CreateDatabase"}
    for role, rights in RIGHTS.items():
        statements = policy_document(rights, places, glue=True)["Statement"]
        actions = {action for statement in statements for action in statement["Action"]}
        assert (creating <= actions) == (role is Role.MAINTENANCE)
        assert not {action for action in actions if action.startswith("glue:Delete")}, role


def test_a_wrong_secret_is_said_in_one_sentence(lake_of_roles):
    settings = lake_of_roles.of(Role.ANALYST)
    wrong = settings.model_copy(
        update={
            "s3": settings.s3.model_copy(
                update={"secret_access_key": lake_of_roles.settings.s3.secret_access_key}
            )
        }
    )
    with pytest.raises(AccessRefused, match="catalog does not accept the key"):
        load_lake_catalog(wrong)
    with pytest.raises(AccessRefused, match="unknown, wrong or no longer valid"):
        LakeConnections(wrong).store.get("lake", "analyses/runs/a")
