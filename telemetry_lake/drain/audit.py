"""Audit: check a staged batch before it is visible to any reader, and decide whether it may become visible.

`audit_frames` reads what is checked, `judge` has Great Expectations judge it, and `validate` decides: when
every check of severity `fail` passes, the batch's publication is written, which is the decision to commit
exactly these files; until then nothing of the batch is in a table. When one does not pass, `GateFailed` says
what was found and what to do, and the raw objects go to the dead letters, to be replayed once the cause is
fixed. No client can make such a check fail: it would decide over the pings of all others in the batch.

What clients can cause, and the lake as well, is an alarm: that much more of a document type is refused than
usual. Refused pings are in `live.rejected_pings` with their bytes and can be replayed, and those that were
converted are fine. So the batch is published, and then `GateAlarm` makes the run red.

A document id that occurs twice is a warning, never a failure: clients rightly send again what they believe to
be lost. A ping of a raw object that occurs twice is a failure, because only the lake itself can double it.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from pydantic import Field
from pyiceberg.catalog import Catalog

from telemetry_lake.drain.audit_frames import (
    NamedTypes,
    StagedRows,
    document_types_frame,
    read_staged_rows,
    refused_percents,
    row_counts,
    subjects_of,
)
from telemetry_lake.drain.batch import ClaimedBatch, Member, StagedPart
from telemetry_lake.drain.ledger import AuditOutcome, Ledger, RowCount, Waiver
from telemetry_lake.failures import GateAlarm, GateFailed, RetriableError
from telemetry_lake.tables.batch_checks import run_checks
from telemetry_lake.tables.checks import CheckResults, Severity, failures_first
from telemetry_lake.tables.staged import Publication

_log: Final = logging.getLogger(__name__)


class Audit(CheckResults):
    """What the gates found in one batch; kept beside it as JSON."""

    batch_id: str
    passed: bool
    refused_percents: dict[str, float] = Field(default_factory=dict)
    """How many of a hundred pings were refused, of each named document type of which there were enough."""
    waived: str | None
    """Why the batch may be published although it did not pass, when an operator waived its gates."""
    rows: dict[str, int]
    quarantined: dict[str, str]

    @property
    def may_be_published(self) -> bool:
        """Whether the batch passed, or its gates were waived."""
        return self.passed or self.waived is not None

    def outcome(self, counts: tuple[RowCount, ...]) -> AuditOutcome:
        """Return the outcome, with the counts of rows, for the list of audits."""
        return AuditOutcome(
            may_be_published=self.may_be_published,
            waived=self.waived is not None,
            failed=len(self.failures(Severity.FAIL)),
            alarms=len(self.failures(Severity.ALARM)),
            warned=len(self.failures(Severity.WARN)),
            rows=self.rows,
            counts=counts,
        )

    def lines(self) -> list[str]:
        """Return what was checked and found, one check a line, failures first; for logs and the browser."""
        results = failures_first(self.results)
        counts = ", ".join(f"{rows} rows of {table}" for table, rows in self.rows.items())
        return [
            f"batch {self.batch_id}: {counts}, {len(self.quarantined)} raw objects set aside"
            + (f", gates waived: {self.waived}" if self.waived else ""),
            *(f"{'ok' if result.passed else result.severity.upper()}: {result}" for result in results),
        ]

    def message(self) -> str:
        """Return what is wrong and what to do, for the operator of the failed run."""
        return self._message("does not pass its gates; nothing of it is visible.", Severity.FAIL)

    def alarm(self) -> str:
        """Return what a person has to look at although the batch is published, and what to do."""
        return self._message("is published, and has to be looked at.", Severity.ALARM)

    def _message(self, what: str, severity: Severity) -> str:
        lines = [f"batch {self.batch_id} {what}"]
        for result in self.failures(severity):
            lines += [f"- {result}", f"  Why it matters: {result.why}", f"  What to do: {result.remedy}"]
        return "\n".join(lines)


def validate(
    catalog: Catalog,
    ledger: Ledger,
    batch: ClaimedBatch,
    *,
    named_types: frozenset[tuple[str, str]],
    at: datetime,
) -> Audit | None:
    """Audit a staged batch at the time `at` and, when it may be published, decide its publication.

    `named_types` are the namespaces and document types that schemas name. Returns None when the batch was
    decided before. Raises GateFailed when it may not be published, GateAlarm when it may, now or before, and
    has to be looked at, and RetriableError when a part of it is not staged.
    """
    if ledger.publication(batch.batch_id) is not None:
        _raise_alarm(ledger.audit(batch.batch_id, Audit))
        return None
    parts = _staged_parts(ledger, batch)
    members = ledger.members(ledger.manifest(batch.batch_id))
    rows = read_staged_rows(catalog, [file for part in parts for file in part.files])
    named = NamedTypes(named_types, ledger.usual_shares())
    audit = judge(batch.batch_id, rows, parts, members, ledger.waiver(batch.batch_id), named)
    ledger.put_audit(batch.batch_id, audit, audit.outcome(row_counts(rows, named)), at)
    for line in audit.lines():
        _log.info("%s", line)
    if not audit.may_be_published:
        raise GateFailed(audit.message())
    ledger.decide(_publication(parts, members, audit))
    if audit.refused_percents:
        ledger.put_usual_shares(named.usual.learn(audit.refused_percents, at))
    _raise_alarm(audit)
    return audit


def judge(
    batch: str,
    rows: StagedRows,
    parts: Iterable[StagedPart],
    members: Mapping[str, Member],
    waiver: Waiver | None,
    named: NamedTypes,
) -> Audit:
    """Ask all checks of a batch, whose `members` are given by key, of its rows."""
    quarantined = {key: reason for part in parts for key, reason in part.quarantined.items()}
    promised = {key: member for key, member in members.items() if key not in quarantined}
    document_types = document_types_frame(rows, named)
    results = run_checks(subjects_of(rows, promised, document_types))
    return Audit(
        batch_id=batch,
        passed=all(result.passed or result.severity is not Severity.FAIL for result in results),
        refused_percents=refused_percents(document_types),
        waived=waiver.reason if waiver else None,
        rows=rows.by_table(),
        quarantined=quarantined,
        results=tuple(results),
    )


def _raise_alarm(audit: Audit | None) -> None:
    if audit is not None and audit.failures(Severity.ALARM):
        raise GateAlarm(audit.alarm())


def _staged_parts(ledger: Ledger, batch: ClaimedBatch) -> list[StagedPart]:
    staged = [ledger.staged(batch.batch_id, part.name) for part in batch.parts]
    parts = [part for part in staged if part is not None]
    if len(parts) < len(staged):
        raise RetriableError(
            f"batch {batch.batch_id}: {len(staged) - len(parts)} of {len(staged)} parts are not staged"
        )
    return parts


def _publication(parts: Iterable[StagedPart], members: Mapping[str, Member], audit: Audit) -> Publication:
    files: dict[str, list[str]] = {}
    for part in parts:
        for file in part.files:
            files.setdefault(file.table, []).append(file.uri)
    return Publication(
        batch_id=audit.batch_id,
        raw_objects=tuple(sorted(members.keys() - audit.quarantined.keys())),
        files={table: tuple(uris) for table, uris in files.items()},
        rows=audit.rows,
        quarantined=audit.quarantined,
    )
