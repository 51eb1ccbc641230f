"""The parameters of an environment: where each value comes from, and whether it fits, before AWS is asked.

A value is what the file of parameters says, else what the deployment itself knows (the environment's name,
the hash of a package), else an output of an earlier stack, else the template's default.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from provisioning.templates import TEMPLATE_FOLDER, Parameter, Template, text_of
from telemetry_lake.failures import ConfigurationError

PARAMETER_FOLDER: Final = TEMPLATE_FOLDER / "parameters"
ENVIRONMENT: Final = "Environment"
VALUE_MAX_CHARACTERS: Final = 4_096
"""The longest value of a parameter that CloudFormation takes."""
_ID: Final = {
    "AWS::EC2::VPC::Id": r"vpc-[0-9a-f]+",
    "AWS::EC2::Subnet::Id": r"subnet-[0-9a-f]+",
    "AWS::EC2::SecurityGroup::Id": r"sg-[0-9a-f]+",
    "AWS::EC2::Image::Id": r"ami-[0-9a-f]+",
    "AWS::EC2::Volume::Id": r"vol-[0-9a-f]+",
}
_LIST: Final = re.compile(r"^List<(.+)>$|^(CommaDelimitedList)$")


@dataclass(frozen=True, slots=True)
class Values:
    """The values that an environment gives: by name those of its file, and those that the deployment
    knows."""

    given: Mapping[str, str]
    known: Mapping[str, str]
    where: str = "the parameters"
    """What the values are read from, for messages."""

    def knowing(self, known: Mapping[str, str]) -> "Values":
        """Return these values with more that the deployment knows."""
        return replace(self, known={**self.known, **known})


def read_parameters(path: Path) -> dict[str, str]:
    """Return the values in a file: a JSON object of names and values.

    Raises ConfigurationError when it is missing or something else.
    """
    if not path.is_file():
        found = ", ".join(sorted(each.stem for each in path.parent.glob("*.json"))) or "none"
        raise ConfigurationError(f"{path} is missing: write it, or name one of those in its folder ({found})")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or any(isinstance(value, dict) for value in content.values()):
        raise ConfigurationError(f'{path} has to be one JSON object of names and values, {{"ZoneCount": 1}}')
    return {name: text_of(value) for name, value in content.items()}


def problems(templates: Sequence[Template], values: Values) -> list[str]:
    """Return, a sentence each, what is wrong with the values for these templates, taken together."""
    found = list(_unknown(templates, values))
    earlier: dict[str, str] = {}
    for template in templates:
        for parameter in template.parameters.values():
            source = earlier.get(parameter.name)
            if parameter.name in values.given and source is not None:
                found.append(
                    f"{values.where}: {parameter.name} is an output of the stack {source}: leave it out"
                )
            elif (value := _value_before(parameter, values)) is not None:
                found += [f"{values.where}: {why}" for why in misfits(parameter, value)]
            elif source is None and parameter.default is None:
                found.append(_missing(parameter, template, templates, values))
        earlier |= dict.fromkeys(template.outputs, template.stack)
    return list(dict.fromkeys(found))


def resolve(template: Template, values: Values, outputs: Mapping[str, str]) -> dict[str, str] | None:
    """Return the value of each parameter that is not left to its default.

    None when one of them is an output of a stack that is not there yet.
    """
    resolved = {}
    for parameter in template.parameters.values():
        value = _value_before(parameter, values)
        if value is None:
            value = outputs.get(parameter.name)
        if value is not None:
            resolved[parameter.name] = value
        elif parameter.default is None:
            return None
    return resolved


def misfits(parameter: Parameter, value: str) -> Iterator[str]:
    """Yield, a sentence each, why a parameter cannot have a value. A secret value is not in them."""
    shown = "its value" if parameter.is_secret else f"{value!r}"
    items = _LIST.match(parameter.kind)
    kind = (items[1] or "String") if items else parameter.kind
    for item in value.split(",") if items else [value]:
        if (wanted := _of_kind(kind, item)) is not None:
            yield f"{parameter.name} has to be {wanted}, and {shown} is not"
            return
    if parameter.allowed_values and value not in parameter.allowed_values:
        yield f"{parameter.name} has to be one of {', '.join(parameter.allowed_values)}, and {shown} is not"
    if parameter.allowed_pattern and re.fullmatch(parameter.allowed_pattern, value) is None:
        wanted = parameter.constraint or f"of the form {parameter.allowed_pattern}"
        yield f"{parameter.name} has to be {wanted}; {shown} is not"
    yield from _out_of_bounds(parameter, value, shown)


def _out_of_bounds(parameter: Parameter, value: str, shown: str) -> Iterator[str]:
    if parameter.kind == "Number":
        if parameter.min_value is not None and float(value) < parameter.min_value:
            yield f"{parameter.name} has to be at least {parameter.min_value:g}, and {shown} is less"
        if parameter.max_value is not None and float(value) > parameter.max_value:
            yield f"{parameter.name} has to be at most {parameter.max_value:g}, and {shown} is more"
    longest = min(parameter.max_length or VALUE_MAX_CHARACTERS, VALUE_MAX_CHARACTERS)
    if not (parameter.min_length or 0) <= len(value) <= longest:
        yield (
            f"{parameter.name} has to have {parameter.min_length or 0} to {longest} characters, "
            f"and it has {len(value)}"
        )


def _of_kind(kind: str, value: str) -> str | None:
    """Return what a value of this kind has to be, when `value` is something else."""
    if kind == "Number":
        try:
            float(value)
        except ValueError:
            return "a number"
    if (pattern := _ID.get(kind)) is not None and re.fullmatch(pattern, value) is None:
        return f"an id such as {pattern.partition('-')[0]}-0123abcd"
    return None


def _value_before(parameter: Parameter, values: Values) -> str | None:
    """Return the value that does not depend on other stacks."""
    return values.given.get(parameter.name, values.known.get(parameter.name))


def _unknown(templates: Sequence[Template], values: Values) -> Iterator[str]:
    names = {name for template in templates for name in template.parameters}
    for name in values.given:
        if name in names:
            continue
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else "remove it"
        yield f"{values.where}: no template has a parameter {name}: {hint}"


def _missing(parameter: Parameter, template: Template, templates: Sequence[Template], values: Values) -> str:
    for other in templates:
        if parameter.name in other.outputs:
            return (
                f"the stack {template.stack} needs {parameter.name}, an output of {other.stack}, which is "
                "deployed after it: STACK_ORDER in provisioning/templates.py has the order"
            )
    meaning = f" ({parameter.description})" if parameter.description else ""
    return f"{values.where}: {parameter.name}{meaning} is missing, which the stack {template.stack} needs"
