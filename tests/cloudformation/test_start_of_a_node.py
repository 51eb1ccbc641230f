"""The user data of an ingest node, as the template has it, run from nothing to a node that takes pings."""

import io
import json
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from lake_testing.aws_emulator import AwsEmulator
from lake_testing.debian_machine import DebianMachine, debian_machine, missing
from lake_testing.machine_metadata import Metadata
from lake_testing.stack import wait_until
from provisioning.package import make_package
from provisioning.templates import TEMPLATE_FOLDER, read_template
from telemetry_lake.deploy.machine import ENVIRONMENT_TAG, NODE_TAG

ADDRESS = "127.77.0.1"
"""Of loopback, so that the ports of a real node are free."""
ROLE = "starting-node"
VALUES = {
    "Environment": "here",
    "AWS::Region": "us-east-1",
    "CodeBucket": "code-of-node",
    "RawBucket": "raw-of-node",
    "IndexQueueName": "index-of-node",
    "DeadLetterQueueName": "dead-of-node",
    "NodeWorkers": "1",
    "SpoolGib": "1",
}
ALLOWED = {
    "s3:GetObject": "arn:aws:s3:::code-of-node/*",
    "s3:PutObject": "arn:aws:s3:::raw-of-node/*",
    "ec2:DescribeVolumes": "*",
    "ec2:AttachVolume": "*",
    "sqs:*": "*",
}
DEADLINE_SECONDS = 120.0
PING = "/submit/lake-demo/greeting/1/3b2f1f0e-5d5c-4c7e-9c55-0a9f7a1b2c3d"

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(missing() is not None, reason=f"no machine inside of this one: {missing()}"),
]


