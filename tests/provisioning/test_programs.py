"""The lake's own programs against the emulator, each under its role: what they need they may, and no more.

The stacks are the real ones of storage, queue, catalog and roles. A role here has what the template says of
one role of the lake; who may take it on is the test's.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from botocore.exceptions import ClientError

from lake_testing.aws_emulator import ROOT_KEY
from lake_testing.emulated_environment import Environment
from lake_testing.stack import free_ports, wait_until
from provisioning.lake import NEEDED_OUTPUTS
from provisioning.templates import TEMPLATE_FOLDER
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role
from tests.ingest.running_node import RunningNode

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

STACKS = ("storage", "queue", "catalog", "iam")
PROGRAM_DEADLINE_SECONDS = 300
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONFIG_FILE")
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::000000000000:root"},
            "Action": "sts:AssumeRole",
        }
    ],
}


class RoledLake:
    """The deployed stacks, and programs that act as one of the lake's roles in them."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.emulator = environment.emulator
        self.folder = folder
        cloudformation = self.emulator.client("cloudformation")
        self.outputs: dict[str, str] = {}
        for stack in STACKS:
            name = f"telemetry-lake-{environment.name}-{stack}"
            (found,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
            self.outputs |= {each["OutputKey"]: each["OutputValue"] for each in found["Outputs"]}
        assert set(NEEDED_OUTPUTS) <= self.outputs.keys()
        self._arns = {role: self._make_role(role) for role in Role}

    def _make_role(self, role: Role) -> str:
        iam = self.emulator.client("iam")
        arn: str = iam.create_role(RoleName=f"lake-{role}", AssumeRolePolicyDocument=json.dumps(TRUST))[
            "Role"
        ]["Arn"]
        policy = self.outputs[f"{role.value.capitalize()}PolicyArn"]
        iam.attach_role_policy(RoleName=f"lake-{role}", PolicyArn=policy)
        return arn

    def variables(self, role: Role) -> dict[str, str]:
        """Return the variables of a program that acts as a role, for a quarter of an hour."""
        keys = self.emulator.assume(self._arns[role])
        self.emulator.assert_assumed(keys, f"lake-{role}")
        catalog = {
            **json.loads(self.outputs["CatalogProperties"]),
            "glue.endpoint": self.emulator.url,
            "s3.endpoint": self.emulator.url,
        }
        return {
            **keys,
            "TELEMETRY_LAKE_S3__ENDPOINT_URL": self.emulator.url,
            "TELEMETRY_LAKE_S3__RAW_BUCKET": self.outputs["RawBucket"],
            "TELEMETRY_LAKE_S3__LAKE_BUCKET": self.outputs["LakeBucket"],
            "TELEMETRY_LAKE_SQS__ENDPOINT_URL": self.emulator.url,
            "TELEMETRY_LAKE_SQS__INDEX_QUEUE_NAME": self.outputs["IndexQueueName"],
            "TELEMETRY_LAKE_SQS__DEAD_LETTER_QUEUE_NAME": self.outputs["DeadLetterQueueName"],
            "TELEMETRY_LAKE_CATALOG__PROPERTIES": json.dumps(catalog),
            "TELEMETRY_LAKE_WEB__CUBES_DIRECTORY": str(self.folder / "cubes"),
        }

    def run(self, role: Role, *arguments: str) -> str:
        """Run `python -m telemetry_lake …` as a role to its end. Returns what it prints."""
        done = subprocess.run(
            (sys.executable, "-m", "telemetry_lake", *arguments),
            cwd=PROJECT_ROOT,
            env=self.of_process(role),
            capture_output=True,
            text=True,
            timeout=PROGRAM_DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def of_process(self, role: Role) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in KEYS}
        return {**inherited, **self.variables(role)}

    def status_of(self, role: Role, service: str, call: str, arguments: Mapping[str, object]) -> int:
        """Return the status of one call of a role."""
        client = self.emulator.client(service, self.emulator.assume(self._arns[role]))
        try:
            status: int = getattr(client, call)(**arguments)["ResponseMetadata"]["HTTPStatusCode"]
        except ClientError as error:
            # Only REST says it by the status; SQS, Glue and IAM refuse with a code.
            code = error.response["Error"]["Code"]
            status = 403 if "AccessDenied" in code else error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status


@pytest.fixture
def roled_lake(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RoledLake:
    shutil.rmtree(environment.templates)
    environment.templates.mkdir()
    for stack in STACKS:
        shutil.copy(TEMPLATE_FOLDER / f"{stack}.yaml", environment.templates)
    environment.values = {"OnAws": "no"}
    environment.deploy()
    lake = RoledLake(environment, tmp_path)
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    return lake


def test_a_deployment_ends_with_its_first_ping_as_a_row(roled_lake, environment, tmp_path, monkeypatch):
    lake = roled_lake
    _tables_were_created_as_maintenance(lake)
    for name, value in lake.emulator.root().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    node = RunningNode(tmp_path / "spool", lake.variables(Role.NODE), segment_max_age_seconds=1)
    node.start()
    try:
        with _draining(lake):
            url = f"http://127.0.0.1:{node.port}"
            said = environment.deploy("--first-ping", "--first-ping-url", url)
    finally:
        assert node.stop() == 0
    assert "nothing to change" in said
    assert f"is acknowledged by {url}" in said
    (row,) = (line for line in said.splitlines() if "it is a row of live.pings" in line)
    assert said.rstrip().endswith(row)
    query = "SELECT count(*) AS pings FROM live.pings"
    assert json.loads(lake.run(Role.ANALYST, "query", "--format", "json", query))["pings"] == 1
    lake.run(Role.DRAIN, "reconcile")
    assert _messages(lake) == 0
    _pages_answer(lake)


def _tables_were_created_as_maintenance(lake):
    created = [found for found in lake.emulator.decisions() if found.action == "glue:CreateTable"]
    assert created
    assert ROOT_KEY not in {found.key for found in created}
    assert all(found.allowed for found in created)


@contextmanager
def _draining(lake: RoledLake) -> Iterator[None]:
    """Drain again and again, as the DAG does."""
    done, failures = threading.Event(), []

    def drain() -> None:
        while not done.is_set():
            try:
                lake.run(Role.DRAIN, "drain")
            except AssertionError as error:
                failures.append(error)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not failures, failures


def _messages(lake):
    sqs = lake.emulator.client("sqs")
    url = sqs.get_queue_url(QueueName=lake.outputs["IndexQueueName"])["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def _pages_answer(lake):
    port = free_ports(1)
    log = lake.folder / "web.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "web", "--port", str(port)),
            cwd=PROJECT_ROOT,
            env=lake.of_process(Role.WEB),
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def answers():
        assert server.poll() is None, log.read_text()
        try:
            return (
                httpx.get((f"http://127.0.0.1:{port}/"), follow_redirects=True, timeout=30).status_code == 200
            )
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, deadline_seconds=120, what="the pages answer")
    finally:
        server.terminate()
        server.wait(30)
    assert "refused" not in log.read_text()


def test_what_no_role_may_is_refused_to_each(roled_lake):
    lake = roled_lake
    root = lake.emulator.client("s3")
    raw, tables = lake.outputs["RawBucket"], lake.outputs["TablesBucket"]
    root.put_object(Bucket=raw, Key="raw/v1/x", Body=b"a ping")
    sqs = lake.emulator.client("sqs")
    queue = sqs.get_queue_url(QueueName=lake.outputs["IndexQueueName"])["QueueUrl"]
    forbidden = (
        ("s3", "delete_object", {"Bucket": raw, "Key": "raw/v1/x"}),
        ("s3", "put_bucket_policy", {"Bucket": tables, "Policy": "{}"}),
        ("sqs", "purge_queue", {"QueueUrl": queue}),
        ("glue", "delete_database", {"Name": "live"}),
        ("iam", "create_user", {"UserName": f"u{uuid.uuid4().hex[:6]}"}),
        ("cloudformation", "delete_stack", {"StackName": "telemetry-lake-any-storage"}),
        ("sts", "assume_role", {"RoleArn": lake.outputs["NodeRoleArn"], "RoleSessionName": "other"}),
    )
    answered = {
        f"{role} {service}:{call}": status
        for role in Role
        for service, call, arguments in forbidden
        if (status := lake.status_of(role, service, call, arguments)) != 403
    }
    assert answered == {}
    assert root.head_object(Bucket=raw, Key="raw/v1/x")["ContentLength"] == 6
