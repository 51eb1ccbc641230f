"""The template with the roles of AWS says what the table of roles says, and no more."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from build_tools.iam_policies import (
    POLICY_MAX_CHARACTERS,
    PROGRAMS,
    TEMPLATE_FILE,
    merged,
    template,
    template_text,
)
from telemetry_lake.deploy.roles import RIGHTS, Objects, Tables
from telemetry_lake.settings import Role

WITHOUT_RESOURCE: Final = {
    "ec2:DescribeVolumes",
    "ec2:DescribeInstances",
    "ecr:GetAuthorizationToken",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}
"""Actions of AWS that cannot be limited to a resource."""


def policies() -> dict[str, list[dict[str, Any]]]:
    """The statements of each policy of the template, by the resource that holds it."""
    found = {}
    for name, resource in template()["Resources"].items():
        properties = resource["Properties"]
        inline = [policy["PolicyDocument"] for policy in properties.get("Policies", ())]
        documents = [properties["PolicyDocument"]] if "PolicyDocument" in properties else inline
        if documents:
            found[name] = [statement for document in documents for statement in document["Statement"]]
    return found


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, of_policy in policies().items():
        for statement in of_policy:
            yield name, statement


def test_the_template_is_the_one_that_the_table_of_roles_makes():
    assert TEMPLATE_FILE.read_text() == template_text(), "run python -m build_tools.iam_policies"
    assert yaml.safe_load(template_text()) == template()


def test_every_role_of_the_lake_is_the_role_of_some_program():
    used = {role for program in PROGRAMS.values() for role in program.roles}
    spark_jobs = {Role.JOBS, Role.MAINTENANCE, Role.ANALYST}
    assert used >= set(RIGHTS), f"give {set(RIGHTS) - used} to a program in build_tools/iam_policies.py"
    of_jobs = {role for name, program in PROGRAMS.items() if name.endswith("Job") for role in program.roles}
    assert of_jobs == spark_jobs


@pytest.mark.parametrize("role", RIGHTS)
def test_a_policy_allows_all_of_its_role(role):
    allowed = json.dumps(policies()[f"{role.value.capitalize()}Policy"])
    for right in RIGHTS[role]:
        if isinstance(right, Objects):
            assert f"/{right.prefix}*" in allowed
        if isinstance(right, Tables):
            assert all(f":table/{namespace}/*" in allowed for namespace in right.namespaces)


def test_no_statement_allows_actions_by_a_wildcard_or_everything():
    for name, statement in statements():
        assert statement["Effect"] == "Allow"
        assert not [action for action in statement["Action"] if "*" in action], name
        if statement["Resource"] == ["*"]:
            assert set(statement["Action"]) <= WITHOUT_RESOURCE, name


def test_only_the_role_of_maintenance_can_be_taken_by_people():
    trusted = {
        name: [
            statement["Principal"]
            for statement in role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        ]
        for name, role in template()["Resources"].items()
        if role["Type"] == "AWS::IAM::Role"
    }
    assert {name for name, who in trusted.items() if any("AWS" in each for each in who)} == {
        "MaintenanceRole"
    }
    assert all("Service" in who[0] for who in trusted.values())


def test_every_policy_fits_into_iam():
    for name, of_policy in policies().items():
        document = {"Version": "2012-10-17", "Statement": of_policy}
        assert len(json.dumps(document, separators=(",", ":"))) <= POLICY_MAX_CHARACTERS, name
    attached = [
        resource["Properties"].get("ManagedPolicyArns", []) for resource in template()["Resources"].values()
    ]
    assert max(map(len, attached)) <= 10, "IAM attaches at most ten policies to a role"


def test_statements_of_the_same_actions_become_one_and_listings_of_one_bucket_too():
    def allow(action: str, resource: str, prefix: str | None = None) -> dict[str, Any]:
        condition = {"Condition": {"StringLike": {"s3:prefix": prefix}}} if prefix else {}
        return {"Effect": "Allow", "Action": [action], "Resource": resource, **condition}

    assert merged(
        [
            allow("s3:GetObject", "b/x"),
            allow("s3:ListBucket", "b", "x/*"),
            allow("s3:GetObject", "b/y"),
            allow("s3:ListBucket", "b", "y/*"),
            allow("s3:ListBucket", "c", "z/*"),
            allow("s3:ListBucket", "d"),
            allow("s3:GetObject", "b/x"),
        ]
    ) == [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["b/x", "b/y"]},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": ["b"],
            "Condition": {"StringLike": {"s3:prefix": ["x/*", "y/*"]}},
        },
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": ["c"],
            "Condition": {"StringLike": {"s3:prefix": ["z/*"]}},
        },
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["d"]},
    ]
