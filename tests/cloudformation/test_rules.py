"""Each house rule lets a good template pass, and finds what it is there to find."""

import copy
from collections.abc import Callable
from typing import Any, Final

import pytest
from cfnlint.decode import decode_str
from cfnlint.template import Template

from cloudformation.rules import access, data

GOOD: Final = """
Parameters:
  AdminSecretArn: {Type: String}
  Password: {Type: String, NoEcho: true}
Resources:
  Bucket:
    Type: AWS::S3::Bucket
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties:
      BucketEncryption:
        ServerSideEncryptionConfiguration: [{ServerSideEncryptionByDefault: {SSEAlgorithm: AES256}}]
      OwnershipControls: {Rules: [{ObjectOwnership: BucketOwnerEnforced}]}
      PublicAccessBlockConfiguration:
        BlockPublicAcls: true
        BlockPublicPolicy: true
        IgnorePublicAcls: true
        RestrictPublicBuckets: "true"
      LifecycleConfiguration:
        Rules: [{Id: a, Status: Enabled, AbortIncompleteMultipartUpload: {DaysAfterInitiation: 2}}]
  BucketPolicy:
    Type: AWS::S3::BucketPolicy
    Properties:
      Bucket: !Ref Bucket
      PolicyDocument:
        Statement:
          - Effect: Deny
            Principal: "*"
            Action: "s3:*"
            Resource: "*"
            Condition: {Bool: {"aws:SecureTransport": false}}
  Queue:
    Type: AWS::SQS::Queue
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties:
      SqsManagedSseEnabled: true
      RedrivePolicy: {deadLetterTargetArn: !GetAtt Letters.Arn, maxReceiveCount: 5}
  Letters:
    Type: AWS::SQS::Queue
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties: {SqsManagedSseEnabled: true, MessageRetentionPeriod: 1209600}
  QueuePolicy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Queue, !Ref Letters]
      PolicyDocument:
        Statement:
          - Effect: Deny
            Principal: "*"
            Action: "sqs:*"
            Resource: "*"
            Condition: {Bool: {"aws:SecureTransport": "false"}}
  Database:
    Type: AWS::RDS::DBInstance
    DeletionPolicy: Snapshot
    UpdateReplacePolicy: Snapshot
    Properties:
      StorageEncrypted: true
      MasterUserPassword: !Sub "{{resolve:secretsmanager:${AdminSecretArn}:SecretString:password}}"
  Machine:
    Type: AWS::EC2::LaunchTemplate
    Properties:
      LaunchTemplateData:
        MetadataOptions: {HttpTokens: required, HttpPutResponseHopLimit: 1}
        BlockDeviceMappings: [{DeviceName: /dev/xvda, Ebs: {Encrypted: true}}]
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Statement: [{Effect: Allow, Principal: {Service: ec2.amazonaws.com}, Action: "sts:AssumeRole"}]
      Policies:
        - PolicyName: one
          PolicyDocument:
            Statement: [{Effect: Allow, Action: ["s3:GetObject"], Resource: "arn:aws:s3:::b/*"}]
  PingBalancerGroup:
    Type: AWS::EC2::SecurityGroup
    Properties:
      SecurityGroupIngress: [{IpProtocol: tcp, FromPort: 443, ToPort: 443, CidrIp: 0.0.0.0/0}]
  NodeGroup:
    Type: AWS::EC2::SecurityGroup
    Properties:
      SecurityGroupIngress:
        - {IpProtocol: tcp, FromPort: 8000, ToPort: 8000, SourceSecurityGroupId: !Ref PingBalancerGroup}
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - Environment: [{Name: LAKE_SETTINGS, Value: a}]
          Secrets: [{Name: DATABASE_PASSWORD, ValueFrom: !Ref AdminSecretArn}]
"""
_IN_MODULES: Final[list[Any]] = [*vars(access).values(), *vars(data).values()]
RULES: Final = {name: rule for rule in _IN_MODULES if (name := str(getattr(rule, "id", ""))).startswith("E9")}


def findings(rule: str, template: Any) -> list[str]:
    """What a rule says of a template, as its messages."""
    return [match.message for match in RULES[rule]().match(Template("example.yaml", template))]


def good() -> Any:
    template, matches = decode_str(GOOD)
    assert not matches
    return copy.deepcopy(template)


def set_at(*path: Any, to: Any) -> Callable[[Any], None]:
    """What changes a template at one place; `None` removes what is there."""

    def change(template: Any) -> None:
        *way, last = ("Resources", *path) if path[0] != "Parameters" else path
        for step in way:
            template = template[step]
        if to is None:
            del template[last]
        else:
            template[last] = to

    return change


