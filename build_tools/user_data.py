"""Join the scripts of `cloudformation/user_data/` into the templates that start machines with them.

A template has to hold its scripts, so that it can be deployed by any tool; a script is written, read and run
as a file of its own. In a template it is between the lines `# --- cloudformation/user_data/<name>.sh` and
`# --- end`, in a text that Fn::Sub resolves: `${…}` of the shell is written `${!…}` there.

    python -m build_tools.user_data            # write the templates
    python -m build_tools.user_data --check    # only say whether they are up to date
"""

import re
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from telemetry_lake.project_files import PROJECT_ROOT

TEMPLATES: Final = PROJECT_ROOT / "cloudformation"
USER_DATA_MAX_BYTES: Final = 16_384
"""The longest user data that EC2 takes, before it is encoded."""
_BLOCK: Final = re.compile(
    r"^(?P<indent> *)# --- (?P<script>cloudformation/user_data/\w+\.sh)\n.*?^(?P=indent)# --- end$",
    re.MULTILINE | re.DOTALL,
)


def joined(template: str, root: Path = PROJECT_ROOT) -> str:
    """Return the text of a template with the scripts that it names as they are now.

    Raises FileNotFoundError for a script that does not exist.
    """

    def block(found: re.Match[str]) -> str:
        script = (root / found["script"]).read_text(encoding="utf-8").replace("${", "${!")
        lines = [f"{found['indent']}{line}".rstrip() for line in script.splitlines()]
        return "\n".join([f"{found['indent']}# --- {found['script']}", *lines, f"{found['indent']}# --- end"])

    return _BLOCK.sub(block, template)


def scripts_of(template: str) -> list[str]:
    """Return the scripts that a template names, as paths below the project's root."""
    return [found["script"] for found in _BLOCK.finditer(template)]


def main(
    check: Annotated[bool, typer.Option("--check", help="Only say which are not up to date.")] = False,
) -> None:
    """Write the scripts of cloudformation/user_data/ into the templates."""
    stale = False
    for path in sorted(TEMPLATES.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if (new := joined(text)) == text:
            continue
        if check:
            print(f"{path} is out of date: run python -m build_tools.user_data", file=sys.stderr)
            stale = True
        else:
            path.write_text(new, encoding="utf-8")
    if stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
