"""What tests share is in `lake_testing/`, or in a module of support beside them."""

import ast
from pathlib import Path

from telemetry_lake.project_files import PROJECT_ROOT


def imported_names(file: Path) -> set[str]:
    """Return the full names of all that a file imports from `tests`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("tests.")}


def test_no_module_imports_a_test_module_or_a_conftest() -> None:
    folders = ("tests", "lake_testing", "benchmarks")
    files = [file for folder in folders for file in (PROJECT_ROOT / folder).rglob("*.py")]
    assert files
    imports = {
        f"{file.relative_to(PROJECT_ROOT)} imports {name}"
        for file in files
        for name in imported_names(file)
        if any(part.startswith("test_") or part == "conftest" for part in name.split("."))
    }
    assert imports == set(), "move what is shared into lake_testing/"