_OPEN: Final = {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000, "CidrIp": "0.0.0.0/0"}
_OPEN_SIX: Final = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIpv6": "::/0"}
_STATEMENT: Final = ("Role", "Properties", "Policies", 0, "PolicyDocument", "Statement", 0)
_BUCKET: Final = ("Bucket", "Properties")
_MACHINE: Final = ("Machine", "Properties", "LaunchTemplateData")
BAD: Final[list[tuple[str, Callable[[Any], None], str]]] = [
    (
        "E9001",
        set_at(*_BUCKET, "PublicAccessBlockConfiguration", "BlockPublicPolicy", to=False),
        "set all of",
    ),
    ("E9001", set_at(*_BUCKET, "PublicAccessBlockConfiguration", to=None), "set all of"),
    ("E9001", set_at(*_BUCKET, "BucketEncryption", to=None), "needs BucketEncryption"),
    ("E9001", set_at(*_BUCKET, "OwnershipControls", to=None), "BucketOwnerEnforced"),
    ("E9001", set_at(*_BUCKET, "LifecycleConfiguration", to=None), "incomplete uploads"),
    ("E9001", set_at("BucketPolicy", "Properties", "Bucket", to={"Ref": "Other"}), "refuses s3:\\*"),
    (
        "E9001",
        set_at("BucketPolicy", "Properties", "PolicyDocument", "Statement", 0, "Effect", to="Allow"),
        "refuses s3:\\*",
    ),
    ("E9002", set_at("Bucket", "DeletionPolicy", to=None), "Bucket holds data: DeletionPolicy"),
    ("E9002", set_at("Bucket", "UpdateReplacePolicy", to="Delete"), "UpdateReplacePolicy has to be Retain"),
    ("E9002", set_at("Queue", "DeletionPolicy", to="Snapshot"), "Queue holds data"),
    ("E9002", set_at("Database", "DeletionPolicy", to="Delete"), "Retain or Snapshot"),
    ("E9003", set_at("Queue", "Properties", "RedrivePolicy", to=None), "Queue needs a RedrivePolicy"),
    ("E9003", set_at("Queue", "Properties", "MessageRetentionPeriod", to=1_209_601), "would be gone"),
    ("E9003", set_at("QueuePolicy", "Properties", "Queues", to=[{"Ref": "Queue"}]), "Letters needs a policy"),
    ("E9004", set_at("Queue", "Properties", "SqsManagedSseEnabled", to=None), "SqsManagedSseEnabled"),
    ("E9004", set_at("Database", "Properties", "StorageEncrypted", to=False), "StorageEncrypted"),
    ("E9004", set_at(*_MACHINE, "BlockDeviceMappings", to=None), "BlockDeviceMappings"),
    (
        "E9004",
        set_at(*_MACHINE, "BlockDeviceMappings", 0, "Ebs", "Encrypted", to=False),
        "the disks of Machine",
    ),
    ("E9005", set_at(*_STATEMENT, "Action", to=["s3:Get*"]), "without \\*"),
    ("E9005", set_at(*_STATEMENT, "Action", to="*"), "without \\*"),
    ("E9005", set_at(*_STATEMENT, "NotAction", to="s3:GetObject"), "not what is left out"),
    ("E9005", set_at(*_STATEMENT, "Principal", to="*"), "to everybody"),
    ("E9005", set_at(*_STATEMENT, "Principal", to={"AWS": ["*"]}), "to everybody"),
    ("E9006", set_at("NodeGroup", "Properties", "SecurityGroupIngress", to=[_OPEN]), "NodeGroup is open"),
    ("E9006", set_at("NodeGroup", "Properties", "SecurityGroupIngress", to=[_OPEN_SIX]), "NodeGroup is open"),
    (
        "E9006",
        set_at("PingBalancerGroup", "Properties", "SecurityGroupIngress", to=[_OPEN]),
        "ports than 443",
    ),
    ("E9007", set_at("Parameters", "Password", "NoEcho", to=None), "Password needs NoEcho"),
    ("E9007", set_at("Database", "Properties", "MasterUserPassword", to="hunter2"), "MasterUserPassword has"),
    ("E9007", set_at("Database", "Properties", "MasterUserPassword", to={"Ref": "Password"}), "MasterUser"),
    (
        "E9007",
        set_at(
            *("Task", "Properties", "ContainerDefinitions", 0, "Environment"),
            to=[{"Name": "DATABASE_PASSWORD", "Value": "hunter2"}],
        ),
        "below Secrets",
    ),
    ("E9008", set_at(*_MACHINE, "MetadataOptions", to=None), "Machine needs MetadataOptions"),
    ("E9008", set_at(*_MACHINE, "MetadataOptions", "HttpTokens", to="optional"), "Machine needs"),
]


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_good_template_passes(rule):
    assert findings(rule, good()) == []


@pytest.mark.parametrize("rule,change,message", BAD)
def test_a_bad_template_is_found(rule, change, message):
    template = good()
    change(template)
    with pytest.raises(AssertionError, match=message):
        assert not (found := findings(rule, template)), found


def test_every_rule_has_an_example_that_it_finds():
    assert {rule for rule, _, _ in BAD} == set(RULES)
