"""How the templates of `cloudformation/` are joined: an output of one is a parameter of later ones.

CloudFormation would notice a missing output when the stack before is deployed, and an output of the wrong
kind when the next one is half made. `problems` finds both in the files.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from provisioning.templates import load_templates

OF_THE_DEPLOYMENT: Final = frozenset({"Environment", "PackageKey"})
"""What the deployer knows by itself."""
_IDS: Final = {
    "AWS::EC2::VPC": "AWS::EC2::VPC::Id",
    "AWS::EC2::Subnet": "AWS::EC2::Subnet::Id",
    "AWS::EC2::SecurityGroup": "AWS::EC2::SecurityGroup::Id",
}
_ANY: Final = {"String", "CommaDelimitedList"}
"""Types of parameters that take any text."""
_REFERENCE: Final = re.compile(r"\$\{(\w+)\}")

Templates = Mapping[str, Mapping[str, Any]]


def contents() -> dict[str, Mapping[str, Any]]:
    """Return the templates by the names of their stacks, in their order, functions in their long forms."""
    return {template.stack: template.content for template in load_templates()}


def problems(templates: Templates, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return, a sentence each, what does not fit: parameters without a value, and outputs of another kind.

    `files` are the parameter files by their names.
    """
    found = []
    kinds: dict[str, str] = {}
    for stack, template in templates.items():
        for name, parameter in template.get("Parameters", {}).items():
            where = f"{stack}.yaml: {name}"
            if name in kinds:
                if (wanted := parameter["Type"]) not in _ANY and kinds[name] != wanted:
                    found.append(f"{where} is of {wanted}, and the output before it is of {kinds[name]}")
                found += [
                    f"{file} gives {name}, an output of a stack" for file in files if name in files[file]
                ]
                continue
            for file, values in files.items():
                if name in values:
                    found += [f"{file}: {problem}" for problem in _misfits(name, parameter, values[name])]
                elif "Default" not in parameter and name not in OF_THE_DEPLOYMENT:
                    found.append(
                        f"{where} has no default, no stack before has it, and {file} does not give it"
                    )
        for name, output in template.get("Outputs", {}).items():
            if name in kinds:
                found.append(f"{stack}.yaml: the output {name} has the name of another stack's")
            kinds[name] = _kind(output["Value"], template["Resources"])
    known = {name for template in templates.values() for name in template.get("Parameters", {})}
    for file, values in files.items():
        found += [f"{file}: no template has a parameter {name}" for name in values if name not in known]
    return found


def _kind(value: Any, resources: Mapping[str, Any]) -> str:
    """Return which type of parameter takes an output's value, String when any text does."""
    if not isinstance(value, Mapping):
        return _of_text(value, resources)
    ((function, argument),) = value.items()
    match function:
        case "Ref":
            return _IDS.get(resources.get(argument, {}).get("Type", ""), "String")
        case "Fn::GetAtt":
            name, attribute = argument.split(".") if isinstance(argument, str) else argument
            is_id = attribute in {"GroupId", "VpcId", "SubnetId"}
            return _IDS.get(resources[name]["Type"], "String") if is_id else "String"
        case "Fn::Sub":
            return _of_text(argument, resources)
        case "Fn::If":
            return _common(_kind(item, resources) for item in argument[1:] if item != _NOTHING)
        case "Fn::Join":
            return f"List<{_common(_kind(item, resources) for item in argument[1])}>"
    return "String"


_NOTHING: Final = {"Ref": "AWS::NoValue"}


def _of_text(text: object, resources: Mapping[str, Any]) -> str:
    """Return the kind of a list of references that is written as text, such as `${First},${Second}`."""
    items = str(text).split(",")
    names = [_REFERENCE.fullmatch(item) for item in items]
    kinds = {_IDS.get(resources.get(name[1], {}).get("Type", "")) if name else None for name in names}
    (kind, *others) = kinds
    return f"List<{kind}>" if kind and not others else "String"


def _common(kinds: Iterator[str]) -> str:
    found = set(kinds)
    return found.pop() if len(found) == 1 else "String"


def _misfits(name: str, parameter: Mapping[str, Any], value: Any) -> Iterator[str]:
    """Yield why a parameter does not take a value."""
    text = str(value)
    if (allowed := parameter.get("AllowedValues")) and text not in map(str, allowed):
        yield f"{name} is {text}, and has to be one of {', '.join(map(str, allowed))}"
    if (pattern := parameter.get("AllowedPattern")) and re.fullmatch(pattern, text) is None:
        yield f"{name} is {text!r}, which is not of the form {pattern}"
    if parameter["Type"] == "Number":
        number = float(text)
        if not float(parameter.get("MinValue", number)) <= number <= float(parameter.get("MaxValue", number)):
            yield f"{name} is {text}, which is out of its bounds"
