"""Write `cloudformation/iam.yaml`: the roles of AWS, from the one table of who may do what.

Each role of `telemetry_lake.deploy.roles` becomes a managed policy. Each program of a lake on AWS becomes a
role of IAM with the policies of the roles that it acts in, and with what the program needs of AWS
besides the lake: its package, its secrets, its logs, EMR.

    python -m build_tools.iam_policies            # write the template
    python -m build_tools.iam_policies --check    # only say whether it is up to date
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
import yaml

from telemetry_lake.deploy.roles import RIGHTS, Account, Places, policy_document
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role

TEMPLATE_FILE: Final = PROJECT_ROOT / "cloudformation" / "iam.yaml"
POLICY_MAX_CHARACTERS: Final = 6_144
"""The longest managed policy of IAM, without blanks."""
ENVIRONMENT_TAG: Final = "telemetry-lake:environment"
"""On every machine and volume of a lake; a node may attach only what has its own value."""
_PLACES: Final = Places(
    "${RawBucket}", "${LakeBucket}", "${TablesBucket}", "${IndexQueueName}", "${DeadLetterQueueName}"
)
_ACCOUNT: Final = Account("${AWS::Partition}", "${AWS::Region}", "${AWS::AccountId}")
_ARN: Final = "arn:${AWS::Partition}"
_HERE: Final = "${AWS::Region}:${AWS::AccountId}"
_OURS: Final = "telemetry-lake-${Environment}"

_PARAMETERS: Final = {
    "Environment": "The name of this lake in the account.",
    "RawBucket": "The bucket of raw objects.",
    "LakeBucket": "The bucket of the ledger, the batches and the analyses.",
    "TablesBucket": "The bucket of the tables' files.",
    "CodeBucket": "The bucket of the packages that machines start from.",
    "LogsBucket": "The bucket of logs.",
    "IndexQueueName": "The queue of index messages.",
    "DeadLetterQueueName": "The queue of messages that could not be worked off.",
    "ImageRepositoryName": "The repository of the container image.",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that a program may do besides the rights of its roles; Fn::Sub resolves the resources."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    condition: Mapping[str, Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """What runs on AWS under a role of IAM of its own."""

    what: str
    service: str
    """Which service of AWS may give the role to what it runs."""
    roles: tuple[Role, ...] = ()
    further: tuple[Statement, ...] = ()
    is_for_operators: bool = False
    """Whether people of the account may take the role, too, as far as their own rights let them."""

    @property
    def is_machine(self) -> bool:
        """Return whether it is a machine of EC2, which needs an instance profile."""
        return self.service == "ec2.amazonaws.com"


_MACHINE: Final = "ec2.amazonaws.com"
_TASK: Final = "ecs-tasks.amazonaws.com"
_JOB: Final = "emr-serverless.amazonaws.com"

_OF_THIS_LAKE: Final = {"StringEquals": {f"aws:ResourceTag/{ENVIRONMENT_TAG}": "${Environment}"}}
_PACKAGE: Final = Statement(
    ("s3:GetObject",),
    tuple(f"{_ARN}:s3:::${{CodeBucket}}/{kind}/*" for kind in ("packages", "environments")),
)
_VOLUME: Final = (
    # Asking for volumes cannot be limited to some of them.
    Statement(("ec2:DescribeVolumes",), ("*",)),
    Statement(
        ("ec2:AttachVolume", "ec2:DetachVolume"),
        (f"{_ARN}:ec2:{_HERE}:volume/*", f"{_ARN}:ec2:{_HERE}:instance/*"),
        _OF_THIS_LAKE,
    ),
)
_SETTINGS: Final = Statement(
    ("ssm:GetParameter",), (f"{_ARN}:ssm:{_HERE}:parameter/telemetry-lake/${{Environment}}/*",)
)


def _secrets(of: str) -> Statement:
    return Statement(
        ("secretsmanager:GetSecretValue",),
        (f"{_ARN}:secretsmanager:{_HERE}:secret:telemetry-lake/${{Environment}}/{of}/*",),
    )


def _logs(prefix: str, *actions: str) -> Statement:
    return Statement(actions, (f"{_ARN}:s3:::${{LogsBucket}}/{prefix}/*",))


def _emr(*actions: str) -> Statement:
    applications = f"{_ARN}:emr-serverless:{_HERE}:/applications/*"
    return Statement(
        tuple(f"emr-serverless:{action}" for action in actions),
        (applications, f"{applications}/jobruns/*"),
    )


PROGRAMS: Final[Mapping[str, Program]] = {
    "Node": Program(
        "an ingest node",
        _MACHINE,
        (Role.NODE,),
        (
            _PACKAGE,
            *_VOLUME,
            Statement(
                ("autoscaling:CompleteLifecycleAction",),
                (f"{_ARN}:autoscaling:{_HERE}:autoScalingGroup:*:autoScalingGroupName/{_OURS}-*",),
            ),
        ),
    ),
    "Web": Program(
        "the web pages",
        _MACHINE,
        (Role.WEB, Role.ANALYSES, Role.SCRIPT),
        (_PACKAGE, _SETTINGS, _secrets("web"), _secrets("shared")),
    ),
    "Monitor": Program(
        "Prometheus, Alertmanager and the exporter",
        _MACHINE,
        (Role.MONITOR,),
        (
            _PACKAGE,
            _SETTINGS,
            # Where the nodes are, and how long the queues are.
            Statement(("ec2:DescribeInstances",), ("*",)),
            Statement(("sns:Publish",), (f"{_ARN}:sns:{_HERE}:{_OURS}-alarms",)),
            _secrets("shared"),
        ),
    ),
    "Execution": Program(
        "ECS itself, which fetches the image and the secrets of a container, and takes its log",
        _TASK,
        (),
        (
            # A token for all registries of the account; what can be pulled with it is in the next statement.
            Statement(("ecr:GetAuthorizationToken",), ("*",)),
            Statement(
                ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"),
                (f"{_ARN}:ecr:{_HERE}:repository/${{ImageRepositoryName}}",),
            ),
            Statement(
                ("logs:CreateLogStream", "logs:PutLogEvents"),
                (f"{_ARN}:logs:{_HERE}:log-group:/telemetry-lake/${{Environment}}/*",),
            ),
            _secrets("airflow"),
            _secrets("shared"),
        ),
    ),
    "Scheduler": Program("Airflow's scheduler and its DAG processor, which touch nothing of the lake", _TASK),
    "ApiServer": Program(
        "Airflow's pages",
        _TASK,
        (Role.WEB,),
        (
            _logs("airflow", "s3:GetObject"),
            Statement(
                ("s3:ListBucket",),
                (f"{_ARN}:s3:::${{LogsBucket}}",),
                {"StringLike": {"s3:prefix": "airflow/*"}},
            ),
            # How operators reach the pages: `aws ssm start-session`. These actions know no resources.
            Statement(
                (
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ),
                ("*",),
            ),
        ),
    ),
    "Triggerer": Program(
        "Airflow's triggerer: the doorbell, and waiting for EMR",
        _TASK,
        (Role.DOORBELL,),
        (
            _emr("GetApplication", "GetJobRun", "CancelJobRun"),
            _logs("airflow", "s3:GetObject", "s3:PutObject"),
        ),
    ),
    "Worker": Program(
        "Airflow's workers: the drain, what prepares and settles analyses, and the starting of jobs on EMR",
        _TASK,
        (Role.DRAIN, Role.ANALYST, Role.ANALYSES, Role.ANOMALIES),
        (
            _emr("GetApplication", "StartApplication", "StartJobRun", "GetJobRun", "CancelJobRun"),
            _emr("GetDashboardForJobRun"),
            Statement(
                ("iam:PassRole",),
                (f"{_ARN}:iam::${{AWS::AccountId}}:role/{_OURS}-*-job",),
                {"StringEquals": {"iam:PassedToService": _JOB}},
            ),
            # What the driver of an analyst's run printed becomes the log of the run.
            _logs("emr", "s3:GetObject"),
            _logs("airflow", "s3:GetObject", "s3:PutObject"),
            # A worker that has a task protects itself from being scaled in.
            Statement(
                ("ecs:GetTaskProtection", "ecs:UpdateTaskProtection"),
                (f"{_ARN}:ecs:{_HERE}:task/{_OURS}/*",),
            ),
        ),
    ),
    "Maintenance": Program(
        "commands that create and clean tables, as tasks of ECS, and the deployer",
        _TASK,
        (Role.MAINTENANCE,),
        is_for_operators=True,
    ),
    "PipelineJob": Program(
        "the lake's own Spark jobs, on EMR Serverless",
        _JOB,
        (Role.JOBS, Role.MAINTENANCE),
        (_logs("emr", "s3:GetObject", "s3:PutObject"),),
    ),
    "AnalystJob": Program(
        "map-reduce jobs of analysts, on EMR Serverless",
        _JOB,
        (Role.ANALYST,),
        (_logs("emr", "s3:GetObject", "s3:PutObject"),),
    ),
}
"""The programs of a lake on AWS."""

NAMED: Final[Mapping[str, str]] = {"PipelineJob": "pipeline-job", "AnalystJob": "analyst-job"}
"""Roles with names of their own: another role may pass them on, which it can only be allowed by name."""


_FROM_HERE: Final = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def template() -> dict[str, Any]:
    """Return the template."""
    resources: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    for role, rights in RIGHTS.items():
        name = f"{_camel(role)}Policy"
        document = merged(policy_document(rights, _PLACES, _ACCOUNT, glue=True)["Statement"])
        resources[name] = {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "Description": f"What the role '{role}' of a lake may do.",
                "PolicyDocument": _document(document),
            },
        }
        outputs[f"{name}Arn"] = {"Value": {"Ref": name}}
    for name, program in PROGRAMS.items():
        resources[f"{name}Role"] = _role(name, program)
        outputs[f"{name}RoleArn"] = {"Value": {"Fn::GetAtt": [f"{name}Role", "Arn"]}}
        if program.is_machine:
            resources[f"{name}InstanceProfile"] = {
                "Type": "AWS::IAM::InstanceProfile",
                "Properties": {"Roles": [{"Ref": f"{name}Role"}]},
            }
            outputs[f"{name}InstanceProfileArn"] = {
                "Value": {"Fn::GetAtt": [f"{name}InstanceProfile", "Arn"]}
            }
    parameters: dict[str, dict[str, Any]] = {
        name: {"Type": "String", "Description": description} for name, description in _PARAMETERS.items()
    }
    parameters["Environment"]["AllowedPattern"] = "[a-z0-9]{2,12}"
    parameters["OnAws"] = {
        "Type": "String",
        "Description": "no: roles can be taken by tests, which are no service of AWS.",
        "AllowedValues": ["yes", "no"],
        "Default": "yes",
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Telemetry Lake: who may do what (generated; see docs/provisioning.md)",
        "Parameters": parameters,
        "Conditions": {"IsOnAws": {"Fn::Equals": [{"Ref": "OnAws"}, "yes"]}},
        "Resources": resources,
        "Outputs": outputs,
    }


def _role(name: str, program: Program) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "Description": f"Of {program.what}.",
        "AssumeRolePolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": program.service},
                    "Action": "sts:AssumeRole",
                    # Not for what the service does on behalf of other accounts.
                    "Condition": {"Fn::If": ["IsOnAws", _FROM_HERE, {"Ref": "AWS::NoValue"}]},
                }
            ],
        },
    }
    if program.is_machine:
        # EC2 sends no source account.
        del properties["AssumeRolePolicyDocument"]["Statement"][0]["Condition"]
    if program.is_for_operators:
        properties["AssumeRolePolicyDocument"]["Statement"].append(
            {
                "Effect": "Allow",
                "Principal": {"AWS": {"Fn::Sub": f"{_ARN}:iam::${{AWS::AccountId}}:root"}},
                "Action": "sts:AssumeRole",
            }
        )
    if name in NAMED:
        properties["RoleName"] = {"Fn::Sub": f"{_OURS}-{NAMED[name]}"}
    if program.roles:
        properties["ManagedPolicyArns"] = [{"Ref": f"{_camel(role)}Policy"} for role in program.roles]
    if program.further:
        properties["Policies"] = [
            {"PolicyName": "further", "PolicyDocument": _document(_further(program.further))}
        ]
    return {"Type": "AWS::IAM::Role", "Properties": properties}


def _further(statements: Iterable[Statement]) -> Iterator[dict[str, Any]]:
    for statement in statements:
        allowed: dict[str, Any] = {
            "Effect": "Allow",
            "Action": list(statement.actions),
            "Resource": list(statement.resources),
        }
        if statement.condition:
            allowed["Condition"] = {kind: dict(test) for kind, test in statement.condition.items()}
        yield allowed


def merged(statements: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return statements that allow the same, with one for each set of actions and bucket that is listed.

    A policy may have 6,144 characters, and most of them would be repetitions.
    """
    found: dict[str, dict[str, Any]] = {}
    for statement in statements:
        resources = statement["Resource"]
        resources = [resources] if isinstance(resources, str) else list(resources)
        condition = statement.get("Condition")
        key = json.dumps([statement["Action"], resources if condition else None])
        if key not in found:
            found[key] = {"Effect": "Allow", "Action": list(statement["Action"]), "Resource": resources}
            if condition:
                found[key]["Condition"] = {
                    "StringLike": {"s3:prefix": [condition["StringLike"]["s3:prefix"]]}
                }
        elif condition:
            found[key]["Condition"]["StringLike"]["s3:prefix"].append(condition["StringLike"]["s3:prefix"])
        else:
            found[key]["Resource"].extend(place for place in resources if place not in found[key]["Resource"])
    return list(found.values())


def _document(statements: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [_resolved(statement) for statement in statements]}


def _resolved(value: Any) -> Any:
    """Return a part of a document with Fn::Sub around each text that has something to resolve."""
    if isinstance(value, Mapping):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    return {"Fn::Sub": value} if isinstance(value, str) and "${" in value else value


def _camel(role: Role) -> str:
    return role.value.capitalize()


def template_text() -> str:
    """Return the content of the template's file."""

    class Plain(yaml.SafeDumper):
        """Writes every text and list out, where YAML would refer back to an equal one."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    header = (
        "# Made by `python -m build_tools.iam_policies` from telemetry_lake/deploy/roles.py: change that,\n"
        "# not this.\n"
    )
    return header + yaml.dump(template(), Dumper=Plain, sort_keys=False, width=110)


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the template is up to date.")
    ] = False,
) -> None:
    """Write cloudformation/iam.yaml from the table of roles."""
    text = template_text()
    if not check:
        TEMPLATE_FILE.write_text(text, encoding="utf-8")
    elif not TEMPLATE_FILE.is_file() or TEMPLATE_FILE.read_text(encoding="utf-8") != text:
        print(f"{TEMPLATE_FILE} is out of date: run python -m build_tools.iam_policies", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
