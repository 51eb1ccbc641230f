"""docker-compose.yaml as Compose reads it: merged, and with its variables filled in."""

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from telemetry_lake.project_files import PROJECT_ROOT

COMPOSE_FILE: Final = PROJECT_ROOT / "docker-compose.yaml"
DOCKERFILE: Final = PROJECT_ROOT / "Dockerfile"
_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def as_written() -> dict[str, Any]:
    """The file with its anchors merged and its variables as they stand."""
    loaded = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def filled_in(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file as Compose understands it with `variables`; AssertionError names one that is missing."""
    return {key: _fill(value, variables) for key, value in as_written().items()}


def required_variables() -> set[str]:
    """What Compose refuses to start without."""
    return {
        name for name, kind, _ in _VARIABLE.findall(COMPOSE_FILE.read_text(encoding="utf-8")) if kind == "?"
    }


def used_variables() -> set[str]:
    """Everything that is filled in."""
    return {name for name, _, _ in _VARIABLE.findall(COMPOSE_FILE.read_text(encoding="utf-8"))}


def default_of(value: str) -> str:
    """What `${NAME:-default}` comes down to when nothing is set."""
    return _VARIABLE.sub(lambda match: match[3] if match[2] == "-" else match[0], value)


def without_variables(value: str) -> str:
    """What is left when every variable is taken away."""
    return _VARIABLE.sub("", value)


def _fill(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill(part, variables) for part in value]
    return _VARIABLE.sub(lambda match: _value(match, variables), value) if isinstance(value, str) else value


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    name, kind, default = match.groups()
    if kind == "-":
        return variables.get(name, str(default))
    assert name in variables, f"{name} has no value"
    return variables[name]
