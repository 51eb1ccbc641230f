"""The templates in `cloudformation/`: one a stack, in the order in which they are deployed.

They are joined by parameters: an output of a stack is given to the parameter of the same name of a later
stack.
"""

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT

TEMPLATE_FOLDER: Final = PROJECT_ROOT / "cloudformation"
STACK_ORDER: Final = (
    "network",
    "storage",
    "queue",
    "catalog",
    "iam",
    "ingest",
    "spark",
    "orchestration",
    "web",
    "monitoring",
)
TEMPLATE_MAX_BYTES: Final = 51_200
"""The longest template that CloudFormation takes in a request."""
NAME_PROPERTIES: Final = frozenset({"BucketName", "QueueName", "RepositoryName"})
"""The properties that name what a lake keeps when it is turned off."""
_PLACEHOLDER: Final = re.compile(r"\$\{([A-Za-z0-9:]+)\}")
_KEPT: Final = {"Retain", "RetainExceptOnCreate", "Snapshot"}
_TYPES_WITH_DATA: Final = frozenset(
    {
        "AWS::DynamoDB::Table",
        "AWS::EC2::Volume",
        "AWS::ECR::Repository",
        "AWS::EFS::FileSystem",
        "AWS::Glue::Database",
        "AWS::Glue::Table",
        "AWS::KMS::Key",
        "AWS::RDS::DBCluster",
        "AWS::RDS::DBInstance",
        "AWS::S3::Bucket",
        "AWS::SecretsManager::Secret",
        "AWS::SQS::Queue",
    }
)
"""What can hold data that is nowhere else, whatever its template says of its deletion."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a template asks for; the fields have the meaning that CloudFormation gives them."""

    name: str
    kind: str = "String"
    default: str | None = None
    description: str = ""
    allowed_values: tuple[str, ...] = ()
    allowed_pattern: str | None = None
    constraint: str | None = None
    """How the template itself says what a value has to be."""
    min_value: float | None = None
    max_value: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a template."""

    logical_id: str
    kind: str
    deletion_policy: str = "Delete"
    replacement_policy: str = "Delete"

    @property
    def is_kept_when_deleted(self) -> bool:
        """Return whether it, or a snapshot of it, is there after its deletion from the stack."""
        return self.deletion_policy in _KEPT

    @property
    def is_kept_when_replaced(self) -> bool:
        """Return whether the old one, or a snapshot of it, is there after its replacement."""
        return self.replacement_policy in _KEPT

    @property
    def holds_data(self) -> bool:
        """Return whether it can hold data: by its type, or because its template keeps it."""
        return self.kind in _TYPES_WITH_DATA or self.is_kept_when_deleted or self.is_kept_when_replaced


@dataclass(frozen=True, slots=True)
class Template:
    """One stack's template."""

    stack: str
    body: str
    """What CloudFormation is given."""
    parameters: Mapping[str, Parameter]
    resources: Mapping[str, Resource]
    outputs: frozenset[str]
    content: Mapping[str, Any]
    """The template itself, with the long forms of functions."""

    def with_plain_names(self, values: Mapping[str, str]) -> str:
        """Return the body with the names of its resources written out.

        `values` has the parameters and `AWS::AccountId` and the like. CloudFormation takes what exists
        already into a new stack only by a name that is written out.
        """
        content = copy.deepcopy(dict(self.content))
        for resource in content["Resources"].values():
            properties = resource.get("Properties") or {}
            for name in NAME_PROPERTIES & properties.keys():
                match properties[name]:
                    case {"Fn::Sub": str(pattern)}:
                        plain = _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), pattern)
                        properties[name] = {"Fn::Sub": plain} if _PLACEHOLDER.search(plain) else plain
                    case {"Ref": str(parameter)} if parameter in values:
                        properties[name] = values[parameter]
        return json.dumps(content, separators=(",", ":"), default=str)


class _Loader(yaml.SafeLoader):
    """Reads the short forms of functions, such as `!Ref`, as their long forms."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if suffix == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _function)


def load_templates(folder: Path = TEMPLATE_FOLDER) -> list[Template]:
    """Return the templates of a folder in the order of their deployment.

    Raises ConfigurationError when there are none, or one that is not known or cannot be read.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not files:
        raise ConfigurationError(
            f"{folder} holds no template: give the folder with the templates of the lake"
        )
    if unknown := sorted(files.keys() - set(STACK_ORDER)):
        raise ConfigurationError(
            f"{files[unknown[0]]} is not one of the stacks {', '.join(STACK_ORDER)}: "
            "STACK_ORDER in provisioning/templates.py says when each is deployed"
        )
    return [read_template(stack, files[stack]) for stack in STACK_ORDER if stack in files]


def read_template(stack: str, path: Path) -> Template:
    """Return the template in a file. Raises ConfigurationError when it is not one, or too long."""
    text = path.read_text(encoding="utf-8")
    try:
        return template_of(stack, text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a template: {' '.join(str(error).split())}") from error


def template_of(stack: str, text: str) -> Template:
    """Return the template that a text is; raises ValueError or YAMLError when it is not one."""
    content = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader that knows the short forms)
    if not isinstance(content, dict) or not isinstance(content.get("Resources"), dict):
        raise ValueError("it has no Resources")  # noqa: TRY004 (the caller's word for all that is wrong)
    body = text
    if len(body.encode()) > TEMPLATE_MAX_BYTES:
        # Without blanks and comments.
        body = json.dumps(content, separators=(",", ":"), default=str)
    if len(body.encode()) > TEMPLATE_MAX_BYTES:
        raise ValueError(
            f"it has {len(body.encode())} bytes, and CloudFormation takes {TEMPLATE_MAX_BYTES}: divide "
            "the stack"
        )
    return Template(
        stack=stack,
        body=body,
        parameters={name: _parameter(name, of) for name, of in (content.get("Parameters") or {}).items()},
        resources={name: _resource(name, of) for name, of in content["Resources"].items()},
        outputs=frozenset(content.get("Outputs") or {}),
        content=content,
    )


def _parameter(name: str, declared: Mapping[str, Any]) -> Parameter:
    default = declared.get("Default")
    return Parameter(
        name=name,
        kind=str(declared.get("Type", "String")),
        default=None if default is None else text_of(default),
        description=str(declared.get("Description", "")),
        allowed_values=tuple(text_of(value) for value in declared.get("AllowedValues", ())),
        allowed_pattern=declared.get("AllowedPattern"),
        constraint=declared.get("ConstraintDescription"),
        min_value=_number(declared.get("MinValue"), float),
        max_value=_number(declared.get("MaxValue"), float),
        min_length=_number(declared.get("MinLength"), int),
        max_length=_number(declared.get("MaxLength"), int),
        is_secret=text_of(declared.get("NoEcho", False)) == "true",
    )


def _number(value: Any, kind: Any) -> Any:
    return None if value is None else kind(value)


def _resource(name: str, declared: Any) -> Resource:
    if not isinstance(declared, dict) or "Type" not in declared:
        raise ValueError(f"its resource {name} has no Type")
    return Resource(
        logical_id=name,
        kind=str(declared["Type"]),
        deletion_policy=str(declared.get("DeletionPolicy", "Delete")),
        replacement_policy=str(declared.get("UpdateReplacePolicy", "Delete")),
    )


def text_of(value: object) -> str:
    """Return a value of YAML or JSON as CloudFormation writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(text_of(item) for item in value)
    return str(value)
