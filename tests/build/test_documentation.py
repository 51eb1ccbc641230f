"""What the documentation names exists: files, folders, commands, modules, links."""

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from telemetry_lake.__main__ import app
from telemetry_lake.project_files import PROJECT_ROOT

PAGES = sorted(
    [
        *PROJECT_ROOT.glob("*.md"),
        *(PROJECT_ROOT / "docs").rglob("*.md"),
        *(PROJECT_ROOT / folder / "README.md" for folder in ("sql",)),
    ]
)
PLACEHOLDERS = ("<", "{", "…", "*")
"""What follows a path that stands for several, such as `sql/<namespace>/<table>/`."""


def page_ids(page: Path) -> str:
    return str(page.relative_to(PROJECT_ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=page_ids)


def top_folders() -> list[str]:
    """The folders of the project that have files in git."""
    files = subprocess.run(["git", "ls-files"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    return sorted({name.partition("/")[0] for name in files.stdout.splitlines() if "/" in name})


def paths_in(text: str, folders: list[str]) -> Iterator[str]:
    """The paths below these folders that the text names."""
    pattern = rf"(?<![\w/.:-])(?:{'|'.join(map(re.escape, folders))})/[\w./-]*"
    for match in re.finditer(pattern, text):
        if not text.startswith(PLACEHOLDERS, match.end()):
            yield match[0].rstrip(".")


def code_in(text: str) -> str:
    """The code spans and code blocks of a page."""
    blocks = re.findall(r"^```\w*\n(.*?)^```|^((?: {4}.*\n)+)", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    return "\n".join(["".join(block) for block in blocks] + spans)


def slugs_of(page: Path) -> set[str]:
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_path_is_found_where_a_page_names_it() -> None:
    text = "`telemetry_lake/units.py`, `sql/<namespace>/`, s3://sql/x, my/docs/x, docs/*.md, docs/drain.md."
    assert list(paths_in(text, ["telemetry_lake", "sql", "docs"])) == [
        "telemetry_lake/units.py",
        "docs/drain.md",
    ]


@every_page
def test_every_path_exists(page: Path) -> None:
    paths = set(paths_in(page.read_text(), top_folders()))
    assert {path for path in paths if not (PROJECT_ROOT / path).exists()} == set()


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in slugs_of(linked), target


@every_page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^ *make ([a-z][a-z-]*)", code_in(page.read_text()), re.MULTILINE))
    assert named - targets == set()


@every_page
def test_every_module_that_is_run_exists(page: Path) -> None:
    for module in set(re.findall(r"python -m ([\w.]+)", code_in(page.read_text()))):
        assert importlib.util.find_spec(module.rstrip(".")), module


@every_page
def test_every_command_of_the_core_exists(page: Path) -> None:
    group = typer.main.get_command(app)
    commands = set(getattr(group, "commands", {}))
    assert {"query", "tables", "drain"} <= commands
    named = set(re.findall(r"-m telemetry_lake ([a-z][a-z-]*)", code_in(page.read_text())))
    assert named - commands == set()


def test_the_architecture_lists_every_room_of_the_core() -> None:
    text = (PROJECT_ROOT / "docs" / "architecture.md").read_text()
    table = text[text.index("| room of `telemetry_lake/` |") :]
    rooms = {init.parent.name for init in (PROJECT_ROOT / "telemetry_lake").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE)) == rooms
