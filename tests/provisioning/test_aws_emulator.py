"""The emulator refuses what AWS refuses, and says what it decided."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lake_testing.aws_emulator import AwsEmulator
from lake_testing.stack import wait_until

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


@pytest.fixture
def name() -> str:
    return f"emulated-{uuid.uuid4().hex[:8]}"


def role(emulator: AwsEmulator, name: str, **actions: str) -> str:
    """Make a role that may do each of the actions, written with an underscore, with one resource."""
    iam = emulator.client("iam")
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    statements = [
        {"Effect": "Allow", "Action": action.replace("_", ":"), "Resource": resource}
        for action, resource in actions.items()
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=document)
    return arn


def status_of(call: Any, **arguments: object) -> int:
    try:
        status: int = call(**arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status


def test_a_batch_of_messages_needs_the_right_of_a_single_one(aws_emulator: AwsEmulator, name: str) -> None:
    url = aws_emulator.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    queue = f"arn:aws:sqs:us-east-1:000000000000:{name}"
    environment = aws_emulator.assume(role(aws_emulator, name, sqs_SendMessage=queue))
    aws_emulator.assert_assumed(environment, name)
    sqs = aws_emulator.client("sqs", environment)
    entries = [{"Id": "0", "MessageBody": "hello"}]
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 1
    deleted = {"QueueUrl": url, "Entries": [{"Id": "0", "ReceiptHandle": "x"}]}
    assert status_of(sqs.delete_message_batch, **deleted) == 403
    assert [(each.action, each.allowed) for each in aws_emulator.decisions() if each.resource == queue][
        -2:
    ] == [("sqs:SendMessage", True), ("sqs:DeleteMessage", False)]


def test_only_who_may_list_a_bucket_is_told_that_an_object_is_missing(
    aws_emulator: AwsEmulator, name: str
) -> None:
    root = aws_emulator.client("s3")
    root.create_bucket(Bucket=name)
    root.put_object(Bucket=name, Key="a key", Body=b"there")
    objects, bucket = f"arn:aws:s3:::{name}/*", f"arn:aws:s3:::{name}"
    reader = aws_emulator.client(
        "s3", aws_emulator.assume(role(aws_emulator, f"{name}-r", s3_GetObject=objects))
    )
    assert status_of(reader.get_object, Bucket=name, Key="a key") == 200
    assert status_of(reader.get_object, Bucket=name, Key="missing") == 403
    assert status_of(reader.head_object, Bucket=name, Key="missing") == 403
    lister = aws_emulator.client(
        "s3",
        aws_emulator.assume(
            role(aws_emulator, f"{name}-l", s3_GetObject=objects, s3_ListBucket=bucket),
        ),
    )
    assert status_of(lister.get_object, Bucket=name, Key="missing") == 404


def test_what_no_action_is_known_for_is_refused(aws_emulator: AwsEmulator, name: str) -> None:
    environment = aws_emulator.assume(role(aws_emulator, name, s3_GetObject="*"))
    assert status_of(aws_emulator.client("emr-serverless", environment).list_applications) == 403


def test_the_root_user_is_not_a_role(aws_emulator: AwsEmulator, name: str) -> None:
    with pytest.raises(AssertionError, match="root"):
        aws_emulator.assert_assumed(aws_emulator.root(), name)
    environment = aws_emulator.assume_for_long(role(aws_emulator, name, s3_GetObject="*"))
    assert "AWS_ACCESS_KEY_ID" not in environment
    aws_emulator.assert_assumed(environment, name)


def test_a_stack_does_not_take_a_full_bucket_along(aws_emulator: AwsEmulator, name: str) -> None:
    template = {"Resources": {"Full": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}}}}
    stacks, s3 = aws_emulator.client("cloudformation"), aws_emulator.client("s3")
    stacks.create_stack(StackName=name, TemplateBody=json.dumps(template))

    def is_in(status: str) -> bool:
        try:
            found: str = stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        except ClientError:
            found = "DELETE_COMPLETE"
        return found == status

    wait_until(lambda: is_in("CREATE_COMPLETE"), deadline_seconds=20, what="the stack is there")
    s3.put_object(Bucket=name, Key="data", Body=b"data")
    stacks.delete_stack(StackName=name)
    wait_until(lambda: is_in("DELETE_FAILED"), deadline_seconds=20, what="the full bucket is kept")
    s3.delete_object(Bucket=name, Key="data")
    stacks.delete_stack(StackName=name)
    wait_until(lambda: is_in("DELETE_COMPLETE"), deadline_seconds=20, what="the empty bucket is deleted")
