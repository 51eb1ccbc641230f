"""The pages about audits as HTML: no scripts, nothing loaded from anywhere, no values of pings."""

from datetime import date
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from telemetry_lake.audit import Audit
from telemetry_lake.ledger import Ledger

SHOWN_MAX: Final = 200
"""So many audits of a day are listed, the newest; a busy lake makes one every few seconds."""

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
)


def page_of_day(ledger: Ledger, day: date, *, today: date) -> str:
    """The audits of a UTC day, newest first; `today` is the last day that can be asked for."""
    audits = ledger.audits_of(day, at_most=SHOWN_MAX)
    page = _TEMPLATES.get_template("audits.html")
    return page.render(day=day, today=today, audits=audits, shown_max=SHOWN_MAX)


def page_of_batch(ledger: Ledger, batch: str) -> str | None:
    """What the gates found in one batch, failures first; None when they were not asked."""
    audit = ledger.audit(batch, Audit)
    if audit is None:
        return None
    results = sorted(audit.results, key=lambda result: (result.passed, result.severity))
    return _TEMPLATES.get_template("audit.html").render(audit=audit, results=results)
