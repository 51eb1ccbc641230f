"""What a machine does at its start and at its end, with a real S3, and with the EC2 of an emulator."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lake_testing.aws_emulator import AwsEmulator
from lake_testing.machine_metadata import Metadata
from provisioning.templates import TEMPLATE_FOLDER
from telemetry_lake.deploy.machine import ENVIRONMENT_TAG, NODE_TAG, claim_volume, wait_for_end
from telemetry_lake.failures import ConfigurationError, FatalError

claim_of_node = partial(claim_volume, environment="here", node="node-1")


@pytest.fixture
def metadata(aws_emulator: AwsEmulator) -> Iterator[Metadata]:
    iam = aws_emulator.client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    allowed = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::code-here/packages/*"}
    role = iam.create_role(RoleName="machine", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(
        RoleName="machine",
        PolicyName="packages",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )
    keys = aws_emulator.assume(role)
    aws_emulator.assert_assumed(keys, "machine")
    credentials = {
        "AccessKeyId": keys["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": keys["AWS_SECRET_ACCESS_KEY"],
        "Token": keys["AWS_SESSION_TOKEN"],
    }
    answers = {
        "iam/security-credentials/": "machine",
        "iam/security-credentials/machine": json.dumps(credentials),
        "instance-id": "i-0123",
    }
    server = Metadata(answers)
    yield server
    server.close()
    iam.delete_role_policy(RoleName="machine", PolicyName="packages")
    iam.delete_role(RoleName="machine")


def fetch(metadata: Metadata, s3_url: str, key: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Run the part of a machine's start that fetches its package, which needs no rights on this machine."""
    script = (TEMPLATE_FOLDER / "user_data" / "fetch_package.sh").read_text()
    fetching, _, rest = script.partition('fetch "$PACKAGE_KEY" "$home"\n')
    assert rest
    return subprocess.run(
        ["bash", "-c", f'set -euo pipefail\n{fetching}fetch "$PACKAGE_KEY" "$home"\nmetadata instance-id'],
        env={
            **os.environ,
            "METADATA_URL": metadata.url,
            "S3_URL": s3_url,
            "ROOT": str(root),
            "ENVIRONMENT": "here",
            "REGION": "us-east-1",
            "CODE_BUCKET": "code-here",
            "PACKAGE_KEY": key,
            "TMPDIR": str(root),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_fetches_its_package_as_its_role_and_takes_no_other(metadata, aws_emulator, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("telemetry_lake/hello.txt")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    body = buffer.getvalue()
    s3 = aws_emulator.client("s3")
    s3.create_bucket(Bucket="code-here")
    good = f"packages/{sha256(body).hexdigest()}/telemetry-lake.tar.gz"
    wrong = f"packages/{'0' * 64}/telemetry-lake.tar.gz"
    for key in (good, wrong, "elsewhere/x"):
        s3.put_object(Bucket="code-here", Key=key, Body=body)
    run = fetch(metadata, aws_emulator.url, good, tmp_path)
    assert (run.returncode, run.stdout) == (0, "i-0123"), run.stderr
    unpacked = tmp_path / "opt" / "telemetry_lake" / "telemetry_lake" / "hello.txt"
    assert unpacked.read_text() == "hello"
    unpacked.unlink()
    run = fetch(metadata, aws_emulator.url, wrong, tmp_path)
    assert run.returncode != 0
    assert "checksum did NOT match" in run.stderr
    run = fetch(metadata, aws_emulator.url, "elsewhere/x", tmp_path)
    assert run.returncode != 0
    assert "403" in run.stderr
    assert not unpacked.exists()


@pytest.fixture
def machines(aws_emulator: AwsEmulator) -> list[str]:
    started = aws_emulator.client("ec2").run_instances(
        ImageId="ami-0123456789abcdef0", MinCount=2, MaxCount=2
    )
    return [instance["InstanceId"] for instance in started["Instances"]]


@pytest.fixture
def volume(aws_emulator: AwsEmulator) -> Iterator[str]:
    ec2 = aws_emulator.client("ec2")
    tags = [{"Key": ENVIRONMENT_TAG, "Value": "here"}, {"Key": NODE_TAG, "Value": "node-1"}]
    made = ec2.create_volume(
        AvailabilityZone="us-east-1a",
        Size=8,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )["VolumeId"]
    yield made
    (found,) = ec2.describe_volumes(VolumeIds=[made])["Volumes"]
    if found["Attachments"]:
        ec2.detach_volume(VolumeId=made)
    ec2.delete_volume(VolumeId=made)


def test_a_machine_claims_the_volume_of_its_node_also_again(aws_emulator, machines, volume):
    ec2 = aws_emulator.client("ec2")
    for _ in range(2):
        assert claim_of_node(ec2, instance=machines[0], sleep=lambda _: None) == volume
    (found,) = ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    assert [held["InstanceId"] for held in found["Attachments"]] == machines[:1]


def test_a_machine_waits_until_the_one_before_lets_go_of_the_volume(aws_emulator, machines, volume):
    ec2 = aws_emulator.client("ec2")
    claim_of_node(ec2, instance=machines[0], sleep=lambda _: None)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            ec2.detach_volume(VolumeId=volume, InstanceId=machines[0])

    assert claim_of_node(ec2, instance=machines[1], sleep=sleep) == volume
    assert len(waits) == 4


def test_a_volume_that_is_not_let_go_or_not_there_is_said(aws_emulator, machines, volume):
    ec2 = aws_emulator.client("ec2")
    claim_of_node(ec2, instance=machines[0], sleep=lambda _: None)
    with pytest.raises(FatalError, match=f"{volume} of node-1 is still attached to {machines[0]} after 0 s"):
        claim_of_node(ec2, instance=machines[1], limit_seconds=0, sleep=lambda _: None)
    with pytest.raises(ConfigurationError, match="0 volumes have the tags"):
        claim_volume(ec2, instance=machines[1], environment="here", node="node-2")


def test_a_machine_notices_its_end_and_nothing_else():
    server = Metadata({})
    looks: list[Any] = []

    def sleep(_: float) -> None:
        looks.append(None)
        if len(looks) == 2:
            server.answers["autoscaling/target-lifecycle-state"] = "InService"
        if len(looks) == 4:
            server.answers["autoscaling/target-lifecycle-state"] = "Terminated"

    try:
        wait_for_end(server.url, sleep=sleep)
    finally:
        server.close()
    assert len(looks) == 4
