"""What a change set does, what is refused of it, and what a failure means."""

from datetime import UTC, datetime, timedelta

import pytest

from provisioning.changes import Change, Effect, Refused, changes_of, refuse_losses
from provisioning.explain import failures, next_step
from provisioning.templates import Resource, template_of

OLD = template_of(
    "storage",
    """
    Resources:
      Kept: {Type: AWS::S3::Bucket, DeletionPolicy: Retain, UpdateReplacePolicy: Retain}
      Lost: {Type: AWS::S3::Bucket}
      Topic: {Type: AWS::SNS::Topic}
    """,
)
NEW = template_of("storage", "Resources: {Kept: {Type: AWS::S3::Bucket}, Topic: {Type: AWS::SNS::Topic}}")


def entry(action: str, name: str, kind: str = "AWS::S3::Bucket", **more: object) -> dict[str, object]:
    return {"ResourceChange": {"Action": action, "LogicalResourceId": name, "ResourceType": kind, **more}}


@pytest.mark.parametrize(
    "change, effect, fate",
    [
        (entry("Add", "Other"), Effect.ADDED, ""),
        (entry("Import", "Kept"), Effect.TAKEN_IN, ""),
        (entry("Modify", "Kept", Replacement="False"), Effect.MODIFIED, ""),
        # The new template no longer keeps it.
        (entry("Modify", "Kept", Replacement="True"), Effect.REPLACED, "its data is LOST"),
        (entry("Modify", "Kept", Replacement="Conditional"), Effect.PERHAPS_REPLACED, "its data is LOST"),
        (entry("Dynamic", "Kept"), Effect.PERHAPS_REPLACED, "its data is LOST"),
        # What is removed goes by the template that it was made by.
        (entry("Remove", "Kept"), Effect.REMOVED, "kept, outside of the stack"),
        (entry("Remove", "Lost"), Effect.REMOVED, "its data is LOST"),
        (entry("Remove", "Topic", "AWS::SNS::Topic"), Effect.REMOVED, ""),
        (entry("Modify", "Topic", "AWS::SNS::Topic", Replacement="True"), Effect.REPLACED, ""),
    ],
)
def test_an_entry_of_a_change_set_says_what_becomes_of_the_data(change, effect, fate):
    (found,) = changes_of("storage", [change], NEW, OLD)
    assert (found.effect, found.fate) == (effect, fate)
    assert found.endangers_data == bool(fate)


def test_a_replacement_that_keeps_the_old_one_says_that_the_new_one_is_empty():
    (found,) = changes_of("storage", [entry("Modify", "Kept", Replacement="True")], OLD, OLD)
    assert found.fate == "the new one is empty; the old one is kept"
    assert found.endangers_data


def test_what_ends_something_comes_first_with_the_properties_that_change():
    targets = ({"Attribute": "Properties", "Name": "BucketName"}, {"Attribute": "Tags"})
    details = [{"Target": target} for target in (*targets, *targets)]
    found = changes_of(
        "storage",
        [
            entry("Add", "B"),
            entry("Add", "A"),
            entry("Modify", "Kept", Replacement="True", Details=details),
            entry("Remove", "Lost"),
        ],
        NEW,
        OLD,
    )
    assert [change.logical_id for change in found] == ["Lost", "Kept", "A", "B"]
    assert found[1].properties == ("BucketName", "Tags")


def test_losses_are_refused_unless_each_is_allowed_by_name():
    changes = [
        Change("storage", Resource(name, "AWS::S3::Bucket"), effect)
        for name, effect in (("A", Effect.REPLACED), ("B", Effect.REMOVED), ("C", Effect.MODIFIED))
    ]
    with pytest.raises(Refused) as refused:
        refuse_losses(changes, {"A"})
    sentence = "AWS::S3::Bucket B of the stack storage would be removed: its data is LOST"
    assert sentence in str(refused.value)
    assert "--allow-replacement B;" in str(refused.value)
    assert " A " not in str(refused.value)
    refuse_losses(changes, {"A", "B"})


def test_the_cause_is_told_from_its_consequences_and_comes_first():
    begun = datetime(2026, 11, 30, tzinfo=UTC)

    def event(second: int, name: str, status: str, reason: str = "") -> dict[str, object]:
        return {
            "Timestamp": begun + timedelta(seconds=second),
            "LogicalResourceId": name,
            "ResourceType": "AWS::S3::Bucket",
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
        }

    newest_first = [
        event(5, "stack", "ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create: [Raw]"),
        event(4, "Lake", "CREATE_FAILED", "Resource creation cancelled"),
        event(3, "Queue", "CREATE_FAILED", "Queue limit exceeded"),
        event(2, "Raw", "CREATE_FAILED", "our-raw\n already exists"),
        event(1, "Raw", "CREATE_IN_PROGRESS"),
    ]
    first, second = failures(newest_first)
    assert str(first).startswith("AWS::S3::Bucket Raw: our-raw already exists\n  Something of this name ")
    assert second.logical_id == "Queue"


@pytest.mark.parametrize(
    "reason, step",
    [
        ("User: x is not authorized to perform: ec2:CreateVpc", "lacks a right"),
        ("The bucket you tried to delete is not empty", "empty it by hand"),
        ("VpcLimitExceeded", "quota"),
        ("Rate exceeded (Service: Ecs)", "deploy again, it goes on"),
        ("Failed to receive 1 resource signal(s) within the specified duration", "cloud-init-output.log"),
        ("The image id '[ami-1]' does not exist", "not there in this region"),
        ("Not enough is there: InsufficientInstanceCapacity", "another type or zone"),
        ("The queue does not exist", "deploy the stacks before it"),
        ("Property X is odd", "Correct the template"),
    ],
)
def test_each_kind_of_failure_has_a_next_step(reason, step):
    assert step in next_step(reason)
