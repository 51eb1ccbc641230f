"""House rules about what holds data: buckets, queues, volumes, databases.

cfn-lint --append-rules cloudformation/rules -- cloudformation/*.yaml
"""

from collections.abc import Iterator, Mapping
from typing import Any

from cfnlint.rules import CloudFormationLintRule, RuleMatch

KEEPS_DATA = frozenset(
    {
        *("AWS::EC2::Volume", "AWS::ECR::Repository", "AWS::Glue::Database", "AWS::RDS::DBInstance"),
        *("AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::SecretsManager::Secret"),
    }
)
"""Types whose resources hold what is nowhere else."""
CAN_BE_SNAPSHOTS = frozenset({"AWS::RDS::DBInstance"})
"""Of these, what may become a snapshot when it is deleted. A spool may not: nothing would ship it."""
ENCRYPTED_BY = {
    "AWS::EC2::Volume": ("Encrypted",),
    "AWS::RDS::DBInstance": ("StorageEncrypted",),
    "AWS::ElastiCache::ReplicationGroup": ("AtRestEncryptionEnabled", "TransitEncryptionEnabled"),
    "AWS::SQS::Queue": ("SqsManagedSseEnabled",),
}
"""The properties that encrypt a resource, all of which have to be true."""
QUEUE_DEFAULT_RETENTION_SECONDS = 345_600
CLOSED = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")


def is_true(value: Any) -> bool:
    """Return whether a value of a template is true, which may be written as text."""
    return str(value).lower() == "true"


def refers_to(value: Any, name: str) -> bool:
    """Return whether a value is, or contains, a reference to a resource or one of its attributes."""
    if isinstance(value, Mapping):
        if value.get("Ref") == name:
            return True
        attribute = value.get("Fn::GetAtt")
        if attribute is not None:
            return (attribute.split(".") if isinstance(attribute, str) else attribute)[0] == name
        return any(refers_to(item, name) for item in value.values())
    return isinstance(value, list) and any(refers_to(item, name) for item in value)


def refuses_plain_http(policies: Mapping[str, Any], holder: str, name: str) -> bool:
    """Return whether one of the policies refuses every action without TLS on the resource `name`."""
    for policy in policies.values():
        properties = policy["Properties"]
        if not refers_to(properties.get(holder), name):
            continue
        for statement in properties["PolicyDocument"]["Statement"]:
            secure = statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")
            everything = statement["Action"] in ("s3:*", "sqs:*")
            if statement["Effect"] == "Deny" and everything and str(secure).lower() == "false":
                return True
    return False


class BucketsAreClosed(CloudFormationLintRule):  # noqa: D101  it has a description of its own
    id = "E9001"
    shortdesc = "Buckets are closed to the public, encrypted, and refuse plain HTTP"
    description = "Pings are personal data: no setting of an account or an object may open a bucket"
    tags = ("house",)

    def match(self, cfn: Any) -> list[RuleMatch]:
        """Return what is wrong with the buckets of a template."""
        policies = cfn.get_resources("AWS::S3::BucketPolicy")
        return [
            RuleMatch(["Resources", name], f"the bucket {name} {problem}")
            for name, bucket in cfn.get_resources("AWS::S3::Bucket").items()
            for problem in self._problems(name, bucket.get("Properties", {}), policies)
        ]

    def _problems(self, name: str, bucket: Any, policies: Mapping[str, Any]) -> Iterator[str]:
        block = bucket.get("PublicAccessBlockConfiguration", {})
        if not all(is_true(block.get(setting)) for setting in CLOSED):
            yield f"has to set all of {', '.join(CLOSED)}"
        if not bucket.get("BucketEncryption"):
            yield "needs BucketEncryption"
        owners = bucket.get("OwnershipControls", {}).get("Rules", [])
        if [rule.get("ObjectOwnership") for rule in owners] != ["BucketOwnerEnforced"]:
            yield "needs OwnershipControls of BucketOwnerEnforced"
        rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
        if not any("AbortIncompleteMultipartUpload" in rule for rule in rules):
            yield "needs a rule that aborts incomplete uploads, which nobody sees and everybody pays for"
        if not refuses_plain_http(policies, "Bucket", name):
            yield "needs a policy that refuses s3:* where aws:SecureTransport is false"


