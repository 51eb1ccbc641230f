"""Which ingest node is replaced next, when the nodes have to run new code or on a new machine.

Each node is an auto-scaling group of exactly one machine with a volume of its own, which holds the only
copy of pings that were acknowledged and not shipped. So a node is replaced only while all others are
healthy, and the next one only when it is back: its machine has drained its spool and gone, and the new one
answers the balancer's health checks.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telemetry_lake.failures import FatalError
from telemetry_lake.storage.aws import aws_failures

GROUP: Final = "AWS::AutoScaling::AutoScalingGroup"
NODE_TAG: Final = "telemetry-lake:node"
"""The tag of a group whose machine is an ingest node; its value is the node's name."""
ROLL_MAX_SECONDS: Final = 5_400.0
"""How long one node may take: an hour at most to drain its spool, then a machine's start."""
POLL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of a group."""

    instance: str
    state: str
    """The state of its life cycle, such as InService, Terminating:Wait (it drains its spool) or Pending."""
    is_healthy: bool
    """Whether the group and every target group of the balancer say so."""
    version: str
    """The version of the launch template that it was started from."""


@dataclass(frozen=True, slots=True)
class Node:
    """A named ingest node: its group, and its machines, of which there are two for a moment at most."""

    name: str
    group: str
    wanted_version: str
    machines: tuple[Machine, ...]

    @property
    def is_up(self) -> bool:
        """Return whether it has one machine, in service and healthy."""
        return (
            len(self.machines) == 1 and self.machines[0].state == "InService" and self.machines[0].is_healthy
        )

    @property
    def is_current(self) -> bool:
        """Return whether all of its machines were started from the version that is wanted."""
        return all(machine.version == self.wanted_version for machine in self.machines)

    @property
    def is_changing(self) -> bool:
        """Return whether a machine of it comes or goes, or there is none."""
        return not self.machines or any(machine.state != "InService" for machine in self.machines)


@dataclass(frozen=True, slots=True)
class Replace:
    """A node's machine is to be ended: its group starts another."""

    node: Node


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may be ended now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """Every node is current and up."""


Step = Replace | Wait | Done


def next_step(nodes: Sequence[Node]) -> Step:
    """Return what to do now to bring the nodes to their wanted versions, a node at a time.

    - While a machine comes or goes, nothing else is ended.
    - An unhealthy node that is outdated is replaced first: its successor may be what makes it healthy.
    - While a node that is current is unhealthy, no other is ended: it would be the second one that is away,
      or the new code is at fault and must not reach the next node.
    """
    ordered = sorted(nodes, key=lambda node: node.name)
    for node in ordered:
        if node.is_changing:
            return Wait(_what_changes(node))
    sick = [node for node in ordered if not node.is_up]
    if len(sick) > 1:
        names = " and ".join(node.name for node in sick)
        return Wait(f"{names} are unhealthy: nothing is replaced before at most one is")
    if sick:
        return Wait(f"{sick[0].name} is current and unhealthy") if sick[0].is_current else Replace(sick[0])
    outdated = [node for node in ordered if not node.is_current]
    return Replace(outdated[0]) if outdated else Done()


def _what_changes(node: Node) -> str:
    if not node.machines:
        return f"{node.name} has no machine: its group has to start one"
    machine = next(machine for machine in node.machines if machine.state != "InService")
    if machine.state.startswith("Terminating"):
        return f"{node.name} ships what is in its spool ({machine.instance}, {machine.state})"
    return f"{node.name} starts ({machine.instance}, {machine.state})"


class Nodes:
    """The ingest nodes of an environment, by the APIs of auto-scaling and of the balancer."""

    def __init__(
        self, autoscaling: Any, balancing: Any, ec2: Any, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._autoscaling = autoscaling
        self._balancing = balancing
        self._ec2 = ec2
        self._sleep = sleep

    def look(self, groups: Iterable[str]) -> list[Node]:
        """Return the nodes of these groups as they are now; groups without the tag of a node are left out."""
        names = list(groups)
        if not names:
            return []
        with aws_failures("looking at the ingest nodes"):
            pages = self._autoscaling.get_paginator("describe_auto_scaling_groups").paginate(
                AutoScalingGroupNames=names
            )
            found = [group for page in pages for group in page["AutoScalingGroups"]]
        return [node for group in found if (node := self._node(group)) is not None]

    def _node(self, group: Mapping[str, Any]) -> Node | None:
        name = next((tag["Value"] for tag in group.get("Tags", ()) if tag["Key"] == NODE_TAG), None)
        template = group.get("LaunchTemplate")
        if name is None or not template:
            return None
        sick = self._unhealthy_targets(group.get("TargetGroupARNs", ()))
        machines = tuple(
            Machine(
                instance=each["InstanceId"],
                state=each["LifecycleState"],
                is_healthy=each["HealthStatus"] == "Healthy" and each["InstanceId"] not in sick,
                version=str(each.get("LaunchTemplate", {}).get("Version", "")),
            )
            for each in group["Instances"]
        )
        return Node(name, group["AutoScalingGroupName"], self._version(template), machines)

    def _version(self, template: Mapping[str, Any]) -> str:
        """Return the number of the version that a group wants; it may be written as a word there."""
        if (version := str(template.get("Version", ""))) not in {"$Latest", "$Default", ""}:
            return version
        with aws_failures("looking at a launch template"):
            (found,) = self._ec2.describe_launch_templates(LaunchTemplateIds=[template["LaunchTemplateId"]])[
                "LaunchTemplates"
            ]
        return str(found["LatestVersionNumber" if version == "$Latest" else "DefaultVersionNumber"])

    def _unhealthy_targets(self, target_groups: Iterable[str]) -> set[str]:
        sick = set()
        for arn in target_groups:
            with aws_failures("asking the balancer for its targets"):
                answer = self._balancing.describe_target_health(TargetGroupArn=arn)
            sick |= {
                each["Target"]["Id"]
                for each in answer["TargetHealthDescriptions"]
                if each["TargetHealth"]["State"] != "healthy"
            }
        return sick

    def replace(self, node: Node) -> None:
        """End a node's machine. The hook of its group gives it time to drain its spool; the group starts
        another."""
        with aws_failures(f"replacing the machine of {node.name}"):
            for machine in node.machines:
                self._autoscaling.terminate_instance_in_auto_scaling_group(
                    InstanceId=machine.instance, ShouldDecrementDesiredCapacity=False
                )

    def roll(self, groups: Iterable[str], say: Callable[[str], None]) -> int:
        """Replace the nodes that are not current, one after another. Returns how many.

        It can be killed at any moment and started again: what is next follows from what is there. Raises
        FatalError when a node does not come back in time; the nodes after it keep running what they run.
        """
        names = list(groups)
        replaced = 0
        ends = time.monotonic() + ROLL_MAX_SECONDS
        last = ""
        while True:
            step = next_step(self.look(names))
            if isinstance(step, Done):
                return replaced
            if isinstance(step, Replace):
                say(f"{step.node.name}: its machine is replaced")
                self.replace(step.node)
                replaced += 1
                ends = time.monotonic() + ROLL_MAX_SECONDS
            elif step.reason != last:
                say(step.reason)
                last = step.reason
            if time.monotonic() > ends:
                raise FatalError(
                    f"{last or 'a node'}, for {ROLL_MAX_SECONDS / 60:.0f} minutes now. The other nodes "
                    "were left as they are. Look at the machine's log (docs/deploying.md, A node does "
                    "not come back), and deploy again"
                )
            self._sleep(POLL_SECONDS)
