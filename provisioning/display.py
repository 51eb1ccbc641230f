"""What an operator sees: tables of changes, of stacks and of nodes, and progress while a stack works."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from provisioning.changes import Change, Effect
from provisioning.deployment import Plan
from provisioning.removal import Part
from provisioning.rolling import Node
from provisioning.stacks import Observe, State
from provisioning.stacks import Progress as StackProgress

_COLOURS: Final = {
    Effect.ADDED: "green",
    Effect.TAKEN_IN: "cyan",
    Effect.MODIFIED: "yellow",
    Effect.PERHAPS_REPLACED: "bold magenta",
    Effect.REPLACED: "bold red",
    Effect.REMOVED: "bold red",
}
SHOWN_PROPERTIES: Final = 4


class Terminal:
    """The screen of an operator; where it is not a terminal, each step is one line."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """Show one line."""
        self.console.print(escape(line), soft_wrap=True)

    def show(self, plan: Plan) -> None:
        """Show what would change, a row for each resource."""
        for stack in plan.stacks:
            if stack.waits_for:
                self.say(
                    f"{stack.stack}: as its template says; it needs {stack.waits_for} of the stacks before it"
                )
        if not plan.changes:
            self.say(
                f"{plan.environment}: the stacks are as their templates and parameters say; nothing to change"
            )
            return
        table = Table("stack", "resource", "type", "what", "because of", "data")
        for change in plan.changes:
            table.add_row(*_row(change))
        self.console.print(table)
        counts = {
            effect: sum(change.effect is effect for change in plan.changes) for effect in reversed(Effect)
        }
        self.say(", ".join(f"{count} {effect}" for effect, count in counts.items() if count))

    @contextmanager
    def watching(self, stack: str, resources: int) -> Iterator[Observe]:
        """Show the progress of a stack; `resources` is how many have to come to an end."""
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[last]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        ) as bars:
            task = bars.add_task(stack, total=resources, last="")
            shown = ""

            def observe(progress: StackProgress) -> None:
                nonlocal shown
                bars.update(
                    task,
                    completed=min(progress.finished, resources),
                    last=escape(progress.last),
                    refresh=True,
                )
                if not self.console.is_terminal and progress.status != shown:
                    self.say(f"{stack}: {progress.status}")
                    shown = progress.status

            yield observe

    def show_status(self, states: Mapping[str, State | None], nodes: Sequence[Node]) -> None:
        """Show every stack, and every ingest node."""
        table = Table("stack", "status", "since", "protected", "outputs")
        for stack, state in states.items():
            if state is None:
                table.add_row(stack, "[dim]not deployed[/dim]", "", "", "")
                continue
            since = f"{state.changed_at:%Y-%m-%d %H:%M} UTC" if state.changed_at else ""
            status = state.status + (f": {state.reason}" if state.reason and "FAILED" in state.status else "")
            protected = "yes" if state.is_protected else "no"
            table.add_row(stack, escape(status), since, protected, str(len(state.outputs)))
        self.console.print(table)
        if not nodes:
            return
        table = Table("node", "machine", "state", "healthy", "version")
        for node in nodes:
            for machine in node.machines:
                version = f"{machine.version} of {node.wanted_version}"
                healthy = "yes" if machine.is_healthy else "[bold red]no[/bold red]"
                table.add_row(node.name, machine.instance, machine.state, healthy, version)
            if not node.machines:
                table.add_row(node.name, "", "[bold red]no machine[/bold red]", "", "")
        self.console.print(table)

    def show_parts(self, parts: Sequence[Part], costs: Mapping[str, str]) -> None:
        """Show what stays and what goes."""
        table = Table("stack", "resource", "type", "what becomes of it", "what it costs")
        for part in parts:
            fate = "[green]stays[/green]" if part.stays else "goes"
            name = part.physical_id if part.stays else part.resource.logical_id
            table.add_row(part.stack, escape(name), part.resource.kind, fate, costs.get(part.physical_id, ""))
        self.console.print(table)


def _row(change: Change) -> tuple[str, ...]:
    shown = ", ".join(change.properties[:SHOWN_PROPERTIES])
    if len(change.properties) > SHOWN_PROPERTIES:
        shown += ", …"
    colour = _COLOURS[change.effect]
    return (
        change.stack,
        change.logical_id,
        change.resource.kind,
        f"[{colour}]{change.effect}[/{colour}]",
        escape(shown),
        escape(change.fate),
    )