class DataIsRetained(CloudFormationLintRule):  # noqa: D101
    id = "E9002"
    shortdesc = "What holds data outlives its stack, and its replacement"
    description = "A deletion policy that is added later is no change to CloudFormation, and is not taken"
    tags = ("house",)

    def match(self, cfn: Any) -> list[RuleMatch]:
        """Return which resources with data have no policy that keeps it."""
        found = []
        for name, resource in cfn.get_resources().items():
            kind = resource["Type"]
            if kind not in KEEPS_DATA:
                continue
            kept = {"Retain", "Snapshot"} if kind in CAN_BE_SNAPSHOTS else {"Retain"}
            for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
                if resource.get(policy) not in kept:
                    message = f"{name} holds data: {policy} has to be {' or '.join(sorted(kept))}"
                    found.append(RuleMatch(["Resources", name], message))
        return found


class QueuesHaveDeadLetters(CloudFormationLintRule):  # noqa: D101
    id = "E9003"
    shortdesc = "Queues have dead letters, which are kept at least as long, and refuse plain HTTP"
    description = "A message that cannot be worked off has to end where a person finds it"
    tags = ("house",)

    def match(self, cfn: Any) -> list[RuleMatch]:
        """Return what is wrong with the queues of a template."""
        queues = cfn.get_resources("AWS::SQS::Queue")
        policies = cfn.get_resources("AWS::SQS::QueuePolicy")
        return [
            RuleMatch(["Resources", name], f"the queue {name} {problem}")
            for name in queues
            for problem in self._problems(name, queues, policies)
        ]

    def _problems(self, name: str, queues: Mapping[str, Any], policies: Mapping[str, Any]) -> Iterator[str]:
        target = queues[name].get("Properties", {}).get("RedrivePolicy", {}).get("deadLetterTargetArn")
        letters = [other for other in queues if other != name and refers_to(target, other)]
        sources = [
            other
            for other, queue in queues.items()
            if refers_to(queue.get("Properties", {}).get("RedrivePolicy"), name)
        ]
        if not letters and not sources:
            yield "needs a RedrivePolicy to a queue of dead letters in this template"
        for other in letters:
            if self._retention(queues[other]) < self._retention(queues[name]):
                yield f"keeps messages for longer than its dead letters {other}, where they would be gone"
        if not refuses_plain_http(policies, "Queues", name):
            yield "needs a policy that refuses sqs:* where aws:SecureTransport is false"

    def _retention(self, queue: Mapping[str, Any]) -> int:
        properties = queue.get("Properties", {})
        return int(properties.get("MessageRetentionPeriod", QUEUE_DEFAULT_RETENTION_SECONDS))


class DataIsEncrypted(CloudFormationLintRule):  # noqa: D101
    id = "E9004"
    shortdesc = "Disks, databases, brokers and queues are encrypted"
    description = "Also the disks that machines start from"
    tags = ("house",)

    def match(self, cfn: Any) -> list[RuleMatch]:
        """Return what is not encrypted."""
        found = [
            RuleMatch(["Resources", name], f"{name} needs {switch}: true")
            for name, resource in cfn.get_resources().items()
            for switch in ENCRYPTED_BY.get(resource["Type"], ())
            if not is_true(resource.get("Properties", {}).get(switch))
        ]
        for name, template in cfn.get_resources("AWS::EC2::LaunchTemplate").items():
            disks = template["Properties"]["LaunchTemplateData"].get("BlockDeviceMappings", [])
            if not disks or not all(is_true(disk.get("Ebs", {}).get("Encrypted")) for disk in disks):
                message = f"the disks of {name} need Encrypted: true, so name them in BlockDeviceMappings"
                found.append(RuleMatch(["Resources", name], message))
        return found
