"""The form of a job: between the fields of a page and the document that the core checks.

The name of a field is its place in the document, such as `request.dates`; so are the names of problems.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from telemetry_lake.analysis_jobs.documents import LAST_DAY, CodeKind, InvalidJob, Job
from telemetry_lake.analysis_jobs.filter_fields import (
    FIELD_MAX_CHARACTERS,
    FILTER_COLUMNS,
    document_of_fields,
    fields_of_document,
    with_value,
)
from telemetry_lake.project_files import PROJECT_ROOT
from web.analyses.visitors import Form

NEW_SCRIPT: Final = '''"""Which operating systems do we hear from?"""

fields = ("os",)


def map(key, dimensions, value, context):
    context.write(value["os"] or "UNKNOWN", 1)


def reduce(key, values, context):
    context.write(key, sum(values))


combine = reduce
'''
EXAMPLES_DIRECTORY: Final = PROJECT_ROOT / "jobs" / "examples"
FIELDS: Final = (
    *("name", "description", "group", "visibility"),
    *("request.table", "request.dates", "request.filter", "request.sample", "request.format"),
    *("request.num_reducers", "request.workers", "request.time_limit_minutes"),
    *("schedule.every", "schedule.weekday", "schedule.day", "schedule.hour", "schedule.end"),
    *("notify.on", "notify.mails", "notify.webhooks"),
)
FILTER: Final = "request.filter"
FILTER_FIELDS: Final = {f"filter.{column}": column for column in FILTER_COLUMNS}
"""The fields of the filter, and the columns that they are about."""
_SEVERAL: Final = {"notify.on"}
_LINES: Final = {"notify.mails", "notify.webhooks"}
_ONLY_FOR: Final = {"schedule.weekday": ("weekly",), "schedule.day": ("monthly",)}
"""Fields that count with some schedules only: a page without JavaScript shows them always."""


@dataclass(frozen=True, slots=True)
class Example:
    """A script to start from."""

    name: str
    about: str
    text: str


@dataclass(slots=True)
class Filled:
    """What is in the fields of the form."""

    values: dict[str, Any] = field(default_factory=dict)
    script: str = ""
    arguments: str = ""
    entry: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name, [] if name in _SEVERAL else "")


def of_new_job() -> Filled:
    """Return the form as it opens for a new job."""
    values = {
        "visibility": "private",
        "request.table": "stable",
        "request.dates": "yesterday",
        "request.sample": "100",
        "request.format": "text",
        "request.time_limit_minutes": "60",
        "schedule.every": "once",
        "schedule.hour": "6",
        "notify.on": ["failure", "timeout"],
    }
    return Filled(values, script=NEW_SCRIPT)


def of_job(job: Job, script: str) -> Filled:
    """Return the form with what a job has."""
    document = job.draft.model_dump(mode="json")
    values: dict[str, Any] = {}
    for name in FIELDS:
        value: Any = document
        for part in name.split("."):
            value = value[part]
        if name in _LINES:
            value = "\n".join(value)
        values[name] = value if name in _SEVERAL else "" if value is None else str(value)
    fields = fields_of_document(values[FILTER])
    if fields is not None:
        values[FILTER] = ""
        values |= {f"filter.{column}": text for column, text in fields.items()}
    return Filled(values, script, "\n".join(job.code.arguments), job.code.entry)


def of_sent(form: Form) -> Filled:
    """Return the form as it was sent."""
    values: dict[str, Any] = {
        name: list(form.fields.get(name, ())) if name in _SEVERAL else form.get(name).strip()
        for name in (*FIELDS, *FILTER_FIELDS)
    }
    return Filled(values, _lines_of(form.get("script")), _lines_of(form.get("arguments")), form.get("entry"))


def toggle(filled: Filled, choice: str) -> None:
    """Add a value to a field of the filter, or take it out: `choice` is `column=value`."""
    column, _, value = choice.partition("=")
    if value and f"filter.{column}" in FILTER_FIELDS:
        filled.values[f"filter.{column}"] = with_value(filled[f"filter.{column}"], value)


def document_of(filled: Filled) -> dict[str, Any]:
    """Return the document that a form describes, without its code; empty fields are left out.

    Raises InvalidJob when a filter is given twice, or a field of it is too long.
    """
    document: dict[str, Any] = {}
    if fields := {column: filled[name] for name, column in FILTER_FIELDS.items() if filled[name]}:
        long = [column for column, text in fields.items() if len(text) > FIELD_MAX_CHARACTERS]
        if long:
            raise InvalidJob({f"filter.{long[0]}": f"Give at most {FIELD_MAX_CHARACTERS:,} characters"})
        if filled[FILTER]:
            raise InvalidJob({FILTER: "Give the fields above or a document, not both"})
        filtering = document_of_fields(fields)
        document = {"request": {"filter": filtering}} if filtering else {}
    for name in FIELDS:
        value = filled[name]
        every = filled["schedule.every"]
        if value in ("", []) or (name in _ONLY_FOR and every not in _ONLY_FOR[name]):
            continue
        if name in _LINES:
            value = [line.strip() for line in value.splitlines() if line.strip()]
        if name == "schedule.day" and value != LAST_DAY and value.isdigit():
            value = int(value)
        *groups, last = name.split(".")
        place = document
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return document


def arguments_of(filled: Filled) -> tuple[str, ...]:
    """Return the arguments of the script: one a line, so that no shell and no quoting is needed."""
    return tuple(line for line in filled.arguments.splitlines() if line)


def is_text(job: Job) -> bool:
    """Return whether the code of a job can be edited in the form."""
    return job.code.kind in (CodeKind.TEXT, CodeKind.FILE)


def examples() -> Sequence[Example]:
    """Return the scripts to start from, by name; those that need a module beside them are not among them."""
    found = []
    for path in sorted(EXAMPLES_DIRECTORY.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        about = text.lstrip('"').partition("\n")[0].strip().rstrip('"')
        if "from_clients" not in text and path.stem != "from_clients":
            found.append(Example(path.stem, about, text))
    return found


def by_name(known: Sequence[Example]) -> Mapping[str, Example]:
    """Return examples by their names."""
    return {example.name: example for example in known}


def _lines_of(text: str) -> str:
    """Return text with the line ends of a file: forms send those of HTTP."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
