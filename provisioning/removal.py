"""What goes and what stays when a lake is turned off, and what the rest costs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from provisioning.deployment import Screen
from provisioning.stacks import Stacks
from provisioning.templates import STACK_ORDER, Resource
from telemetry_lake.failures import FatalError
from telemetry_lake.storage.aws import aws_failures
from telemetry_lake.units import MIB

LISTED_PAGES_MAX: Final = 100
"""A bucket is measured by its first 100,000 objects; more are not needed to say that it is not empty."""
S3_DOLLARS_PER_GIB: Final = 0.023
VOLUME_DOLLARS_PER_GIB: Final = 0.08
"""A month of S3 Standard and of a gp3 volume in us-east-1, by infracost's price files of 2024-07."""


@dataclass(frozen=True, slots=True)
class Part:
    """One resource of a lake, and whether it is there after the lake is turned off."""

    stack: str
    resource: Resource
    physical_id: str

    @property
    def stays(self) -> bool:
        """Return whether its template keeps it."""
        return self.resource.is_kept_when_deleted


def parts(stacks: Stacks, names: Sequence[str] = STACK_ORDER) -> list[Part]:
    """Return every resource of the stacks that are there, by the templates that they were made by."""
    found = []
    for stack in names:
        template = stacks.deployed_template(stack)
        if template is None:
            continue
        for name, kind, physical_id in stacks.resources(stack):
            found.append(Part(stack, template.resources.get(name, Resource(name, kind)), physical_id))
    return found


def refuse_losses(found: Sequence[Part], allowed: Collection[str]) -> None:
    """Raise FatalError when something that can hold data would go, and is not in `allowed`."""
    lost = [
        part
        for part in found
        if part.resource.holds_data and not part.stays and part.resource.logical_id not in allowed
    ]
    if lost:
        names = "\n".join(
            f"- {part.resource.kind} {part.resource.logical_id} of the stack {part.stack} "
            f"({part.physical_id})"
            for part in lost
        )
        options = " ".join(f"--allow-deletion {part.resource.logical_id}" for part in lost)
        raise FatalError(
            f"these can hold data, and their templates do not keep them; nothing was deleted:\n{names}\n"
            f"If they may go, give {options}"
        )


def cost_of(part: Part, s3: Any, ec2: Any) -> str:
    """Return what a part that stays holds, and what that costs in a month."""
    with aws_failures(f"measuring {part.physical_id}"):
        if part.resource.kind == "AWS::S3::Bucket":
            return _bucket_text(s3, part.physical_id)
        if part.resource.kind == "AWS::EC2::Volume":
            (volume,) = ec2.describe_volumes(VolumeIds=[part.physical_id])["Volumes"]
            gib = volume["Size"]
            return f"{gib} GiB: {gib * VOLUME_DOLLARS_PER_GIB:.2f} dollars a month"
    if part.resource.kind in {"AWS::SQS::Queue", "AWS::Glue::Database", "AWS::Glue::Table"}:
        return "nothing while it is not used"
    return "see the price list"


def _bucket_text(s3: Any, bucket: str) -> str:
    pages = list(islice(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket), LISTED_PAGES_MAX))
    objects = [each for page in pages for each in page.get("Contents", ())]
    gib = sum(each["Size"] for each in objects) / (1_024 * MIB)
    at_least = "at least " if pages and pages[-1].get("IsTruncated") else ""
    dollars = gib * S3_DOLLARS_PER_GIB
    return f"{at_least}{len(objects):,} objects, {gib:,.3f} GiB: {at_least}{dollars:,.2f} dollars a month"


def turn_off(stacks: Stacks, screen: Screen, names: Sequence[str] = STACK_ORDER) -> Mapping[str, str]:
    """Delete the stacks that are there, the last one first. Returns the outputs that they had.

    Started again after a kill it goes on with what is left. Raises StackFailed.
    """
    outputs: dict[str, str] = {}
    for stack in reversed(names):
        state = stacks.state(stack)
        if state is None:
            continue
        outputs = {**state.outputs, **outputs}
        if state.is_protected:
            stacks.protect(stack, on=False)
        with screen.watching(stack, len(stacks.resources(stack))) as observe:
            stacks.delete(stack, observe)
        screen.say(f"{state.name} is deleted")
    return outputs
