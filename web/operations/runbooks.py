"""The runbooks: sections of docs/runbooks.md, one for each alarm, under the alarm's name in small letters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry_lake.project_files import PROJECT_ROOT
from web.markdown import html_of, sections

RUNBOOKS_FILE: Final = PROJECT_ROOT / "docs" / "runbooks.md"
ALARM_LEVEL: Final = 2
"""Of the headings that are names of alarms."""


@dataclass(frozen=True, slots=True)
class Runbook:
    """What to do about one alarm."""

    name: str
    anchor: str
    html: str


def read_runbooks(file: Path = RUNBOOKS_FILE) -> dict[str, Runbook]:
    """Return the runbooks by the names of their alarms in small letters; none when there is no such file."""
    if not file.is_file():
        return {}
    return {
        section.anchor: Runbook(section.title.strip("`"), section.anchor, html_of(section.lines))
        for section in sections(file.read_text(encoding="utf-8"))
        # Names of alarms are one word, and titles of other sections of this level are several.
        if section.level == ALARM_LEVEL and section.title.strip("`").isidentifier()
    }
