"""The stacks of one environment: the calls to CloudFormation, each safe to repeat after a kill.

CloudFormation goes on without us. So each call first looks at what the stack is doing: an operation that is
under way is waited for, a stack whose creation failed is removed before it is made again.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from botocore.exceptions import ClientError

from provisioning.changes import Change, changes_of
from provisioning.explain import failures, next_step
from provisioning.templates import Template, template_of
from telemetry_lake.failures import FatalError
from telemetry_lake.storage.aws import aws_failures

NAME_PREFIX: Final = "telemetry-lake-"
CHANGE_SET: Final = "telemetry-lake-deployment"
"""There is one at a time for each stack: a killed deployment leaves one, which the next replaces."""
CAPABILITIES: Final = ("CAPABILITY_IAM", "CAPABILITY_NAMED_IAM")
POLL_SECONDS: Final = 3.0
OPERATION_MAX_SECONDS: Final = 7_200.0
"""How long one stack may work: a database takes half an hour, a node its spool's time."""
_NO_CHANGES: Final = ("didn't contain changes", "No updates are to be performed")
_NO_STACK: Final = re.compile(r"Stack (with id \S+|\[[^]]*\]|'[^']*'|\S+) does not exist")

Observe = Callable[["Progress"], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stack's operation is."""

    stack: str
    status: str
    finished: int
    """How many resources have come to an end in this operation."""
    last: str = ""
    """The resource of the last event, and what it says."""


@dataclass(frozen=True, slots=True)
class State:
    """What CloudFormation says of a stack that is there."""

    name: str
    status: str
    reason: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    is_protected: bool = False
    changed_at: datetime | None = None

    @property
    def is_working(self) -> bool:
        """Return whether an operation is under way."""
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"

    @property
    def is_empty(self) -> bool:
        """Return whether it was never more than a change set."""
        return self.status == "REVIEW_IN_PROGRESS"

    @property
    def has_failed_creation(self) -> bool:
        """Return whether its creation was taken back: such a stack can only be deleted."""
        return self.status in {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"}


class StackFailed(FatalError):
    """A stack's operation failed; the message says why, and the next step."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change set that can be carried out, and what it does."""

    template: Template
    change_set: str
    changes: tuple[Change, ...]


class Stacks:
    """The stacks of one environment. `sleep` waits between two looks at a stack that works."""

    def __init__(
        self,
        client: Any,
        environment: str,
        *,
        account: str,
        region: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self.environment = environment
        self.account = account
        self.region = region
        self._sleep = sleep

    def name(self, stack: str) -> str:
        """Return what a stack is called in the account."""
        return f"{NAME_PREFIX}{self.environment}-{stack}"

    def state(self, stack: str) -> State | None:
        """Return what CloudFormation says of a stack, None when there is none."""
        try:
            with _calls("looking at a stack"):
                (found,) = self._client.describe_stacks(StackName=self.name(stack))["Stacks"]
        except _Missing:
            return None
        if found["StackStatus"] == "DELETE_COMPLETE":
            return None
        return State(
            name=found["StackName"],
            status=found["StackStatus"],
            reason=found.get("StackStatusReason", ""),
            outputs={each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())},
            parameters={
                each["ParameterKey"]: each.get("ParameterValue", "") for each in found.get("Parameters", ())
            },
            is_protected=found.get("EnableTerminationProtection", False),
            changed_at=found.get("LastUpdatedTime") or found.get("CreationTime"),
        )

    def deployed_template(self, stack: str) -> Template | None:
        """Return the template that a stack was last made by, None when there is no stack."""

        try:
            with _calls("reading a stack's template"):
                body = self._client.get_template(StackName=self.name(stack))["TemplateBody"]
        except _Missing:
            return None
        return template_of(stack, body if isinstance(body, str) else json.dumps(body))

    def propose(self, template: Template, parameters: Mapping[str, str]) -> Proposal | None:
        """Make the change set that brings a stack to its template; None when nothing would change.

        Raises StackFailed when CloudFormation refuses the template or the parameters.
        """
        state = self.state(template.stack)
        is_new = state is None or state.is_empty
        name = self.name(template.stack)
        self.withdraw(template.stack)
        with _calls(f"proposing changes of {name}"):
            self._client.create_change_set(
                StackName=name,
                ChangeSetName=CHANGE_SET,
                ChangeSetType="CREATE" if is_new else "UPDATE",
                TemplateBody=self._body(template, parameters) if is_new else template.body,
                Parameters=[
                    {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
                ],
                Capabilities=list(CAPABILITIES),
                Tags=[{"Key": "telemetry-lake:environment", "Value": self.environment}],
                # What a lake that was turned off has kept comes back into its stack.
                ImportExistingResources=is_new,
            )
        answer = self._described(name)
        if answer["Status"] == "FAILED":
            reason = answer.get("StatusReason", "")
            self.withdraw(template.stack)
            if any(text in reason for text in _NO_CHANGES):
                return None
            raise StackFailed(f"CloudFormation refuses the stack {name}: {reason}\n  {next_step(reason)}")
        changes = changes_of(
            template.stack,
            answer["Changes"],
            template,
            None if is_new else self.deployed_template(template.stack),
        )
        return Proposal(template, CHANGE_SET, tuple(changes))

    def _body(self, template: Template, parameters: Mapping[str, str]) -> str:
        """Return the body of a new stack, which takes in what a lake that was turned off has kept."""
        defaults = {
            name: parameter.default
            for name, parameter in template.parameters.items()
            if parameter.default is not None
        }
        account = {"AWS::AccountId": self.account, "AWS::Region": self.region}
        return template.with_plain_names({**defaults, **parameters, **account})

    def _described(self, name: str) -> dict[str, Any]:
        """Return a change set that is ready or has failed, with all of its changes."""
        ends = time.monotonic() + OPERATION_MAX_SECONDS
        while True:
            with _calls(f"reading the changes of {name}"):
                answer: dict[str, Any] = self._client.describe_change_set(
                    StackName=name, ChangeSetName=CHANGE_SET
                )
            if answer["Status"] in {"CREATE_COMPLETE", "FAILED"}:
                break
            if time.monotonic() > ends:
                raise StackFailed(f"the changes of {name} were not worked out: deploy again")
            self._sleep(POLL_SECONDS)
        changes = list(answer.get("Changes", ()))
        while token := answer.get("NextToken"):
            with _calls(f"reading the changes of {name}"):
                answer = self._client.describe_change_set(
                    StackName=name, ChangeSetName=CHANGE_SET, NextToken=token
                )
            changes += answer.get("Changes", ())
        return {**answer, "Changes": changes}

    def withdraw(self, stack: str) -> None:
        """Delete the change set of a stack, if there is one, and the stack when it was nothing but that."""
        state = self.state(stack)
        if state is None:
            return
        name = self.name(stack)
        with _calls(f"withdrawing changes of {name}"):
            if state.is_empty:
                self._client.delete_stack(StackName=name)
            else:
                try:
                    self._client.delete_change_set(StackName=name, ChangeSetName=CHANGE_SET)
                except ClientError as error:
                    if error.response["Error"]["Code"] not in {
                        "ChangeSetNotFound",
                        "ChangeSetNotFoundException",
                    }:
                        raise
                return
        self._wait_until_gone(stack)

    def carry_out(self, proposal: Proposal, observe: Observe) -> State:
        """Execute a change set and wait for its end. Raises StackFailed, which says why."""
        name = self.name(proposal.template.stack)
        with _calls(f"changing {name}"):
            self._client.execute_change_set(
                StackName=name,
                ChangeSetName=proposal.change_set,
                # A creation that is taken back leaves nothing behind that is in the way of the next one.
                RetainExceptOnCreate=True,
            )
        return self.wait(proposal.template.stack, observe)

    def settle(self, stack: str, observe: Observe) -> State | None:
        """Return a stack that can be changed: wait for what is under way, and remove a failed creation.

        Raises StackFailed when a person has to act.
        """
        state = self.state(stack)
        if state is not None and state.is_working:
            with_failure = self.wait(stack, observe, must_succeed=False)
            state = with_failure
        if state is not None and state.has_failed_creation:
            self.delete(stack, observe)
            return None
        if state is not None and state.status in {"UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"}:
            command = {
                "UPDATE_ROLLBACK_FAILED": "aws cloudformation continue-update-rollback --stack-name "
                "{state.name}",
                "DELETE_FAILED": f"python -m provisioning destroy --environment {self.environment}",
            }[state.status]
            raise StackFailed(
                f"{state.name} is in {state.status} ({state.reason}): `{command}`, then deploy again"
            )
        return state

    def protect(self, stack: str, *, on: bool) -> None:
        """Switch termination protection."""
        with _calls(f"protecting {self.name(stack)}"):
            self._client.update_termination_protection(
                StackName=self.name(stack), EnableTerminationProtection=on
            )

    def delete(self, stack: str, observe: Observe) -> None:
        """Delete a stack and wait until it is gone. Raises StackFailed."""
        with _calls(f"deleting {self.name(stack)}"):
            self._client.delete_stack(StackName=self.name(stack))
        self._wait_until_gone(stack, observe)

    def wait(self, stack: str, observe: Observe, *, must_succeed: bool = True) -> State:
        """Wait for the end of what a stack is doing. Raises StackFailed."""
        ends = time.monotonic() + OPERATION_MAX_SECONDS
        while True:
            state = self.state(stack)
            if state is None:
                raise StackFailed(f"{self.name(stack)} was deleted meanwhile: deploy again")
            events = self._events(stack)
            observe(_progress(stack, state.status, events))
            if not state.is_working:
                break
            if time.monotonic() > ends:
                raise StackFailed(
                    f"{state.name} is still in {state.status} after {OPERATION_MAX_SECONDS:.0f} s: it "
                    "goes on by itself; deploy again to wait for it"
                )
            self._sleep(POLL_SECONDS)
        is_good = state.status in {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
        if must_succeed and not is_good:
            raise StackFailed(_why(state.name, state.status, state.reason, events))
        return state

    def _wait_until_gone(self, stack: str, observe: Observe | None = None) -> None:
        ends = time.monotonic() + OPERATION_MAX_SECONDS
        while (state := self.state(stack)) is not None:
            if observe is not None:
                observe(_progress(stack, state.status, self._events(stack)))
            if state.status == "DELETE_FAILED":
                raise StackFailed(_why(state.name, state.status, state.reason, self._events(stack)))
            if time.monotonic() > ends:
                raise StackFailed(
                    f"{state.name} is not deleted after {OPERATION_MAX_SECONDS:.0f} s: try again"
                )
            self._sleep(POLL_SECONDS)

    def _events(self, stack: str) -> list[dict[str, Any]]:
        """Return the events of the last operation, the newest first."""
        name = self.name(stack)
        found: list[dict[str, Any]] = []
        try:
            with _calls(f"reading the events of {name}"):
                for page in self._client.get_paginator("describe_stack_events").paginate(StackName=name):
                    for event in page["StackEvents"]:
                        found.append(event)
                        if _begins_an_operation(event, name):
                            return found
        except _Missing:
            pass
        return found

    def resources(self, stack: str) -> list[tuple[str, str, str]]:
        """Return the logical id, type and physical id of each resource of a stack."""
        found = []
        try:
            with _calls(f"listing the resources of {self.name(stack)}"):
                pages = self._client.get_paginator("list_stack_resources").paginate(
                    StackName=self.name(stack)
                )
                for page in pages:
                    found += [
                        (each["LogicalResourceId"], each["ResourceType"], each.get("PhysicalResourceId", ""))
                        for each in page["StackResourceSummaries"]
                        if not each["ResourceStatus"].startswith("DELETE_COMPLETE")
                    ]
        except _Missing:
            return []
        return found


class _Missing(FatalError):
    """There is no such stack."""


@contextmanager
def _calls(what: str) -> Iterator[None]:
    """Turn what CloudFormation answers into errors of this project; a stack that is missing into _Missing."""
    try:
        with aws_failures(what):
            yield
    except FatalError as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and _NO_STACK.search(str(cause)):
            raise _Missing(str(error)) from error
        raise


def _begins_an_operation(event: Mapping[str, Any], name: str) -> bool:
    return event["LogicalResourceId"] == name and event["ResourceStatus"] in {
        "CREATE_IN_PROGRESS",
        "UPDATE_IN_PROGRESS",
        "DELETE_IN_PROGRESS",
        "IMPORT_IN_PROGRESS",
    }


def _progress(stack: str, status: str, events: Sequence[Mapping[str, Any]]) -> Progress:
    ended = {
        event["LogicalResourceId"]
        for event in events
        if event["ResourceStatus"].endswith(("_COMPLETE", "_FAILED"))
    }
    last = events[0] if events else None
    text = f"{last['LogicalResourceId']} {last['ResourceStatus'].lower().replace('_', ' ')}" if last else ""
    return Progress(stack, status, len(ended), text)


def _why(name: str, status: str, reason: str, events: Sequence[Mapping[str, Any]]) -> str:
    causes = failures(events)
    lines = [f"- {cause}" for cause in causes] or [f"- {reason or 'CloudFormation gives no reason'}"]
    after = "What it had changed was taken back." if "ROLLBACK_COMPLETE" in status else ""
    return "\n".join((f"{name} ended in {status}. {after}".rstrip(), *lines))
