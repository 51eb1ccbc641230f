"""What a change set does to what is there, and which of it is refused unless told by name.

Pure functions of what CloudFormation answers.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from provisioning.templates import Resource, Template
from telemetry_lake.failures import FatalError


class Effect(StrEnum):
    """What becomes of a resource."""

    ADDED = "added"
    TAKEN_IN = "taken in"
    """It was there already, outside of the stack, under the same name."""
    MODIFIED = "modified"
    PERHAPS_REPLACED = "perhaps REPLACED"
    REPLACED = "REPLACED"
    REMOVED = "REMOVED"


_ENDS_THE_OLD: frozenset[Effect] = frozenset({Effect.PERHAPS_REPLACED, Effect.REPLACED, Effect.REMOVED})


@dataclass(frozen=True, slots=True)
class Change:
    """What a change set does to one resource."""

    stack: str
    resource: Resource
    effect: Effect
    properties: tuple[str, ...] = ()
    """Which of its properties change."""

    @property
    def logical_id(self) -> str:
        """Return its name in the template."""
        return self.resource.logical_id

    @property
    def endangers_data(self) -> bool:
        """Return whether something that can hold data is replaced or removed."""
        return self.effect in _ENDS_THE_OLD and self.resource.holds_data

    @property
    def fate(self) -> str:
        """Return what becomes of the data in it; empty where there is none to lose."""
        if not self.endangers_data:
            return ""
        if self.effect is Effect.REMOVED:
            kept = self.resource.is_kept_when_deleted
            return "kept, outside of the stack" if kept else "its data is LOST"
        kept = self.resource.is_kept_when_replaced
        return "the new one is empty; the old one is kept" if kept else "its data is LOST"


class Refused(FatalError):
    """A change would replace or remove what can hold data, and it was not told to by name."""


def changes_of(
    stack: str, answer: Iterable[Mapping[str, Any]], new: Template, old: Template | None
) -> list[Change]:
    """Return the changes that CloudFormation describes, those that end something first."""
    found = []
    for entry in answer:
        change = entry["ResourceChange"]
        name = change["LogicalResourceId"]
        of_new = new.resources.get(name)
        of_old = old.resources.get(name) if old else None
        fallback = Resource(name, change["ResourceType"])
        # What is removed goes as the template says that it was made by.
        resource = (of_old if change["Action"] == "Remove" else of_new) or of_new or of_old or fallback
        found.append(Change(stack, resource, _effect(change), _properties(change)))
    order = list(Effect)[::-1]
    return sorted(found, key=lambda change: (order.index(change.effect), change.logical_id))


def additions(template: Template) -> list[Change]:
    """Return the changes that make a new stack, as far as the template alone says: all is added."""
    return [Change(template.stack, resource, Effect.ADDED) for resource in template.resources.values()]


def refuse_losses(changes: Sequence[Change], allowed: Collection[str]) -> None:
    """Raise Refused when data is endangered by a change whose logical id is not in `allowed`."""
    dangers = [change for change in changes if change.endangers_data and change.logical_id not in allowed]
    if not dangers:
        return
    lines = [
        f"- {change.resource.kind} {change.logical_id} of the stack {change.stack} would be "
        f"{change.effect.lower()}: {change.fate}"
        for change in dangers
    ]
    options = " ".join(f"--allow-replacement {change.logical_id}" for change in dangers)
    raise Refused(
        "\n".join(
            (
                "these can hold data that is nowhere else, and nothing was changed:",
                *lines,
                (
                    f"If that is meant, give {options}; otherwise take back what changed in the "
                    "templates or the parameters."
                ),
            )
        )
    )


def _effect(change: Mapping[str, Any]) -> Effect:
    match change["Action"]:
        case "Add":
            return Effect.ADDED
        case "Import":
            return Effect.TAKEN_IN
        case "Remove":
            return Effect.REMOVED
        case "Modify":
            return {
                "True": Effect.REPLACED,
                "False": Effect.MODIFIED,
            }.get(str(change.get("Replacement", "False")), Effect.PERHAPS_REPLACED)
    # "Dynamic": CloudFormation cannot tell before it does it.
    return Effect.PERHAPS_REPLACED


def _properties(change: Mapping[str, Any]) -> tuple[str, ...]:
    targets = (detail.get("Target", {}) for detail in change.get("Details", ()))
    return tuple(dict.fromkeys(target.get("Name") or target.get("Attribute", "") for target in targets))
