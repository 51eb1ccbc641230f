"""Installed distributions: which modules they hold, and which of them our requirements name."""

import importlib.metadata
import re
from pathlib import Path

# Distributions that come with a direct dependency and are one thing with it.
PARTS_OF = {
    "apache-airflow-core": "apache-airflow",
    "apache-airflow-task-sdk": "apache-airflow",
    "botocore": "boto3",
    "grimp": "import-linter",
    "mypy-boto3-s3": "boto3-stubs",
    "mypy-boto3-sqs": "boto3-stubs",
    "py4j": "pyspark",
    "pydantic-core": "pydantic",
}


def normalised(name: str) -> str:
    """Return the name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required_names(file: Path) -> set[str]:
    """Return the normalised names that a file of requirements lists."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return {
        normalised(re.split(r"[\[<>=~! ;]", line, maxsplit=1)[0])
        for line in lines
        if line and not line.startswith(("#", "--hash"))
    }


def distributions_by_module() -> dict[str, set[str]]:
    """Return the distributions that install each module, by dotted name.

    The top of a namespace package has several.
    """
    owners: dict[str, set[str]] = {}
    for distribution in importlib.metadata.distributions():
        name = normalised(distribution.metadata["Name"])
        for file in distribution.files or ():
            if file.suffix in {".py", ".so", ".pyd"} and ".." not in file.parts:
                parts = [part.partition(".")[0] for part in file.parts]
                if parts[-1] == "__init__":
                    parts.pop()
                if parts:
                    owners.setdefault(".".join(parts), set()).add(PARTS_OF.get(name, name))
    return owners


def owners_of(module: str, owners: dict[str, set[str]]) -> set[str]:
    """Return the distributions that install a module, or the nearest package that contains it.

    Of a namespace package without files of its own, these are all that install something below it.
    """
    below = {owner for name, found in owners.items() if name.startswith(f"{module}.") for owner in found}
    while module and module not in owners:
        module = module.rpartition(".")[0]
    return owners.get(module, below)
