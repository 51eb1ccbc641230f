"""The templates become stacks, change and go again, on an emulator of AWS."""

import base64
import json
import subprocess
from collections.abc import Mapping
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from build_tools.template_joins import contents
from lake_testing.aws_emulator import AwsEmulator
from lake_testing.stack import wait_until
from provisioning.templates import STACK_ORDER, TEMPLATE_FOLDER

ENVIRONMENT: Final = "emulated"
IMAGE: Final = "/emulated/image"
LEFT_OUT: Final = {
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::CloudWatch::Alarm",
    "AWS::EC2::EIP",
    "AWS::EC2::NatGateway",
    "AWS::EC2::Route",
    "AWS::EC2::Volume",
    "AWS::EMRServerless::Application",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
}
"""Of each at least one is made on AWS only: the emulator knows no such type, has alarms of one metric only,
or would keep to such a policy, without TLS."""
CHANGES: Final[Mapping[str, Mapping[str, str]]] = {
    "network": {"Egress": "both"},
    "storage": {"RawDays": "0", "AnalysisDays": "30"},
    "queue": {"VisibilityTimeoutSeconds": "600"},
    "ingest": {"NodeCount": "4", "NodeInstanceType": "m7i.xlarge"},
    "orchestration": {"WorkersMax": "9"},
    "web": {"WebCount": "3"},
    "monitoring": {"MonitorInstanceType": "t3.medium"},
}
"""An update of each stack that has something to change."""
KEPT_BUCKETS: Final = ("raw", "lake", "tables", "code", "logs")


def of_aws_only(template: Mapping[str, Any]) -> set[str]:
    """The types of the resources of a template that depend on its parameter OnAws."""
    conditions = template.get("Conditions", {})

    def depends(condition: Any) -> bool:
        text = json.dumps(condition)
        named = [name for name in conditions if json.dumps({"Condition": name}) in text]
        return '"OnAws"' in text or any(depends(conditions[name]) for name in named)

    return {
        resource["Type"]
        for resource in template["Resources"].values()
        if "Condition" in resource and depends(conditions[resource["Condition"]])
    }


def what_a_role_may(emulator: AwsEmulator, outputs: Mapping[str, str], role: str) -> set[str]:
    """Which of a dozen calls, each the business of some program, a role of the stacks is allowed."""
    keys = emulator.assume(outputs[role])
    emulator.assert_assumed(keys, outputs[role].rpartition("/")[2])
    s3, sqs = emulator.client("s3", keys), emulator.client("sqs", keys)
    raw, lake, tables = (outputs[name] for name in ("RawBucket", "LakeBucket", "TablesBucket"))
    queue = {"QueueUrl": outputs["IndexQueueUrl"]}
    file = {"Bucket": tables, "Key": "stable/pings/data/x.parquet"}
    emulator.client("s3").put_object(**file)
    calls: dict[str, tuple[Any, dict[str, Any]]] = {
        "put raw object": (s3.put_object, {"Bucket": raw, "Key": "raw/v1/2026-11-23/09/node-1/a.arrows"}),
        "put beside raw objects": (s3.put_object, {"Bucket": raw, "Key": "elsewhere"}),
        "delete raw object": (
            s3.delete_object,
            {"Bucket": raw, "Key": "raw/v1/2026-11-23/09/node-1/a.arrows"},
        ),
        "put batch": (s3.put_object, {"Bucket": lake, "Key": "batches/0123/manifest.json"}),
        "put output": (s3.put_object, {"Bucket": lake, "Key": "analyses/runs/a/output.txt"}),
        "get table": (s3.get_object, file),
        "put table": (s3.put_object, file),
        "send message": (sqs.send_message, {**queue, "MessageBody": "{}"}),
        "receive message": (sqs.receive_message, queue),
        "purge queue": (sqs.purge_queue, queue),
        "read secret": (
            emulator.client("secretsmanager", keys).get_secret_value,
            {"SecretId": f"telemetry-lake/{ENVIRONMENT}/airflow/database"},
        ),
        "drop table": (
            emulator.client("glue", keys).delete_table,
            {"DatabaseName": "live", "Name": "pings"},
        ),
        "make user": (emulator.client("iam", keys).create_user, {"UserName": "anybody"}),
    }
    return {name for name, (call, arguments) in calls.items() if is_allowed(call, arguments)}


def is_allowed(call: Any, arguments: Mapping[str, Any]) -> bool:
    try:
        call(**arguments)
    except ClientError as error:
        if "AccessDenied" not in error.response["Error"]["Code"]:
            raise
        return False
    return True


def assert_machines_start_with_the_scripts(emulator: AwsEmulator) -> None:
    """Each script is, to the letter, in the user data of some machine, and these are scripts of bash."""
    ec2 = emulator.client("ec2")
    given = []
    for template in ec2.describe_launch_templates()["LaunchTemplates"]:
        (version,) = ec2.describe_launch_template_versions(
            LaunchTemplateId=template["LaunchTemplateId"], Versions=["$Latest"]
        )["LaunchTemplateVersions"]
        given.append(base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode())
    assert len(given) == 3
    for text in given:
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        assert f"ENVIRONMENT={ENVIRONMENT}\n" in text
    for script in (TEMPLATE_FOLDER / "user_data").glob("*.sh"):
        assert any(script.read_text() in text for text in given), script.name


