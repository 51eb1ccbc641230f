"""The steps of a deployment in their order. Each first looks at what is there, so that a deployment that was
killed at any moment goes on when it is started again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from provisioning.changes import Change, additions, refuse_losses
from provisioning.parameters import ENVIRONMENT, Values, problems, resolve
from provisioning.stacks import Observe, StackFailed, Stacks
from provisioning.templates import Template
from telemetry_lake.failures import ConfigurationError


class Screen(Protocol):
    """Where a deployment reports."""

    def say(self, line: str) -> None:
        """Show one line."""

    def show(self, plan: "Plan") -> None:
        """Show what would change."""

    def watching(self, stack: str, resources: int) -> AbstractContextManager[Observe]:
        """Show the progress of a stack with so many resources to change."""


@dataclass(frozen=True, slots=True)
class StackPlan:
    """What would become of one stack."""

    stack: str
    changes: tuple[Change, ...]
    is_new: bool = False
    waits_for: str = ""
    """Set where CloudFormation cannot be asked yet: which outputs are missing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would become of an environment."""

    environment: str
    stacks: tuple[StackPlan, ...]

    @property
    def changes(self) -> list[Change]:
        """Return the changes of all stacks."""
        return [change for stack in self.stacks for change in stack.changes]


@dataclass(frozen=True, slots=True)
class Deployment:
    """The stacks of one environment, what they are made from, and where it is reported."""

    stacks: Stacks
    templates: Sequence[Template]
    values: Values
    screen: Screen

    def check(self) -> None:
        """Raise ConfigurationError, a line for each mistake, when the parameters do not fit the templates."""
        if found := problems(self.templates, self.values):
            raise ConfigurationError("\n- ".join(("nothing was asked of AWS:", *found)))

    def plan(self) -> Plan:
        """Return what a deployment would change. Nothing is changed."""
        self.check()
        outputs: dict[str, str] = {}
        found = []
        for template in self.templates:
            state = self.stacks.state(template.stack)
            if state is not None and state.is_working:
                raise StackFailed(
                    f"{state.name} is in {state.status}: another deployment is at work, or was killed. "
                    "`deploy` waits for it, `status` shows it"
                )
            found.append(self._plan_of(template, outputs, is_new=state is None or state.has_failed_creation))
            if state is not None:
                outputs |= state.outputs
        return Plan(self.values.known[ENVIRONMENT], tuple(found))

    def _plan_of(self, template: Template, outputs: Mapping[str, str], *, is_new: bool) -> StackPlan:
        parameters = resolve(template, self.values, outputs)
        if parameters is None:
            missing = [
                parameter.name
                for parameter in template.parameters.values()
                if parameter.default is None
                and parameter.name not in {*self.values.given, *self.values.known, *outputs}
            ]
            return StackPlan(template.stack, tuple(additions(template)), is_new, ", ".join(missing))
        state = self.stacks.state(template.stack)
        if state is not None and state.has_failed_creation:
            return StackPlan(template.stack, tuple(additions(template)), is_new=True)
        proposal = self.stacks.propose(template, parameters)
        if proposal is None:
            return StackPlan(template.stack, ())
        self.stacks.withdraw(template.stack)
        return StackPlan(template.stack, proposal.changes, is_new)

    def deploy(
        self,
        allowed: Collection[str],
        confirm: Callable[[], None],
        after: Callable[[str, Mapping[str, str]], None],
    ) -> dict[str, str]:
        """Bring every stack to its template. Returns the outputs of all of them.

        `allowed` names the resources that may be replaced or removed although they can hold data. `confirm`
        is called once the changes are shown, and raises where they are not wanted. `after` is called with
        each stack that is as it should be, and the outputs so far. Raises Refused, StackFailed and
        ConfigurationError.
        """
        self.check()
        for template in self.templates:
            self._settle(template.stack)
        plan = self.plan()
        self.screen.show(plan)
        refuse_losses(plan.changes, allowed)
        if plan.changes:
            confirm()
        outputs: dict[str, str] = {}
        for template in self.templates:
            outputs |= self._bring(template, outputs, allowed)
            after(template.stack, outputs)
        return outputs

    def _settle(self, stack: str) -> None:
        state = self.stacks.state(stack)
        if state is not None and (state.is_working or state.has_failed_creation):
            self.screen.say(f"{state.name} is in {state.status}: it is waited for, or cleared away")
            with self.screen.watching(stack, len(self.stacks.resources(stack))) as observe:
                self.stacks.settle(stack, observe)
            return
        self.stacks.settle(stack, lambda _: None)

    def _bring(
        self, template: Template, outputs: Mapping[str, str], allowed: Collection[str]
    ) -> Mapping[str, str]:
        parameters = resolve(template, self.values, outputs)
        if parameters is None:
            raise ConfigurationError(
                f"the stack {template.stack} needs an output that no stack before it has, though its "
                "template says so: look at the Conditions of the outputs"
            )
        proposal = self.stacks.propose(template, parameters)
        if proposal is not None:
            try:
                # Outputs of the stacks before it may have changed since the plan.
                refuse_losses(proposal.changes, allowed)
            except Exception:
                self.stacks.withdraw(template.stack)
                raise
            with self.screen.watching(template.stack, len(proposal.changes)) as observe:
                self.stacks.carry_out(proposal, observe)
        state = self.stacks.state(template.stack)
        if state is None:
            raise StackFailed(f"{self.stacks.name(template.stack)} was deleted meanwhile: deploy again")
        if not state.is_protected:
            self.stacks.protect(template.stack, on=True)
        return state.outputs
