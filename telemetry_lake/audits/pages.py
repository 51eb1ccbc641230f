"""The pages about audits as HTML: no scripts, nothing loaded from anywhere, no values of pings."""

from datetime import date, datetime
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from telemetry_lake.audits.dates import DateAudit, DateAudits
from telemetry_lake.drain.audit import Audit
from telemetry_lake.drain.days import DayLedger
from telemetry_lake.drain.ledger import AuditOutcome, Ledger
from telemetry_lake.storage.object_keys import key_part_of_time
from telemetry_lake.storage.records import END_OF_DAY
from telemetry_lake.tables.checks import Severity, failures_first
from telemetry_lake.tables.definitions import MADE_DATES, table_definition, table_names

SHOWN_MAX: Final = 100
"""How many audits a page lists. Each is read from an object of its own; a busy day has thousands."""
DATES: Final = "dates"
"""Below it are the pages of audits of dates; those of batches are beside it."""

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
)


class Line(NamedTuple):
    """One audit in the list of a day; its outcome is shown as `mark`: `ok`, `warn`, `alarm` or `fail`."""

    at: datetime
    link: str
    checked: str
    outcome: str
    mark: str
    failed: int
    warned: int
    rows: dict[str, int]


class AuditRecords(NamedTuple):
    """What the pages are made of."""

    ledger: Ledger
    dates: DateAudits
    days: DayLedger


def page_of_day(records: AuditRecords, day: date, *, now: datetime, before: datetime | None = None) -> str:
    """Return a list of the audits that were made on a UTC day, of batches and of dates, newest first.

    These are the last ones of the day, or those before the aware time `before`. Above them is what the last
    look at all days found. The day of `now` is the last that can be chosen.
    """
    bound = END_OF_DAY if before is None else key_part_of_time(before)
    wanted = SHOWN_MAX + 1
    batches = [
        _line_of_batch(*entry) for entry in records.ledger.audits_of(day, at_most=wanted, before=bound)
    ]
    dates = [_line_of_date(audit) for audit in records.dates.of_day(day, at_most=wanted, before=bound)]
    lines = sorted([*batches, *dates], key=attrgetter("at"), reverse=True)
    shown = lines[:SHOWN_MAX]
    return _TEMPLATES.get_template("day.html").render(
        day=day,
        today=now.date(),
        lines=shown,
        older=shown[-1].at if len(lines) > SHOWN_MAX else None,
        before=before,
        completeness=records.days.completeness(),
        now=now,
    )


def page_of_batch(ledger: Ledger, batch: str) -> str | None:
    """Return what the gates found in one batch, failures first; None when it was not audited."""
    audit = ledger.audit(batch, Audit)
    if audit is None:
        return None
    alarms, results = audit.failures(Severity.ALARM), failures_first(audit.results)
    return _TEMPLATES.get_template("batch.html").render(audit=audit, alarms=alarms, results=results)


def page_of_date(date_audits: DateAudits, name: str) -> str | None:
    """Return what the checks found in one date, failures first; None when there is no such audit.

    Raises ValueError when `name` is not the name of an audit.
    """
    audit = date_audits.find(name)
    if audit is None:
        return None
    return _TEMPLATES.get_template("date.html").render(audit=audit, results=failures_first(audit.results))


def page_of_tables() -> str:
    """Return a list of all tables."""
    tables = [table_definition(name) for name in table_names()]
    return _TEMPLATES.get_template("tables.html").render(tables=tables)


def page_of_table(name: str) -> str | None:
    """Return what a table is, its columns, and queries for its rows; None when there is no such table."""
    if name not in table_names():
        return None
    table = table_definition(name)
    column = table.metadata.partitioned_by[0].column
    # Shown and not run; the names are those of folders.
    queries = {
        "The newest rows:": f"FROM {name} WHERE {column} >= current_date - 1 LIMIT 20",
        "How many there are of each date:": f"SELECT {column}, count(*) FROM {name} GROUP BY 1 ORDER BY 1",  # noqa: S608
        "When each date was made, of what:": f"FROM {MADE_DATES} WHERE table_name = '{name}' ORDER BY ALL",
    }
    return _TEMPLATES.get_template("table.html").render(table=table, queries=queries)


def _line_of_batch(at: datetime, batch: str, outcome: AuditOutcome) -> Line:
    if not outcome.may_be_published:
        text, mark = "stopped", "fail"
    elif outcome.alarms:
        text, mark = "published, to be looked at", "alarm"
    elif outcome.waived:
        text, mark = "published, gates waived", "warn"
    else:
        text, mark = "published", "ok"
    return Line(
        at, batch, f"batch {batch}", text, mark, outcome.failed + outcome.alarms, outcome.warned, outcome.rows
    )


def _line_of_date(audit: DateAudit) -> Line:
    failed, warned = (len(audit.failures(severity)) for severity in (Severity.FAIL, Severity.WARN))
    text, mark = ("passed", "ok") if audit.passed else ("to be made again", "fail")
    checked = f"{audit.table} of {audit.day}"
    return Line(audit.at, f"{DATES}/{audit.name}", checked, text, mark, failed, warned, {})