class Stacks:
    """The stacks of one environment in the emulator."""

    def __init__(self, emulator: AwsEmulator) -> None:
        self.cloudformation = emulator.client("cloudformation")
        self.templates = contents()
        self.outputs: dict[str, str] = {}
        emulator.client("ssm").put_parameter(Name=IMAGE, Type="String", Value="ami-0123456789abcdef0")
        given = json.loads((TEMPLATE_FOLDER / "parameters" / "2014.json").read_text())
        self._given = {name: str(value) for name, value in given.items()} | {
            "Environment": ENVIRONMENT,
            "OnAws": "no",
            "PackageKey": f"packages/{'0' * 64}/telemetry-lake.tar.gz",
            "MachineImage": IMAGE,
        }

    def make(self, stack: str) -> None:
        """Create a stack with the outputs of those before it."""
        self.cloudformation.create_stack(**self._request(stack))
        self._wait(stack, "CREATE_COMPLETE")

    def change(self, stack: str) -> None:
        """Update a stack with other values."""
        self._given |= CHANGES[stack]
        self.cloudformation.update_stack(**self._request(stack))
        self._wait(stack, "UPDATE_COMPLETE")

    def remove(self, stack: str) -> None:
        """Delete a stack."""
        name = f"telemetry-lake-{ENVIRONMENT}-{stack}"
        (found,) = self.cloudformation.describe_stacks(StackName=name)["Stacks"]
        self.cloudformation.delete_stack(StackName=name)
        wait_until(
            lambda: self._status(found["StackId"]) == "DELETE_COMPLETE",
            deadline_seconds=60,
            what=f"{stack} is deleted",
        )

    def _request(self, stack: str) -> dict[str, Any]:
        values = {**self._given, **self.outputs}
        return {
            "StackName": f"telemetry-lake-{ENVIRONMENT}-{stack}",
            "TemplateBody": (TEMPLATE_FOLDER / f"{stack}.yaml").read_text(),
            "Parameters": [
                {"ParameterKey": name, "ParameterValue": values[name]}
                for name in self.templates[stack]["Parameters"]
                if name in values
            ],
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
        }

    def _status(self, name: str) -> str:
        (found,) = self.cloudformation.describe_stacks(StackName=name)["Stacks"]
        return str(found["StackStatus"])

    def _wait(self, stack: str, wanted: str) -> None:
        name = f"telemetry-lake-{ENVIRONMENT}-{stack}"
        wait_until(
            lambda: not self._status(name).endswith("_IN_PROGRESS"),
            deadline_seconds=60,
            what=f"{stack} comes to {wanted}",
        )
        events = self.cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        failed = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
            for event in events
            if "FAILED" in event["ResourceStatus"]
        ]
        assert self._status(name) == wanted, failed
        (found,) = self.cloudformation.describe_stacks(StackName=name)["Stacks"]
        self.outputs |= {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}


@pytest.fixture(scope="module")
def stacks(aws_emulator: AwsEmulator) -> Stacks:
    # The databases of the catalog have the same names in every lake.
    aws_emulator.reset()
    return Stacks(aws_emulator)


def test_every_stack_is_made_changed_and_removed_and_keeps_its_data(stacks, aws_emulator):
    for stack in STACK_ORDER:
        stacks.make(stack)
    assert what_a_role_may(aws_emulator, stacks.outputs, "NodeRoleArn") == {"put raw object", "send message"}
    assert what_a_role_may(aws_emulator, stacks.outputs, "AnalystJobRoleArn") == {"put output", "get table"}
    assert what_a_role_may(aws_emulator, stacks.outputs, "SchedulerRoleArn") == set()
    assert_machines_start_with_the_scripts(aws_emulator)
    for stack in CHANGES:
        stacks.change(stack)
    groups = aws_emulator.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert {f"telemetry-lake-{ENVIRONMENT}-node-{number}" for number in (1, 2, 3, 4)} <= {
        group["AutoScalingGroupName"] for group in groups
    }
    for stack in reversed(STACK_ORDER):
        stacks.remove(stack)
    left = {bucket["Name"] for bucket in aws_emulator.client("s3").list_buckets()["Buckets"]}
    assert {f"telemetry-lake-{ENVIRONMENT}-{name}-000000000000" for name in KEPT_BUCKETS} <= left
    queues = aws_emulator.client("sqs").list_queues(QueueNamePrefix=f"telemetry-lake-{ENVIRONMENT}")
    assert len(queues["QueueUrls"]) == 2
    databases = {each["Name"] for each in aws_emulator.client("glue").get_databases()["DatabaseList"]}
    assert {"live", "stable", "derived"} <= databases


def test_what_the_emulator_does_not_make_is_known(capsys):
    left_out = {stack: of_aws_only(template) for stack, template in contents().items()}
    with capsys.disabled():
        for stack, types in left_out.items():
            if types:
                print(f"\nnot made on the emulator, of {stack}: {', '.join(sorted(types))}", end="")
    assert set().union(*left_out.values()) == LEFT_OUT
