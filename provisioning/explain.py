"""What a failure of a stack means, and the next step, from the events that CloudFormation keeps of it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_FAILED: Final = ("CREATE_FAILED", "UPDATE_FAILED", "DELETE_FAILED", "IMPORT_FAILED")
_CONSEQUENCE: Final = re.compile(r"cancelled|The following resource\(s\) failed", re.IGNORECASE)
"""What events say of resources that failed only because another one did."""
_NEXT_STEPS: Final[tuple[tuple[str, str], ...]] = (
    (
        r"not authorized|AccessDenied|Access Denied|UnauthorizedOperation|403",
        "The caller lacks a right: add it to who deploys, and deploy again.",
    ),
    (
        r"BucketNotEmpty|not empty",
        (
            "There are objects in it. Keep the bucket (DeletionPolicy: Retain), or empty it by hand, and "
            "try again."
        ),
    ),
    (
        r"already exist|AlreadyExists|AlreadyOwnedByYou|EntityAlreadyExists",
        (
            "Something of this name exists outside of the stack, perhaps kept from a lake that was "
            "turned off. A retained resource with a fixed name is taken in by itself; remove any other "
            "by hand, or choose another environment name."
        ),
    ),
    (
        r"[Ll]imit ?[Ee]xceeded|quota|maximum number",
        "A quota of the account is used up: raise it under Service Quotas, and deploy again.",
    ),
    (
        r"[Tt]hrottl|Rate exceeded|TooManyRequests|ServiceUnavailable|internal error",
        "AWS was busy: deploy again, it goes on where it was.",
    ),
    (
        r"signal|timed out|did not stabilize|exceeded attempts to wait",
        (
            "A machine or service did not become ready in time: look at its log "
            "(/var/log/cloud-init-output.log of an instance, the stopped task's reason in ECS), and deploy "
            "again."
        ),
    ),
    (
        r"\bami-|InvalidAMI|image id|ImageId",
        "The image is not there in this region: check the parameter that names it.",
    ),
    (
        r"ncompatible|not (supported|available)|nsupported|[Ii]nsufficient\w* ?[Cc]apacity",
        (
            "The type is not to be had in this zone at the moment: choose another type or zone in the "
            "parameters."
        ),
    ),
    (
        r"does not exist|NoSuch|NotFound|not found",
        (
            "Something that it refers to is missing: deploy the stacks before it, or check the parameter "
            "that names it."
        ),
    ),
)
_OTHERWISE: Final = "Correct the template or the parameter that it names, and deploy again."


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one resource failed, and what to do."""

    logical_id: str
    kind: str
    reason: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.kind} {self.logical_id}: {self.reason}\n  {self.next_step}"


def failures(events: Iterable[Mapping[str, Any]]) -> list[Failure]:
    """Return the causes among the events of an operation, the first one first; consequences are left out."""
    found = []
    for event in sorted(events, key=lambda event: event["Timestamp"]):
        reason = " ".join(str(event.get("ResourceStatusReason", "")).split())
        if event["ResourceStatus"] in _FAILED and not _CONSEQUENCE.search(reason):
            step = next_step(reason)
            found.append(Failure(event["LogicalResourceId"], event["ResourceType"], reason, step))
    return found


def next_step(reason: str) -> str:
    """Return what to do about a reason that CloudFormation gives."""
    return next((step for pattern, step in _NEXT_STEPS if re.search(pattern, reason)), _OTHERWISE)