def user_data(values: dict[str, str]) -> str:
    """Return the script as CloudFormation gives it to a machine."""
    resources = read_template("ingest", TEMPLATE_FOLDER / "ingest.yaml").content["Resources"]
    data = resources["NodeTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]
    text: str = data["Fn::Base64"]["Fn::Sub"]
    text = re.sub(r"\$\{([A-Za-z0-9:]+)\}", lambda found: values[found[1]], text)
    return text.replace("${!", "${")


def archive(**files: bytes) -> bytes:
    """Return a .tar.gz of programs, by their paths."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            packed.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def keys(aws_emulator: AwsEmulator) -> dict[str, str]:
    """What a node needs in AWS, and the keys of its two archives: the code, and the packages."""
    s3, sqs = aws_emulator.client("s3"), aws_emulator.client("sqs")
    for bucket in ("code-of-node", "raw-of-node"):
        s3.create_bucket(Bucket=bucket)
        for found in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=found["Key"])
    for queue in ("index-of-node", "dead-of-node"):
        sqs.create_queue(QueueName=queue)
    # The packages of this machine: 585 MiB of them are tested elsewhere.
    python = archive(**{"bin/python": f'#!/bin/sh\nexec {sys.executable} "$@"\n'.encode()})
    package = make_package()
    keys = {
        "PackageKey": package.key,
        "EnvironmentKey": f"environments/{sha256(python).hexdigest()}/environment.tar.gz",
    }
    s3.put_object(Bucket="code-of-node", Key=keys["PackageKey"], Body=package.body)
    s3.put_object(Bucket="code-of-node", Key=keys["EnvironmentKey"], Body=python)
    return keys


@pytest.fixture
def volume(aws_emulator: AwsEmulator) -> Iterator[str]:
    tags = [{"Key": ENVIRONMENT_TAG, "Value": "here"}, {"Key": NODE_TAG, "Value": "node-1"}]
    ec2 = aws_emulator.client("ec2")
    made = ec2.create_volume(
        AvailabilityZone="us-east-1a",
        Size=1,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )
    yield str(made["VolumeId"])
    ec2.detach_volume(VolumeId=made["VolumeId"])
    ec2.delete_volume(VolumeId=made["VolumeId"])


@pytest.fixture
def metadata(aws_emulator: AwsEmulator) -> Iterator[Metadata]:
    iam = aws_emulator.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    statements = [
        {"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in ALLOWED.items()
    ]
    role = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=policy([trust]))["Role"]["Arn"]
    iam.put_role_policy(RoleName=ROLE, PolicyName="node", PolicyDocument=policy(statements))
    found = aws_emulator.assume(role)
    aws_emulator.assert_assumed(found, ROLE)
    (machine,) = aws_emulator.client("ec2").run_instances(
        ImageId="ami-0123456789abcdef0", MinCount=1, MaxCount=1
    )["Instances"]
    credentials = {
        "Code": "Success",
        "AccessKeyId": found["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": found["AWS_SECRET_ACCESS_KEY"],
        "Token": found["AWS_SESSION_TOKEN"],
        "Expiration": "2099-01-01T00:00:00Z",
    }
    server = Metadata(
        {
            "iam/security-credentials/": ROLE,
            f"iam/security-credentials/{ROLE}": json.dumps(credentials),
            "instance-id": machine["InstanceId"],
            "local-ipv4": ADDRESS,
            "tags/instance/telemetry-lake:node": "node-1",
            "tags/instance/aws:autoscaling:groupName": "telemetry-lake-here-node-1",
        }
    )
    yield server
    server.close()
    iam.delete_role_policy(RoleName=ROLE, PolicyName="node")
    iam.delete_role(RoleName=ROLE)


def policy(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[DebianMachine]:
    with debian_machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def start(aws_emulator, keys, volume, metadata, machine):
    """Run the user data to its end, as cloud-init does."""

    def run() -> None:
        started = machine.start(
            user_data({**VALUES, **keys}),
            {
                "METADATA_URL": metadata.url,
                "S3_URL": aws_emulator.url,
                "AWS_ENDPOINT_URL": aws_emulator.url,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url,
            },
            disk_name=f"nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}",
        )
        assert started.returncode == 0, started.stdout + started.stderr + machine.logs()

    return run


def post_a_ping() -> None:
    answer = httpx.post(f"http://{ADDRESS}:8000{PING}", json={"hello": "node"})
    assert answer.status_code == httpx.codes.OK, answer.text


def wait_until_shipped(aws_emulator: AwsEmulator) -> None:
    s3 = aws_emulator.client("s3")
    wait_until(
        lambda: "Contents" in s3.list_objects_v2(Bucket="raw-of-node", Prefix="raw/"),
        deadline_seconds=DEADLINE_SECONDS,
        what="the node has shipped its spool",
    )


def test_a_node_starts_takes_a_ping_and_ships_it_when_it_is_stopped(aws_emulator, start, machine):
    start()
    post_a_ping()
    spool = machine.run(
        "sh", "-c", "findmnt --noheadings --output FSTYPE,OPTIONS /spool && ls -ld /spool/segments"
    )
    assert re.match(r"ext4 .*nosuid,nodev,noexec", spool), spool
    assert " lake lake " in spool
    if shutil.which("systemd-analyze"):
        # It says what systemd would not take, and would take otherwise than it is meant.
        units = [f"/etc/systemd/system/telemetry-lake-{name}.service" for name in ("ingest", "end")]
        assert machine.run("systemd-analyze", "verify", "--man=no", *units) == ""
    machine.stop("telemetry-lake-ingest")
    wait_until_shipped(aws_emulator)


def test_the_volume_of_a_machine_that_died_is_not_formatted_and_its_pings_are_shipped(
    aws_emulator, start, machine
):
    start()
    post_a_ping()
    machine.kill()
    wait_until(lambda: machine.processes() == [], deadline_seconds=DEADLINE_SECONDS, what="it is dead")
    assert "Contents" not in aws_emulator.client("s3").list_objects_v2(Bucket="raw-of-node")
    start()
    machine.stop("telemetry-lake-ingest")
    wait_until_shipped(aws_emulator)
